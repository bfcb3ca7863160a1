"""The plots of a study. Each says how many seeds it rests on.

Colours are Okabe & Ito's without black and yellow, told apart by the colour-blind and on white paper; line styles and
markers tell apart what shares a colour. Names come from elsewhere, so no text is taken for mathematics.
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

from svgd_monai.report.analysis import Analysis, mean, reference_method
from svgd_monai.report.budget import measured, on_grid
from svgd_monai.report.run import Run
from svgd_monai.report.text import number, shorten, span

BLUE, INK, GREY = "#0072B2", "#1b1f24", "#7d868f"
_COLOURS = (BLUE, "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_LINES = ("-", (0, (5, 2)), (0, (1, 1.5)))
_MARKERS = ("o", "s", "D", "^", "v", "P", "X", "<", ">", "p", "h")
_WIDTH = 9.6
_COLUMNS = 4
#: Up to so many methods, the cells of a matrix have room for their numbers.
_WRITTEN = 12
_STYLE = {
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
        counts: how many values of a method there are where that is another number than of its seeds.
    """

    label: str
    values: Mapping[str, np.ndarray]
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    line: float | None = None
    counts: Mapping[str, int] = field(default_factory=dict)


@mpl.rc_context(_STYLE)
def overview(analysis: Analysis) -> Figure:
    """Seed-mean test Dice of all methods against unique labels, over the study's ``overview_seeds``."""
    figure = Figure(figsize=(_WIDTH, max(4.6, 0.9 + 0.19 * len(analysis.areas))))
    axis: Axes = figure.subplots()
    reference = reference_method(analysis.study)
    coloured = [name for name in analysis.areas if name != reference]  # by name: a colour stays as a study grows
    seeds = analysis.study.overview_seeds
    for name in analysis.by_area:
        runs = analysis.study.methods[name]
        lines = [run.curve for run in runs if seeds is None or run.seed in seeds]
        grid, dice = on_grid(lines)
        label = f"{shorten(name)} ({len(lines)}{f' of {len(runs)}' if len(lines) < len(runs) else ''})"
        if name == reference:
            axis.plot(grid, dice.mean(0), label=label, lw=2.6, color="#5b646d", zorder=3)
            continue
        style = coloured.index(name)
        axis.plot(
            grid, dice.mean(0), label=label, lw=1.6, ms=4.5, color=_COLOURS[style % 6],
            ls=_LINES[style // 6 % 3], marker=_MARKERS[style % len(_MARKERS)],
            markevery=np.flatnonzero(measured(lines, grid).all(0)).tolist(),
        )  # fmt: skip
    _full_data(axis, analysis)  # of all its seeds, as its label says
    axis.set_xlabel("unique labels (cases)")
    axis.xaxis.set_major_locator(MaxNLocator(10, integer=True))
    axis.set_ylabel("test Dice, mean over seeds")
    figure.legend(loc="outside right upper", title="method (n seeds)", frameon=False, alignment="left")
    return figure


@mpl.rc_context(_STYLE)
def small_multiples(analysis: Analysis, rounds: bool = False) -> Figure:
    """A plot per method: its seeds thin, their mean thick, ± 1 standard deviation shaded, the other methods grey.

    Args:
        analysis: of the study.
        rounds: against rounds in place of unique labels.
    """
    names = analysis.by_area
    columns = min(_COLUMNS, len(names))
    lines = math.ceil(len(names) / columns)
    figure = Figure(figsize=(max(_WIDTH * columns / _COLUMNS, 4.8), 0.5 + 2.1 * lines))
    axes = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    means = {name: _curves(analysis.study.methods[name], rounds) for name in names}
    for axis, name in zip(axes.flat, names, strict=False):
        runs = analysis.study.methods[name]
        for other in names:
            if other != name:
                axis.plot(means[other][0], means[other][1].mean(0), color="#c9cfd6", lw=0.9)
        grid, dice = means[name]
        alone = "o" if len(grid) == 1 else None  # a line of one point is invisible
        for run in runs:
            axis.plot(*_curve(run, rounds), color=BLUE, lw=0.7, alpha=0.55, marker=alone, ms=3)
        if len(runs) > 1:
            spread = dice.std(0, ddof=1)
            axis.fill_between(grid, dice.mean(0) - spread, dice.mean(0) + spread, color=BLUE, alpha=0.16, lw=0)
        axis.plot(grid, dice.mean(0), color=BLUE, lw=2.2, marker=alone, ms=6)
        _full_data(axis, analysis, label=False)
        axis.set_title(f"{shorten(name, 28)}, n = {len(runs)}", fontsize=9)
        axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    for axis in axes.flat[len(names) :]:
        axis.set_axis_off()
    for column in range(columns):  # the lowest plot of a column carries its ticks
        axes[(len(names) - 1 - column) // columns, column].tick_params(labelbottom=True)
    figure.supxlabel("round" if rounds else "unique labels (cases)", fontsize=10)
    figure.supylabel("test Dice", fontsize=10)
    return figure


@mpl.rc_context(_STYLE)
def dot_plot(names: Sequence[str], counts: Mapping[str, int], panels: Sequence[Panel]) -> Figure:
    """A line per method in each panel: its seeds as dots, their mean as a bar, an interval where there is one.

    Args:
        names: the methods, the uppermost first.
        counts: seeds of each.
        panels: beside one another; a method that none of them knows anything of is left out.
    """
    names = [m for m in names if any(np.isfinite(panel.values.get(m, np.zeros(0))).any() for panel in panels)]
    figure = Figure(figsize=(_WIDTH, 1.0 + 0.36 * len(names)))
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
            if panel.counts.get(name, counts[name]) != counts[name]:
                axis.annotate(
                    f"n = {panel.counts[name]}", (1, place), xycoords=axis.get_yaxis_transform(), xytext=(3, 0),
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


@mpl.rc_context(_STYLE)
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
    pairs = f"n = {span(pair.test.seeds for pair in analysis.pairs)}"
    written = len(names) <= _WRITTEN
    figure = Figure(figsize=(_WIDTH, 2.2 + (0.40 if written else 0.20) * len(names)))
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


def _curve(run: Run, rounds: bool) -> tuple[np.ndarray, np.ndarray]:
    if not rounds:
        return run.curve
    known = np.isfinite(run.table["test_dice"])
    return run.table["round"][known], run.table["test_dice"][known]


def _curves(runs: Sequence[Run], rounds: bool) -> tuple[np.ndarray, np.ndarray]:
    """Counts (X,) and Dice (S, X) where all seeds have one."""
    if not rounds:
        return on_grid([run.curve for run in runs])
    curves = [_curve(run, rounds) for run in runs]
    grid = curves[0][0]
    for x, _ in curves:
        grid = np.intersect1d(grid, x)
    return grid, np.stack([y[np.isin(x, grid)] for x, y in curves])


def _full_data(axis: Axes, analysis: Analysis, label: bool = True) -> None:
    if analysis.full_dice.size:
        value = mean(analysis.full_dice)
        text = f"full data ({analysis.full_dice.size})" if label else None
        axis.axhline(value, color=INK, lw=1.0, ls=(0, (4, 3)), label=text)
