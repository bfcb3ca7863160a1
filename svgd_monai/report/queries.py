"""What a run queried, from its ``scores.csv``; true volumes and intensities where its folder still holds its cache."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import stats

from svgd_monai.errors import RunFolderError
from svgd_monai.files import read_json
from svgd_monai.report.run import Run, complaint, read_round, unusable

#: Groups of images by their greatest intensity: what 8 bits hold, what 16 bits hold, and more.
INTENSITY_GROUPS = {
    "intensities up to 255": 255.0,
    "intensities 256 to 65535": 65535.0,
    "intensities above 65535": math.inf,
}


@dataclass(frozen=True)
class Facts:
    """What the check of a case found.

    Attributes:
        volume_ml: of each foreground class, by its value; empty without a label.
        group: the image's intensity group.
    """

    volume_ml: Mapping[str, float]
    group: str


@dataclass(frozen=True)
class Queries:
    """What a run queried.

    Attributes:
        made: queries.
        redraws: those of a case that was labelled already.
        volume_rank: mean rank, 0 to 1, of the newly queried cases' predicted foreground volume among the unlabelled
            cases of their round; 0.5 as in the pool. NaN without one.
        uncertainty_rank: likewise, of their uncertainty.
        volume_ml: mean volume of each class, by its value, over the newly queried cases, and over the whole pool.
        groups: share of each intensity group, likewise.
        told: (R − 1,) whether a round that queried, all but the last, has a usable ``scores.csv``.
    """

    made: int = 0
    redraws: int = 0
    volume_rank: float = math.nan
    uncertainty_rank: float = math.nan
    volume_ml: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    groups: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    told: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))


def run_queries(run: Run, facts: Mapping[str, Facts], notes: list[str]) -> Queries:
    """Count and rank the queries of a run.

    Args:
        run: the run.
        facts: of cases; those that are not in it do not count where facts are needed.
        notes: takes in a sentence for a file that is damaged.
    """
    made = redraws = 0
    new: list[str] = []
    ranks: dict[str, list[float]] = {"foreground_ml": [], "uncertainty": []}
    told = np.zeros(len(run.table["round"]), bool)
    for place, number in enumerate(run.table["round"]):
        try:
            rows = read_round(run, int(number), "scores.csv")
            queried = [row for row in rows if row["queried"] == "true"]
            fresh = [row["case"] for row in queried if row["labelled"] != "true"]
            found = {column: _ranks(rows, column, fresh) for column in ranks}
        except (RunFolderError, OSError, ValueError, KeyError) as error:
            notes.append(unusable(run, number, "scores.csv", error))
            continue
        made, redraws, new = made + len(queried), redraws + len(queried) - len(fresh), new + fresh
        told[place] = bool(rows)
        for column, values in found.items():
            ranks[column] += values
    pool = [facts[case] for case in run.cases("pool") if case in facts]
    chosen = [facts[case] for case in new if case in facts]
    volume, uncertainty = (_mean(ranks[column]) for column in ("foreground_ml", "uncertainty"))
    return Queries(made, redraws, volume, uncertainty, *_compare(chosen, pool), told[:-1])


def read_facts(runs: Iterable[Run], notes: list[str]) -> dict[str, dict[str, Facts]]:
    """Facts by data set and case, from ``cache/case_checks.json`` of those runs whose folder holds one.

    Runs on one data set share its cases, so one cache serves them all. A cache may be deleted or lie elsewhere at any
    time: nothing is missed that the report must have.

    Args:
        runs: where to look.
        notes: takes in a sentence for a cache that is damaged.
    """
    known: dict[str, dict[str, Facts]] = {}
    for run in runs:
        path = run.folder / "cache" / "case_checks.json"
        dataset = run.data_set
        if dataset in known or not path.is_file():
            continue
        try:
            known[dataset] = {case: _facts(entry["facts"]) for case, entry in read_json(path)["cases"].items()}
        except (RunFolderError, RecursionError, OSError, LookupError, TypeError, ValueError, AttributeError) as error:
            why = complaint(error, run.folder)
            notes.append(f"{run.place}: cache/case_checks.json is damaged or of another version and not used ({why}).")
    return known


def intensity_group(greatest: float) -> str:
    """The group of an image by its greatest intensity, of all channels."""
    return next(name for name, top in INTENSITY_GROUPS.items() if greatest <= top)


def _facts(content: Mapping[str, Any]) -> Facts:
    volumes = {str(value): float(ml) for value, ml in content["volume_ml"].items() if str(value) != "0"}
    return Facts(volumes, intensity_group(float(np.max(content["image_max"]))))


def _ranks(rows: Sequence[Mapping[str, str]], column: str, fresh: Sequence[str]) -> list[float]:
    """Ranks of some cases' values among the unlabelled cases, (rank − ½) / N, ties at their mean."""
    free = [(row["case"], float(row[column])) for row in rows if row["labelled"] != "true" and row.get(column)]
    if not free:
        return []
    ranks = (stats.rankdata([value for _, value in free]) - 0.5) / len(free)
    return [float(rank) for (case, _), rank in zip(free, ranks, strict=True) if case in fresh]


def _compare(
    chosen: Sequence[Facts], pool: Sequence[Facts]
) -> tuple[dict[str, tuple[float, float]], dict[str, tuple[float, float]]]:
    if not chosen or not pool:
        return {}, {}
    classes = sorted({value for facts in pool for value in facts.volume_ml})
    volumes = {
        value: (
            _mean([f.volume_ml.get(value, 0.0) for f in chosen]),
            _mean([f.volume_ml.get(value, 0.0) for f in pool]),
        )
        for value in classes
    }
    groups = {
        name: (_mean([float(f.group == name) for f in chosen]), _mean([float(f.group == name) for f in pool]))
        for name in INTENSITY_GROUPS
        if any(f.group == name for f in pool)
    }
    return volumes, groups


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else math.nan
