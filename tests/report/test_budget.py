"""Areas, seed-mean curves and labels to reach, against loops and enumerations."""

import itertools

import numpy as np
import pytest

from svgd_monai.report.budget import (
    Curve,
    area,
    budget_curve,
    labels_to_reach,
    on_grid,
    reach_interval,
    shared_range,
)


def curve(*points):
    labels, dice = zip(*points, strict=True)
    return Curve(np.asarray(labels, float), np.asarray(dice, float))


def test_the_last_value_stands_where_a_count_repeats():
    labels, dice = budget_curve(np.array([5, 5, 8, 8, 8, 9.0]), np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]))
    assert labels.tolist() == [5, 8, 9]
    assert dice.tolist() == [0.2, 0.5, 0.6]


def test_a_round_that_was_not_measured_is_no_point_of_the_curve():
    labels, dice = budget_curve(np.array([5, 8, 8, 11.0]), np.array([0.1, 0.3, np.nan, 0.4]))
    assert labels.tolist() == [5, 8, 11]
    assert dice.tolist() == [0.1, 0.3, 0.4]
    assert budget_curve(np.array([5.0]), np.array([np.nan])).labels.size == 0


def test_the_area_is_the_trapezoid_over_the_range():
    points = curve((5, 0.5), (8, 0.7), (9, 0.6), (14, 0.8))
    by_hand = (3 * (0.5 + 0.7) / 2 + 1 * (0.7 + 0.6) / 2 + 5 * (0.6 + 0.8) / 2) / 9
    assert area(points, 5, 14) == pytest.approx(by_hand, abs=1e-15)


def test_an_area_equals_the_fine_sum_of_its_curve_between_any_bounds():
    rng = np.random.default_rng(0)
    for _ in range(50):
        labels = np.sort(rng.choice(np.arange(1, 40), 7, replace=False)).astype(float)
        dice = rng.random(7)
        low, high = np.sort(rng.uniform(labels[0], labels[-1], 2))
        x = np.linspace(low, high, 200_001)
        assert area(Curve(labels, dice), low, high) == pytest.approx(np.interp(x, labels, dice).mean(), abs=1e-4)


def test_a_constant_curve_has_its_value_as_area_on_any_range():
    assert area(curve((5, 0.8), (20, 0.8)), 6.5, 7) == pytest.approx(0.8)


@pytest.mark.parametrize(("low", "high"), [(4, 10), (5, 21), (9, 9), (12, 9)])
def test_there_is_no_area_where_the_curve_does_not_reach_or_nothing_lies_between(low, high):
    assert np.isnan(area(curve((5, 0.8), (20, 0.9)), low, high))


def test_the_shared_range_is_that_of_the_shortest():
    long, short, late = curve((5, 0.1), (20, 0.2)), curve((4, 0.1), (11, 0.2)), curve((11, 0.1), (12, 0.2))
    assert shared_range([long, short]) == (5, 11)
    assert shared_range([short, late]) is None
    assert shared_range([]) is None


def test_curves_meet_at_every_measured_count_that_they_share():
    grid, dice = on_grid([curve((5, 0.0), (9, 0.4)), curve((5, 0.1), (7, 0.3), (8, 0.3), (11, 0.9))])
    assert grid.tolist() == [5, 7, 8, 9]
    np.testing.assert_allclose(dice, [[0.0, 0.2, 0.3, 0.4], [0.1, 0.3, 0.3, 0.5]])
    apart, none = on_grid([curve((5, 0.0), (6, 0.4)), curve((8, 0.1), (9, 0.3))])
    assert apart.size == 0
    assert none.shape == (2, 0)


def reach_by_loop(grid, dice, target):
    for start in range(len(grid)):
        if all(value >= target for value in dice[start:]):
            return grid[start]
    return np.inf


def test_a_target_is_reached_where_the_curve_stays_above_not_at_a_first_crossing():
    grid = np.array([5.0, 8, 11, 14, 17])
    noisy = np.array([0.6, 0.81, 0.79, 0.8, 0.82])
    assert labels_to_reach(grid, noisy, 0.8) == 14
    assert labels_to_reach(grid, noisy, 0.82) == 17
    assert labels_to_reach(grid, noisy, 0.9) == np.inf
    assert labels_to_reach(grid, noisy, 0.5) == 5
    rng = np.random.default_rng(0)
    for _ in range(200):
        dice = np.sort(rng.random(5)) + rng.normal(0, 0.1, 5)
        target = rng.random()
        assert labels_to_reach(grid, dice, target) == reach_by_loop(grid, dice, target)


def test_a_mean_that_equals_the_target_reaches_it_whatever_the_order_of_its_sum():
    thirds = np.array([0.1, 0.2, 0.6])
    assert labels_to_reach(np.array([5.0]), np.array([thirds.sum() / 3]), thirds[::-1].sum() / 3) == 5


def test_the_bootstrap_interval_is_that_of_all_draws_enumerated():
    """With three seeds of the method and one of the full data there are 27 equally probable draws."""
    grid = np.array([5.0, 8, 11, 14])
    curves = np.array([[0.5, 0.7, 0.8, 0.85], [0.5, 0.65, 0.7, 0.8], [0.4, 0.6, 0.78, 0.79]])
    full = np.array([0.8])
    draws = [curves[list(draw)].mean(0) for draw in itertools.product(range(3), repeat=3)]
    reached = np.sort([reach_by_loop(grid, mean, 0.95 * 0.8 - 1e-12) for mean in draws])
    for level in (0.5, 0.8, 0.95):
        ends = np.quantile(reached, [(1 - level) / 2, (1 + level) / 2], method="inverted_cdf")
        assert reach_interval(grid, curves, full, 0.95, level) == tuple(ends)
    assert reach_interval(grid, curves, full, 0.95) == reach_interval(grid, curves, full, 0.95)


def test_a_draw_that_never_reaches_makes_the_interval_open():
    grid, curves = np.array([5.0, 8]), np.array([[0.5, 0.9], [0.5, 0.6], [0.5, 0.9]])
    low, high = reach_interval(grid, curves, np.array([0.8]), 1.0)
    assert (low, high) == (8, np.inf)


def test_the_full_data_seeds_are_drawn_as_well():
    grid, curves = np.array([5.0, 8]), np.array([[0.5, 0.8], [0.5, 0.8]])
    assert reach_interval(grid, curves, np.array([0.8]), 1.0) == (8, 8)
    assert reach_interval(grid, curves, np.array([0.75, 0.85]), 1.0) == (8, np.inf)


def test_one_seed_has_no_interval():
    assert np.isnan(reach_interval(np.array([5.0]), np.array([[0.8]]), np.array([0.8, 0.9]), 1.0)).all()
