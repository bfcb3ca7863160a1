r"""What a study can find: the power of the paired t test at its number of seeds, and the seeds that a difference takes.

With n seeds, a true mean difference :math:`\delta` and a standard deviation :math:`\sigma` of the differences between
seeds, the test's statistic follows a noncentral t distribution with n − 1 degrees of freedom and noncentrality
:math:`\delta \sqrt n / \sigma`; its power is the probability beyond both critical values (Cohen 1988, Statistical Power
Analysis for the Behavioral Sciences, chapter 2). σ comes from the study itself, so with few seeds the numbers are
rough: three seeds know a standard deviation to a factor of two or more. The pooled one, over all methods that are
compared with the reference, rests on more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats

from svgd_monai.report.analysis import Analysis, reference_method
from svgd_monai.report.significance import LEVEL

#: The chance to find a difference that is asked for, as is usual.
POWER = 0.8
#: Differences of areas (Dice) that somebody might care to find.
DIFFERENCES = (0.01, 0.005, 0.002)
#: Seeds beyond which nobody goes.
MOST_SEEDS = 1000


@dataclass(frozen=True)
class Power:
    """What runs of a method beside those of the reference can find.

    Attributes:
        method: its name; None for the pooled spread of all methods.
        seeds: n, pairs.
        spread: standard deviation of the differences in area between seeds, n − 1 in its denominator.
        detectable: the least true difference that n seeds find with a chance of :data:`POWER`.
        needed: seeds that each of :data:`DIFFERENCES` takes; None above :data:`MOST_SEEDS`.
    """

    method: str | None
    seeds: int
    spread: float
    detectable: float
    needed: tuple[int | None, ...]


def power_of(difference: float, spread: float, seeds: int, level: float = LEVEL) -> float:
    """The chance that the paired t test, two-sided, finds a true difference.

    Args:
        difference: δ.
        spread: σ, above 0.
        seeds: n, at least 2.
        level: of the test.
    """
    if difference == 0:
        return level
    critical, shift = stats.t.ppf(1 - level / 2, seeds - 1), difference / spread * math.sqrt(seeds)
    # The square of a noncentral t is a noncentral F, whose tail holds both of its sides.
    return float(stats.ncf.sf(critical**2, 1, seeds - 1, shift**2))


def detectable_difference(spread: float, seeds: int, level: float = LEVEL) -> float:
    """The least true difference that the test finds with a chance of :data:`POWER`; see :func:`power_of`."""
    highest = 2.0  # in units of the spread; two seeds take some 12
    while power_of(highest, 1.0, seeds, level) < POWER:
        highest *= 2
    return spread * float(optimize.brentq(lambda ratio: power_of(ratio, 1.0, seeds, level) - POWER, 0.0, highest))


def seeds_needed(difference: float, spread: float) -> int | None:
    """The fewest seeds at which the test finds a true difference with a chance of :data:`POWER`.

    Returns:
        n, at least 2; None where it is above :data:`MOST_SEEDS`.
    """
    low, high = 1, 2  # high finds it, low does not
    while power_of(difference, spread, high) < POWER:
        low, high = high, 2 * high
        if low >= MOST_SEEDS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power_of(difference, spread, middle) >= POWER else (middle, high)
    return high if high <= MOST_SEEDS else None


def powers(analysis: Analysis) -> list[Power]:
    """Of every method against the reference, largest area first, and behind them of their pooled spread.

    The latter at each n that a method has, the least first: what five seeds would find, those of three cannot.

    Empty without a reference, or where no differences vary.
    """
    reference = reference_method(analysis.study)
    if reference is None:
        return []
    found, squares, freedom = [], 0.0, 0
    for pair in (analysis.pair(name, reference) for name in analysis.by_area if name != reference):
        if math.isnan(pair.test.low) or not pair.differences.any():
            continue  # one seed, or differences that do not vary
        seeds, spread = len(pair.differences), float(np.std(pair.differences, ddof=1))
        found.append(_power(pair.a, seeds, spread))
        squares, freedom = squares + (seeds - 1) * spread**2, freedom + seeds - 1
    counts = sorted({power.seeds for power in found})
    return found + [_power(None, seeds, math.sqrt(squares / freedom)) for seeds in counts]


def _power(method: str | None, seeds: int, spread: float) -> Power:
    needed = tuple(seeds_needed(difference, spread) for difference in DIFFERENCES)
    return Power(method, seeds, spread, detectable_difference(spread, seeds), needed)
