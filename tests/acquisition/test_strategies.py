import dataclasses
import logging
import math
from collections import Counter

import numpy as np
import pytest
import torch
from pairs import Pairs, random_information

from svgd_monai.acquisition import (
    STRATEGY_NAMES,
    PoolView,
    ScoreOptions,
    acquisition_score,
    get_strategy,
    rank_cases,
    select,
)
from svgd_monai.errors import SettingsError

OPTIONS = ScoreOptions()


def pool(count=12, labelled=(1, 4), seed=0, rng=0):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.zeros(count, dtype=torch.bool)
    mask[list(labelled)] = True
    cases = tuple(f"case_{number:03}" for number in range(count))
    return PoolView(
        cases=cases,
        uncertainty=torch.rand(count, generator=generator),
        information=torch.rand(count, generator=generator),
        foreground=torch.rand(count, generator=generator),
        labelled=mask,
        rng=np.random.default_rng(rng),
        pairs=Pairs(random_information(count, seed), cases),
    )


def chosen(name, view, count=3, keep_labelled=False, options=OPTIONS):
    return select(get_strategy(name), view, options, count, keep_labelled)


def reordered(view, order, rng=0):
    return PoolView(
        cases=tuple(view.cases[position] for position in order),
        uncertainty=view.uncertainty[order],
        information=view.information[order],
        foreground=view.foreground[order],
        labelled=view.labelled[order],
        rng=np.random.default_rng(rng),
        pairs=view.pairs,
    )


def test_every_name_gives_its_strategy():
    expected = {"random", "random_foreground", "entropy", "bald", "variance", "jensen_shannon", "entropy_mi"}
    assert {*expected, "max_cover", "power_bald"} <= set(STRATEGY_NAMES)
    for name in STRATEGY_NAMES:
        assert get_strategy(name).name == name
    for name in ("entropy", "bald", "variance", "jensen_shannon"):
        assert get_strategy(name).uncertainty_map == name
    for name in ("entropy_mi", "max_cover"):
        assert get_strategy(name).uncertainty_map == "entropy"
    assert get_strategy("power_bald").uncertainty_map == "bald"
    assert [name for name in STRATEGY_NAMES if get_strategy(name).uses_information] == ["entropy_mi", "max_cover"]


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(SettingsError, match=r"acquisition must be one of random, .*entropy_mi.*, got 'entropie'\."):
        get_strategy("entropie")


@pytest.mark.parametrize("name", STRATEGY_NAMES)
@pytest.mark.parametrize("keep_labelled", [False, True])
def test_the_queries_are_the_eligible_cases_of_the_highest_scores(name, keep_labelled):
    view = pool()
    scores, queried = chosen(name, view, count=5, keep_labelled=keep_labelled)
    assert scores.dtype == torch.float64
    ranked = [
        view.cases[place] for place in rank_cases(scores, view.cases) if keep_labelled or not view.labelled[place]
    ]
    assert queried == ranked[:5]


@pytest.mark.parametrize("name", STRATEGY_NAMES)
def test_labelled_cases_are_queried_only_when_kept_and_the_count_is_capped(name):
    unlabelled = {f"case_{number:03}" for number in range(12)} - {"case_001", "case_004"}
    assert sorted(chosen(name, pool(), count=99)[1]) == sorted(unlabelled)
    assert len(set(chosen(name, pool(), count=99, keep_labelled=True)[1])) == 12
    assert chosen(name, pool(), count=0)[1] == []
    assert chosen(name, pool(labelled=range(12)), count=3)[1] == []
    assert chosen(name, pool(0, ()), count=3)[1] == []


@pytest.mark.parametrize("name", STRATEGY_NAMES)
def test_the_choice_is_reproducible_and_does_not_depend_on_the_order_of_the_pool(name):
    view = pool()
    first = chosen(name, view, count=4)
    again = chosen(name, pool(), count=4)
    assert torch.equal(first[0], again[0])
    assert first[1] == again[1]
    order = torch.randperm(12, generator=torch.Generator().manual_seed(5))
    mixed = chosen(name, reordered(view, order), count=4)
    assert mixed[1] == first[1]
    torch.testing.assert_close(mixed[0], first[0][order])


@pytest.mark.parametrize("name", ["random", "random_foreground", "power_bald"])
def test_another_seed_chooses_otherwise(name):
    assert len({tuple(chosen(name, pool(rng=seed))[1]) for seed in range(10)}) > 5


