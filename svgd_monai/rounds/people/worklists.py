"""The worklists of a run: the cold start's, and after each round the next."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from svgd_monai.acquisition.cold_start import farthest_first, random_order
from svgd_monai.acquisition.handler import SCORES_FILE
from svgd_monai.data import RoundDatalist
from svgd_monai.data.people import PeopleData
from svgd_monai.files import read_csv, write_json
from svgd_monai.rounds.people.handout import Handout
from svgd_monai.rounds.people.ledger import Entry, PeopleLedger
from svgd_monai.rounds.people.notes import Complaint
from svgd_monai.rounds.people.selection import (
    AT_RANDOM,
    added,
    assign,
    cold_entry,
    joined_entry,
    next_cases,
    scored_entry,
)
from svgd_monai.rounds.people.sheet import write_sheet
from svgd_monai.rounds.people.table import Assignments, read_assignments
from svgd_monai.rounds.run_folder import RunFolder
from svgd_monai.rounds.stages import Stages
from svgd_monai.seeding import derive_seed

logger = logging.getLogger(__name__)


class Worklists:
    """Chooses the cases that people are to label next, hands them out, and notes it in the ledger.

    Args:
        folder: the run's.
        stages: the bundle's.
        settings: the loop's.
        classes: name of each label value, background 0 included.
        ledger: of the run; changed in place, and written when a list is complete.
        data: the cases.
    """

    def __init__(
        self,
        folder: RunFolder,
        stages: Stages,
        settings: Mapping[str, Any],
        classes: Mapping[int, str],
        ledger: PeopleLedger,
        data: PeopleData,
    ) -> None:
        self.folder = folder
        self.stages = stages
        self.settings = settings
        self.ledger = ledger
        self.data = data
        self.handout = Handout(folder.root, stages, settings, classes)

    def assignments(self) -> Assignments:
        """What people have written into the tables."""
        return read_assignments(self.handout.tables(len(self.ledger.worklists)))

    def follow(self, number: int) -> None:
        """Hand out a worklist, or add to one of which every case was declined.

        Args:
            number: of the worklist: 0 is the cold start, r + 1 is what round r asks for.
        """
        while len(self.ledger.worklists) <= number:  # a run that starts from labels has no cold start
            self.ledger.worklists.append([])
        listed = self.ledger.worklists[number]
        eligible = sorted(set(self.ledger.unlabelled) - {entry.case for entry in listed})
        if number == 0:
            entries = self._cold(eligible, int(self.settings["initial_labelled"]))
        else:
            entries = self._scored(number - 1, eligible) or self._joined(eligible, [entry.case for entry in listed])
        double = min(int(self.settings["double_annotated"]), len(entries))
        cases = [entry.case for entry in entries]
        known = {case: entry.annotators for case in cases if (entry := self.ledger.entry(case)) is not None}
        annotators = self.settings["annotators"] or []
        asked = assign(cases, annotators, double, number, known)
        entries = [replace(entry, annotators=asked[entry.case]) for entry in entries]
        if entries:
            committee = None if number == 0 else self.folder.committee(number - 1)
            entries = self.handout.write(number, entries, self.data.pool, committee, [entry.case for entry in listed])
        self.ledger.worklists[number] = [*listed, *entries]
        write_json(self.folder.ledger_file, self.ledger.as_dict())

    def write_sheets(self, complaints: Sequence[Complaint]) -> None:
        """Write every worklist's sheet, and mend the links of what is still to do."""
        for number, entries in enumerate(self.ledger.worklists):
            if entries:
                self.handout.link(number, [self.data.pool[case] for case in self.ledger.outstanding(number)])
                write_sheet(self.handout.folder(number), number, self.ledger, complaints, self.handout.classes)

    def _joined(self, eligible: Sequence[str], listed: Sequence[str]) -> list[Entry]:
        """Images that have joined since the pool was scored, where all that were scored are declined or labelled."""
        known = sorted({*self.ledger.labelled, *listed} & set(self.data.pool))
        chosen = self._unscored(eligible, int(self.settings["queries_per_round"]), known)
        return [joined_entry(case, shared, self._diverse) for case, shared in chosen]

    def _cold(self, eligible: Sequence[str], count: int) -> list[Entry]:
        chosen = self._unscored(eligible, count)
        return [cold_entry(case, shared, rank, self._diverse) for rank, (case, shared) in enumerate(chosen, start=1)]

    @property
    def _diverse(self) -> bool:
        return bool(self.settings["cold_start"] == "diversity")

    def _unscored(
        self, eligible: Sequence[str], count: int, known: Sequence[str] = ()
    ) -> list[tuple[str, float | None]]:
        """Cases without a score, each with the most that it shares with those before it, where that decides."""
        seed = derive_seed(self.settings["seed"], "cold start")
        if not self._diverse:
            return [(case, None) for case in random_order(eligible, seed)[:count]]
        parser = self.stages.parser("acquire", datalist=RoundDatalist([], [], [], self.data.pool_items()))
        return farthest_first(eligible, parser.get_parsed_content("information").pairs, count, seed, known)

    def _scored(self, number: int, eligible: Sequence[str]) -> list[Entry]:
        rows = read_csv(self.folder.round(number) / SCORES_FILE)
        queries = self.ledger.queries[number]
        by_case = {row["case"]: row for row in rows}
        unlabelled = [row for row in rows if row["labelled"] == "false"]
        by_uncertainty = sorted(unlabelled, key=lambda row: -float(row["uncertainty"]))
        place = {row["case"]: rank for rank, row in enumerate(by_uncertainty, start=1)}
        chosen = next_cases(rows, queries, eligible, int(self.settings["queries_per_round"]))
        reasons = added(chosen, rows, queries, again=bool(self.ledger.worklists[number + 1]))
        at_random = self.settings["acquisition"] in AT_RANDOM or self.settings["shuffle_scores"]
        return [
            scored_entry(by_case[case], place[case], len(unlabelled), reasons.get(case), at_random) for case in chosen
        ]
