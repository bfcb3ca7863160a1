r"""Tests of the difference between two methods whose runs are paired by seed.

At a seed, methods share the initial set, the initialisation and the first committee, so a seed's difference is free of
what that seed's luck gives both. With n seeds and differences :math:`d_s`:

- the **paired t test** of :math:`\bar d = 0` is the primary one;
- the **Wilcoxon** signed-rank test stands beside it, exact; two-sided, it cannot fall below :math:`2^{1-n}` (0.0625
  with 5 seeds);
- **Holm** 1979 (Scand. J. Stat. 6) corrects the p-values of all pairs of a study: the chance of any false alarm among
  them stays below 5 %;
- the **pairwise penalty matrix** is that of Ash et al. 2020 (BADGE, arXiv 1906.03671): the share of label
  budgets at which one method is better than the other by a paired t test at 5 %, uncorrected.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np
from scipy import stats

#: Level of all tests.
LEVEL = 0.05
#: Differences that vary by less than this, relative to the values, vary by rounding only.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class PairedTest:
    """The difference of two methods, a − b.

    Attributes:
        seeds: n, pairs.
        mean: mean difference.
        low: lower end of the 95 % t interval of the mean.
        high: its upper end.
        p_value: of the paired t test, two-sided; NaN where it is undefined: fewer than two pairs, or differences that
            are all the same and not 0. Where all are 0 it is 1.
        wilcoxon: p of the exact Wilcoxon test, two-sided, pairs without a difference left out.
        wilcoxon_least: the least p that it could give with these pairs.
    """

    seeds: int
    mean: float
    low: float
    high: float
    p_value: float
    wilcoxon: float
    wilcoxon_least: float


def paired_test(a: np.ndarray, b: np.ndarray) -> PairedTest:
    """Compare two methods at the same seeds.

    Args:
        a: (n,) values of a method.
        b: (n,) values of the other, pair by pair.
    """
    a, b = np.asarray(a, float), np.asarray(b, float)
    difference = a - b
    seeds, mean = len(difference), float(difference.mean()) if len(difference) else math.nan
    wilcoxon, least = _wilcoxon(difference)
    low = high = p = math.nan
    if seeds >= 2 and _varies(a, b):
        test = stats.ttest_rel(a, b)
        interval = test.confidence_interval(1 - LEVEL)
        low, high, p = float(interval.low), float(interval.high), float(test.pvalue)
    elif seeds >= 2 and not difference.any():
        low, high, p = 0.0, 0.0, 1.0
    return PairedTest(seeds, mean, low, high, p, wilcoxon, least)


def holm(p_values: np.ndarray) -> np.ndarray:
    """Holm's step-down correction.

    Args:
        p_values: (m,); NaN where a test could not be made, which then does not count.

    Returns:
        (m,) adjusted p-values: a hypothesis is rejected at level α where its own is at most α.
    """
    p = np.asarray(p_values, float)
    adjusted = np.full(p.shape, np.nan)
    order = np.argsort(p)[: int(np.isfinite(p).sum())]  # NaN sorts last
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(factors * p[order]), 1.0)
    return adjusted


def penalties(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Share of the budgets at which a is better than b, and b better than a.

    Args:
        a: (n, X) Dice of a method at the same seeds and budgets as the other's.
        b: (n, X).

    Returns:
        both shares, 0 to 1; NaN without two seeds or without a budget.
    """
    seeds, budgets = a.shape
    if seeds < 2 or not budgets:
        return math.nan, math.nan
    with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # scipy's, of budgets without variation, which do not count
        p = stats.ttest_rel(a, b, axis=0).pvalue
    sure = (p < LEVEL) & _varies(a, b)
    better = (a - b).mean(0) > 0
    return float((sure & better).mean()), float((sure & ~better).mean())


def _varies(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Whether the differences a − b vary along the first axis, by more than rounding."""
    scale = np.maximum(np.abs(a).max(0), np.abs(b).max(0))
    varies: np.ndarray = np.ptp(a - b, axis=0) > _ROUNDING * scale
    return varies


def _wilcoxon(difference: np.ndarray) -> tuple[float, float]:
    nonzero = difference[difference != 0]
    if not len(difference):
        return math.nan, math.nan
    if not len(nonzero):
        return 1.0, 1.0
    return _exact_wilcoxon(nonzero), float(0.5 ** (len(nonzero) - 1))


def _exact_wilcoxon(differences: np.ndarray) -> float:
    """Two-sided p over all 2^n signs, which are equally probable; scipy's exact one takes no differences that tie.

    Ranks of ties are their mean, so twice a rank is whole, and a table of the sums that signs give is exact.
    """
    ranks = np.rint(2 * stats.rankdata(np.abs(differences))).astype(int)
    chances = np.zeros(ranks.sum() + 1)  # of each sum of the positive ranks
    chances[0] = 1.0
    for rank in ranks:
        chances[rank:] = 0.5 * (chances[rank:] + chances[: len(chances) - rank])
        chances[:rank] *= 0.5
    off = np.abs(2 * np.arange(len(chances)) - ranks.sum())
    return float(min(chances[off >= off[ranks[differences > 0].sum()]].sum(), 1.0))