def test_random_chooses_every_eligible_case_equally_often():
    draws = Counter(case for seed in range(1500) for case in chosen("random", pool(6, (0,), rng=seed), count=2)[1])
    assert set(draws) == {f"case_{number:03}" for number in range(1, 6)}
    assert all(count == pytest.approx(600, abs=6 * math.sqrt(1500 * 0.4 * 0.6)) for count in draws.values())


def test_random_foreground_draws_one_case_from_each_stratum_of_volume():
    volumes = torch.tensor([50.0, 1.0, 2.0, 30.0, 3.0, 40.0, 1000.0])
    seen = [set(), set(), set()]
    for seed in range(60):
        view = dataclasses.replace(pool(7, (6,), rng=seed), foreground=volumes)
        scores, queried = chosen("random_foreground", view, count=3)
        picked = sorted(volumes[view.cases.index(case)].item() for case in queried)
        for stratum, volume in zip(seen, picked, strict=True):
            stratum.add(volume)
        high = {case for case, score in zip(view.cases, scores.tolist(), strict=True) if score >= 1}
        assert high == set(queried)
        assert scores.min() >= 0
        assert scores.max() < 2
    assert seen == [{1.0, 2.0}, {3.0, 30.0}, {40.0, 50.0}]


def test_random_foreground_needs_finite_volumes():
    view = dataclasses.replace(pool(), foreground=torch.full((12,), math.nan))
    with pytest.raises(ValueError, match="foreground volume of a case is not finite"):
        chosen("random_foreground", view)


@pytest.mark.parametrize("name", ["random", "random_foreground"])
def test_random_strategies_do_not_look_at_uncertainty(name):
    view = dataclasses.replace(pool(), uncertainty=torch.full((12,), math.nan), information=None)
    assert chosen(name, view)[1] == chosen(name, pool())[1]


@pytest.mark.parametrize("name", ["entropy", "bald", "variance", "jensen_shannon"])
@pytest.mark.parametrize("normalise", ["minmax", "zscore", "rank"])
def test_uncertainty_strategies_choose_the_most_uncertain(name, normalise):
    view = dataclasses.replace(pool(), information=None)
    _, queried = chosen(name, view, options=ScoreOptions(normalise=normalise))
    order = torch.argsort(view.uncertainty, descending=True).tolist()
    assert queried == [view.cases[place] for place in order if not view.labelled[place]][:3]


@pytest.mark.parametrize("reference", ["unlabelled", "all"])
def test_entropy_mi_is_the_acquisition_score_over_the_cases_of_the_options(reference):
    view = pool()
    options = ScoreOptions(mi_weight=0.7, normalise="zscore", reference=reference)
    scores, _ = chosen("entropy_mi", view, options=options)
    mask = ~view.labelled if reference == "unlabelled" else None
    assert torch.equal(scores, acquisition_score(view.uncertainty, view.information, 0.7, "zscore", mask))


def test_the_two_ranges_differ_where_a_labelled_case_is_extreme():
    # u (0, 1, 0.4), MI (0.1, 0.3, 0.2) unlabelled, and a labelled case of MI 4 with itself
    view = PoolView(
        ("a", "b", "c", "d"),
        torch.tensor([0.0, 1.0, 0.4, 0.5]),
        torch.tensor([0.1, 0.3, 0.2, 4.0]),
        torch.ones(4),
        torch.tensor([False, False, False, True]),
        np.random.default_rng(0),
    )
    options = ScoreOptions(mi_weight=2.0)
    assert chosen("entropy_mi", view, 1, options=options)[1] == ["a"]  # 0, 1 − 2, 0.4 − 1
    assert chosen("entropy_mi", view, 1, options=ScoreOptions(2.0, reference="all"))[1] == ["b"]  # 1 − 2 · 0.2 / 3.9


def test_mutual_information_changes_the_choice():
    view = dataclasses.replace(pool(), uncertainty=torch.linspace(0.5, 0.6, 12), information=torch.linspace(0, 1, 12))
    assert chosen("entropy_mi", view, 2, options=ScoreOptions(mi_weight=0.0))[1] == ["case_011", "case_010"]
    assert chosen("entropy_mi", view, 2, options=ScoreOptions(mi_weight=2.0))[1] == ["case_000", "case_002"]


