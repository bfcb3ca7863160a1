"""The tests of a difference, against formulas, enumerations and studies in which there is none."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats
from studies import learning_curve, noise

from svgd_monai.report.budget import Curve, area, shared_range
from svgd_monai.report.significance import LEVEL, holm, paired_test, penalties

STUDIES = 1000
#: Two standard errors of a proportion of 5 % in 1000 above it.
MOST = 0.064


def test_the_paired_t_test_is_that_of_the_textbook():
    a, b = np.array([0.81, 0.80, 0.79, 0.83, 0.82]), np.array([0.80, 0.80, 0.77, 0.80, 0.81])
    difference = a - b
    error = difference.std(ddof=1) / math.sqrt(5)
    t = difference.mean() / error
    test = paired_test(a, b)
    assert test.seeds == 5
    assert test.mean == pytest.approx(0.014)
    assert test.p_value == pytest.approx(2 * stats.t.sf(abs(t), 4), rel=1e-10)
    half = stats.t.ppf(0.975, 4) * error
    assert (test.low, test.high) == pytest.approx((0.014 - half, 0.014 + half))


def test_a_known_table_gives_its_published_p():
    """Student's sleep data (1908, Biometrika 6): t = 4.0621 with 9 degrees of freedom, p = 0.002833 (R, t.test)."""
    first = np.array([0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0])
    second = np.array([1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4])
    test = paired_test(second, first)
    assert test.p_value == pytest.approx(0.002833, abs=5e-7)
    assert (test.low, test.high) == pytest.approx((0.7001142, 2.4598858), abs=1e-6)


def wilcoxon_by_enumeration(difference):
    ranks = stats.rankdata(np.abs(difference))
    observed = ranks[difference > 0].sum()
    half = ranks.sum() / 2
    sums = [np.dot(signs, ranks) for signs in itertools.product((0, 1), repeat=len(ranks))]
    return float(np.mean([abs(s - half) >= abs(observed - half) - 1e-12 for s in sums]))


@pytest.mark.parametrize("seeds", [2, 3, 5, 8])
def test_the_wilcoxon_test_is_exact_and_knows_its_floor(seeds):
    rng = np.random.default_rng(seeds)
    for _ in range(10):
        a, b = rng.normal(0.01, 0.02, seeds), rng.normal(0, 0.02, seeds)
        test = paired_test(a, b)
        assert test.wilcoxon == pytest.approx(wilcoxon_by_enumeration(a - b))
        assert test.wilcoxon >= test.wilcoxon_least
    clear = paired_test(np.linspace(1, 2, seeds), np.zeros(seeds))
    assert clear.wilcoxon == clear.wilcoxon_least == 2.0 ** (1 - seeds)


def test_five_seeds_cannot_be_significant_by_wilcoxon():
    assert paired_test(np.linspace(1, 2, 5), np.zeros(5)).wilcoxon_least == 0.0625 > LEVEL


def test_pairs_without_a_difference_do_not_count_for_wilcoxon():
    test = paired_test(np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.1, 0.1, 0.1, 0.1]))
    assert test.wilcoxon == test.wilcoxon_least == 0.25


def test_equal_values_are_no_difference():
    test = paired_test(np.full(4, 0.8), np.full(4, 0.8))
    assert (test.mean, test.p_value, test.wilcoxon) == (0, 1, 1)


@pytest.mark.parametrize("step", [0.1, 1 / 3])
def test_differences_that_do_not_vary_allow_no_test(step):
    """A t of infinity, or of rounding alone, would be a p of 0."""
    b = np.array([0.1, 0.2, 0.3, 0.7])
    test = paired_test(b + step, b)
    assert test.mean == pytest.approx(step)
    assert all(math.isnan(value) for value in (test.p_value, test.low, test.high))


@pytest.mark.parametrize("values", [[], [0.8]])
def test_fewer_than_two_pairs_allow_no_test(values):
    test = paired_test(np.array(values), np.zeros(len(values)))
    assert test.seeds == len(values)
    assert math.isnan(test.p_value)


def test_holm_is_that_of_the_textbook():
    """By the definition: ordered, times m, m − 1, ..., never falling, at most 1."""
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm(np.array([0.6, 0.5])), [1.0, 1.0])
    assert holm(np.zeros(0)).size == 0


def test_holm_rejects_what_its_step_down_rule_rejects():
    rng = np.random.default_rng(0)
    for _ in range(200):
        p = rng.random(6) ** 3
        rejected = set()
        for step, index in enumerate(np.argsort(p)):
            if p[index] > LEVEL / (6 - step):
                break
            rejected.add(int(index))
        assert set(np.flatnonzero(holm(p) <= LEVEL).tolist()) == rejected


