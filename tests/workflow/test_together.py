"""What processes that work together need to agree on; tests/rounds/test_shared.py has them at work."""

import multiprocessing
import os
import signal
import time
from datetime import timedelta

import pytest
import torch
from torch.distributed import DistNetworkError, HashStore

from svgd_monai.errors import SettingsError
from svgd_monai.workflow import boundary, own_device
from svgd_monai.workflow import meeting as meetings


@pytest.fixture
def two(monkeypatch):
    """This process is the second of two."""
    store = HashStore()
    monkeypatch.setattr(meetings, "_meetings", [meetings.Meeting(store, 1, 2)])
    return store


def devices(monkeypatch, count, local_rank, local_processes):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setenv("LOCAL_RANK", str(local_rank))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(local_processes))


@pytest.mark.parametrize(("count", "rank", "expected"), [(0, 1, "cpu"), (2, 0, "cuda:0"), (2, 1, "cuda:1")])
def test_each_process_has_a_device_of_its_own(count, rank, expected, monkeypatch):
    devices(monkeypatch, count, rank, 2)
    assert own_device() == expected


def test_fewer_devices_than_processes_are_refused(monkeypatch):
    devices(monkeypatch, 1, 0, 2)
    with pytest.raises(SettingsError, match=r"^device: 2 processes .* 1 CUDA device"):
        own_device()


def test_one_process_speaks_for_itself():
    assert meetings.one_voice("Words.") == "Words."


def test_the_first_that_has_a_word_speaks_for_all(two, monkeypatch):
    assert meetings.one_voice("The second's.") == "The second's."
    monkeypatch.setattr(meetings, "_meetings", [meetings.Meeting(two, 0, 2)])
    monkeypatch.setattr(meetings, "_LINGER", 0)
    assert meetings.one_voice("The first's.") == 1


def test_an_error_of_the_lines_is_told_from_others(two):
    wrapped = RuntimeError("Failed to evaluate")
    wrapped.__cause__ = RuntimeError("[third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer")
    assert "Another process" in meetings.lost_process(wrapped)
    assert "Another process" in meetings.lost_process(DistNetworkError("recv failed"))
    assert meetings.lost_process(RuntimeError("sizes do not match")) is None


def test_a_single_process_has_lost_nobody():
    assert meetings.lost_process(DistNetworkError("recv failed")) is None


def blocked(line, words):
    """Waits in a call that knows no signals; what it writes on stderr goes to a file."""
    os.dup2(os.open(words, os.O_WRONLY | os.O_CREAT), 2)
    meetings.GRACE = 0.3
    meetings._meetings.append(meetings.Meeting(HashStore(), 1, 2))
    meetings._end_when_blocked()
    with boundary():
        line.send_bytes(b"ready")
        HashStore().wait(["never"], timedelta(seconds=60))


def test_a_process_that_is_blocked_ends_with_a_sentence_when_it_is_told_to(tmp_path):
    context = multiprocessing.get_context("forkserver")
    ours, theirs = context.Pipe()
    process = context.Process(target=blocked, args=(theirs, tmp_path / "words"))
    process.start()
    assert ours.recv_bytes() == b"ready"
    time.sleep(0.2)
    os.kill(process.pid, signal.SIGTERM)
    process.join(20)
    assert process.exitcode == 1
    assert (tmp_path / "words").read_text() == f"{meetings.TERMINATED}\n"
