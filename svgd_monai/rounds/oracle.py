"""Where labels come from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from svgd_monai.data import MSDDataset
from svgd_monai.errors import DataError


class Oracle(Protocol):
    """Answers queries with labels."""

    def missing(self, cases: Sequence[str]) -> list[str]:
        """Those of ``cases`` whose label is not there yet; the loop goes on when none is missing."""


class DatasetOracle:
    """Reveals the data set's own labels, at once: the simulation of a study.

    Args:
        dataset: the data set.
    """

    def __init__(self, dataset: MSDDataset) -> None:
        self.dataset = dataset

    def missing(self, cases: Sequence[str]) -> list[str]:
        """None.

        Raises:
            DataError: the data set has no label for a case.
        """
        for case in cases:
            if "label" not in self.dataset.items[case]:
                raise DataError(f"{self.dataset.root} has no label for the queried case {case}.")
        return []
