"""Mutual information between the images of a pool, on a common grid, computed once per pair."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import interpolate
from tqdm import tqdm

from svgd_monai.acquisition.information import aggregate_information
from svgd_monai.acquisition.information_store import InformationStore
from svgd_monai.errors import SettingsError


class ImageDataset(Protocol):
    """A data set of preprocessed images: MONAI's, with ``data`` the list of items."""

    data: Any

    def __getitem__(self, index: int) -> Any:
        """A dictionary with ``image`` (C, X, Y, Z)."""


class PoolInformation:
    """MI(x, labelled set) of pool cases, and MI(x, y) of any two.

    The *content* of two images is compared: unpadded, normalised volumes, resampled to one grid. Padding that two
    images share would look like information that they share.

    Args:
        dataset: all images, pool and labelled; each item has ``case`` and, as ``fingerprint``, a hash of its content.
        store: the file that keeps the pairs.
        grid: (X, Y, Z) of the common grid; None compares the volumes as they are, which must then be of one shape (the
            paper's padded volumes).
        bins: of the joint histogram, over [0, 1].
        aggregation: ``mean`` over the labelled cases, or ``max``.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        store: str | os.PathLike[str],
        grid: Sequence[int] | None,
        bins: int = 64,
        aggregation: str = "mean",
    ) -> None:
        self.dataset = dataset
        self.grid = None if grid is None else tuple(grid)
        self.aggregation = aggregation
        preprocessing = getattr(dataset, "transform_hash", "")
        self.store = InformationStore(store, {"bins": bins, "grid": self.grid, "preprocessing": preprocessing})
        self._position = {item["case"]: index for index, item in enumerate(dataset.data)}
        self._key = {item["case"]: item.get("fingerprint", item["image"]) for item in dataset.data}
        self._case = {key: case for case, key in self._key.items()}

    def __call__(self, cases: Sequence[str], labelled: Sequence[str]) -> Tensor:
        """Information that each case shares with the labelled set.

        Args:
            cases: N pool cases.
            labelled: the distinct labelled cases, at least one.

        Returns:
            (N,) float64, nats; NaN where it is undefined (a constant image).

        Raises:
            SettingsError: there is no common grid and the shapes differ.
        """
        return aggregate_information(self.pairs(cases, labelled), self.aggregation)

    def pairs(self, rows: Sequence[str], columns: Sequence[str]) -> Tensor:
        """Information that each case shares with each other one; what the store lacks is computed and kept.

        Args:
            rows: N cases, the many.
            columns: K cases, the few, whose images are held in memory as they are computed.

        Returns:
            (N, K) float64, nats; NaN where either image is constant. MI(a, a) is the entropy of a.

        Raises:
            SettingsError: there is no common grid and the shapes differ.
        """
        row_keys = [self._key[case] for case in rows]
        column_keys = [self._key[case] for case in columns]
        # A bar for a single pair would flicker.
        with tqdm(desc="Mutual information", disable=len(rows) < 2 or None, leave=False) as bar:

            def progress(done: int, total: int) -> None:
                bar.total = total
                bar.update(done - bar.n)

            return self.store.matrix(row_keys, column_keys, self._load, progress)

    def _load(self, key: str) -> Tensor:
        image: Tensor = torch.as_tensor(self.dataset[self._position[self._case[key]]]["image"])
        if self.grid is None:
            self._check_shape(image)
            return image
        return interpolate(image[None].float(), self.grid, mode="trilinear", align_corners=True)[0]

    def _check_shape(self, image: Tensor) -> None:
        first = getattr(self, "_shape", image.shape)
        self._shape = first
        if image.shape != first:
            raise SettingsError(
                f"mi_grid: null needs volumes of one shape, the pool has {tuple(first[1:])} and "
                f"{tuple(image.shape[1:])}."
            )
