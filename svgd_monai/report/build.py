"""From a study's folder to the files of its report."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from svgd_monai.files import write_bytes, write_csv, write_text
from svgd_monai.report import curve_figures, figures
from svgd_monai.report.analysis import reference_method
from svgd_monai.report.document import study_page
from svgd_monai.report.evidence import Evidence, gather
from svgd_monai.report.page import Picture, png
from svgd_monai.report.study import Study
from svgd_monai.report.tables import FILES
from svgd_monai.report.text import csv_cell, listed, shorten, span

FOLDER = "report"
HTML_FILE, MARKDOWN_FILE = "report.html", "report.md"
PICTURES = (
    "curves.png", "curves_by_seed.png", "curves_by_round.png", "areas.png", "pairwise.png", "calibration.png",
    "queries.png",
)  # fmt: skip


def write_report(folder: str | os.PathLike[str]) -> Evidence:
    """Read the study in ``folder`` and write ``report/`` into it.

    The same runs give the same files, byte for byte. What an earlier report drew and this one does not is removed.

    Returns:
        What the report says.

    Raises:
        RunFolderError: no run lies below the folder.
        OSError: the file system refuses.
    """
    evidence = gather(folder)
    target = Path(folder) / FOLDER
    for name, (columns, rows_of) in FILES.items():
        rows = [{key: csv_cell(value) for key, value in row.items()} for row in rows_of(evidence)]
        write_csv(target / name, list(rows[0]) if rows else columns, rows)
    pictures = {picture.name: picture for picture in _draw(evidence)}
    for name in PICTURES:
        if name in pictures:
            write_bytes(target / name, pictures[name].png)
        else:
            (target / name).unlink(missing_ok=True)
    page = study_page(evidence, pictures)
    write_text(target / MARKDOWN_FILE, page.markdown())
    write_text(target / HTML_FILE, page.html())
    return evidence


def _draw(evidence: Evidence) -> Iterator[Picture]:
    """Everything that there is something to draw for."""
    analysis, study = evidence.analysis, evidence.study
    if not analysis.areas:
        return
    names, counts = analysis.by_area, {name: len(runs) for name, runs in study.methods.items()}
    n = _per_method(counts[name] for name in names)
    shared = study.overview_seeds
    over = f"the seeds that all methods have ({listed(shared, 8)})" if shared else f"seeds ({n})"
    every = ", with the means over all seeds of a method" if shared else ""
    dashed = _dashed(study)
    yield Picture(
        "curves.png", png(curve_figures.overview(analysis)),
        f"Test Dice against unique labels, mean over {over}. Markers: counts at which all seeds drawn of a method "
        f"were measured; elsewhere some seeds are interpolated between two counts.{dashed} "
        f"The next figure shows the spread. File: curves.csv{every}.",
        "Learning curves of all methods against unique labels.",
    )  # fmt: skip
    likewise = " Dashed: mean of the full-data runs, likewise." if dashed else ""
    for file, rounds, csv in (("curves_by_seed.png", False, "curves.csv"), ("curves_by_round.png", True, "rounds.csv")):
        yield Picture(
            file, png(curve_figures.small_multiples(analysis, rounds)),
            f"Test Dice against {'rounds' if rounds else 'unique labels'}, one plot per method ({n}). Thin: seeds; "
            "thick: their mean; shaded: ± 1 standard deviation; grey: means of the other methods, at the method's "
            f"seeds as far as they have them.{likewise} File: {csv}.",
            f"Learning curves against {'rounds' if rounds else 'unique labels'}, one plot per method.",
        )  # fmt: skip
    panels = _area_panels(evidence)
    if panels:
        between, files = "", ": runs.csv"
        if any(panel.intervals for panel in panels):
            between = (
                " Differences are between runs with the same seed, with the 95 % t interval of their mean, not "
                "corrected for the number of pairs."
            )
            files = "s: runs.csv, differences.csv"
        yield Picture(
            "areas.png", png(figures.dot_plot(names, counts, panels)),
            f"Areas under the budget curve by method ({n}). Dots: seeds; bars: their mean.{between} File{files}.",
            "Areas under the budget curve by method and seed.",
        )  # fmt: skip
    if any(pair.span for pair in analysis.pairs):
        yield Picture(
            "pairwise.png", png(figures.pairwise(analysis)),
            "Left: mean difference in area of every pair. Right: penalty, the share of label counts at which the "
            "row's method is better than the column's. "
            f"n = {span(pair.test.seeds for pair in analysis.pairs if pair.span)}, the seeds that both have. "
            "Files: differences.csv, penalties.csv.",
            "Matrices of pairwise differences and penalties.",
        )  # fmt: skip
    yield from _draw_rounds(evidence, n)


def _per_method(seeds: Iterable[int]) -> str:
    found = span(seeds)
    return f"n = {found} {'seed' if found == '1' else 'seeds'} per method"


def _dashed(study: Study) -> str:
    """What the dashed lines beside the curves of all methods are, and whether they are of other seeds."""
    seeds = curve_figures.drawn_seeds(study)
    lines = study.full_data_at(seeds, study.queried)
    if not lines:
        return ""
    n = span(len(runs) for runs in lines.values())
    each = "" if len(lines) == 1 else "; each method is measured by those that are trained as it is"
    unlike = any({run.seed for run in runs} != seeds for runs in lines.values())
    but = ", which are not the seeds of the curves: compare by the table of labels to reach" if unlike else ""
    return f" Dashed: mean of the full-data runs (n = {n}){but}{each}."


def _area_panels(evidence: Evidence) -> list[figures.Panel]:
    analysis, reference = evidence.analysis, reference_method(evidence.study)
    panels = []
    if analysis.span:
        panels.append(figures.Panel("area under the budget curve (Dice)", analysis.areas))
    against = {}
    if reference is not None:
        pairs = {name: analysis.pair(name, reference) for name in analysis.areas if name != reference}
        against = {name: pair for name, pair in pairs.items() if pair.span}
    if against:
        intervals = {name: (p.test.low, p.test.high) for name, p in against.items()}
        differences = {name: p.differences for name, p in against.items()}
        label = f"area − area of {shorten(str(reference))}"
        panels.append(figures.Panel(label, differences, intervals, line=0.0))
    return panels


def _draw_rounds(evidence: Evidence, n: str) -> Iterator[Picture]:
    analysis, study = evidence.analysis, evidence.study
    counts = {name: len(runs) for name, runs in study.methods.items()}
    ece = {name: np.asarray([q.ece[-1] for q in each]) for name, each in evidence.quality.items()}
    correlation = {name: np.asarray([q.correlation[-1] for q in each]) for name, each in evidence.quality.items()}
    if any(np.isfinite(values).any() for values in (*ece.values(), *correlation.values())):
        names = [*analysis.by_area, *(name for name in study.methods if name not in analysis.areas)]
        panels = [
            figures.Panel("expected calibration error, last round", ece),
            figures.Panel("Spearman correlation of uncertainty\nwith Dice error, last round", correlation, line=0.0),
        ]
        yield Picture(
            "calibration.png", png(figures.dot_plot(names, counts, panels)),
            "Left: calibration error, 0 is best. Right: how well a case's uncertainty tells its error, 1 is best "
            f"({n}). Dots: seeds; bars: their mean. File: calibration.csv.",
            "Calibration error and correlation of uncertainty with error by method and seed.",
        )  # fmt: skip
    if any(q.made for each in evidence.queries.values() for q in each):
        made = evidence.queries
        share = {m: np.asarray([q.redraws / q.made if q.made else math.nan for q in each]) for m, each in made.items()}
        panels = [
            figures.Panel("share of redraws", share),
            figures.Panel(
                "rank of predicted volume",
                {m: np.asarray([q.volume_rank for q in e]) for m, e in made.items()},
                line=0.5,
            ),
            figures.Panel(
                "rank of uncertainty",
                {m: np.asarray([q.uncertainty_rank for q in e]) for m, e in made.items()},
                line=0.5,
            ),
        ]
        yield Picture(
            "queries.png", png(figures.dot_plot(analysis.by_area, counts, panels)),
            f"What was queried ({n}). Dots: seeds; bars: their mean; dashed: the pool's own mean. File: queries.csv.",
            "Redraws and ranks of the queried cases by method and seed.",
        )  # fmt: skip
