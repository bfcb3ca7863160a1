"""A finished run, read from its folder."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from svgd_monai.errors import RunFolderError
from svgd_monai.files import read_csv, read_json
from svgd_monai.report.budget import Curve, budget_curve
from svgd_monai.report.text import one_line

RUN_FILE, CURVE_FILE, LEDGER_FILE = "run.json", "learning_curve.csv", "ledger.json"
#: The name of a run on all the data (``settings.method``).
FULL = "full"
_REQUIRED = ("round", "unique_labels", "test_dice")
_OPTIONAL = ("seconds_train", "seconds_score")


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        folder: its folder.
        place: the folder relative to the study's, for people.
        method: the name of its method, see :func:`method_name`.
        seed: its seed, which pairs it with the runs of other methods.
        full: whether it is trained on all cases from its first round on, see :func:`is_full_data`.
        record: the content of ``run.json``.
        table: columns of ``learning_curve.csv``, (R,) each, NaN where a field is empty.
    """

    folder: Path
    place: str
    method: str
    seed: int
    full: bool
    record: Mapping[str, Any]
    table: Mapping[str, np.ndarray]

    @property
    def settings(self) -> Mapping[str, Any]:
        """The run's resolved keys."""
        settings: Mapping[str, Any] = self.record["settings"]
        return settings

    @property
    def curve(self) -> Curve:
        """Test Dice against unique labels."""
        return budget_curve(self.table["unique_labels"], self.table["test_dice"])

    @property
    def final_dice(self) -> float:
        """The last test Dice that was measured."""
        dice = self.table["test_dice"]
        return float(dice[np.isfinite(dice)][-1])

    @property
    def class_names(self) -> dict[str, str]:
        """Names of the classes by their value, as ``run.json`` has them."""
        dataset = self.record.get("dataset")
        classes = dataset.get("classes") if isinstance(dataset, dict) else None
        return {str(value): str(name) for value, name in classes.items()} if isinstance(classes, dict) else {}

    @property
    def data_set(self) -> str:
        """Fingerprint of the run's data set; empty where ``run.json`` does not say."""
        dataset = self.record.get("dataset")
        return str(dataset.get("fingerprint") or "") if isinstance(dataset, dict) else ""

    def cases(self, role: str) -> list[str]:
        """Case ids of a role of the run's split; empty where ``run.json`` does not say."""
        return split_cases(self.record, role)

    def comparable(self, other: Run) -> bool:
        """Whether both measured the same test cases of the same data set, as far as their records say."""
        both = (self.data_set, other.data_set), (sorted(self.cases("test")), sorted(other.cases("test")))
        return all(not one or not another or one == another for one, another in both)


def read_run(folder: Path, place: str, notes: list[str]) -> Run:
    """Read a run.

    Args:
        folder: the run's.
        place: what people call it.
        notes: takes in what is odd about a run that can be used all the same.

    Raises:
        RunFolderError: it is damaged, unfinished, or lacks what a study needs; the sentence says what.
    """
    for name in (RUN_FILE, CURVE_FILE):
        if not (folder / name).is_file():
            raise RunFolderError(f"it has no {name}{'' if name == RUN_FILE else ' yet'}.")
    record = read_json(folder / RUN_FILE)
    settings = record.get("settings") if isinstance(record, dict) else None
    if not isinstance(settings, dict):
        raise RunFolderError(f"{RUN_FILE} holds no settings.")
    method = method_name(settings)
    seed = settings.get("seed", record.get("seed"))
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise RunFolderError(f"{RUN_FILE} names no seed.")
    table = read_curve(folder / CURVE_FILE)
    labels, cases = table["unique_labels"], count_cases(folder, record)
    done, asked = len(labels), settings.get("rounds")
    total = asked + 1 if isinstance(asked, int) else done
    short = done < total and not labels[-1] >= cases > 0  # a run ends early where no case is left to label
    if record.get("finished", not short) is not True:
        raise RunFolderError(f"the run is not finished, {done} of {max(done, total)} rounds are in its curve.")
    if short:
        notes.append(f"{place} says that it is finished, but its curve holds {done} of {total} rounds.")
    measured = np.isfinite(table["test_dice"])
    if not measured.any():
        raise RunFolderError(f"{CURVE_FILE} holds no test Dice.")
    if not measured[-1]:
        last = int(labels[measured][-1])
        notes.append(f"{place} has no test Dice in its last round; its final one is that of {last} labels.")
    full = is_full_data(settings, labels[0], count_split(record))
    return Run(folder, place, method, seed, full, record, table)


