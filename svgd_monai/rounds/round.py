"""The stages of one round, each run once: what has left its file is passed over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from svgd_monai.acquisition.handler import COLUMNS, QUERIES_FILE, SCORES_FILE
from svgd_monai.acquisition.ranking import write_ranking
from svgd_monai.committee.keeper import TRAINING_FILE
from svgd_monai.committee.progress import PROGRESS_FILE
from svgd_monai.errors import RunFolderError, SettingsError
from svgd_monai.evaluation.cases import case_rows, summarise_results
from svgd_monai.evaluation.handler import CASES_FILE, METRICS_FILE
from svgd_monai.files import read_json, write_bytes, write_csv, write_json
from svgd_monai.rounds.curve import TIMES_FILE
from svgd_monai.rounds.run_folder import DATALIST_FILE, RunFolder, read_table, removable
from svgd_monai.rounds.stages import Stages


class Round:
    """A round's folder and what has yet to be done in it.

    Args:
        run: the run's folder.
        stages: the bundle's stages.
        number: the round.
        keys: further keys of all its stages.
    """

    def __init__(self, run: RunFolder, stages: Stages, number: int, **keys: Any) -> None:
        self.run = run
        self.stages = stages
        self.number = number
        self.folder = run.round(number)
        self.datalist_file = self.folder / DATALIST_FILE
        self.keys = {
            "round": number,
            "stage_dir": str(self.folder),
            "datalist_file": str(self.datalist_file),
            "committee_file": str(run.committee(number)),
            **keys,
        }

    @property
    def trained(self) -> bool:
        """Whether its committee and the record of its training are there."""
        return self.run.committee(self.number).is_file() and (self.folder / TRAINING_FILE).is_file()

    @property
    def measured(self) -> bool:
        """Whether its measurements are there."""
        return (self.folder / METRICS_FILE).is_file() and (self.folder / CASES_FILE).is_file()

    @property
    def queried(self) -> bool:
        """Whether its queries are there."""
        return (self.folder / QUERIES_FILE).is_file()

    def scored(self, final: bool) -> bool:
        """Whether its pool has been scored and, but in the final round, queried."""
        return (self.folder / SCORES_FILE).is_file() and (final or self.queried)

    def complete(self, final: bool) -> bool:
        """Whether every stage has left its file."""
        return all((self.trained, self.measured, self.scored(final)))

    def train(self, warm_start: bool, **keys: Any) -> None:
        """Train its committee, with ``warm_start`` from the one of the round before.

        Raises:
            SettingsError: nobody has kept it.
        """
        if self.trained:
            return
        warm = warm_start and self.number > 0
        initial = str(self.run.committee(self.number - 1)) if warm else None
        cut_off = (self.folder / PROGRESS_FILE).is_file()
        self._timed("train", initial_committee=initial, model_file=None, **keys)
        if cut_off:
            self._count_all_of_training()
        if not self.trained:
            raise SettingsError(
                "stages#train: the training has left no committee; train#handlers needs the CommitteeKeeper of the "
                "bundle's train.yaml. To keep it and add handlers, write +train#handlers."
            )

    def measure(self) -> None:
        """Measure its committee."""
        if not self.measured:
            self._timed("evaluate")

    def measure_nothing(self, classes: Mapping[int, str]) -> None:
        """Without a validation and a test case there are files of nothing; ``classes`` as ``dataset.json`` has them."""
        if not self.measured:
            columns, rows = case_rows({}, {}, classes)
            write_csv(self.folder / CASES_FILE, columns, rows)
            nothing = summarise_results({}, classes)
            write_json(self.folder / METRICS_FILE, {"validation": nothing, "test": nothing})

    def score(self, final: bool) -> None:
        """Score its pool and, but in the final round, query.

        Where the scores alone are lost, its queries have been acted upon, and the ranking may be a later round's: both
        stand.
        """
        if self.scored(final):
            return
        kept = [self.folder / QUERIES_FILE, self.run.ranking_file] if self.queried else []
        contents = {path: path.read_bytes() for path in kept if path.is_file()}
        self._timed("acquire", query=not final)
        for path, content in contents.items():
            write_bytes(path, content)

    def score_nothing(self, final: bool = True) -> None:
        """An empty pool has an empty ranking and, but in the final round, no queries."""
        if not self.scored(final=True):
            write_ranking(self.run.ranking_file, [])
            write_csv(self.folder / SCORES_FILE, COLUMNS, [])
        if not self.scored(final):
            write_json(self.folder / QUERIES_FILE, [])

    def rank_again(self) -> None:
        """Write a lost ranking anew, or an older round's, where this is the newest round with scores.

        They hold all that is in it. It is an older round's where a stop came while lost scores were made again.

        Raises:
            RunFolderError: the scores are damaged.
        """
        scores = self.folder / SCORES_FILE
        if not scores.is_file():
            return
        ranked = self._ranked()
        try:
            with removable():
                rows = [row for row in read_table(scores) if row["labelled"] == "false"]
        except RunFolderError:
            if ranked is None:
                raise
            return  # who needs the scores says so
        if ranked != [row["case"] for row in rows]:
            write_ranking(self.run.ranking_file, rows)

    def _ranked(self) -> list[str] | None:
        """The cases of the ranking; None where it is lost or damaged."""
        try:
            return [row["case"] for row in read_table(self.run.ranking_file)]
        except (OSError, RunFolderError, KeyError):
            return None

    def queries(self) -> list[str]:
        """The chosen cases, best first.

        Raises:
            RunFolderError: the file is missing or damaged.
        """
        path = self.folder / QUERIES_FILE
        chosen = read_json(path)
        if not isinstance(chosen, list) or not all(isinstance(case, str) for case in chosen):
            raise RunFolderError(f"{path} is not a list of case ids.")
        return chosen

    def _count_all_of_training(self) -> None:
        """The time before a stop counts as well; the training itself has kept it."""
        path = self.folder / TIMES_FILE
        if self.trained:
            times, whole = read_json(path), float(read_json(self.folder / TRAINING_FILE)["seconds"])
            write_json(path, {**times, "train": max(times["train"], whole)})

    def _timed(self, stage: str, **keys: Any) -> None:
        seconds = self.stages.run(stage, **{**self.keys, **keys})
        path = self.folder / TIMES_FILE
        times = read_json(path) if path.is_file() else {}
        write_json(path, {**times, stage: round(seconds, 3)})
