"""A run's folder: its files, and whether a command may go on in it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from svgd_monai.acquisition.handler import SCORES_FILE
from svgd_monai.committee.keeper import COMMITTEE_FILE, TRAINING_FILE
from svgd_monai.committee.progress import PROGRESS_FILE
from svgd_monai.errors import RunFolderError
from svgd_monai.evaluation.handler import CASES_FILE, METRICS_FILE
from svgd_monai.files import check_torch, read_csv, read_json, write_json
from svgd_monai.rounds.curve import TIMES_FILE
from svgd_monai.rounds.record import continued_record
from svgd_monai.temporaries import TEMPORARY_SUFFIX, remove_temporaries

DATALIST_FILE = "datalist.json"


class RunFolder:
    """Paths of a run and its ``run.json``.

    Args:
        root: the run's ``output_dir``.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)
        self.run_file = self.root / "run.json"
        self.ledger_file = self.root / "ledger.json"
        self.curve_file = self.root / "learning_curve.csv"
        self.ranking_file = self.root / "ranking.csv"
        self.tensorboard = self.root / "tensorboard"

    def round(self, number: int) -> Path:
        """The folder of a round."""
        return self.root / f"round_{number:03d}"

    def committee(self, number: int) -> Path:
        """The committee file of a round."""
        return self.round(number) / COMMITTEE_FILE

    def remove_temporaries(self) -> None:
        """Remove what writes that were cut off have left behind."""
        for pattern in ("", "round_*/", "cache/", "cache/*/", "labels_accepted/", "worklist/*/"):
            remove_temporaries(self.root, pattern)
        for path in self.root.glob(f"round_*/{COMMITTEE_FILE}"):
            (path.parent / PROGRESS_FILE).unlink(missing_ok=True)

    def check_files(self) -> None:
        """Read the files of complete stages, at some of which nobody else might look again.

        Raises:
            RunFolderError: one is damaged.
        """
        checks: dict[str, Callable[[Path], object]] = {
            COMMITTEE_FILE: check_torch,
            TRAINING_FILE: read_json,
            METRICS_FILE: read_json,
            CASES_FILE: read_table,
            SCORES_FILE: read_table,
            TIMES_FILE: read_json,
        }
        for name, check in checks.items():
            for path in sorted(self.root.glob(f"round_*/{name}")):
                with removable("goes on without it" if name == TIMES_FILE else "makes it again"):
                    check(path)

    def lacks_tables(self, rounds: int) -> bool:
        """Whether trained rounds have lost what their committees, which are all there, give again without a training.

        Args:
            rounds: how many.
        """

        def there(*names: str) -> bool:
            return all((self.round(number) / name).is_file() for number in range(rounds) for name in names)

        tables = there(METRICS_FILE, CASES_FILE, SCORES_FILE) and self.curve_rows() >= rounds
        return not tables and there(COMMITTEE_FILE, TRAINING_FILE)

    def curve_rows(self) -> int:
        """Rounds in the learning curve; none where it is lost or cut off, for it is made again."""
        try:
            return len(read_table(self.curve_file)) if self.curve_file.is_file() else 0
        except RunFolderError:
            return 0

    @property
    def holds_training(self) -> bool:
        """Whether anything of a training lies here, be it cut off; what a kill has half written is nothing."""
        files = (path for path in self.root.glob("round_*/*") if path.suffix != TEMPORARY_SUFFIX)
        made = any(path.name != DATALIST_FILE for path in files)
        return made or self.curve_file.is_file() or self.ranking_file.is_file()

    @property
    def unused(self) -> frozenset[str]:
        """Components, as ``run.json`` calls them, whose stage has left nothing yet: a mistake in one may be mended."""
        results = {
            "stages#evaluate": f"round_*/{METRICS_FILE}",
            "stages#acquire": f"round_*/{SCORES_FILE}",
            "stages#inference": "worklist/*/*_seg.nii.gz",  # which suggests labels to people
        }
        return frozenset(key for key, pattern in results.items() if not any(self.root.glob(pattern)))

    @property
    def begun(self) -> bool:
        """Whether a run lies here that has made anything.

        One that stopped before its first training was saved, worklist handed out or label accepted has not, and the
        keys that it was started with bind nobody.
        """
        if not self.run_file.is_file():
            return False
        if self.holds_training or any(self.root.glob("labels_accepted/*")) or any(self.root.glob("worklist/*")):
            return True
        try:
            ledger = read_json(self.ledger_file) if self.ledger_file.is_file() else {}
        except RunFolderError:
            return True  # who reads it says so
        return not isinstance(ledger, dict) or any(ledger.get(key) for key in ("rounds", "worklists", "refused"))

    def open(self, record: Mapping[str, Any]) -> bool:
        """Write ``run.json``, or compare with the one that is there, where that run has begun.

        Args:
            record: what :func:`~svgd_monai.rounds.record.run_record` gives for this command.

        Returns:
            Whether the run is finished and this command asks for no more rounds.

        Raises:
            RunFolderError: the folder holds a run of other settings; the sentence names the key.
        """
        if not self.run_file.is_file():
            if any(self.root.glob("round_*")):
                raise RunFolderError(f"output_dir: {self.root} holds rounds but no run.json; give an empty folder.")
            write_json(self.run_file, {**record, "finished": False})
            return False
        found = read_json(self.run_file)
        if not isinstance(found, dict) or not {"settings", "split", "dataset", "components"} <= set(found):
            raise RunFolderError(f"{self.run_file} is not the record of a run.")
        if not self.begun:
            for path in (self.ledger_file, *self.root.glob(f"round_*/{DATALIST_FILE}")):
                path.unlink(missing_ok=True)
            write_json(self.run_file, {**record, "finished": False})
            return False
        goes_on = continued_record(found, record, self.root, self.holds_training, self.unused)
        if goes_on != found:
            write_json(self.run_file, {**goes_on, "finished": False})
            return False
        return found.get("finished") is True

    def reopen(self) -> None:
        """Note that a finished run goes on."""
        write_json(self.run_file, {**read_json(self.run_file), "finished": False})

    def finish(self) -> None:
        """Note that every round is complete, with its files, its curve and its hooks."""
        write_json(self.run_file, {**read_json(self.run_file), "finished": True})


@contextmanager
def removable(what_follows: str = "makes it again") -> Iterator[None]:
    """A file that is read here and is damaged may be removed, and the sentence says so.

    Args:
        what_follows: what the same command then does.
    """
    try:
        yield
    except RunFolderError as error:
        raise RunFolderError(f"{error} Remove it, and the same command {what_follows}.") from error


def read_table(path: Path) -> list[dict[str, str]]:
    """Read a table, and refuse one that is cut off: its last line has no end, or too few fields.

    Raises:
        RunFolderError: the table is damaged.
    """
    if not path.read_bytes().endswith(b"\n"):
        raise RunFolderError(f"{path} is cut off.")
    return read_csv(path)
