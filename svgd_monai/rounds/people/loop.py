"""The loop in which people label.

A command does what can be done and ends with a sentence that says what people are to do; the same command goes on.
Every decision is a fact in a file, written whole or not at all, and everything else follows from these files:

    labels_accepted/<case>.<hash>.nii.gz    a label that was accepted, by its content; never changed
    ledger.json                             labels accepted and refused, declines, and the cases of each worklist
    worklist/round_NNN/                     what people work on; complete when ledger.json has the list's cases
    round_NNN/datalist.json                 round NNN has begun: its training list and its validation cases, which from
                                            then on depend on nothing that arrives
    round_NNN/committee.pt, metrics.json, scores.csv, but in the last round queries.json: its stages

From these, a run is in one of four states, and a command takes it from one to the next as long as it can:

    nothing labelled, no worklist           -> cold start: worklist/round_000
    worklist r out, too few labels back     -> wait
    enough labels for round r               -> datalist.json of round r; so where nothing is left to label
                                               and a label has changed
    round r has begun                       -> train, measure, score; worklist/round_(r+1), or the end

Labels are taken in at the start of a command and after each round. What a kill cuts off is done again with the same
result, for whatever it depends on is in a file by then: the copies of labels before the ledger names them, a worklist's
files before the ledger lists it, the data list before its round.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from types import MappingProxyType
from typing import Any

from svgd_monai.data import BAD_CASES_FILE, FLAGS_FILE, RoundDatalist, write_bad_cases, write_datalist
from svgd_monai.data.datalist import MSDDataset
from svgd_monai.data.entries import Item
from svgd_monai.data.people import PeopleData
from svgd_monai.data.roles import read_datalist
from svgd_monai.files import write_json
from svgd_monai.report import summary_writer
from svgd_monai.report.run_page import write_run_page
from svgd_monai.rounds.curve import curve_row, write_curve
from svgd_monai.rounds.hooks import AfterRound, AfterRun, BeforeRound
from svgd_monai.rounds.lock import run_lock
from svgd_monai.rounds.log import log_end, log_round
from svgd_monai.rounds.loop import ActiveLearning
from svgd_monai.rounds.people import state
from svgd_monai.rounds.people.advice import ADVICE_FILE, WINDOW, write_advice
from svgd_monai.rounds.people.intake import Intake
from svgd_monai.rounds.people.ledger import PeopleLedger
from svgd_monai.rounds.people.notes import Complaint
from svgd_monai.rounds.people.selection import choose_validation, training_list
from svgd_monai.rounds.people.sheet import SHEET_FILE, summary
from svgd_monai.rounds.people.worklists import Worklists
from svgd_monai.rounds.prepare import check_mended, check_parts, compares_voxels, prepare_items
from svgd_monai.rounds.record import people_record

logger = logging.getLogger(__name__)

#: Without validation no epoch validates, and the last committee is kept.
_NO_VALIDATION: dict[str, Any] = {"validate#evaluator": None, "val_interval": 1 << 30}


class PeopleLearning(ActiveLearning):
    """Rounds whose labels people make; made like :class:`~svgd_monai.rounds.loop.ActiveLearning`.

    Attributes:
        people: the state of the labels.
        data: the cases.
        classes: name of each label value, background 0 included.
        worklists: what has been asked for.
    """

    people: PeopleLedger
    data: PeopleData
    classes: dict[int, str]
    worklists: Worklists
    dataset: MSDDataset
    complaints: Sequence[Complaint] = ()

    def run(self) -> None:
        """Do what can be done, and say what people are to do next.

        Raises:
            SvgdMonaiError: anything that the user can mend; nothing half-written stays.
        """
        settings = self.settings
        data, self.classes = state.find_people(settings, Path(self.components["bundle_root"]) / "configs/metadata.json")
        check_parts(self.stages, self.folder)
        with run_lock(self.folder.root):
            self.folder.remove_temporaries()
            checks = settings["cache_dir"], settings["in_channels"], settings["on_bad_case"]
            self.data = data.checked(self.classes, *checks)
            finished = self.folder.open(people_record(settings, self._recorded, self.classes))
            self.people = state.read_people_ledger(self.folder)
            state.admit(self.people, self.data)
            write_bad_cases(self.folder.root / BAD_CASES_FILE, self.data.bad)
            self.dataset = state.dataset_of(self.folder.root, self.data, self.classes, settings["in_channels"])
            state.read_rounds(self.people, map(self._round, count()), self.dataset)
            self.worklists = Worklists(self.folder, self.stages, settings, self.classes, self.people, self.data)
            if self.people.training:
                self._round(len(self.people.training) - 1).rank_again()
            self._take_in()
            try:
                if finished and state.is_done(self.people, self.folder, self.rounds):
                    logger.info("The run in %s is finished%s.", self.folder.root, state.finished(self.people))
                    return
                if finished:
                    self.folder.reopen()
                self.folder.check_files()
                check_mended(self.stages, self.folder)
                preprocessing = self.stages.parser("acquire").get_parsed_content("preprocessing")
                volumes, flags_file = Path(settings["cache_dir"]) / "volumes", self.folder.root / FLAGS_FILE
                compared = self.data.pool if compares_voxels(settings) else ()
                items, roles = self.data.known_items(), self.data.roles()
                prepare_items(items, preprocessing, volumes, flags_file, self.data.facts, roles, compared)
                self._go_on()
            finally:
                if self.writer is not None:
                    self.writer.close()
                self.worklists.write_sheets(self.complaints)
                write_run_page(self.folder.root)

    def _take_in(self) -> None:
        keys = self.settings
        more = None if keys["labels"] is None else Path(keys["labels"]).absolute()
        intake = Intake(
            self.folder.root, self.people, self.data, self.classes, keys["in_channels"], keys["annotators"] or [],
            keys["annotator"], more,
        )  # fmt: skip
        said = {complaint.sentence for complaint in self.complaints}
        self.complaints = intake.take(self.worklists.assignments())
        for complaint in self.complaints:
            if complaint.sentence not in said:
                logger.warning("%s", complaint.sentence)
        write_json(self.folder.ledger_file, self.people.as_dict())

    def _go_on(self) -> None:
        number = 0
        while number < len(self.people.training) or self._may_begin(number):
            if number == len(self.people.training):
                self._begin(number)
            datalist = None  # where another round has followed this one, nothing is left to decide
            if number == len(self.people.training) - 1:
                datalist = state.begun(self._round(number), number < self.rounds, self.people, self.data, self.dataset)
            final = number == self.rounds or not (datalist is None or datalist.unlabeled or self.people.pending)
            # Its worklist, or the record's "finished", is written when the hooks have been called.
            new = final or len(self.people.worklists) <= number + 1
            if new and self.writer is None:  # a command that only waits leaves no event file
                self.writer = summary_writer(self.folder.tensorboard)
            if not self._round(number).complete(final):
                self._call(BeforeRound, "before_round", number)
            self._stages(number, final, datalist)
            self._record(number, final)
            if new:
                log_round(self.folder, self.curve[number])
                logger.info("%s", (self.folder.round(number) / ADVICE_FILE).read_text(encoding="utf-8").strip())
                self._call(AfterRound, "after_round", number)
            if final:
                self._call(AfterRun, "after_run")
                self.folder.finish()
                log_end(self.folder, number, self.rounds, state.nothing_left(self.people))
                return
            if new:
                self.worklists.follow(number + 1)
            number += 1
            if number == len(self.people.training):
                self._take_in()

    def _may_begin(self, number: int) -> bool:
        """Whether enough labels are there for a round; if not, people are told what to do."""
        people, least = self.people, self.settings["min_new_labels"]
        if not people.worklists:
            if people.fresh:
                return True  # a run that starts from labels has no cold start
            self.worklists.follow(0)
        if not people.fresh and not people.outstanding(number):
            self.worklists.follow(number)  # all were declined: the next best take their place
        left = people.outstanding(number)
        # A label that has changed is no new one, and waits until nothing is left to do.
        if (not left and people.pending) or (least is not None and len(people.fresh) >= least):
            return True
        if not left:
            logger.info("%s. The run in %s waits.", state.nothing_left(people).capitalize(), self.folder.root)
            return False
        logger.info(
            "Worklist %d, %s To do: %s. Save each label as %s says, and run the same command again.",
            number, summary(people.worklists[number], people), ", ".join(left),
            self.worklists.handout.folder(number) / SHEET_FILE,
        )  # fmt: skip
        return False

    def _begin(self, number: int) -> None:
        """Fix what a round works on: its data list is there, and the round has begun."""
        people, settings = self.people, self.settings
        used = [case for cases in people.training for case in cases] if settings["warm_start"] else []
        validation = people.kept_validation
        if not self.data.validation:
            sizes = (settings["validation_cases"], settings["min_validation"])
            validation = choose_validation(people.labelled, people.kept_validation, *sizes, used)
        previous, drawn = (people.training[-1], people.queries[-1]) if number > 0 else ([], [])
        training = training_list(previous, drawn, people.labelled, validation)
        datalist = RoundDatalist(
            training=[self._labelled(case) for case in training],
            validation=[*(self._labelled(case) for case in validation), *self.data.validation.values()],
            test=list(self.data.test.values()),
            unlabeled=[self.data.pool[case] for case in people.unlabelled],
        )
        write_datalist(self._round(number).datalist_file, datalist, self.dataset)
        state.take_round(people, datalist)
        write_json(self.folder.ledger_file, people.as_dict())

    def _labelled(self, case: str) -> Item:
        return {**self.data.pool[case], "label": str(self.folder.root.absolute() / self.people.label(case).file)}

    def _stages(self, number: int, final: bool, datalist: RoundDatalist | None) -> None:
        """Train, measure and score; what is complete already is passed over."""
        stages = self._round(number)
        if stages.complete(final):
            return
        if datalist is None:
            datalist = read_datalist(stages.datalist_file, self.dataset)
        stages.keys |= {
            "datalist": state.with_content(datalist, self.data),
            "class_names": MappingProxyType(self.classes),
        }
        if not stages.trained:
            logger.info(
                "Round %d of %d: training on %d labelled cases (%d items), validating on %d.",
                number, self.rounds, len({i["case"] for i in datalist.training}), len(datalist.training),
                len(datalist.validation),
            )  # fmt: skip
        stages.train(self.settings["warm_start"], **({} if datalist.validation else _NO_VALIDATION))
        if datalist.validation or datalist.test:
            stages.measure()
        else:
            stages.measure_nothing(self.classes)
        if datalist.unlabeled or self.settings["keep_labelled"]:
            stages.score(final)
        else:
            stages.score_nothing(final)

    def _record(self, number: int, final: bool) -> None:
        """The round's row of the curve, its queries in the ledger, and its advice."""
        people, stages = self.people, self._round(number)
        self.curve.append(curve_row(stages.folder, number, people.unique_labels(number), len(people.training[number])))
        if number == len(people.training) - 1:  # the newest, whose curve has the rows of all
            write_curve(self.folder.curve_file, self.classes, self.curve)
        if not final and len(people.queries) == number:
            people.queries.append(stages.queries())
            write_json(self.folder.ledger_file, people.as_dict())
        back, since = people.agreement_with_presegmentation(number), max(0, number - WINDOW)
        folders = [self.folder.round(each) for each in range(since, number + 1)]
        validating = people.validating[since : number + 1]
        write_advice(folders, self.curve[since:], validating, back, self.settings["stop_gain"])
