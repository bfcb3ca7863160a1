"""Every item of every member's batch is computed once, whatever the number of processes."""

from collections import Counter

import pytest

from svgd_monai.committee.sharing import shares
from svgd_monai.errors import SettingsError

CASES = [(m, i, r) for m in (1, 2, 5) for i in (4, 7) for r in (1, 2, 3, 4, 5, 6, 8, 13) if -(-r // m) <= i]


@pytest.mark.parametrize(("members", "items", "ranks"), CASES)
def test_each_item_of_each_member_is_computed_once_and_weights_add_up(members, items, ranks):
    done, weights = Counter(), Counter()
    for rank in range(ranks):
        own = list(shares(members, items, rank, ranks))
        assert own, "a process without work"
        for member, part, weight in own:
            done.update((member, item) for item in range(items)[part])
            weights[member] += weight
    assert done == Counter((member, item) for member in range(members) for item in range(items))
    assert weights == {member: pytest.approx(1.0) for member in range(members)}


def test_a_process_too_many_is_refused_in_all():
    for rank in range(5):
        with pytest.raises(SettingsError, match=r"2 particles with batches of 2 .* 5 processes"):
            list(shares(2, 2, rank, 5))