def test_a_constant_image_is_queried_last_by_entropy_mi():
    view = pool(labelled=())
    view.information[7] = math.nan
    view.uncertainty[7] = 100.0
    _, queried = chosen("entropy_mi", view, count=12)
    assert queried[-1] == "case_007"


def test_uncertainty_decides_where_no_information_is_defined(caplog):
    view = dataclasses.replace(pool(), information=torch.full((12,), math.nan))
    with caplog.at_level(logging.WARNING):
        assert chosen("entropy_mi", view)[1] == chosen("entropy", pool())[1]
    assert "undefined for every case" in caplog.text


def test_ties_go_by_case_id():
    view = dataclasses.replace(pool(), uncertainty=torch.full((12,), 0.3))
    assert chosen("entropy", view)[1] == ["case_000", "case_002", "case_003"]


def test_entropy_mi_needs_information():
    with pytest.raises(ValueError, match="needs the mutual information"):
        chosen("entropy_mi", dataclasses.replace(pool(), information=None))


class TestPowerBald:
    def test_is_the_logarithm_and_gumbel_noise_dealt_out_by_case_id(self):
        view = reordered(pool(rng=3), list(range(11, -1, -1)), rng=3)
        noise = np.random.default_rng(3).gumbel(size=12)[::-1].copy()
        expected = view.uncertainty.to(torch.float64).log() + torch.from_numpy(noise)
        torch.testing.assert_close(chosen("power_bald", view)[0], expected, rtol=0, atol=1e-12)

    def test_draws_in_proportion_without_replacement(self):
        bald = torch.tensor([0.1, 0.2, 0.3, 0.4])
        draws = 4000
        pairs = Counter()
        for seed in range(draws):
            view = dataclasses.replace(pool(4, (), rng=seed), uncertainty=bald)
            pairs[tuple(int(case[-1]) for case in chosen("power_bald", view, count=2)[1])] += 1
        values = bald.tolist()
        for first in range(4):
            for second in range(4):
                if first != second:
                    p = values[first] * values[second] / (1 - values[first])
                    assert pairs[first, second] == pytest.approx(draws * p, abs=4.5 * math.sqrt(draws * p * (1 - p)))

    def test_a_common_factor_changes_nothing(self):
        for seed in range(5):
            view = pool(rng=seed)
            scaled = dataclasses.replace(pool(rng=seed), uncertainty=view.uncertainty * 1000)
            assert chosen("power_bald", view, 5)[1] == chosen("power_bald", scaled, 5)[1]

    def test_cases_of_no_bald_come_last_and_among_themselves_at_random(self):
        bald = torch.tensor(
            [0.0, 1e-45, 0.0, 0.7, 0.0]
        )  # the smallest number of single precision, and the largest BALD
        orders = set()
        for seed in range(60):
            scores, queried = chosen("power_bald", dataclasses.replace(pool(5, (), rng=seed), uncertainty=bald), 5)
            assert torch.isfinite(scores).all()
            assert queried[:2] == ["case_003", "case_001"]
            orders.add(tuple(queried[2:]))
        assert len(orders) == 6

    @pytest.mark.parametrize("wrong", [math.nan, math.inf, -0.1])
    def test_of_no_sense_is_refused(self, wrong):
        view = pool()
        view.uncertainty[3] = wrong
        with pytest.raises(ValueError, match="BALD of a case is negative or not finite"):
            chosen("power_bald", view)


def test_a_negative_count_is_refused():
    with pytest.raises(ValueError, match="negative"):
        chosen("random", pool(), count=-1)


def test_a_pool_whose_parts_do_not_fit_is_refused():
    with pytest.raises(ValueError, match="occurs twice"):
        dataclasses.replace(pool(2, ()), cases=("a", "a"))
    for name in ("uncertainty", "information", "foreground", "labelled"):
        with pytest.raises(ValueError, match=f"its {name} the shape"):
            dataclasses.replace(pool(), **{name: torch.zeros(3)})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"mi_weight": -1.0}, "mi_weight must be"),
        ({"mi_weight": math.inf}, "mi_weight must be"),
        ({"normalise": "max"}, "normalise must be one of minmax, zscore, rank"),
        ({"reference": "labelled"}, "unlabelled or all"),
        ({"candidates": 0}, "candidates must be 1 or more, got 0"),
    ],
)
def test_options_out_of_range_are_refused(wrong, message):
    with pytest.raises(SettingsError, match=message):
        ScoreOptions(**wrong)
