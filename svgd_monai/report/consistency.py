"""What stands in the way of a clean comparison, as sentences for people: the notes of a report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from svgd_monai.report.analysis import Analysis, is_curve
from svgd_monai.report.run import Run
from svgd_monai.report.study import Study
from svgd_monai.report.text import listed
from svgd_monai.report.training import all_settings, unlike_training

#: Settings that say where and how a run is made, not what it is; the split itself is compared.
NOT_COMPARED = frozenset(
    {"method", "seed", "output_dir", "dataset_dir", "cache_dir", "split_file", "committee_file", "bundle_root",
     "stage_dir", "datalist_file", "device", "num_workers", "log_every", "download", "workers", "first_committees",
     "on_bad_case", "allow_outside"}
)  # fmt: skip


def notes(analysis: Analysis) -> list[str]:
    """Sentences on seeds, lengths, data sets, splits, trainings and settings that differ where they should not."""
    study = analysis.study
    return [*_seeds(study), *_lengths(analysis), *_data(study), *_trainings(study), *_settings(study)]


def differing_settings(study: Study) -> dict[str, dict[str, str]]:
    """Settings in which the methods differ: key -> method -> value, the values of its seeds where they differ too."""
    values = {name: _values(study, runs) for name, runs in study.methods.items()}
    keys = sorted({key for each in values.values() for key in each})
    table = {key: {name: " or ".join(each.get(key, ["–"])) for name, each in values.items()} for key in keys}
    return {key: row for key, row in table.items() if len(set(row.values())) > 1}


def _seeds(study: Study) -> Iterable[str]:
    methods = study.queried
    sets = {name: {run.seed for run in runs} for name, runs in methods.items()}
    if not methods:
        yield "There is no finished run that queries, so nothing can be compared."
    elif len(methods) == 1:
        yield f"There is one method only, {next(iter(methods))}; nothing can be compared."
    elif len(set(map(frozenset, sets.values()))) > 1:
        which = "; ".join(f"{name}: {listed(sorted(seeds), 12)}" for name, seeds in sets.items())
        yield (
            "The methods have different seeds: a table's mean is over all seeds of its method, a difference over the "
            f"seeds that both methods have ({which})."
        )
    single = [name for name, seeds in sets.items() if len(seeds) == 1]
    if single:
        yield f"These methods have a single seed, which shows no spread and allows no test: {listed(single)}."
    if methods and not study.full_data:
        yield "There is no run on the full data, so the labels needed to reach shares of its Dice are not given."
    measured = {name: {run.seed for run in study.full_data_of(name)} for name in methods}
    other = [name for name, seeds in measured.items() if seeds and seeds != sets[name]]
    if other:
        yield (
            f"The full-data runs have other seeds than those of {listed(other, 12)}: what is compared with them is "
            "over the seeds that both have, if there are any."
        )


def _lengths(analysis: Analysis) -> Iterable[str]:
    curves = {name: [run.curve for run in runs] for name, runs in analysis.study.queried.items()}
    points = [name for name, each in curves.items() if not is_curve(each)]
    if points:
        yield f"A run with one label count has no curve and no area: {listed(points)}."
    whole = [curve for name, each in curves.items() if name not in points for curve in each]
    if not whole:
        return
    ends = {(float(c.labels[0]), float(c.labels[-1])) for c in whole}
    if analysis.span is None:
        yield "The curves share no range of label counts, so the summary has no areas."
    elif len(ends) > 1:
        low, high = (f"{bound:g}" for bound in analysis.span)
        yield (
            f"The curves have different lengths (they begin at {_span(start for start, _ in ends)} and end at "
            f"{_span(end for _, end in ends)} unique labels); the areas of the summary are over the range that all "
            f"share, {low} to {high}."
        )


def _data(study: Study) -> Iterable[str]:
    runs = study.runs
    if len({run.data_set for run in runs} - {""}) > 1:
        yield (
            "The runs are on different data sets (their fingerprints differ), which cannot be compared: seeds at which "
            "two methods' data differ are left out of their difference, and means over such runs say nothing."
        )
    for role in ("validation", "test"):
        if len({tuple(sorted(run.cases(role))) for run in runs if run.cases(role)}) > 1:
            left_out = "; seeds at which two methods' differ are left out of their difference" if role == "test" else ""
            yield f"The runs have different {role} cases; their Dice cannot be compared directly{left_out}."
    queried = [run for each in study.queried.values() for run in each]
    measures = [run for name in study.queried for run in study.full_data_of(name)]
    full = sorted({full.seed for full in measures if not all(full.comparable(run) for run in queried)})
    if full:
        yield (
            f"The full-data runs of seed {listed(full)} have other data or test cases than some of the others; what "
            "they cannot be compared with is given without them."
        )
    unlike = [
        seed
        for seed in sorted({run.seed for run in queried})
        if len({tuple(run.cases("initial")) for run in queried if run.seed == seed and run.cases("initial")}) > 1
    ]
    if unlike:
        yield f"At seed {listed(unlike)} the methods start from different initial sets; their runs are not true pairs."


def _trainings(study: Study) -> Iterable[str]:
    methods = study.queried
    keys = unlike_training(*(runs[0] for runs in methods.values()))
    if keys:
        yield (
            f"The methods are not trained alike ({listed(keys)}), so a difference between two of them may be that of "
            "their trainings."
        )
    if not study.full_data:
        return
    alone = [name for name in methods if not study.full_data_of(name)]
    if alone:
        keys = unlike_training(study.full_data[0], *(methods[name][0] for name in alone))
        yield (
            f"No run on the full data is trained as these methods are, which are not compared with it: "
            f"{listed(alone, 12)} (other {listed(keys)})."
        )


def _settings(study: Study) -> Iterable[str]:
    for name, runs in study.methods.items():
        keys = [key for key, values in _values(study, runs).items() if len(values) > 1]
        if keys:
            yield f"The runs of {name} differ in more than their seed: {listed(keys)}."
    for package in ("svgd_monai", "torch", "monai"):
        versions = sorted({str(version) for run in study.runs if (version := _versions(run).get(package))})
        if len(versions) > 1:
            yield f"The runs were made with different versions of {package}: {listed(versions)}."


def _values(study: Study, runs: Sequence[Run]) -> dict[str, list[str]]:
    """Distinct values of every compared key over the runs of a method."""
    found: dict[str, list[str]] = {}
    known = {key for run in study.runs for key in run.settings}
    compared = [all_settings(run, known) for run in runs]
    for key in sorted({key for each in compared for key in each} - NOT_COMPARED):
        found[key] = list(dict.fromkeys(each.get(key, "–") for each in compared))
    return found


def _versions(run: Run) -> Mapping[str, Any]:
    versions = run.record.get("versions")
    return versions if isinstance(versions, dict) else {}


def _span(values: Iterable[float]) -> str:
    known = sorted(set(values))
    return f"{known[0]:g}" if len(known) == 1 else f"{known[0]:g} to {known[-1]:g}"
