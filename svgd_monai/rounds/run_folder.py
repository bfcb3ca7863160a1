"""A run's folder: its files, and whether a command may go on in it."""

from __future__ import annotations

import json
import logging
import os
import platform
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from svgd_monai import __version__
from svgd_monai.acquisition.handler import SCORES_FILE
from svgd_monai.committee.keeper import COMMITTEE_FILE, TRAINING_FILE
from svgd_monai.committee.progress import PROGRESS_FILE
from svgd_monai.data import Split, TaskData
from svgd_monai.errors import RunFolderError
from svgd_monai.evaluation.handler import CASES_FILE, METRICS_FILE
from svgd_monai.files import check_torch, read_csv, read_json, remove_temporaries, write_json
from svgd_monai.history import LATER_KEYS
from svgd_monai.rounds.curve import TIMES_FILE

logger = logging.getLogger(__name__)

#: What concerns the people who label may change from command to command; the ledger says what held when.
PEOPLE_KEYS = frozenset(
    {"images", "labels", "validation", "test", "classes", "annotators", "annotator", "double_annotated",
     "min_new_labels", "min_validation", "cold_start", "stop_gain"}
)  # fmt: skip
#: Settings that may differ between a run and its continuation: where it runs, how it is watched, where things lie.
#: The data set may move as long as its content, whose fingerprint is compared, is the same.
MAY_CHANGE = frozenset(
    {"output_dir", "dataset_dir", "cache_dir", "device", "num_workers", "log_every", "download", "split_file",
    "committee_file", "first_committees", "on_bad_case", "on_bad_particle",
    "allow_outside", "deterministic",
     "stage_dir", "datalist_file", "bundle_root"}
) | PEOPLE_KEYS  # fmt: skip
_PACKAGES = ("torch", "monai", "numpy", "nibabel", "pytorch-ignite")


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

        tables = there(METRICS_FILE, CASES_FILE, SCORES_FILE) and self.curve_file.is_file()
        return not tables and there(COMMITTEE_FILE, TRAINING_FILE)

    def open(self, record: Mapping[str, Any]) -> bool:
        """Write ``run.json``, or compare with the one that is there.

        Args:
            record: what :func:`run_record` gives for this command.

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
        self._compare(found, record)
        if found["settings"]["rounds"] != record["settings"]["rounds"]:
            found["settings"]["rounds"] = record["settings"]["rounds"]
            write_json(self.run_file, {**found, "finished": False})
            return False
        return found.get("finished") is True

    def finish(self) -> None:
        """Note that every round is complete, with its files, its curve and its hooks."""
        write_json(self.run_file, {**read_json(self.run_file), "finished": True})

    def _compare(self, found: Mapping[str, Any], record: Mapping[str, Any]) -> None:
        begun = found.get("versions", {}).get("svgd_monai")
        if begun != __version__:
            logger.warning(
                "The run in %s was begun with svgd_monai %s, this is %s: see CHANGELOG.md for what may differ.",
                self.root, begun, __version__,
            )  # fmt: skip
        before, now = found["settings"], record["settings"]
        if now["rounds"] < before["rounds"]:
            raise RunFolderError(
                f"rounds: {self.root} is a run of {before['rounds']} rounds; they can be raised, not lowered to "
                f"{now['rounds']}; give another output_dir."
            )
        for key in sorted((set(before) | set(now)) - MAY_CHANGE - {"rounds"}):
            started, asked = (settings.get(key, LATER_KEYS.get(key)) for settings in (before, now))
            if started != asked:
                raise RunFolderError(
                    f"{key}: the run in {self.root} was started with {started!r}, this command says {asked!r}; give "
                    "another output_dir."
                )
        if found["dataset"].get("classes") != record["dataset"]["classes"]:
            raise RunFolderError(
                f"classes: the run in {self.root} has {found['dataset'].get('classes')}, not "
                f"{record['dataset']['classes']}; give another output_dir."
            )
        if found["dataset"]["fingerprint"] != record["dataset"]["fingerprint"]:
            raise RunFolderError(
                f"dataset_dir: the volumes of {record['dataset']['root']} are not those that the run in {self.root} "
                "was started with."
            )
        if found["split"] != record["split"]:
            raise RunFolderError(f"split_file: it is not the split that the run in {self.root} was started with.")
        for key in sorted(set(found["components"]) | set(record["components"])):
            if found["components"].get(key) != record["components"].get(key):
                raise RunFolderError(f"{key}: differs from the run in {self.root}; give another output_dir.")


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


def run_record(
    settings: Mapping[str, Any], components: Mapping[str, Any], split: Split, task: TaskData
) -> dict[str, Any]:
    """What ``run.json`` holds: settings, the overlay's components, versions, split, and what the data set is."""
    dataset = task.dataset
    return _record(settings, components, split.as_dict(), dataset.name, dataset.root, task.fingerprint, dataset.classes)


def people_record(
    settings: Mapping[str, Any], components: Mapping[str, Any], classes: Mapping[int, str]
) -> dict[str, Any]:
    """Likewise where people label: the ledger holds the images, which may become more, and who plays which role."""
    return _record(settings, components, {}, "people", Path(settings["images"]).absolute(), None, classes)


def _record(
    settings: Mapping[str, Any],
    components: Mapping[str, Any],
    split: Mapping[str, Any],
    name: str,
    root: Path,
    fingerprint: str | None,
    classes: Mapping[int, str],
) -> dict[str, Any]:
    record = {
        "settings": dict(settings),
        "components": {key: value for key, value in components.items() if key not in MAY_CHANGE},
        "seed": settings["seed"],
        "versions": {
            "python": platform.python_version(),
            "svgd_monai": __version__,  # its own word: it may run from a source tree that is not installed
            **{name: version(name) for name in _PACKAGES},
        },
        "dataset": {
            "name": name,
            "root": str(root),
            "fingerprint": fingerprint,
            "classes": {str(value): label for value, label in classes.items()},
        },
        "split": dict(split),
    }
    # As it will read back, so that a continuation compares like with like.
    content: dict[str, Any] = json.loads(json.dumps(record, default=str))
    return content
