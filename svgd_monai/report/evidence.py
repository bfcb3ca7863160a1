"""All that a report rests on: the analysis of the curves, and what the rounds' own files add."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from svgd_monai.report.analysis import Analysis, analyse
from svgd_monai.report.balance import Balances, run_balances
from svgd_monai.report.consistency import notes as consistency_notes
from svgd_monai.report.power import Power, powers
from svgd_monai.report.quality import Quality, run_quality
from svgd_monai.report.queries import Queries, read_facts, run_queries
from svgd_monai.report.run import Run
from svgd_monai.report.study import Study, read_study
from svgd_monai.report.text import listed
from svgd_monai.words import count

#: A row of a table, by column.
Row = dict[str, Any]


class _Told(Protocol):
    """What the rounds of a run have told."""

    @property
    def told(self) -> np.ndarray:
        """(R,) whether a round has."""


@dataclass(frozen=True)
class Evidence:
    """A study, measured.

    Attributes:
        analysis: of the curves.
        quality: of each method's runs, in the order of their seeds.
        balances: likewise.
        queries: likewise, of the methods that query.
        powers: what the study can find against its reference, see :func:`~svgd_monai.report.power.powers`.
        notes: sentences on all that was left out or stands in the way of a clean comparison.
    """

    analysis: Analysis
    quality: Mapping[str, list[Quality]]
    balances: Mapping[str, list[Balances]]
    queries: Mapping[str, list[Queries]]
    powers: list[Power]
    notes: list[str]

    @property
    def study(self) -> Study:
        """The runs."""
        return self.analysis.study


def gather(folder: str | os.PathLike[str]) -> Evidence:
    """Read and measure the study in a folder.

    Raises:
        RunFolderError: no run lies below it.
    """
    study = read_study(folder)
    analysis = analyse(study)
    damaged: list[str] = []
    facts = read_facts(study.runs, damaged)
    quality = {name: [run_quality(run, damaged) for run in runs] for name, runs in study.methods.items()}
    balances = {name: [run_balances(run, damaged) for run in runs] for name, runs in study.methods.items()}
    queries = {
        name: [run_queries(run, facts.get(run.data_set, {}), damaged) for run in runs]
        for name, runs in study.queried.items()
    }
    absent = [
        *_absent("cases.csv", "calibration and correlations leave", study.methods, quality),
        *_absent("training.json", "what moved the committees leaves", study.methods, balances),
        *_absent("scores.csv", "the section on the queries leaves", study.queried, queries),
    ]
    notes = [*study.notes, *damaged, *consistency_notes(analysis), *absent]
    return Evidence(analysis, quality, balances, queries, powers(analysis), notes)


def _absent(
    file: str, what: str, methods: Mapping[str, Sequence[Run]], told: Mapping[str, Sequence[_Told]]
) -> Iterator[str]:
    """Sentences on runs that lack a usable file of their rounds, in all or in some of them."""
    every = [(run, each.told) for name, runs in methods.items() for run, each in zip(runs, told[name], strict=True)]
    found = [(run, rounds) for run, rounds in every if rounds.size]
    without = sum(not rounds.any() for _, rounds in found)
    if without:
        verb, them = ("has", "it") if without == 1 else ("have", "them")
        yield f"{without} of {count(len(found), 'run')} {verb} no usable {file}; {what} {them} out."
    partly = [run.place for run, rounds in found if rounds.any() and not rounds.all()]
    if partly:
        verb = "has" if len(partly) == 1 else "have"
        yield (
            f"{len(partly)} of {count(len(found), 'run')} {verb} no usable {file} in some rounds, of which nothing is "
            f"told: {listed(partly)}."
        )
