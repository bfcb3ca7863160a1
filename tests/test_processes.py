"""Shares of cases, and how they come together; tests/rounds/test_shared.py has the processes themselves."""

import pytest

from svgd_monai import processes
from svgd_monai.processes import CaseShare, gathered


def shared_out(monkeypatch, count, ranks):
    """What each of some processes takes of some cases, by case, and what they gather."""
    parts = []
    for rank in range(ranks):
        monkeypatch.setattr(processes, "processes", lambda rank=rank: (rank, ranks))
        share = CaseShare(range(count))
        assert len(share) == len(list(share))
        parts.append({f"case {index}": index for index in share})
    monkeypatch.setattr(processes, "everyones", lambda own: [list(part.items()) for part in parts])
    return parts, gathered(parts[0])


@pytest.mark.parametrize(("count", "ranks"), [(7, 3), (6, 3), (3, 3), (5, 1)])
def test_each_case_falls_to_one_process_and_all_come_back_in_order(count, ranks, monkeypatch):
    parts, found = shared_out(monkeypatch, count, ranks)
    assert sum(map(len, parts)) == count
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert list(found.items()) == [(f"case {index}", index) for index in range(count)]


def test_no_process_is_without_a_case_where_there_are_fewer(monkeypatch):
    parts, found = shared_out(monkeypatch, 2, 3)
    assert all(list(part.values()) == [0, 1] for part in parts)
    assert list(found.values()) == [0, 1]


def test_one_process_has_everything():
    assert list(CaseShare(range(3))) == [0, 1, 2]
    assert gathered({"b": 1, "a": 2}) == {"b": 1, "a": 2}
