"""Log lines that a person can follow."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from svgd_monai.files import read_json
from svgd_monai.rounds.curve import TIMES_FILE, disagreement
from svgd_monai.rounds.run_folder import RunFolder
from svgd_monai.words import count
from svgd_monai.workflow import duration

logger = logging.getLogger(__name__)

#: A committee whose members disagree less than this, relative to round 0, tells nothing apart any more.
COLLAPSE = 0.1


def log_round(folder: RunFolder, row: Mapping[str, Any], rounds: int | None = None) -> None:
    """What a round has given, and a warning when its committee has collapsed: it is worth its disagreement.

    Args:
        folder: the run's.
        row: the round's of the learning curve.
        rounds: the last round's number, to say how long those that are left will take; None says nothing of it.
    """
    number = int(row["round"])
    now, first = disagreement(folder.round(number)), disagreement(folder.round(0))
    logger.info(
        "Round %d: %d unique labels, validation Dice %s on the working grid, test Dice %s, mean BALD of the unlabelled "
        "cases %s.%s",
        number,
        row["unique_labels"],
        *(_shown(value) for value in (row["val_dice"], row["test_dice"], now)),
        "" if rounds is None else _to_go(folder, number, rounds),
    )
    if now is not None and first is not None and now < COLLAPSE * first:
        logger.warning(
            "Round %d: the committee has collapsed, its members disagree %.1e times as much as in round 0; "
            "a weaker prior (prior_std, likelihood_scale) or fewer steps keep them apart.",
            number,
            now / first,
        )


def log_end(folder: RunFolder, number: int, rounds: int, cause: str = "every case of it is labelled") -> None:
    """How the run has ended.

    Args:
        folder: the run's.
        number: the last round.
        rounds: those that were asked for.
        cause: why the pool gives no more, where the last round is an earlier one.
    """
    if number < rounds:
        logger.info(
            "The pool is exhausted: after %s %s. %s not run.",
            count(number, "round"),
            cause,
            count(rounds - number, "further round was", "further rounds were"),
        )
    nothing_left = disagreement(folder.round(number)) is None  # and ranking.csv is empty
    logger.info(
        "The run in %s is complete%s.", folder.root, "" if nothing_left else "; ranking.csv says what to label next"
    )


def _to_go(folder: RunFolder, number: int, rounds: int) -> str:
    """A sentence on the rounds that are left, from the times of those that were trained here."""
    files = [folder.round(done) / TIMES_FILE for done in range(number + 1)]
    times = [read_json(file) for file in files if file.is_file()]
    seconds = [sum(each.values()) for each in times if "train" in each]
    if not seconds or number >= rounds:
        return ""
    return f" About {duration((rounds - number) * sum(seconds) / len(seconds))} to go."


def _shown(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4f}"
