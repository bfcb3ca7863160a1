"""What moved the committees of a run, from the ``training.json`` of its rounds: is SVGD more than an ensemble here?"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from svgd_monai.errors import RunFolderError
from svgd_monai.files import read_json
from svgd_monai.report.run import Run, unusable

#: As :mod:`svgd_monai.committee.keeper` writes it.
FILE = "training.json"


@dataclass(frozen=True)
class Balances:
    """The last validated step of a run's trainings, (R,) each, by round; NaN where a round has none.

    Attributes:
        repulsion: norm of the repulsive term of φ, in units of the drive's.
        prior: norm of the prior's term, likewise.
        distance: mean pairwise distance of the particles.
        kernel: mean kernel value between two particles.
    """

    repulsion: np.ndarray = field(default_factory=lambda: np.zeros(0))
    prior: np.ndarray = field(default_factory=lambda: np.zeros(0))
    distance: np.ndarray = field(default_factory=lambda: np.zeros(0))
    kernel: np.ndarray = field(default_factory=lambda: np.zeros(0))

    @property
    def told(self) -> np.ndarray:
        """(R,) whether a round tells."""
        every = np.isfinite([self.repulsion, self.prior, self.distance, self.kernel])
        return np.asarray(every.any(0))

    @property
    def trainings(self) -> int:
        """Rounds that tell."""
        return int(self.told.sum())

    def median(self, what: str) -> float:
        """Of one of the four over the rounds that tell; NaN where none does."""
        values: np.ndarray = getattr(self, what)
        known = values[np.isfinite(values)]
        return float(np.median(known)) if known.size else math.nan


def run_balances(run: Run, notes: list[str]) -> Balances:
    """Read a run's trainings, round by round.

    Args:
        run: the run.
        notes: takes in a sentence for a file that is damaged.
    """
    rows = []
    for number in run.table["round"]:
        path = run.folder / f"round_{int(number):03d}" / FILE
        try:
            rows.append(_balance(read_json(path)) if path.is_file() else (math.nan,) * 4)
        except (RunFolderError, OSError, ValueError, TypeError, AttributeError, LookupError) as error:
            rows.append((math.nan,) * 4)
            notes.append(unusable(run, number, FILE, error))
    return Balances(*np.asarray(rows, float).reshape(-1, 4).T)


def _balance(record: Any) -> tuple[float, float, float, float]:
    last = record["validations"][-1].get("balance")
    if last is None:  # of an older version, or continued behind its last step
        return (math.nan,) * 4
    drive, prior, repulsion, distance, kernel = (
        math.nan if last[name] is None else float(last[name])
        for name in ("drive", "prior", "repulsion", "distance", "kernel")
    )
    return *((repulsion / drive, prior / drive) if drive > 0 else (math.nan, math.nan)), distance, kernel
