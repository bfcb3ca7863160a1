"""The tables of a report that compare methods two by two, as they stand in its CSVs.

``pairwise.csv`` is read by other programs: its columns are fixed.
"""

from __future__ import annotations

import math

import numpy as np

from svgd_monai.report.analysis import AREA, Analysis, Pair, mean, reference_method
from svgd_monai.report.evidence import Evidence, Row
from svgd_monai.report.power import DIFFERENCES
from svgd_monai.report.text import label_count

PAIRWISE = ("method_a", "method_b", "metric", "seeds", "mean_difference", "p_value", "p_holm")
#: In place of a method's name: the spread of all methods together.
POOLED = "(pooled)"


def pairwise(evidence: Evidence) -> list[Row]:
    """A row per pair of methods: area of a − area of b at the same seeds, on the range that the two share."""
    return [
        {"method_a": p.a, "method_b": p.b, "metric": AREA, "seeds": p.test.seeds, "mean_difference": p.test.mean,
         "p_value": p.test.p_value, "p_holm": p.p_holm}
        for p in evidence.analysis.pairs
    ]  # fmt: skip


def differences(evidence: Evidence) -> list[Row]:
    """The pairs again, with intervals, the Wilcoxon test, and what follows."""
    return [
        {"method_a": p.a, "method_b": p.b, "seeds": p.test.seeds, "labels_from": p.span and p.span[0],
         "labels_to": p.span and p.span[1], "mean_difference": p.test.mean, "low": p.test.low, "high": p.test.high,
         "p_value": p.test.p_value, "p_holm": p.p_holm, "wilcoxon_p": p.test.wilcoxon,
         "wilcoxon_least_p": p.test.wilcoxon_least, "verdict": verdict(p)}
        for p in evidence.analysis.pairs
    ]  # fmt: skip


def verdict(pair: Pair) -> str:
    """What the corrected test says of a pair, in words."""
    if not pair.seeds:
        return f"no test: {'other data or test cases' if pair.unlike else 'no seed in common'}"
    if pair.span is None:
        only = "no label count" if pair.alone is None else f"a single label count, {label_count(pair.alone)},"
        return f"no test: {only} in common"
    if math.isnan(pair.p_holm):
        return "no test: one seed" if len(pair.seeds) == 1 else "no test: the differences do not vary"
    if not pair.significant:
        return "not significant"
    return f"{pair.a if pair.test.mean > 0 else pair.b} is better"


def power(evidence: Evidence) -> list[Row]:
    """What runs beside the reference can find, and the seeds that differences take; the last rows pool all spreads."""
    return [
        {"method": p.method or POOLED, "reference": reference_method(evidence.study), "seeds": p.seeds,
         "difference_sd": p.spread, "detectable_difference": p.detectable,
         **{f"seeds_for_{d:g}": n for d, n in zip(DIFFERENCES, p.needed, strict=True)}}
        for p in evidence.powers
    ]  # fmt: skip


def penalties(evidence: Evidence) -> list[Row]:
    """The pairwise penalty matrix, a row per ordered pair."""
    analysis, names = evidence.analysis, list(evidence.analysis.areas)
    pairs = [analysis.pair(a, b) for a in names for b in names if a != b]
    return [{"method": p.a, "beats": p.b, "share_of_budgets": p.penalty_b, "seeds": p.test.seeds} for p in pairs]


def mean_penalty(analysis: Analysis, name: str) -> float:
    """Mean over the others of the share of budgets at which they beat a method; the less, the better."""
    return mean(np.asarray([analysis.pair(name, other).penalty_a for other in analysis.areas if other != name]))
