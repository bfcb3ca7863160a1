"""A study: many runs that differ in one factor each, so that reviewers can compare like with like."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from svgd_monai.data.check_cache import CHECKS_FILE
from svgd_monai.errors import RunFolderError
from svgd_monai.files import read_json, write_bytes, write_text
from svgd_monai.report.build import write_report
from svgd_monai.rounds.first import QUERY_KEYS
from svgd_monai.rounds.lock import BUSY, is_locked
from svgd_monai.rounds.study.cells import Cell
from svgd_monai.rounds.study.environment import run_environment
from svgd_monai.rounds.study.state import (
    DONE,
    ELSEWHERE,
    FAILED,
    RUNNING,
    WAITING,
    Progress,
    earlier_cells,
    last_line,
    look,
    note_signal,
    summary,
    write_table,
)
from svgd_monai.temporaries import remove_temporaries

logger = logging.getLogger(__name__)

_POLL = 1.0  # seconds between looks at the runs
#: Behind a cell's place: the overlay that a complete run is asked to go on with.
ASKED = ".asked.yaml"


class Study:
    """Runs the cells of a study, each by the command line that a user would type, and reports on them.

    A cell's folder is a run's folder like any other. Beside it lie ``seed_<n>.yaml``, the overlay that makes this run
    of the configuration, and ``seed_<n>.log``. All cells share a cache (preprocessed volumes, mutual information) and,
    where they differ only in what they query, the committee of round 0. The same command goes on where it was stopped,
    and several processes, also on several machines with the folder in common, share out the cells: each run is locked
    while one is at work in it.

    Args:
        folder: the study's.
        configuration: of the runs, without their overlays.
        common: keys of every run, as YAML takes them.
        cells: all runs of the study, the rows of its table.
        only: names of the methods to run; None: all.
        workers: runs at a time.
        threads: of each run's process, see :func:`~svgd_monai.rounds.study.environment.run_environment`.
        report: whether ``report/`` is written at the end.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        configuration: str | os.PathLike[str],
        common: Mapping[str, Any],
        cells: Sequence[Cell],
        only: Collection[str] | None = None,
        workers: int = 1,
        threads: int | None = None,
        report: bool = True,
    ) -> None:
        self.folder = Path(folder)
        self.configuration = Path(configuration)
        self.common = dict(common)
        self.cells = [cell for cell in cells if only is None or cell.method in only]
        self.all_cells = list(cells)
        self.workers = workers
        self.environment = run_environment(threads, workers)
        self.report = report
        self.states: dict[Cell, str] = {}
        self.progress: dict[Cell, Progress] = {}
        self._processes: dict[Cell, subprocess.Popen[bytes]] = {}

    def run(self) -> None:
        """Run what is left, and write the report.

        Raises:
            RunFolderError: a run has failed; all others have been run.
            OSError: the file system refuses.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self.all_cells += earlier_cells(self.folder, self.all_cells)
        if not any(is_locked(self.folder / cell.place) for cell in self.all_cells):
            for below in ("", "runs/*/", "report/", "cache/**/"):
                remove_temporaries(self.folder, below)
        for cell in self.cells:
            self._look(cell)
            self.states[cell] = DONE if self._is_done(cell) else WAITING
        logger.info("%s", self._summary())
        try:
            self._run_all()
        finally:  # also when this process is told to end: its runs end with it
            self._stop()
            self._write_table()
            for cell in self.cells:
                self._share_checks(cell)
        failed = [cell for cell in self.cells if self.states[cell] == FAILED]
        if self.report and any(state == DONE for state in self.states.values()):
            write_report(self.folder)
            logger.info("The report is in %s.", self.folder / "report")
        if failed:
            log = self._file(failed[0], ".log")
            raise RunFolderError(
                f"{len(failed)} of {len(self.cells)} runs failed, the first ({failed[0].name}) with: "
                f"{last_line(log)} Its output is in {log}."
            )

    def overlay(self, cell: Cell) -> dict[str, Any]:
        """The keys that make a run of the configuration."""
        return {
            **self.common,
            **cell.keys,
            "seed": cell.seed,
            "output_dir": str(self.folder / cell.place),
            "cache_dir": str(self.folder / "cache"),
            "first_committees": str(self.folder / "cache" / "first_committees"),
        }

    def _run_all(self) -> None:
        while True:
            changed = self._collect()
            self._look_elsewhere()
            while len(self._processes) < self.workers and (cell := self._next()) is not None:
                self._start(cell)
                changed = True
            if changed:
                self._write_table()
            if not self._processes:  # nothing waits: _next hands out all but what is locked
                break
            time.sleep(_POLL)
        self._look_elsewhere()
        if elsewhere := sum(state == ELSEWHERE for state in self.states.values()):
            logger.info("Runs with other processes: %d; run the same command again to check on them.", elsewhere)

    def _next(self) -> Cell | None:
        """The next cell to start; one whose first committee another cell is about to train waits for it."""
        training = {self._training(c) for c in self._processes if self.progress[c].done == 0}
        waiting = [cell for cell in self.cells if self.states[cell] == WAITING]
        for cell in sorted(waiting, key=lambda c: self._training(c) in training):  # stable: else in their order
            if not is_locked(self.folder / cell.place):
                return cell
            self.states[cell] = ELSEWHERE
        return None

    def _training(self, cell: Cell) -> str:
        keys = {k: v for k, v in self.overlay(cell).items() if k not in QUERY_KEYS | {"output_dir"}}
        return yaml.safe_dump(keys, sort_keys=True)

    def _start(self, cell: Cell) -> None:
        # A complete run keeps the overlay that made it until it has gone on with another, which a stop leaves behind.
        self._file(cell, ASKED).unlink(missing_ok=True)
        overlay = write_text(self._file(cell, ASKED if self.progress[cell].finished else ".yaml"), self._text(cell))
        command = [
            sys.executable, "-m", "monai.bundle", "run", "--config_file", str([str(self.configuration), str(overlay)])
        ]  # fmt: skip
        with self._file(cell, ".log").open("ab") as log:
            # The words are our own; a process of its own leaves no memory and no state to the next run.
            self._processes[cell] = subprocess.Popen(command, stdout=log, stderr=log, env=self.environment)  # noqa: S603
        self.states[cell] = RUNNING
        logger.info("Started: %s, in %s.", cell.name, self.folder / cell.place)

    def _look_elsewhere(self) -> None:
        """Runs that other processes have let go of are done, or this one's to start."""
        for cell, state in self.states.items():
            if state == ELSEWHERE and not is_locked(self.folder / cell.place):
                self._look(cell)
                self.states[cell] = DONE if self._is_done(cell) else WAITING

    def _collect(self) -> bool:
        """Take in what the runs have done; whether anything changed."""
        changed = False
        for cell, process in list(self._processes.items()):
            code = process.poll()
            before = self.progress[cell].done
            self._look(cell)
            changed |= self.progress[cell].done != before
            if code is None:
                continue
            del self._processes[cell]
            note_signal(self._file(cell, ".log"), code)
            if (asked := self._file(cell, ASKED)).is_file():
                if code == 0:
                    asked.replace(self._file(cell, ".yaml"))
                asked.unlink(missing_ok=True)
            self.states[cell] = DONE if code == 0 and self._is_done(cell) else FAILED
            if self.states[cell] == FAILED and last_line(self._file(cell, ".log")).startswith(BUSY):
                self.states[cell] = WAITING  # another process was faster, or looked whether there is one
            changed = True
            logger.info("%s: %s. %s", self.states[cell].capitalize(), cell.name, self._summary())
        return changed

    def _write_table(self) -> None:
        """The whole study's: cells that this command leaves alone are read as they lie there."""
        states, progress = dict(self.states), dict(self.progress)
        for cell in self.all_cells:
            if cell not in self.states:
                root = self.folder / cell.place
                progress[cell] = look(root, int(self.overlay(cell)["rounds"]), as_recorded=True)
                states[cell] = DONE if progress[cell].finished else ELSEWHERE if is_locked(root) else WAITING
        write_table(self.folder, self.all_cells, states, progress)

    def _share_checks(self, cell: Cell) -> None:
        """A run's folder tells by itself what its cases are: reports read nothing else."""
        checks, own = (folder / "cache" / CHECKS_FILE for folder in (self.folder, self.folder / cell.place))
        if self.states[cell] == DONE and checks.is_file():
            try:
                read_json(own)
            except RunFolderError:  # there is none, or a part of one
                write_bytes(own, checks.read_bytes())

    def _look(self, cell: Cell) -> None:
        self.progress[cell] = look(self.folder / cell.place, int(self.overlay(cell)["rounds"]))

    def _is_done(self, cell: Cell) -> bool:
        """Whether the run is complete, and the one that this study asks for."""
        overlay = self._file(cell, ".yaml")
        return self.progress[cell].finished and overlay.is_file() and overlay.read_text("utf-8") == self._text(cell)

    def _text(self, cell: Cell) -> str:
        return yaml.safe_dump(self.overlay(cell), sort_keys=False, allow_unicode=True)

    def _file(self, cell: Cell, suffix: str) -> Path:
        return self.folder / cell.place.with_name(cell.place.name + suffix)

    def _stop(self) -> None:
        for process in self._processes.values():
            process.terminate()
        for cell, process in self._processes.items():
            process.wait()
            self.states[cell] = WAITING
        self._processes.clear()

    def _summary(self) -> str:
        return summary(self.cells, self.states, self.progress, self.workers)
