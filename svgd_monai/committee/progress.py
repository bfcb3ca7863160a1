"""What a training leaves of itself: the file from which it goes on, and plain numbers for its record."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

from svgd_monai.committee.posterior import Balance
from svgd_monai.files import read_torch

logger = logging.getLogger(__name__)

PROGRESS_FILE = "training.pt"


def read_progress(path: Path, key: str) -> dict[str, Any] | None:
    """The progress of a training that was cut off.

    Args:
        path: the file.
        key: what the training that goes on is made of.

    Returns:
        None where there is none, or it is of another training, which is said.

    Raises:
        RunFolderError: the file is damaged.
        LookupError: it lacks its key.
        TypeError: it holds something else.
    """
    if not path.is_file():
        return None
    saved = read_torch(path)  # to the CPU, where Adam keeps its count of steps
    if not isinstance(saved, dict):
        raise TypeError("no dictionary")
    if saved["key"] != key:
        logger.warning("%s is of other settings; the training begins anew", path)
        return None
    return saved


def plain_balance(balance: Balance | None) -> dict[str, float | None] | None:
    """The numbers of a step's balance as JSON takes them; None without such a step."""
    if balance is None:
        return None
    values = {name: float(value) for name, value in balance._asdict().items()}
    return {name: value if math.isfinite(value) else None for name, value in values.items()}
