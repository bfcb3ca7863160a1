"""The report of a study, written: what was found, how sure that is, and what it rests on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

from svgd_monai.report import pair_tables, tables
from svgd_monai.report.analysis import reference_method
from svgd_monai.report.cells import mean_sd, ordered, pair_row, pivot, power_row, queried_cell
from svgd_monai.report.definitions import DEFINITIONS
from svgd_monai.report.evidence import Evidence
from svgd_monai.report.findings import against_reference, composition, headline_labels, pair_sentence
from svgd_monai.report.full_data_section import full_data_section
from svgd_monai.report.page import Block, Heading, Items, Page, Paragraph, Picture, Table
from svgd_monai.report.power import DIFFERENCES, POWER
from svgd_monai.report.text import number, one_line, percent, shorten, span
from svgd_monai.words import count

#: Rows from which on a table is folded away.
_LONG = 12

Pictures = Mapping[str, Picture]


def study_page(evidence: Evidence, pictures: Pictures) -> Page:
    """The whole report.

    Args:
        evidence: what it rests on.
        pictures: by file name; those that could not be drawn are missing.
    """
    page = Page(f"Active learning study: {one_line(evidence.study.folder.resolve().name)}")
    for heading, section in _SECTIONS.items():
        blocks = [block for block in section(evidence, pictures) if block is not None]
        if blocks:
            page.add(*([Heading(heading)] if heading else []), *blocks)
    return page


def _lead(evidence: Evidence, pictures: Pictures) -> Iterator[Block | None]:
    study = evidence.study
    yield Paragraph(composition(study))
    if evidence.analysis.pairs:
        yield Items([*against_reference(evidence), *headline_labels(evidence)])
    if evidence.notes:
        yield Paragraph(
            f"Read these {count(len(evidence.notes), 'note')} first:"
            if len(evidence.notes) > 1
            else "Read this note first:"
        )
        yield Items(evidence.notes)


def _curves(evidence: Evidence, pictures: Pictures) -> Iterator[Block | None]:
    yield pictures.get("curves.png")
    yield pictures.get("curves_by_seed.png")
    yield pictures.get("curves_by_round.png")


def _areas(evidence: Evidence, pictures: Pictures) -> Iterator[Block | None]:
    analysis = evidence.analysis
    rows = ordered(evidence, tables.summary(evidence))
    if not rows:
        return
    where = (
        f"from {analysis.span[0]:g} to {analysis.span[1]:g} unique labels"
        if analysis.span
        else "not known: no shared range"
    )
    yield Table(
        f"Area under the budget curve ({where}), final test Dice with the labels of the last committees, and mean "
        "penalty: the share of label counts at which another method is better, averaged over the other methods. Mean ± "
        "standard deviation over n seeds. Files: "
        "summary.csv, penalties.csv; per run: runs.csv.",
        ["method", "n", "area", "final test Dice", "labels", "mean penalty"],
        [
            [r["method"], str(r["seeds"]), *(mean_sd(r, key) for key in ("aubc", "final_test_dice")),
             span(int(run.curve.labels[-1]) for run in evidence.study.methods[r["method"]]),
             number(pair_tables.mean_penalty(analysis, r["method"]) if r["method"] in analysis.areas else None, 2)]
            for r in rows
        ],
    )  # fmt: skip
    yield pictures.get("areas.png")


def _differences(evidence: Evidence, pictures: Pictures) -> Iterator[Block | None]:
    analysis, reference = evidence.analysis, reference_method(evidence.study)
    if not analysis.pairs:
        return
    if reference is not None:
        yield Items([pair_sentence(analysis.pair(name, reference)) for name in analysis.by_area if name != reference])
    rows = [
        pair_row(pair) for pair in sorted(analysis.pairs, key=lambda p: (math.isnan(p.test.p_value), p.test.p_value))
    ]
    yield Table(
        "All pairs of methods. a − b: mean difference in area over the n seeds that both have and the range of labels "
        "that they share, with its 95 % t interval. p: of the paired t test; then after Holm's correction over all "
        "pairs; then of the exact Wilcoxon test, and the least p that this test can give with n seeds. Files: "
        "pairwise.csv, differences.csv.",
        ["a", "b", "n", "a − b", "95 % interval", "p", "p (Holm)", "p (Wilcoxon)", "least p (Wilcoxon)", "verdict"],
        rows,
        folded=f"All {len(rows)} pairs" if len(rows) > _LONG else None,
    )
    yield pictures.get("pairwise.png")
    known = pair_tables.power(evidence)
    if known:
        yield Table(
            f"What a comparison with {reference} can find. σ: standard deviation over n seeds of the differences in "
            f"area. Then the true difference that a two-sided paired t test at 5 %, uncorrected, finds with a chance "
            f"of {percent(POWER)} with n seeds, and the number of seeds needed to find a given difference as often. "
            f"With few seeds σ is rough; {pair_tables.POOLED} takes all methods together, for each n that one of them "
            "has. File: power.csv.",
            ["method", "n", "σ", f"found with {percent(POWER)}", *(f"seeds for {d:g}" for d in DIFFERENCES)],
            [power_row(row) for row in known],
        )


def _quality(evidence: Evidence, pictures: Pictures) -> Iterator[Block | None]:
    rows = [r for r in ordered(evidence, tables.quality(evidence)) if r["test_cases"]]
    if not rows:
        return
    columns = [(what, when) for what in ("ECE", "correlation") for when in ("last round", "mean of rounds")]
    keys = ("ece_final", "ece_all_rounds", "correlation_final", "correlation_all_rounds")
    yield Table(
        "Expected calibration error (ECE) of the committee's mean prediction over the voxels of the test cases, and "
        "Spearman correlation of a case's uncertainty, as the method's own strategy measures it, with its Dice error. "
        "Mean ± standard deviation over n seeds. File: calibration.csv.",
        ["method", "n", "test cases", *(f"{what}, {when}" for what, when in columns)],
        [[r["method"], str(r["seeds"]), str(r["test_cases"]), *(mean_sd(r, key, 3) for key in keys)] for r in rows],
    )
    yield pictures.get("calibration.png")


def _balance(evidence: Evidence, pictures: Pictures) -> Iterator[Block | None]:
    rows = [row for row in ordered(evidence, tables.balance(evidence)) if row["trainings"]]
    if rows:
        keys = {"repulsion": 4, "prior": 3, "distance": 2, "kernel": 3}
        yield Table(
            "Norms of the repulsion and of the prior's term in the SVGD direction, divided by that of the likelihood's "
            "term (the drive); mean distance of two particles and mean kernel value between them. Each is taken at the "
            "last validated step of a training, as the median over a run's trainings. Mean ± standard deviation over n "
            "seeds. File: balance.csv.",
            ["method", "n", "trainings", "repulsion / drive", "prior / drive", "distance", "kernel"],
            [[r["method"], str(r["seeds"]), str(r["trainings"]), *(mean_sd(r, k, d) for k, d in keys.items())]
             for r in rows],
        )  # fmt: skip


def _queries(evidence: Evidence, pictures: Pictures) -> Iterator[Block | None]:
    rows = [row for row in ordered(evidence, tables.queries(evidence)) if row["queries"]]
    if not rows:
        return
    yield Table(
        "Number of queries of all n seeds together, and of redraws: queries of a case that was labelled already. Ranks "
        "are those of the newly queried cases among the N unlabelled cases of their round, as (rank − 1/2) / N: near 0 "
        "is the least, near 1 the greatest, and 0.5 the pool's own mean. Mean ± standard deviation over seeds. File: "
        "queries.csv.",
        ["method", "n", "queries", "redraws", "share", "rank of predicted volume", "rank of uncertainty"],
        [
            [r["method"], str(r["seeds"]), str(r["queries"]), str(r["redraws"]), percent(r["redraw_share"]),
             mean_sd(r, "predicted_volume_rank", 2), mean_sd(r, "uncertainty_rank", 2)]
            for r in rows
        ],
    )  # fmt: skip
    yield pictures.get("queries.png")
    content = tables.contents(evidence)
    if content:
        yield Table(
            "Mean true volume of each class, and the share of images in each group of greatest intensity, among the "
            "newly queried cases and, in brackets, in the whole pool. Means over n seeds. File: queried_cases.csv.",
            *pivot(evidence, content, "of", queried_cell),
        )
    else:
        yield Paragraph(
            "True class volumes and intensity groups are unknown: no run's folder holds cache/case_checks.json."
        )


def _compute(evidence: Evidence, pictures: Pictures) -> Iterator[Block | None]:
    rows = ordered(evidence, tables.compute(evidence))
    total = math.fsum(row["seconds_all_runs"] or 0.0 for row in rows)
    if total:
        yield Table(
            f"Minutes per run, mean ± standard deviation over n seeds; {number(total / 3600, 2)} hours in all, in "
            "which a committee that several methods share is counted for each of them. File: compute.csv.",
            ["method", "n", "training", "scoring", "device"],
            [
                [r["method"], str(r["seeds"]),
                 *(mean_sd(r, f"{key}_per_run", 1, 60.0) for key in ("seconds_train", "seconds_score")), r["devices"]]
                for r in rows
            ],
        )  # fmt: skip


def _settings(evidence: Evidence, pictures: Pictures) -> Iterator[Block | None]:
    rows = tables.settings(evidence)
    if rows:
        yield Table(
            "Settings in which the methods differ; all others are the same. File: settings.csv.",
            *pivot(evidence, rows, "key", lambda row: shorten(row["value"], 40)),
        )


def _definitions(evidence: Evidence, pictures: Pictures) -> Iterator[Block | None]:
    yield Items(DEFINITIONS)


_SECTIONS: dict[str, Callable[[Evidence, Pictures], Iterator[Block | None]]] = {
    "": _lead,
    "Learning curves": _curves,
    "Area under the budget curve": _areas,
    "Differences between methods": _differences,
    "Labels to reach the full-data Dice": full_data_section,
    "Calibration and uncertainty": _quality,
    "What moved the committees": _balance,
    "What was queried": _queries,
    "Compute used": _compute,
    "How the methods differ": _settings,
    "How to read this": _definitions,
}
