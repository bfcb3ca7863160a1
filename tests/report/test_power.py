"""What a study can find: against published tables, an integral, simulated studies, and in the report."""

import math

import numpy as np
import pytest
from scipy import integrate, stats
from studies import report, rows, text, write_run

from svgd_monai.report.power import (
    DIFFERENCES,
    MOST_SEEDS,
    POWER,
    detectable_difference,
    power_of,
    seeds_needed,
)
from svgd_monai.report.significance import LEVEL, paired_test


@pytest.mark.parametrize(("effect", "pairs"), [(0.2, 199), (0.5, 34), (0.8, 15), (1.0, 10)])
def test_the_seeds_are_those_of_published_tables(effect, pairs):
    """Paired t test, two-sided, 5 %, power 0.8, by the effect δ/σ; as G*Power 3.1 and R's power.t.test give them."""
    assert seeds_needed(effect, 1.0) == seeds_needed(0.003 * effect, 0.003) == pairs


def by_integral(effect, seeds):
    """The definition: a normal numerator over the root of an independent χ² by its degrees of freedom."""
    freedom, shift = seeds - 1, effect * math.sqrt(seeds)
    critical = stats.t.ppf(1 - LEVEL / 2, freedom)

    def rejected(variance):
        edge = critical * math.sqrt(variance / freedom)
        return (stats.norm.sf(edge - shift) + stats.norm.cdf(-edge - shift)) * stats.chi2.pdf(variance, freedom)

    return integrate.quad(rejected, 0, np.inf, limit=200)[0]


@pytest.mark.parametrize("seeds", [3, 5, 12])
@pytest.mark.parametrize("effect", [0.1, 0.7, 2.5])
def test_the_power_is_the_integral_of_its_definition(effect, seeds):
    assert power_of(effect * 0.01, 0.01, seeds) == pytest.approx(by_integral(effect, seeds), rel=1e-5)
    assert power_of(-effect * 0.01, 0.01, seeds) == power_of(effect * 0.01, 0.01, seeds)


def test_without_a_difference_the_power_is_the_level():
    assert power_of(0.0, 0.01, 4) == LEVEL
    assert power_of(1e-9, 0.01, 4) == pytest.approx(LEVEL)


@pytest.mark.parametrize(("effect", "seeds"), [(1.0, 5), pytest.param(2.0, 3, marks=pytest.mark.long)])
def test_simulated_studies_find_as_many_differences_as_the_power_says(effect, seeds):
    rng, studies = np.random.default_rng(0), 2000
    found = np.mean(
        [paired_test(*rng.normal([[effect], [0]], math.sqrt(0.5), (2, seeds))).p_value < LEVEL for _ in range(studies)]
    )
    power = power_of(effect, 1.0, seeds)
    assert 0.3 < power < 0.7
    assert abs(found - power) < 3 * math.sqrt(power * (1 - power) / studies)


@pytest.mark.parametrize("seeds", [2, 3, 8, 100])
def test_the_detectable_difference_is_found_with_the_power_asked_for(seeds):
    assert power_of(detectable_difference(0.004, seeds), 0.004, seeds) == pytest.approx(POWER)


@pytest.mark.parametrize("effect", [0.1, 0.33, 1.7, 5.0])
def test_one_seed_fewer_would_not_do(effect):
    seeds = seeds_needed(effect, 1.0)
    assert power_of(effect, 1.0, seeds) >= POWER > power_of(effect, 1.0, seeds - 1)


def test_what_takes_more_seeds_than_anyone_has_is_said_to():
    assert seeds_needed(1.0, 12.0) is None
    assert seeds_needed(1.0, 11.0) <= MOST_SEEDS  # 952
    assert seeds_needed(100.0, 1.0) == 2


def add_bald(folder, above):
    """Runs of another method, above the random ones by so much in each round of each seed."""
    random = [[0.60, 0.69, 0.76], [0.62, 0.70, 0.74], [0.58, 0.66, 0.75]]
    for seed, dice in enumerate(random[: len(above)]):
        write_run(folder / f"bald_{seed}", [value + above[seed] for value in dice], seed=seed, acquisition="bald")


def test_the_report_says_what_the_study_can_find(small):
    add_bald(small, [0.01, 0.03])
    report(small)
    ours = np.array([[0.60, 0.72, 0.80], [0.62, 0.71, 0.82], [0.58, 0.74, 0.79]]) @ [0.25, 0.5, 0.25]
    random = np.array([[0.60, 0.69, 0.76], [0.62, 0.70, 0.74], [0.58, 0.66, 0.75]]) @ [0.25, 0.5, 0.25]
    spread, other = np.std(ours - random, ddof=1), np.std([0.01, 0.03], ddof=1)
    pooled = math.sqrt((2 * spread**2 + other**2) / 3)
    table = rows(small, "power.csv")
    expected = [
        ("svgd/entropy_mi", 3, spread),
        ("svgd/bald", 2, other),
        ("(pooled)", 2, pooled),
        ("(pooled)", 3, pooled),
    ]
    for row, (name, seeds, value) in zip(table, expected, strict=True):
        assert (row["method"], row["reference"], row["seeds"]) == (name, "svgd/random", str(seeds))
        assert float(row["difference_sd"]) == pytest.approx(value)
        assert float(row["detectable_difference"]) == pytest.approx(detectable_difference(value, seeds))
        for difference in DIFFERENCES:
            needed = seeds_needed(difference, value)
            assert row[f"seeds_for_{difference:g}"] == ("" if needed is None else str(needed))
    by_two, by_three = (f"{detectable_difference(pooled, seeds):.4f}" for seeds in (2, 3))
    assert (
        f"With n = 2 seeds a paired t test finds a true difference of {by_two}, with n = 3 one of {by_three}, in four "
        f"of five studies; finding one of 0.005 as often takes {seeds_needed(0.005, pooled)} seeds" in text(small)
    )


def test_differences_that_do_not_vary_say_nothing_of_power(small):
    add_bald(small, [0.02, 0.02, 0.02])
    report(small)
    assert [row["method"] for row in rows(small, "power.csv")] == ["svgd/entropy_mi", "(pooled)"]


def test_without_a_reference_there_is_no_power_to_tell(tmp_path, sketched):
    for seed in range(2):
        for name in ("bald", "entropy"):
            write_run(tmp_path / f"{name}_{seed}", [0.5, 0.6 + 0.01 * seed], seed=seed, acquisition=name)
    report(tmp_path)
    assert rows(tmp_path, "power.csv") == []
    assert "four of five" not in text(tmp_path)
