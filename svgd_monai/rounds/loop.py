"""The active-learning loop: train, measure, score, query, and again."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from svgd_monai.acquisition.handler import QUERIES_FILE
from svgd_monai.data import (
    BAD_CASES_FILE,
    FLAGS_FILE,
    TaskData,
    find_cases,
    load_task,
    read_bad_cases,
    resolve_split,
    round_datalist,
    write_bad_cases,
    write_datalist,
)
from svgd_monai.errors import RunFolderError
from svgd_monai.files import read_json, write_json
from svgd_monai.report import summary_writer
from svgd_monai.rounds.curve import curve_row, write_curve
from svgd_monai.rounds.first import FirstCommittees
from svgd_monai.rounds.hooks import AfterRound, AfterRun, BeforeRound, Hook
from svgd_monai.rounds.ledger import Ledger
from svgd_monai.rounds.lock import run_lock
from svgd_monai.rounds.log import log_end, log_round
from svgd_monai.rounds.prepare import check_mended, check_parts, compares_voxels, prepare_volumes
from svgd_monai.rounds.record import run_record
from svgd_monai.rounds.round import Round
from svgd_monai.rounds.run_folder import RunFolder, removable
from svgd_monai.rounds.shared import SharedStages

logger = logging.getLogger(__name__)


class ActiveLearning:
    """K rounds of queries, K + 1 trained committees, in one folder.

    Every stage of a round leaves a file whose presence says that it is complete (``committee.pt``, ``metrics.json``,
    ``scores.csv`` and, except in the last round, ``queries.json``), written whole or not at all; everything else
    follows from them. So the same command on the same folder goes on after the last complete stage, and ends as if it
    had not been stopped.

    Args:
        settings: the resolved keys of the configuration, see :data:`svgd_monai.workflow.KEYS`.
        components: the other top-level keys, as the configuration files have them; handed on to the stages.
        stages: configuration file, or files, of ``train``, ``evaluate`` and ``acquire``.
        hooks: called around the rounds, in their order.
        data_lists: folder in which names of split files are looked up.
        imports: import statements for the stages' expressions.
        tracking: settings of an experiment tracking of the stages.
        stages_folder: where the bundle's own configurations of the stages lie.

    Attributes:
        folder: the run's folder.
        ledger: the labels so far.
        curve: the learning curve so far, a row per round.
        writer: the run's one TensorBoard writer.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        stages: Mapping[str, str | os.PathLike[str] | Sequence[str | os.PathLike[str]]],
        components: Mapping[str, Any] | None = None,
        hooks: Sequence[Hook] = (),
        data_lists: str | os.PathLike[str] | None = None,
        imports: Sequence[str] = (),
        tracking: Mapping[str, Any] | None = None,
        stages_folder: Path | None = None,
    ) -> None:
        self.settings = dict(settings)
        self.components = dict(components or {})
        self.hooks = list(hooks)
        self.data_lists = data_lists
        self.folder = RunFolder(settings["output_dir"])
        self.stages = SharedStages(stages, {**self.components, **self.settings}, imports, tracking, stages_folder)
        self._recorded = self.components | self.stages.changes()
        self.curve: list[dict[str, Any]] = []
        self.ledger: Ledger
        self.writer: SummaryWriter | None = None
        self._shared: FirstCommittees | None = None

    def run(self) -> None:
        """Run, or go on with, all rounds.

        Raises:
            SvgdMonaiError: anything that the user can mend; nothing half-written stays.
        """
        # What needs no volume is refused before anything is written.
        sources = {
            key: self.settings[key] for key in ("download", "on_bad_case", "allow_outside") if key in self.settings
        }
        dataset, bad = find_cases(self.settings["dataset_dir"], **sources, leave_out=self._left_out())
        split = resolve_split(
            {*dataset.items, *bad},
            self.settings["split_file"],
            self.settings["seed"],
            self.settings["initial_labelled"],
            self.settings["validation_cases"],
            self.settings["test_cases"],
            search=[] if self.data_lists is None else [self.data_lists],
        )
        check_parts(self.stages, self.folder)
        with run_lock(self.folder.root):
            self.folder.remove_temporaries()
            task = load_task(
                dataset.root,
                self.settings["cache_dir"],
                num_classes=self.settings["num_classes"],
                in_channels=self.settings["in_channels"],
                **sources,
                leave_out=self._left_out(),
            )
            split = split.without(task.bad)
            record = run_record(self.settings, self._recorded, split, task)
            if not self.folder.begun:  # before run.json, for a run that goes on keeps to this list
                write_bad_cases(self.folder.root / BAD_CASES_FILE, task.bad)
            finished = self.folder.open(record)
            if self.settings.get("first_committees") is not None:
                self._shared = FirstCommittees(self.settings["first_committees"], record)
            self.ledger = self._read_ledger(Ledger(split))
            if not (finished and self.folder.ledger_file.is_file()):
                write_json(self.folder.ledger_file, self.ledger.as_dict())
            self._round(len(self.ledger.queries)).rank_again()
            if finished and not self.folder.lacks_tables(len(self.ledger.queries) + 1):
                logger.info("The run in %s is finished; nothing is left to do.", self.folder.root)
                return
            self.folder.check_files()
            check_mended(self.stages, self.folder)
            preprocessing = self.stages.parser("acquire").get_parsed_content("preprocessing")
            flags_file = self.folder.root / FLAGS_FILE
            volumes = Path(self.settings["cache_dir"]) / "volumes"
            prepare_volumes(task, split, preprocessing, volumes, flags_file, compares_voxels(self.settings))
            self.writer = summary_writer(self.folder.tensorboard)
            try:
                self._rounds(task)
            finally:
                self.writer.close()

    def _left_out(self) -> dict[str, str] | None:
        """The cases that a run left out when it began, which it keeps to; None for a run that begins."""
        if not self.folder.begun:
            return None
        file = self.folder.root / BAD_CASES_FILE
        return read_bad_cases(file) if file.is_file() else {}

    @property
    def rounds(self) -> int:
        """K, queries to make."""
        return int(self.settings["rounds"])

    def _rounds(self, task: TaskData) -> None:
        first = self._first_incomplete()
        for number in range(self.rounds + 1):
            final = self._is_final(number)
            if number >= first:
                self._call(BeforeRound, "before_round", number)
            self._run_round(task, number, final)
            trained = self.ledger.before(number)
            sizes = len(trained.labelled), len(trained.training)
            self.curve.append(curve_row(self.folder.round(number), number, *sizes))
            if not final and len(self.ledger.queries) == number:
                self.ledger.record(self._round(number).queries())
                write_json(self.folder.ledger_file, self.ledger.as_dict())
            if number >= first - 1:  # what follows the last complete round may have been cut off
                if final or len(self.curve) >= self.folder.curve_rows():  # later rounds' rows may lie there
                    write_curve(self.folder.curve_file, task.dataset.classes, self.curve)
                log_round(self.folder, self.curve[number], None if final else self.rounds)
                self._call(AfterRound, "after_round", number)
            if final:
                self._call(AfterRun, "after_run")
                self.folder.finish()
                log_end(self.folder, number, self.rounds)
                return

    def _call(self, kind: type, method: str, *arguments: int) -> None:
        for hook in self.hooks:
            if isinstance(hook, kind):
                getattr(hook, method)(self, *arguments)

    def _run_round(self, task: TaskData, number: int, final: bool) -> None:
        """Train, measure and score; what is complete already is passed over."""
        stages = self._round(number)
        ledger = self.ledger.before(number)
        # Always: it follows from the split and the queries, and a damaged one is mended.
        datalist = task.with_fingerprints(round_datalist(task.dataset, ledger.split, ledger.training))
        write_datalist(stages.datalist_file, datalist, task.dataset)
        shared = self._shared if number == 0 else None
        if shared is not None:
            shared.take(stages.folder)
        if not stages.trained:
            logger.info(
                "Round %d of %d: training on %d labelled cases (%d items).",
                number, self.rounds, len(ledger.labelled), len(ledger.training),
            )  # fmt: skip
        stages.train(self.settings["warm_start"])
        if shared is not None:
            shared.leave(stages.folder)
        stages.measure()
        if ledger.unlabelled or self.settings["keep_labelled"]:
            stages.score(final)
        else:
            stages.score_nothing()

    def _round(self, number: int) -> Round:
        return Round(self.folder, self.stages, number, summary_writer=self.writer, trainings=self.rounds + 1 - number)

    def _is_final(self, number: int) -> bool:
        """Whether no query follows: the last round, or one at which every case is labelled."""
        return number == self.rounds or not self.ledger.before(number).unlabelled

    def _first_incomplete(self) -> int:
        """The first round that lacks a file; behind the last one when none does."""
        for number in range(self.rounds + 1):
            if not self._round(number).complete(self._is_final(number)):
                return number
        return number + 1

    def _read_ledger(self, ledger: Ledger) -> Ledger:
        """The queries that have been made, from the rounds' own files; the ledger's must agree."""
        while (file := self.folder.round(len(ledger.queries)) / QUERIES_FILE).is_file():
            with removable():
                ledger.record(self._round(len(ledger.queries)).queries(), file)
        if (file := self.folder.ledger_file).is_file():
            with removable():
                known = Ledger.from_dict(ledger.split, read_json(file), file).queries
            for number, (ours, theirs) in enumerate(zip(ledger.queries, known, strict=False)):
                if ours != theirs:
                    raise RunFolderError(
                        f"{self.folder.ledger_file} and {self.folder.round(number) / QUERIES_FILE} differ; "
                        "one of them was changed by hand."
                    )
            for number in range(len(ledger.queries), len(known)):  # a lost queries.json is not queried anew
                write_json(self.folder.round(number) / QUERIES_FILE, known[number])
                ledger.record(known[number])
        return ledger
