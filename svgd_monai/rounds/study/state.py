"""How far the cells of a study are, read from their folders."""

from __future__ import annotations

import logging
import math
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from svgd_monai.errors import RunFolderError
from svgd_monai.files import read_csv, read_json, write_csv
from svgd_monai.report.budget import Curve, area, budget_curve, shared_range
from svgd_monai.rounds.curve import TIMES_FILE
from svgd_monai.rounds.run_folder import RunFolder
from svgd_monai.rounds.study.cells import Cell
from svgd_monai.workflow import duration
from svgd_monai.workflow.sentences import GO_ON

logger = logging.getLogger(__name__)

TABLE_FILE = "study.csv"
COLUMNS = (
    "method", "seed", "state", "rounds_done", "rounds", "val_dice", "val_aubc", "test_dice", "seconds", "folder"
)  # fmt: skip
_VALIDATION = ("unique_labels", "val_dice")
#: States of a cell; ``elsewhere``: another process is at work in its folder.
WAITING, RUNNING, ELSEWHERE, DONE, FAILED = "waiting", "running", "elsewhere", "done", "failed"


@dataclass(frozen=True)
class Progress:
    """What a run's folder says.

    Attributes:
        finished: whether it is complete.
        done: trained, measured and scored rounds.
        rounds: rounds that it will have; one more than its queries.
        seconds: of work in each of these rounds.
        row: the last row of its learning curve, empty before there is one.
        validation: its validation Dice against unique labels, for choices that the test set must not make.
    """

    finished: bool
    done: int
    rounds: int
    seconds: tuple[float, ...]
    row: Mapping[str, str]
    validation: Curve

    @classmethod
    def unknown(cls, rounds: int) -> Progress:
        """Of a run of which nothing can be read."""
        return cls(False, 0, rounds + 1, (), {}, budget_curve(np.zeros(0), np.zeros(0)))


def run_progress(root: Path, rounds: int, as_recorded: bool = False) -> Progress:
    """How far a run is.

    Args:
        root: the run's folder; it need not exist.
        rounds: queries that the study asks for.
        as_recorded: take the run's own record of them where it has one.
    """
    folder = RunFolder(root)
    curve = read_csv(folder.curve_file) if folder.curve_file.is_file() else []
    finished = False
    if folder.run_file.is_file():
        record = read_json(folder.run_file)
        if not isinstance(record, dict):
            raise RunFolderError(f"{folder.run_file} is not the record of a run.")
        recorded = record.get("settings", {}).get("rounds")
        if as_recorded and isinstance(recorded, int):
            rounds = recorded
        finished = record.get("finished") is True and recorded == rounds
    seconds = []
    for number in range(len(curve)):
        path = folder.round(number) / TIMES_FILE
        times = read_json(path) if path.is_file() else {}
        if not isinstance(times, dict):
            raise RunFolderError(f"{path} does not hold the times of a round.")
        seconds.append(float(sum(times.values())))
    total = len(curve) if finished else rounds + 1  # a run ends early where every case is labelled
    validation = budget_curve(*(np.array([float(row.get(k) or "nan") for row in curve]) for k in _VALIDATION))
    return Progress(finished, len(curve), total, tuple(seconds), curve[-1] if curve else {}, validation)


def look(root: Path, rounds: int, as_recorded: bool = False) -> Progress:
    """:func:`run_progress`; a run with a damaged file is nowhere: it can mend that, or say what it is."""
    try:
        return run_progress(root, rounds, as_recorded)
    except RunFolderError as error:
        logger.warning("%s", error)
        return Progress.unknown(rounds)


def last_line(log: Path) -> str:
    """What a run has said last."""
    lines = log.read_text("utf-8", errors="replace").split("\n") if log.is_file() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "no output.")