def read_round(run: Run, number: int, name: str) -> list[dict[str, str]]:
    """Rows of a CSV of a round; none where the round has no such file.

    Raises:
        RunFolderError: it is damaged.
    """
    path = run.folder / f"round_{number:03d}" / name
    return read_csv(path) if path.is_file() else []


def method_name(settings: Mapping[str, Any]) -> str:
    """``settings.method`` or else ``committee/acquisition``; ``/delete`` behind it where labelled cases leave the pool.

    Raises:
        RunFolderError: the settings name neither.
    """
    named = settings.get("method")
    parts = [named] if named else [settings.get("committee"), settings.get("acquisition")]
    if not all(isinstance(part, str) and one_line(part) for part in parts):
        raise RunFolderError(f"{RUN_FILE} names neither a method nor a committee and an acquisition.")
    name = "/".join(one_line(part) for part in parts)
    return f"{name}/delete" if settings.get("keep_labelled") is False else name


def is_full_data(settings: Mapping[str, Any], first_labels: float, cases: int) -> bool:
    """Whether a run is trained on the full data: it is called ``full``, or its first round leaves no case unlabelled.

    Args:
        settings: the run's.
        first_labels: unique labels in its first round.
        cases: cases of the initial set and the pool together; 0 where unknown.
    """
    return settings.get("method") == FULL or bool(first_labels == cases > 0)  # numpy's own is spelt otherwise in files


def count_cases(folder: Path, record: Mapping[str, Any]) -> int:
    """Cases that a run can label: those of its split, or where people label those that they have not declined.

    Returns:
        0 where its files do not say.

    Raises:
        RunFolderError: its ledger is damaged.
    """
    split, path = count_split(record), folder / LEDGER_FILE
    if split or not path.is_file():
        return split
    ledger = read_json(path)
    cases = ledger.get("cases") if isinstance(ledger, dict) else None
    known = [case for case in cases.values() if isinstance(case, dict)] if isinstance(cases, dict) else []
    return sum(bool(case.get("labelled")) or not case.get("declined") for case in known)


def count_split(record: Mapping[str, Any]) -> int:
    """Cases of the initial set and the pool together; 0 where ``run.json`` does not say."""
    return len(split_cases(record, "initial")) + len(split_cases(record, "pool"))


def split_cases(record: Mapping[str, Any], role: str) -> list[str]:
    """Case ids of a role in ``run.json``; empty where it does not say."""
    split = record.get("split")
    cases = split.get(role) if isinstance(split, dict) else None
    return [case for case in cases if isinstance(case, str)] if isinstance(cases, list) else []


def read_curve(path: Path) -> dict[str, np.ndarray]:
    """Columns of ``learning_curve.csv`` that a study uses, (R,) each.

    Raises:
        RunFolderError: it is damaged, empty, lacks a column, or a number in it cannot be true.
    """
    rows = read_csv(path)
    if not rows:
        raise RunFolderError(f"{path} holds no round.")
    missing = [column for column in _REQUIRED if column not in rows[0]]
    if missing:
        raise RunFolderError(f"{path} has no column {missing[0]}.")
    table = {column: _column(path, rows, column) for column in (*_REQUIRED, *_OPTIONAL)}
    rounds, labels, dice = (table[column] for column in _REQUIRED)
    if not (np.isfinite(rounds).all() and (np.diff(rounds) > 0).all()):
        raise RunFolderError(f"{path}: its round numbers do not increase.")
    if not (np.isfinite(labels).all() and (labels >= 1).all() and (np.diff(labels) >= 0).all()):
        raise RunFolderError(f"{path}: its unique labels decrease.")
    if ((dice < 0) | (dice > 1)).any():
        raise RunFolderError(f"{path}: a test Dice is not between 0 and 1.")
    return table


def _column(path: Path, rows: Sequence[Mapping[str, str]], column: str) -> np.ndarray:
    values = []
    for line, row in enumerate(rows, start=2):
        text = row.get(column, "").strip()
        try:
            value = float(text) if text else math.nan
        except ValueError:
            value = math.inf
        if math.isinf(value):
            raise RunFolderError(f"{path}, line {line}: {column} is {text[:40]!r}, which is not a number.")
        values.append(value)
    return np.asarray(values)


def unusable(run: Run, number: float, file: str, error: BaseException) -> str:
    """The note on a damaged file of a round, which a report goes without."""
    why = complaint(error, run.folder)
    return f"{run.place}: {file} of round {int(number)} is damaged and not used ({why})."


def complaint(error: BaseException, folder: Path) -> str:
    """What an error says, to stand inside a sentence that names the run's folder itself."""
    return one_line(error).removesuffix(".").replace(one_line(folder) + "/", "") or type(error).__name__
