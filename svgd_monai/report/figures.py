"""What the plots of a study share, and those of numbers: a line of dots per method, and matrices of pairs.

Each plot says how many seeds it rests on. Names come from elsewhere, so no text is taken for mathematics.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from svgd_monai.report.analysis import Analysis
from svgd_monai.report.text import number, shorten, span

BLUE, INK, GREY = "#0072B2", "#1b1f24", "#7d868f"
WIDTH = 9.6
#: Up to so many methods, the cells of a matrix have room for their numbers.
_WRITTEN = 12
STYLE = {
    "font.family": ["DejaVu Sans"], "font.size": 10, "axes.titlesize": 10, "axes.labelsize": 10, "legend.fontsize": 9,
    "xtick.labelsize": 9, "ytick.labelsize": 9, "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "grid.color": "#e6e9ed", "grid.linewidth": 0.8, "axes.axisbelow": True,
    "figure.constrained_layout.use": True, "text.parse_math": False,
}  # fmt: skip


@dataclass(frozen=True)
class Panel:
    """A plot of a number per method.

    Attributes:
        label: what the number is, with its unit.
        values: (S,) of each method, by seed.
        intervals: lower and upper end of an interval of the mean, where there is one.
        line: where to draw a line for comparison.
    """

    label: str
    values: Mapping[str, np.ndarray]
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    line: float | None = None


@mpl.rc_context(STYLE)
def dot_plot(names: Sequence[str], counts: Mapping[str, int], panels: Sequence[Panel]) -> Figure:
    """A line per method in each panel: its seeds as dots, their mean as a bar, an interval where there is one.

    Where a panel has fewer values of a method than it has seeds, their number stands beside them.

    Args:
        names: the methods, the uppermost first.
        counts: seeds of each.
        panels: beside one another; a method that none of them knows anything of is left out.
    """
    names = [m for m in names if any(np.isfinite(panel.values.get(m, np.zeros(0))).any() for panel in panels)]
    figure = Figure(figsize=(WIDTH, 1.0 + 0.36 * len(names)))
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    places = {name: len(names) - 1 - place for place, name in enumerate(names)}
    for axis, panel in zip(axes, panels, strict=True):
        for name in names:
            values = np.asarray(panel.values.get(name, []), float)
            known = values[np.isfinite(values)]
            if not known.size:
                continue
            place = places[name]
            if name in panel.intervals:
                axis.plot(panel.intervals[name], [place, place], color=BLUE, lw=5, alpha=0.25, solid_capstyle="butt")
            axis.plot(known, np.full(known.size, place), "o", color=GREY, ms=4.5, alpha=0.75, mew=0)
            axis.plot([known.mean()], [place], "|", color=BLUE, ms=15, mew=2.4)
            if known.size != counts[name]:
                axis.annotate(
                    f"n = {known.size}", (1, place), xycoords=axis.get_yaxis_transform(), xytext=(3, 0),
                    textcoords="offset points", va="center", fontsize=8, color=GREY, annotation_clip=False,
                )  # fmt: skip
        if panel.line is not None:
            axis.axvline(panel.line, color=INK, lw=0.9, ls=(0, (4, 3)))
        axis.set_xlabel(panel.label)
        axis.xaxis.set_major_locator(MaxNLocator(5))
        axis.grid(visible=True, axis="y")
    axes[0].set_yticks(list(places.values()), [f"{shorten(name)} (n = {counts[name]})" for name in places])
    axes[0].set_ylim(-0.6, len(names) - 0.4)
    return figure


@mpl.rc_context(STYLE)
def pairwise(analysis: Analysis) -> Figure:
    """All pairs: the mean difference in area, row − column, and the penalty matrix."""
    names = analysis.by_area
    difference, penalty = np.full((len(names), len(names)), math.nan), np.full((len(names), len(names)), math.nan)
    stars = np.full(difference.shape, "", dtype=object)
    for row, a in enumerate(names):
        for column, b in enumerate(names):
            if a != b:
                pair = analysis.pair(a, b)
                difference[row, column], penalty[row, column] = 1000 * pair.test.mean, pair.penalty_b
                stars[row, column] = "*" if pair.significant else ""
    pairs = f"n = {span(pair.test.seeds for pair in analysis.pairs if pair.span)}"
    written = len(names) <= _WRITTEN
    figure = Figure(figsize=(WIDTH, 2.2 + (0.40 if written else 0.20) * len(names)))
    left, right = figure.subplots(1, 2, sharey=True)
    limit = max(float(np.nanmax(np.abs(difference), initial=0.0)), 1e-6)
    _matrix(
        left, difference, "RdBu", (-limit, limit),
        lambda at: f"{number(difference[at], 1, sign=True) if written else ''}{stars[at]}",
    )  # fmt: skip
    _matrix(
        right, penalty, "Greys", (0.0, 1.0),
        lambda at: "" if not written else number(penalty[at], 2) if penalty[at] else "0",
    )  # fmt: skip
    if not written:
        for axis in (left, right):
            figure.colorbar(axis.images[0], ax=axis, shrink=0.6)
    left.set_title(
        f"area of row − area of column, in 0.001 Dice, {pairs}\n(* significant after Holm's correction)", fontsize=9
    )
    right.set_title(f"penalty: share of label counts at which the\nrow beats the column, {pairs}", fontsize=9)
    for axis in (left, right):
        axis.set_xticks(range(len(names)), [shorten(name, 28) for name in names], rotation=45, ha="right")
        for label in axis.get_xticklabels():
            label.set_rotation_mode("anchor")
        axis.set_yticks(range(len(names)), [shorten(name, 28) for name in names])
    return figure


def _matrix(
    axis: Axes, values: np.ndarray, colours: str, ends: tuple[float, float], text: Callable[[tuple[int, int]], str]
) -> None:
    image = axis.imshow(values, cmap=colours, vmin=ends[0], vmax=ends[1], aspect="auto")
    axis.grid(visible=False)
    axis.tick_params(length=0)
    for side in axis.spines.values():
        side.set_visible(False)
    size = 9.0 if len(values) <= 8 else 7.0
    for row, column in np.argwhere(np.isfinite(values)).tolist():
        red, green, blue, _ = image.cmap(image.norm(values[row, column]))
        dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5  # luma of ITU-R BT.601
        colour = "white" if dark else INK
        axis.text(column, row, text((row, column)), ha="center", va="center", fontsize=size, color=colour)
