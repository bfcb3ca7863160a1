"""Cases that a run leaves out because they are bad: the list says which and why, and a run that goes on keeps to it."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path

from svgd_monai.files import read_csv, write_csv

logger = logging.getLogger(__name__)

BAD_CASES_FILE = "bad_cases.csv"
BAD_CASES_COLUMNS = ("case", "reason")
#: What ``on_bad_case`` may say.
ON_BAD_CASE = ("fail", "skip")


def write_bad_cases(path: str | os.PathLike[str], bad: Mapping[str, str]) -> None:
    """Write ``bad_cases.csv`` and warn; without a bad case, write nothing and remove an older file.

    Args:
        path: the file.
        bad: the sentence that says what is wrong, by case.
    """
    if not bad:
        Path(path).unlink(missing_ok=True)
        return
    write_csv(path, BAD_CASES_COLUMNS, [{"case": case, "reason": words} for case, words in sorted(bad.items())])
    logger.warning("Bad cases left out: %d, see %s.", len(bad), path)


def read_bad_cases(path: str | os.PathLike[str]) -> dict[str, str]:
    """Read what :func:`write_bad_cases` wrote.

    Raises:
        RunFolderError: the file is missing or damaged.
    """
    return {row.get("case", ""): row.get("reason", "") for row in read_csv(path)}
