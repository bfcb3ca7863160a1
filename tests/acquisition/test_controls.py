"""Controls of a study: queries that keep one property of the strategy's and lose another."""

from collections import Counter

import numpy as np
import pytest
import torch

from svgd_monai.acquisition import PoolView, ScoreOptions, Strategy, select
from svgd_monai.errors import SettingsError

COUNT, LABELLED = 40, range(8)
#: Case 0 scores highest, so three labelled ones are among the best six: 0, 1, 2.
SCORES = torch.arange(COUNT, 0, -1, dtype=torch.float64)
SCORES[[3, 4, 5, 6, 7]] -= 100
STRATEGY = Strategy("fixed", "entropy", False, lambda view, options, query: SCORES[[int(c[1:]) for c in view.cases]])


def pool(rng=0, order=None):
    order = list(range(COUNT)) if order is None else order
    return PoolView(
        cases=tuple(f"c{number:02}" for number in order),
        uncertainty=torch.zeros(COUNT),
        information=None,
        foreground=torch.zeros(COUNT),
        labelled=torch.tensor([number in LABELLED for number in order]),
        rng=np.random.default_rng(rng),
    )


def queried(rng=0, order=None, **options):
    return select(STRATEGY, pool(rng, order), ScoreOptions(), 6, True, **options)[1]


def is_labelled(case):
    return int(case[1:]) in LABELLED


def test_random_redraws_are_as_many_of_any_labelled_cases_and_the_new_cases_stay():
    plain = queried()
    seen = Counter()
    for rng in range(200):
        chosen = queried(rng, redraws="random")
        assert [case for case in chosen if not is_labelled(case)] == [c for c in plain if not is_labelled(c)]
        redrawn = [case for case in chosen if is_labelled(case)]
        assert len(redrawn) == len(set(redrawn)) == 3
        seen.update(redrawn)
    assert len(seen) == len(LABELLED)
    # 200 draws of 3 of 8: each 75 times in the mean, with a standard deviation of 6.8
    assert all(abs(times - 75) < 4 * 6.8 for times in seen.values())


def test_shuffled_scores_keep_the_number_of_redraws_and_forget_which():
    seen = Counter()
    for rng in range(300):
        chosen = queried(rng, shuffle_scores=True)
        assert sum(map(is_labelled, chosen)) == 3
        seen.update(chosen)
    assert len(seen) == COUNT
    new = [seen[f"c{number:02}"] for number in range(8, COUNT)]
    # 300 draws of 3 of 32: 28 times each, with a standard deviation of 5.0
    assert all(abs(times - 300 * 3 / 32) < 4.5 * 5.1 for times in new)


def test_shuffled_scores_are_the_same_numbers_in_both_groups():
    shuffled, _ = select(STRATEGY, pool(), ScoreOptions(), 6, True, shuffle_scores=True)
    labelled = pool().labelled
    for group in (labelled, ~labelled):
        assert torch.equal(shuffled[group].sort().values, SCORES[group].sort().values)
        assert not torch.equal(shuffled[group], SCORES[group])


@pytest.mark.parametrize("options", [{"redraws": "random"}, {"shuffle_scores": True}])
def test_the_order_of_the_pool_does_not_matter(options):
    order = np.random.default_rng(5).permutation(COUNT).tolist()
    assert queried(3, **options) == queried(3, order, **options)


def test_without_redraws_nothing_is_redrawn_at_random():
    view = pool()
    plain = select(STRATEGY, view, ScoreOptions(), 6, False)[1]
    assert select(STRATEGY, pool(), ScoreOptions(), 6, False, redraws="random")[1] == plain
    assert not any(map(is_labelled, plain))


def test_an_unknown_kind_of_redraws_is_refused():
    with pytest.raises(SettingsError, match="redraws: 'some' is not one of score, random"):
        queried(redraws="some")


def test_a_shuffle_depends_neither_on_who_had_the_scores_nor_on_the_pools_order():
    def dealt(scores, order):
        strategy = Strategy("fixed", "entropy", False, lambda view, *_: scores[[int(c[1:]) for c in view.cases]])
        found, _ = select(strategy, pool(5, order), ScoreOptions(), 6, True, shuffle_scores=True)
        return dict(zip(pool(5, order).cases, found.tolist(), strict=True))

    straight = list(range(COUNT))
    expected = dealt(SCORES, straight)
    assert dealt(SCORES, straight[::-1]) == expected
    other = SCORES.clone()
    new = torch.arange(len(LABELLED), COUNT)
    other[new] = SCORES[new.flip(0)]
    assert dealt(other, straight) == expected
