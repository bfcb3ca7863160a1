"""Whether a committee's probabilities and uncertainties can be believed, from the ``cases.csv`` of the test cases."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy import stats

from svgd_monai.errors import RunFolderError
from svgd_monai.report.run import Run, read_round, unusable
from svgd_monai.statistics import expected_calibration_error


@dataclass(frozen=True)
class Quality:
    """A run's measurements on its test cases, (R,) each, by round; NaN where a round has none.

    Attributes:
        ece: expected calibration error over all voxels of the test cases.
        correlation: Spearman correlation of a case's uncertainty with its Dice error, 1 − Dice.
        cases: the most test cases of a round that went into a correlation.
    """

    ece: np.ndarray = field(default_factory=lambda: np.zeros(0))
    correlation: np.ndarray = field(default_factory=lambda: np.zeros(0))
    cases: int = 0

    @property
    def told(self) -> np.ndarray:
        """(R,) whether a round has given a value."""
        return np.asarray(np.isfinite(self.ece) | np.isfinite(self.correlation))


def run_quality(run: Run, notes: list[str]) -> Quality:
    """Measure a run's committees round by round.

    Args:
        run: the run.
        notes: takes in a sentence for a file that is damaged.
    """
    ece, correlation, cases = [], [], 0
    for number in run.table["round"]:
        values = math.nan, math.nan, 0
        try:
            tested = [row for row in read_round(run, int(number), "cases.csv") if row.get("role") == "test"]
            values = case_quality(tested)
        except (RunFolderError, OSError, ValueError, KeyError) as error:
            notes.append(unusable(run, number, "cases.csv", error))
        ece.append(values[0])
        correlation.append(values[1])
        cases = max(cases, values[2])
    return Quality(np.asarray(ece), np.asarray(correlation), cases)


def case_quality(rows: Sequence[Mapping[str, str]]) -> tuple[float, float, int]:
    """ECE, Spearman correlation and its number of cases, from rows of ``cases.csv``.

    Raises:
        ValueError: a field is no number.
        KeyError: a column is missing.
    """
    if not rows:
        return math.nan, math.nan, 0
    return _calibration(rows), *_correlation(rows)


def _calibration(rows: Sequence[Mapping[str, str]]) -> float:
    bins = sum(1 for column in rows[0] if column.startswith("bin_") and column.endswith("_voxels"))
    columns = [[f"bin_{b}_{what}" for what in ("voxels", "confidence", "correct")] for b in range(bins)]
    summed = [[math.fsum(float(row[name]) for row in rows) for name in names] for names in columns]
    return expected_calibration_error(torch.tensor(summed, dtype=torch.float64)) if bins else math.nan


def _correlation(rows: Sequence[Mapping[str, str]]) -> tuple[float, int]:
    pairs = [(float(row["uncertainty"]), float(row["dice"])) for row in rows if row["uncertainty"] and row["dice"]]
    known = np.asarray([pair for pair in pairs if all(map(math.isfinite, pair))]).reshape(-1, 2)
    if len(known) < 3 or (np.ptp(known, axis=0) == 0).any():
        return math.nan, len(known)
    return float(stats.spearmanr(known[:, 0], 1.0 - known[:, 1]).statistic), len(known)