def test_a_test_that_could_not_be_made_does_not_count_for_holm():
    corrected = holm(np.array([0.02, np.nan, 0.03]))
    np.testing.assert_allclose(corrected[[0, 2]], [0.04, 0.04])
    assert math.isnan(corrected[1])


def test_penalties_count_the_budgets_at_which_one_is_better():
    rng = np.random.default_rng(1)
    a, b = rng.normal(0, 0.01, (5, 6)), rng.normal(0, 0.01, (5, 6))
    a[:, 1] += 0.1
    b[:, 2:4] += 0.1
    a[:, 0] = b[:, 0]  # the shared first committee
    a[:, 5] = b[:, 5] + 0.5  # no variation, no test
    ours = [stats.ttest_rel(a[:, x], b[:, x]).pvalue for x in range(1, 5)]
    assert [p < LEVEL for p in ours[:3]] == [True] * 3
    assert penalties(a, b) == (1 / 6, 2 / 6 + (ours[3] < LEVEL) / 6)
    assert penalties(b, a) == penalties(a, b)[::-1]
    assert all(math.isnan(value) for value in penalties(a[:1], b[:1]))
    assert all(math.isnan(value) for value in penalties(a[:, :0], b[:, :0]))


def simulate(seeds, methods=3, gain=0.0, skewed=False, studies=STUDIES):
    """p-values (studies, pairs) of the areas of simulated studies, through the code that a report runs.

    Seeds share their luck, rounds remember the last, methods that draw labelled cases again have label counts of their
    own, and ``gain`` is what the first method adds to its Dice.
    """
    rng = np.random.default_rng(0)
    found = []
    for _ in range(studies):
        errors = noise(rng, methods, seeds, 7, skewed=skewed)
        curves = np.empty((methods, seeds), dtype=object)
        for method, seed in np.ndindex(methods, seeds):
            new = rng.integers(2, 4, 6) if method % 2 else np.full(6, 3)
            labels = 5 + np.concatenate([[0], np.cumsum(new)]).astype(float)
            dice = learning_curve(labels) + errors[method, seed]
            dice[1:] += gain * (method == 0)
            curves[method, seed] = Curve(labels, dice)
        p_values = []
        for a, b in itertools.combinations(range(methods), 2):
            span = shared_range([*curves[a], *curves[b]])
            areas = [np.array([area(curve, *span) for curve in curves[method]]) for method in (a, b)]
            p_values.append(paired_test(*areas).p_value)
        found.append(p_values)
    return np.asarray(found)


@pytest.mark.parametrize(("seeds", "skewed"), [pytest.param(3, True, marks=pytest.mark.long), (5, False)])
def test_without_a_true_difference_false_alarms_are_as_rare_as_promised(seeds, skewed):
    p = simulate(seeds, skewed=skewed)
    alarms = p < LEVEL
    assert alarms[:, 0].mean() < MOST  # of the one test that was planned
    assert alarms.mean() < MOST
    assert (alarms.mean() > 0.036) or skewed  # not by being blind; skewed noise makes the t test cautious
    corrected = np.stack([holm(each) for each in p])
    assert (corrected < LEVEL).any(1).mean() < MOST
    assert alarms.any(1).mean() > MOST  # without the correction there would be many


def test_a_true_difference_is_found():
    p = simulate(5, methods=2, gain=0.03, studies=100)
    assert (p < LEVEL).mean() > 0.8


def test_wilcoxon_is_exact_where_differences_tie():
    """All 2^n signs, enumerated: scipy's exact p is that of differences without ties, 0.844 for the first."""
    generator = np.random.default_rng(0)
    several = [np.array([3.0, 2, 1, -2, 2, -3])]
    several += [generator.integers(-3, 4, generator.integers(1, 8)).astype(float) for _ in range(50)]
    for differences in several:
        known = differences[differences != 0]
        if not known.size:
            continue
        ranks = stats.rankdata(np.abs(known))
        ours = abs(2 * ranks[known > 0].sum() - ranks.sum())
        signs = np.array(list(itertools.product((0, 1), repeat=known.size)))
        expected = (np.abs(2 * signs @ ranks - ranks.sum()) >= ours).mean()
        assert paired_test(differences, np.zeros(differences.size)).wilcoxon == pytest.approx(expected, abs=1e-12)
    assert paired_test(several[0], np.zeros(6)).wilcoxon == pytest.approx(0.75)


def test_wilcoxon_without_ties_is_scipys():
    generator = np.random.default_rng(1)
    for seeds in (3, 5, 12, 40):
        differences = generator.normal(0.3, 1, seeds)
        expected = stats.wilcoxon(differences, method="exact").pvalue
        assert paired_test(differences, np.zeros(seeds)).wilcoxon == pytest.approx(expected, abs=1e-12)
