"""Accuracy against labels: areas under the budget curve, seed-mean curves, and the labels that a target takes.

Pure functions on arrays. A method's S seeds are measured at label counts of their own (a case that is drawn again adds
none), so between two counts a curve is a straight line, here as in the trapezoid of its area.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.integrate import trapezoid

#: Resamples of a bootstrap interval.
RESAMPLES = 10_000
#: Two means of the same numbers, summed in another order, are the same.
_ROUNDING = 1e-12


class Curve(NamedTuple):
    """A run's test Dice against unique labels.

    Attributes:
        labels: (X,), strictly rising.
        dice: (X,).
    """

    labels: np.ndarray
    dice: np.ndarray


def budget_curve(labels: np.ndarray, dice: np.ndarray) -> Curve:
    """The curve of a run: the last value where a count repeats; rounds without a Dice are left out.

    Args:
        labels: (R,) unique labels of each round, not falling.
        dice: (R,) test Dice of each round, NaN where not measured.
    """
    known = np.isfinite(dice)
    labels, dice = np.asarray(labels, float)[known], np.asarray(dice, float)[known]
    last = np.append(np.diff(labels) > 0, True) if labels.size else np.zeros(0, bool)
    return Curve(labels[last], dice[last])


def shared_range(curves: Sequence[Curve]) -> tuple[float, float] | None:
    """The label counts from which to which every curve goes; None where these are not two."""
    if not curves or any(curve.labels.size == 0 for curve in curves):
        return None
    low, high = max(c.labels[0] for c in curves), min(c.labels[-1] for c in curves)
    return (float(low), float(high)) if high > low else None


def area(curve: Curve, low: float, high: float) -> float:
    """Area under the budget curve: the trapezoid over ``low`` to ``high``, divided by the range; so a mean Dice.

    The curve is cut at a bound that is none of its own counts. NaN where it does not reach as far.
    """
    labels, dice = curve
    if not (labels.size and labels[0] <= low < high <= labels[-1]):
        return float("nan")
    inside = (labels > low) & (labels < high)
    x = np.concatenate([[low], labels[inside], [high]])
    return float(trapezoid(np.interp(x, labels, dice), x) / (high - low))


def on_grid(curves: Sequence[Curve]) -> tuple[np.ndarray, np.ndarray]:
    """The curves at every count that one of them was measured at, on the range that all share.

    Returns:
        counts (X,) and Dice (S, X); one count where all curves share only that, none where they share nothing.
    """
    low, high = max(c.labels[0] for c in curves), min(c.labels[-1] for c in curves)
    every = np.unique(np.concatenate([c.labels for c in curves]))
    grid = every[(every >= low) & (every <= high)]
    return grid, np.stack([np.interp(grid, *curve) for curve in curves])


def measured(curves: Sequence[Curve], grid: np.ndarray) -> np.ndarray:
    """Which curves were measured at which counts of ``grid`` (X,), bool (S, X); elsewhere they are straight lines."""
    return np.stack([np.isin(grid, curve.labels) for curve in curves])


def labels_to_reach(grid: np.ndarray, dice: np.ndarray, target: np.ndarray | float) -> np.ndarray:
    """The least count of the grid from which on a curve stays at or above the target; infinite where there is none.

    A first crossing would be a noisy one's. (A curve may still end too early to fall again: see the last count.)

    Args:
        grid: (X,) counts.
        dice: (..., X) seed-mean curves.
        target: (...) Dice to reach.
    """
    above = dice >= np.asarray(target)[..., None] - _ROUNDING
    stays = np.flip(np.logical_and.accumulate(np.flip(above, -1), axis=-1), -1)
    return np.where(stays.any(-1), grid[stays.argmax(-1)], np.inf)


def reach_interval(
    grid: np.ndarray, curves: np.ndarray, full: np.ndarray, share: float, level: float = 0.95, paired: bool = False
) -> tuple[float, float]:
    """Percentile bootstrap interval of the labels to reach a share of the full-data Dice, over seeds.

    Where the method and the full data have the same seeds, a draw takes a seed of both, for the luck of a seed is that
    of both; else the two are drawn independently. With S seeds of both there are only C(2S − 1, S) different draws (10
    for 3), and such intervals are too narrow: a guide, not a test. "Never" is a value like any other, infinite, so
    quantiles are taken without interpolation, which ``scipy.stats.bootstrap`` cannot.

    Args:
        grid: (X,) counts.
        curves: (S, X), of the seeds.
        full: (F,) full-data Dice of its seeds.
        share: of the full-data Dice, e.g. 0.95.
        level: of confidence.
        paired: whether ``full`` is of the same seeds as ``curves``, in their order.

    Returns:
        lower and upper end, infinite where a draw never reaches the target; NaN with fewer than two seeds.
    """
    seeds = len(curves)
    if seeds < 2:
        return float("nan"), float("nan")
    rng = np.random.default_rng(0)  # the same runs give the same report
    weights, others = (rng.multinomial(n, np.full(n, 1 / n), RESAMPLES) / n for n in (seeds, len(full)))
    full_weights = weights if paired else others
    reached = labels_to_reach(grid, weights @ curves, share * (full_weights @ full))
    low, high = np.quantile(reached, [(1 - level) / 2, (1 + level) / 2], method="inverted_cdf")
    return float(low), float(high)
