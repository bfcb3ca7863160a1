"""The tables of a report, as they stand in its CSVs: columns, and a dictionary a row.

``summary.csv`` and ``pairwise.csv`` are read by other programs: their columns are fixed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from svgd_monai.report.analysis import AREA, SHARES, deviation, mean
from svgd_monai.report.budget import measured, on_grid
from svgd_monai.report.consistency import differing_settings
from svgd_monai.report.evidence import Evidence, Row
from svgd_monai.report.full_data import against_full
from svgd_monai.report.pair_tables import PAIRWISE, differences, pairwise, penalties, power
from svgd_monai.report.run import Run

SUMMARY = (
    "method", "seeds", "aubc_mean", "aubc_sd", "final_test_dice_mean", "final_test_dice_sd",
    *(f"labels_to_{share:.0%}".removesuffix("%") for share in SHARES),
)  # fmt: skip


def summary(evidence: Evidence) -> list[Row]:
    """A row per method: areas on the range that all share, final test Dice, labels to shares of the full-data Dice."""
    analysis, rows = evidence.analysis, []
    for name, runs in evidence.study.methods.items():
        areas = analysis.areas.get(name, np.zeros(0))
        final = np.asarray([run.final_dice for run in runs])
        row: Row = {"method": name, "seeds": len(runs), "aubc_mean": mean(areas), "aubc_sd": deviation(areas),
                    "final_test_dice_mean": mean(final), "final_test_dice_sd": deviation(final)}  # fmt: skip
        for column, share in zip(SUMMARY[6:], SHARES, strict=True):
            reach = analysis.reach.get((name, share))
            row[column] = None if reach is None else whole(reach.labels)
        rows.append(row)
    return rows


def reach(evidence: Evidence) -> list[Row]:
    """Labels to reach shares of the full-data Dice, without and with the validation labels."""
    rows = []
    for (name, share), r in evidence.analysis.reach.items():
        ends = {"labels": r.labels, "low": r.low, "high": r.high}
        extra = math.nan if r.validation is None else r.validation
        rows.append(
            {"method": name, "seeds": r.seeds, "share": share, "target_dice": r.target,
             **{key: whole(value) for key, value in ends.items()},
             **{f"{key}_with_validation": whole(value + extra) for key, value in ends.items()},
             "share_of_pool": r.labels / r.pool if r.pool else None, "only_at_the_last_count": r.at_the_end,
             "at_the_first_count": r.at_the_start, "last_count": whole(r.last)}
        )  # fmt: skip
    return rows


def full_data(evidence: Evidence) -> list[Row]:
    """Last test Dice of each method minus that of the full data at the same seeds, with the interval of the mean."""
    return [
        {"method": a.method, "seeds": a.test.seeds, "labels": whole(a.labels), "full_data_labels": whole(a.full_labels),
         "final_test_dice": a.dice, "full_data_test_dice": a.full_dice, "mean_difference": a.test.mean,
         "low": a.test.low, "high": a.test.high}
        for a in against_full(evidence.study)
    ]  # fmt: skip


def curves(evidence: Evidence) -> list[Row]:
    """Mean and standard deviation over seeds of the test Dice at each label count that a seed was measured at.

    ``measured`` of the seeds were measured there; the others are on the straight line between two counts of theirs.
    """
    rows = []
    for name, runs in evidence.study.methods.items():
        lines = [run.curve for run in runs]
        grid, dice = on_grid(lines)
        for x, values, known in zip(grid, dice.T, measured(lines, grid).sum(0), strict=True):
            rows.append({"method": name, "unique_labels": whole(x), "seeds": len(runs), "measured": int(known),
                         "test_dice_mean": mean(values), "test_dice_sd": deviation(values)})  # fmt: skip
    return rows


def rounds(evidence: Evidence) -> list[Row]:
    """Likewise at each round, over the seeds that have it."""
    rows = []
    for name, runs in evidence.study.methods.items():
        for number in sorted({int(n) for run in runs for n in run.table["round"]}):
            at = [
                (run.table, int(np.flatnonzero(run.table["round"] == number)[0]))
                for run in runs
                if number in run.table["round"]
            ]
            dice, labels = (np.asarray([t[column][i] for t, i in at]) for column in ("test_dice", "unique_labels"))
            rows.append({"method": name, "round": number, "seeds": len(at), "unique_labels_mean": mean(labels),
                         "test_dice_mean": mean(dice), "test_dice_sd": deviation(dice)})  # fmt: skip
    return rows


def quality(evidence: Evidence) -> list[Row]:
    """Calibration, and correlation of uncertainty with error, at the last round and in the mean over rounds."""
    rows = []
    for name, each in evidence.quality.items():
        known = sum(bool(q.told.any()) for q in each)
        row: Row = {"method": name, "seeds": known, "test_cases": max(q.cases for q in each)}
        for what in ("ece", "correlation"):
            values: list[np.ndarray] = [getattr(q, what) for q in each]
            row |= _spread(f"{what}_final", [float(v[-1]) for v in values])
            row |= _spread(f"{what}_all_rounds", [mean(v) for v in values])
        rows.append(row)
    return rows


def balance(evidence: Evidence) -> list[Row]:
    """What moved the committees in the last validated step of their trainings, in the median over a run's rounds."""
    rows = []
    for name, each in evidence.balances.items():
        known = sum(b.trainings > 0 for b in each)
        row: Row = {"method": name, "seeds": known, "trainings": sum(b.trainings for b in each)}
        for what in ("repulsion", "prior", "distance", "kernel"):
            row |= _spread(what, [b.median(what) for b in each])
        rows.append(row)
    return rows


