"""The learning curves of a study, of all methods in one plot and method by method.

Colours are Okabe & Ito's without black and yellow, told apart by the colour-blind and on white paper; line styles and
markers tell apart what shares a colour.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from svgd_monai.report.analysis import Analysis, mean, reference_method
from svgd_monai.report.budget import measured, on_grid
from svgd_monai.report.figures import BLUE, INK, STYLE, WIDTH
from svgd_monai.report.run import Run
from svgd_monai.report.study import Study
from svgd_monai.report.text import shorten

_COLOURS = (BLUE, "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_LINES = ("-", (0, (5, 2)), (0, (1, 1.5)))
_DASHES = ((0, (4, 3)), (0, (8, 3)), (0, (4, 2, 1, 2)), (0, (1, 2)))
_MARKERS = ("o", "s", "D", "^", "v", "P", "X", "<", ">", "p", "h")
_COLUMNS = 4


@mpl.rc_context(STYLE)
def overview(analysis: Analysis) -> Figure:
    """Seed-mean test Dice of all methods against unique labels, over the :func:`drawn_seeds`."""
    figure = Figure(figsize=(WIDTH, max(4.6, 0.9 + 0.19 * len(analysis.areas))))
    axis: Axes = figure.subplots()
    reference = reference_method(analysis.study)
    coloured = [name for name in analysis.areas if name != reference]  # by name: a colour stays as a study grows
    study, seeds = analysis.study, drawn_seeds(analysis.study)
    for name in analysis.by_area:
        runs = study.methods[name]
        lines = [run.curve for run in runs if run.seed in seeds]
        grid, dice = on_grid(lines)
        label = f"{shorten(name)} ({_of(len(lines), len(runs))})"
        look: dict[str, Any] = {"lw": 2.6, "ms": 5.5, "color": "#5b646d", "marker": "o", "zorder": 3}
        if name != reference:
            style = coloured.index(name)
            look = {"lw": 1.6, "ms": 4.5, "color": _COLOURS[style % 6], "ls": _LINES[style // 6 % 3],
                    "marker": _MARKERS[style % len(_MARKERS)]}  # fmt: skip
        together = np.flatnonzero(measured(lines, grid).all(0)).tolist()
        axis.plot(grid, dice.mean(0), label=label, markevery=together, **look)
    _full_data(axis, study, seeds, analysis.areas, label=True)
    axis.set_xlabel("unique labels (cases)")
    axis.xaxis.set_major_locator(MaxNLocator(10, integer=True))
    axis.set_ylabel("test Dice, mean over seeds")
    figure.legend(loc="outside right upper", title="method (n seeds)", frameon=False, alignment="left")
    return figure


@mpl.rc_context(STYLE)
def small_multiples(analysis: Analysis, rounds: bool = False) -> Figure:
    """A plot per method: its seeds thin, their mean thick, ± 1 standard deviation shaded, the other methods grey.

    Other methods and the full data are drawn over the method's seeds where they have any of them.

    Args:
        analysis: of the study.
        rounds: against rounds in place of unique labels.
    """
    names = analysis.by_area
    columns = min(_COLUMNS, len(names))
    lines = math.ceil(len(names) / columns)
    figure = Figure(figsize=(max(WIDTH * columns / _COLUMNS, 4.8), 0.5 + 2.1 * lines))
    axes = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    methods = analysis.study.methods
    for axis, name in zip(axes.flat, names, strict=False):
        runs = methods[name]
        seeds = {run.seed for run in runs}
        for other in names:
            if other != name:
                x, curves = _curves([run for run in methods[other] if run.seed in seeds] or methods[other], rounds)
                axis.plot(x, curves.mean(0), color="#c9cfd6", lw=0.9)
        grid, dice = _curves(runs, rounds)
        alone = "o" if len(grid) == 1 else None  # a line of one point is invisible
        for run in runs:
            axis.plot(*_curve(run, rounds), color=BLUE, lw=0.7, alpha=0.55, marker=alone, ms=3)
        if len(runs) > 1:
            spread = dice.std(0, ddof=1)
            axis.fill_between(grid, dice.mean(0) - spread, dice.mean(0) + spread, color=BLUE, alpha=0.16, lw=0)
        axis.plot(grid, dice.mean(0), color=BLUE, lw=2.2, marker=alone, ms=6)
        _full_data(axis, analysis.study, seeds, [name])
        axis.set_title(f"{shorten(name, 28)}, n = {len(runs)}", fontsize=9)
        axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    for axis in axes.flat[len(names) :]:
        axis.set_axis_off()
    for column in range(columns):  # the lowest plot of a column carries its ticks
        axes[(len(names) - 1 - column) // columns, column].tick_params(labelbottom=True)
    figure.supxlabel("round" if rounds else "unique labels (cases)", fontsize=10)
    figure.supylabel("test Dice", fontsize=10)
    return figure


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


def drawn_seeds(study: Study) -> set[int]:
    """The seeds that the curves of all methods are drawn from: the study's ``overview_seeds``, or all."""
    return set(study.overview_seeds or (run.seed for runs in study.queried.values() for run in runs))


def _full_data(axis: Axes, study: Study, seeds: Collection[int], methods: Iterable[str], label: bool = False) -> None:
    """A dashed line for the mean of each full-data method that some methods have, at their seeds."""
    lines = study.full_data_at(seeds, methods)
    for place, (name, runs) in enumerate(lines.items()):
        text = "full data" if len(lines) == 1 else f"full data: {shorten(name, 24)}"
        text = f"{text} ({_of(len(runs), len(study.methods[name]))})" if label else ""
        value, dashes = mean(np.asarray([run.final_dice for run in runs])), _DASHES[place % len(_DASHES)]
        axis.axhline(value, color=INK, lw=1.0, ls=dashes, label=text or None)


def _of(some: int, every: int) -> str:
    return str(some) if some == every else f"{some} of {every}"