def note_signal(log: Path, code: int) -> None:
    """Have a run whose process was killed, and could not say so itself, say it last.

    Args:
        log: its output.
        code: its exit status, negative where a signal ended it.
    """
    if code < 0:
        why = ", often for want of memory" if -code == signal.SIGKILL else ""
        with log.open("a", encoding="utf-8") as file:
            file.write(f"Ended by signal {-code} ({signal.strsignal(-code)}){why}; {GO_ON}.\n")


def earlier_cells(folder: Path, cells: Sequence[Cell]) -> list[Cell]:
    """Cells of the folder's table that are not among these, and have a run: other seeds, other configurations.

    Raises:
        RunFolderError: the table is not one.
    """
    path, known = folder / TABLE_FILE, {cell.place for cell in cells}
    rows = read_csv(path) if path.is_file() else []
    try:
        found = [Cell(row["method"], int(row["seed"]), {}, Path(row["folder"])) for row in rows]
    except (KeyError, TypeError, ValueError) as error:
        raise RunFolderError(f"{path} is not the table of a study; remove it, and it is written anew.") from error
    return [cell for cell in found if cell.place not in known and (folder / cell.place).is_dir()]


def write_table(
    folder: Path, cells: Sequence[Cell], states: Mapping[Cell, str], progress: Mapping[Cell, Progress]
) -> Path:
    """Write ``study.csv``: a row per cell, what is done and what is left.

    ``val_aubc`` is the area under the validation Dice against unique labels, on the range that all finished runs with
    more than one label count share.
    """
    curves = [progress[cell].validation for cell in cells if states[cell] == DONE]
    shared = shared_range([curve for curve in curves if curve.labels.size > 1])
    rows = [_row(cell, states[cell], progress[cell], shared) for cell in cells]
    return write_csv(folder / TABLE_FILE, COLUMNS, rows)


def summary(cells: Sequence[Cell], states: Mapping[Cell, str], progress: Mapping[Cell, Progress], workers: int) -> str:
    """How many runs are done, left and failed, and how long it will take, as a sentence."""
    count = {state: sum(s == state for s in states.values()) for state in (DONE, FAILED)}
    left = len(cells) - count[DONE] - count[FAILED]
    words = f"{count[DONE]} of {len(cells)} runs are done, {left} {'is' if left == 1 else 'are'} left"
    if count[FAILED]:
        words += f", {count[FAILED]} failed"
    seconds = remaining_seconds(cells, states, progress, workers)
    return words + (f"; about {duration(seconds)} to go." if left and seconds is not None else ".")


def remaining_seconds(
    cells: Sequence[Cell], states: Mapping[Cell, str], progress: Mapping[Cell, Progress], workers: int
) -> float | None:
    """An estimate of the time left: rounds left times the mean time of those done, shared out over the workers.

    Returns:
        Seconds of wall time; None before any round is done.
    """
    # Round 0 may have taken over another run's committee, and says less.
    later = [seconds for cell in cells for seconds in progress[cell].seconds[1:]]
    known = later or [seconds for cell in cells for seconds in progress[cell].seconds]
    if not known:
        return None
    open_cells = [cell for cell in cells if states[cell] not in (DONE, FAILED)]
    left = sum(progress[cell].rounds - progress[cell].done for cell in open_cells)
    mean = sum(known) / len(known)
    # Rounds of one cell cannot run side by side.
    longest = max((progress[cell].rounds - progress[cell].done for cell in open_cells), default=0)
    return mean * max(left / workers, longest)


def _row(cell: Cell, state: str, progress: Progress, shared: tuple[float, float] | None) -> dict[str, Any]:
    value = area(progress.validation, *shared) if shared is not None and state == DONE else math.nan
    return {
        "method": cell.method,
        "seed": cell.seed,
        "state": state,
        "rounds_done": progress.done,
        "rounds": progress.rounds,
        "val_dice": progress.row.get("val_dice") or None,
        "val_aubc": None if math.isnan(value) else value,
        "test_dice": progress.row.get("test_dice") or None,
        "seconds": round(sum(progress.seconds), 1),
        "folder": cell.place.as_posix(),
    }