def queries(evidence: Evidence) -> list[Row]:
    """How many queries went to cases that were labelled already, and what the others rank in their pool."""
    rows = []
    for name, made in evidence.queries.items():
        asked = sum(q.made for q in made)
        known = sum(q.made > 0 for q in made)
        row: Row = {"method": name, "seeds": known, "queries": asked, "redraws": sum(q.redraws for q in made),
                    "redraw_share": sum(q.redraws for q in made) / asked if asked else None}  # fmt: skip
        row |= _spread("predicted_volume_rank", [q.volume_rank for q in made])
        row |= _spread("uncertainty_rank", [q.uncertainty_rank for q in made])
        rows.append(row)
    return rows


def contents(evidence: Evidence) -> list[Row]:
    """True class volumes and intensity groups of the newly queried cases and of the whole pool, where known."""
    rows = []
    for name, made in evidence.queries.items():
        classes = evidence.study.methods[name][0].class_names
        for what, of in (("volume_ml", "volume_ml"), ("intensity", "groups")):
            known = [getattr(q, of) for q in made if getattr(q, of)]
            for key in dict.fromkeys(key for each in known for key in each):
                pairs = np.asarray([each[key] for each in known if key in each])
                rows.append({"method": name, "seeds": len(pairs), "what": what, "of": classes.get(key, key),
                             "queried_mean": mean(pairs[:, 0]), "pool_mean": mean(pairs[:, 1])})  # fmt: skip
    return rows


def compute(evidence: Evidence) -> list[Row]:
    """Seconds of training and of scoring, by run and in all."""
    rows = []
    for name, runs in evidence.study.methods.items():
        row: Row = {"method": name, "seeds": len(runs)}
        for column in ("seconds_train", "seconds_score"):
            row |= _spread(f"{column}_per_run", [seconds(run, column) for run in runs])
        every = [seconds(run, column) for run in runs for column in ("seconds_train", "seconds_score")]
        row["seconds_all_runs"] = float(np.nansum(every)) if np.isfinite(every).any() else None
        row["devices"] = ", ".join(sorted({str(run.settings.get("device", "unknown")) for run in runs}))
        rows.append(row)
    return rows


def runs(evidence: Evidence) -> Iterator[Row]:
    """A row per run, with the numbers that the means are made of."""
    for name, each in evidence.study.methods.items():
        areas = evidence.analysis.areas.get(name, np.full(len(each), math.nan))
        for run, area, q in zip(each, areas, evidence.quality[name], strict=True):
            labels = run.curve.labels
            yield {"method": name, "seed": run.seed, "folder": run.place, "full_data": run.full,
                   "first_labels": whole(labels[0]), "last_labels": whole(labels[-1]), AREA: float(area),
                   "final_test_dice": run.final_dice, "ece_final": float(q.ece[-1]),
                   "correlation_final": float(q.correlation[-1])}  # fmt: skip


def settings(evidence: Evidence) -> list[Row]:
    """The settings in which the methods differ."""
    table = differing_settings(evidence.study)
    return [{"key": key, "method": name, "value": v} for key, row in table.items() for name, v in row.items()]


#: Name of each CSV, its columns where they are fixed, and what fills it.
FILES: dict[str, tuple[Sequence[str], Callable[[Evidence], Any]]] = {
    "summary.csv": (SUMMARY, summary),
    "pairwise.csv": (PAIRWISE, pairwise),
    "differences.csv": ((*PAIRWISE[:2], "seeds"), differences),
    "power.csv": (("method", "reference"), power),
    "penalties.csv": (("method", "beats"), penalties),
    "labels_to_reach.csv": (("method", "seeds"), reach),
    "full_data.csv": (("method", "seeds"), full_data),
    "curves.csv": (("method", "unique_labels"), curves),
    "rounds.csv": (("method", "round"), rounds),
    "calibration.csv": (("method", "seeds"), quality),
    "balance.csv": (("method", "seeds"), balance),
    "queries.csv": (("method", "seeds"), queries),
    "queried_cases.csv": (("method", "seeds"), contents),
    "compute.csv": (("method", "seeds"), compute),
    "runs.csv": (("method", "seed"), runs),
    "settings.csv": (("key", "method"), settings),
}


def seconds(run: Run, column: str) -> float:
    """Sum of a column of the learning curve; NaN where nothing is known."""
    values = run.table[column]
    return float(np.nansum(values)) if np.isfinite(values).any() else math.nan


def whole(value: float) -> int | float | None:
    """A count as a whole number; None where it is infinite or unknown."""
    if not math.isfinite(value):
        return None
    return int(value) if value == int(value) else float(value)


def _spread(name: str, values: Sequence[float]) -> Row:
    array = np.asarray(values, float)
    return {f"{name}_mean": mean(array), f"{name}_sd": deviation(array)}
