"""The learning curve: a row per trained round, derived from the files of the rounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from svgd_monai.acquisition.handler import SCORES_FILE
from svgd_monai.committee.keeper import TRAINING_FILE
from svgd_monai.errors import RunFolderError
from svgd_monai.evaluation.handler import METRICS_FILE
from svgd_monai.files import read_csv, read_json, write_csv

TIMES_FILE = "times.json"


def write_curve(path: Path, classes: Mapping[int, str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write ``learning_curve.csv``.

    Args:
        path: the file.
        classes: name of each label value, background 0 included.
        rows: see :func:`curve_row`, oldest first.
    """
    dice = [f"test_dice_{name}" for value, name in classes.items() if value > 0]
    head = ["round", "unique_labels", "training_items", "val_dice", "test_dice"]
    write_csv(path, [*head, *dice, "test_dice_grid", "seconds_train", "seconds_score"], rows)


def curve_row(folder: Path, number: int, unique_labels: int, training_items: int) -> dict[str, Any]:
    """The row of a round.

    Args:
        folder: the round's.
        number: the round.
        unique_labels: labels that it cost so far.
        training_items: cases that it trained on, with multiplicity.

    Raises:
        RunFolderError: a file of the round is missing or damaged.
    """
    times = read_json(folder / TIMES_FILE) if (folder / TIMES_FILE).is_file() else {}
    file = folder / TRAINING_FILE
    try:
        seconds = read_json(file)["seconds"]  # also of what was trained before a kill
        file = folder / METRICS_FILE
        metrics = read_json(file)
        test: Mapping[str, Any] = metrics["test"]
        return {
            "round": number,
            "unique_labels": unique_labels,
            "training_items": training_items,
            "val_dice": metrics["validation"]["dice_grid"],
            "test_dice": test["dice"],
            **{f"test_dice_{name}": value for name, value in test["dice_per_class"].items()},
            "test_dice_grid": test["dice_grid"],
            "seconds_train": seconds,
            "seconds_score": times.get("acquire"),
        }
    except (KeyError, TypeError) as error:
        raise RunFolderError(f"{file} lacks {error}.") from error


def disagreement(folder: Path) -> float | None:
    """Mean over a round's unlabelled pool cases of their mean BALD, in nats; None where there are none.

    Args:
        folder: the round's.
    """
    values = [float(row["disagreement"]) for row in read_csv(folder / SCORES_FILE) if row["labelled"] == "false"]
    return sum(values) / len(values) if values else None
