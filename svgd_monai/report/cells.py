"""The cells of a report's tables, as people read them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from svgd_monai.report.analysis import Pair, Reach
from svgd_monai.report.evidence import Evidence, Row
from svgd_monai.report.pair_tables import verdict
from svgd_monai.report.power import DIFFERENCES, MOST_SEEDS
from svgd_monai.report.text import interval, label_count, number, p_text, percent


def pair_row(pair: Pair) -> list[str]:
    """The methods, n, their difference, how sure it is, and the verdict."""
    test = pair.test
    p_values = (test.p_value, pair.p_holm, test.wilcoxon, test.wilcoxon_least)
    between = interval(test.low, test.high)
    return [
        pair.a,
        pair.b,
        str(test.seeds),
        number(test.mean, sign=True),
        between,
        *map(p_text, p_values),
        verdict(pair),
    ]


def power_row(row: Row) -> list[str]:
    """A method, n, the spread of its differences, what n seeds can find, and the seeds that differences take."""
    needed = (row[f"seeds_for_{difference:g}"] for difference in DIFFERENCES)
    return [
        row["method"],
        str(row["seeds"]),
        *(number(row[key]) for key in ("difference_sd", "detectable_difference")),
        *(f"> {MOST_SEEDS}" if seeds is None else str(seeds) for seeds in needed),
    ]


def full_data_row(row: Row) -> list[str]:
    """A method, n, its labels and Dice beside those of the full data, and the difference with its interval."""
    return [
        row["method"],
        str(row["seeds"]),
        *(f"{row[key]:.4g}" for key in ("labels", "full_data_labels")),
        *(number(row[key]) for key in ("final_test_dice", "full_data_test_dice")),
        number(row["mean_difference"], sign=True),
        interval(row["low"], row["high"]),
    ]


def reach_cell(reach: Reach | None, validation: bool) -> str:
    """Labels to reach a target, with their interval; counted with the validation cases or without."""
    if reach is None or (validation and reach.validation is None):
        return "unknown"
    extra = (reach.validation or 0) if validation else 0
    labels, low, high = (value + extra for value in (reach.labels, reach.low, reach.high))
    if math.isinf(labels):
        return f"– ({label_count(low)} to ∞)" if math.isfinite(low) else "–"
    ends = "" if math.isnan(low) else f" ({label_count(low)} to {label_count(high)})"
    return f"{'≤ ' * reach.at_the_start}{label_count(labels)}{'†' * reach.at_the_end}{ends}"


def queried_cell(row: Row) -> str:
    """What was queried, and what the pool holds."""
    if row["what"] == "intensity":
        return f"{percent(row['queried_mean'])} ({percent(row['pool_mean'])})"
    return f"{number(row['queried_mean'], 2)} ml ({number(row['pool_mean'], 2)})"


def ordered(evidence: Evidence, rows: Sequence[Row]) -> list[Row]:
    """Rows in the order of the methods' areas, those on the full data last."""
    order = [*evidence.analysis.by_area, *evidence.study.methods]
    return sorted(rows, key=lambda row: order.index(row["method"]))


def pivot(
    evidence: Evidence, rows: Sequence[Row], key: str, cell: Callable[[Row], str]
) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of a table with a row per method and a column per value of ``key``, in their first order."""
    keys = list(dict.fromkeys(row[key] for row in rows))
    cells = {(row["method"], row[key]): cell(row) for row in rows}
    methods = list(dict.fromkeys(row["method"] for row in ordered(evidence, rows)))
    counts = {row["method"]: str(row.get("seeds", len(evidence.study.methods[row["method"]]))) for row in rows}
    return ["method", "n", *keys], [[m, counts[m], *(cells.get((m, k), "–") for k in keys)] for m in methods]


def mean_sd(row: Mapping[str, Any], key: str, digits: int = 4, unit: float = 1.0) -> str:
    """Mean ± standard deviation of a quantity of a row, in another unit where one is given."""
    middle, spread = row[f"{key}_mean"] / unit, row[f"{key}_sd"] / unit
    return number(middle, digits) if math.isnan(spread) else f"{number(middle, digits)} ± {number(spread, digits)}"
