"""Mutual information between the images of a pool, on a common grid, computed once per pair."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor
from tqdm import tqdm

from svgd_monai.acquisition.content import CONTENT_NAMES, foreground_values, on_grid
from svgd_monai.acquisition.information import is_constant
from svgd_monai.acquisition.information_store import InformationStore
from svgd_monai.acquisition.names import case_of
from svgd_monai.errors import SettingsError

#: Goes up when the same images give other values.
FORMAT = 2


class ImageDataset(Protocol):
    """A data set of preprocessed images: MONAI's, with ``data`` the list of items."""

    data: Any

    def __getitem__(self, index: int) -> Any:
        """A dictionary with ``image`` (C, X, Y, Z)."""


class PoolInformation:
    """MI(x, labelled set) of pool cases, and MI(x, y) of any two.

    The *content* of two images is compared: unpadded, normalised volumes, resampled to one grid. Padding that two
    images share would look like information that they share; and if one image has more air around the body than the
    other, their organs lie at different places of the grid.

    Each channel is compared with its counterpart, and the mean taken over the channels: what two images share when it
    is known from which channel a voxel is. One histogram over the voxels of all channels would count it as shared
    that both images are, say, darker in the first channel. On the MR phantom with an inverted second channel, its ranks
    correlated with those of the channels' mean at -0.37, and with those of voxels shuffled within each channel at 0.94.
    A channel that is constant in one of two images is left out of their mean.

    Args:
        dataset: all images, pool and labelled; each item has a name, see :func:`~svgd_monai.acquisition.names.case_of`,
            and, as ``fingerprint``, a hash of its content.
        store: the file that keeps the pairs.
        grid: (X, Y, Z) of the common grid; None compares the volumes as they are, which must then be of one shape (the
            paper's padded volumes).
        bins: of the joint histogram, over [0, 1].
        aggregation: ``mean`` over the labelled cases, or ``max``.
        content: what the grid spans: the ``volume``, or its ``foreground``, see
            :func:`~svgd_monai.acquisition.content.foreground_frame`, for images with air around the body.
        channels: C.

    Raises:
        SettingsError: ``content`` is unknown, or needs a grid and there is none.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        store: str | os.PathLike[str],
        grid: Sequence[int] | None,
        bins: int = 64,
        aggregation: str = "mean",
        content: str = "volume",
        channels: int = 1,
    ) -> None:
        if content not in CONTENT_NAMES:
            raise SettingsError(f"mi_content must be one of {', '.join(CONTENT_NAMES)}, got {content!r}.")
        if content != "volume" and grid is None:
            raise SettingsError(f"mi_content: {content} needs a grid, and mi_grid is null.")
        self.dataset = dataset
        self.grid = None if grid is None else tuple(grid)
        self.aggregation = aggregation
        self.content = content
        self._file = store
        self._settings = {
            "bins": bins,
            "grid": self.grid,
            "content": content,
            "preprocessing": getattr(dataset, "transform_hash", ""),
            "format": FORMAT,
        }
        self._position = {case_of(item): index for index, item in enumerate(dataset.data)}
        self._key = {case_of(item): item.get("fingerprint", item["image"]) for item in dataset.data}
        self._shape: torch.Size | None = None  # of the first image, where there is no grid
        # A single channel keeps the image's own key.
        self._suffixes = [f":{channel}" for channel in range(channels)] if channels > 1 else [""]
        self._place = {
            f"{key}{suffix}": (self._position[case], channel)
            for case, key in self._key.items()
            for channel, suffix in enumerate(self._suffixes)
        }

    @cached_property
    def store(self) -> InformationStore:
        """The pairs; read when they are first asked for, for some strategies need none."""
        return InformationStore(self._file, self._settings)

    def __call__(self, cases: Sequence[str], labelled: Sequence[str]) -> Tensor:
        """Information that each case shares with the labelled set.

        Args:
            cases: N pool cases.
            labelled: the distinct labelled cases; without any, all share 0.

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
            (N, K) float64, nats; NaN where no channel varies in both images. MI(a, a) is the entropy of a.

        Raises:
            SettingsError: there is no common grid and the shapes differ, or an image has other channels.
        """
        with _bar(len(rows)) as progress:
            return self._mean(
                self.store.matrix(self._keys(rows, suffix), self._keys(columns, suffix), self._load, progress)
                for suffix in self._suffixes
            )

    def entropies(self, cases: Sequence[str]) -> Tensor:
        """Entropy of each case's image, MI(a, a), in one pass over the images that the store lacks.

        Args:
            cases: N cases.

        Returns:
            (N,) float64, nats; NaN where no channel varies.

        Raises:
            SettingsError: see :meth:`pairs`.
        """
        with _bar(len(cases)) as progress:
            return self._mean(
                self.store.entropies(self._keys(cases, suffix), self._load, progress) for suffix in self._suffixes
            )

    def _keys(self, cases: Sequence[str], suffix: str) -> list[str]:
        return [self._key[case] + suffix for case in cases]

    @staticmethod
    def _mean(by_channel: Iterable[Tensor]) -> Tensor:
        return torch.stack(list(by_channel)).nanmean(0)

    def _load(self, key: str) -> Tensor:
        """One channel of an image, (1, X, Y, Z)."""
        position, channel = self._place[key]
        image: Tensor = torch.as_tensor(self.dataset[position]["image"])
        if len(image) != len(self._suffixes):
            raise SettingsError(
                f"in_channels: {len(self._suffixes)}, but an image of the pool has {len(image)} channels."
            )
        one = image[channel : channel + 1]
        if self.grid is None:
            self._check_shape(image)
            return one
        if self._is_constant(image, channel):
            # Resampled, or in a frame about them, its few stray voxels would be more than a few.
            return one.new_full((1, *self.grid), float(one.median()))
        if self.content == "volume":
            return on_grid(one, self.grid)
        return on_grid(image, self.grid, self.content)[channel : channel + 1]  # whole: the channels have one frame

    def _is_constant(self, image: Tensor, channel: int) -> bool:
        """Whether a channel is constant; where the foreground is compared, a small body in much air is not."""
        bins, one = self.store.bins, image[channel : channel + 1]
        if not is_constant(one, bins):
            return False
        if self.content == "volume":
            return True
        body = foreground_values(image)[channel : channel + 1]
        middles = torch.stack([one.median(), body.median()])[None]
        return bool(is_constant(middles, bins) or is_constant(body, bins))

    def _check_shape(self, image: Tensor) -> None:
        first = self._shape = self._shape or image.shape
        if image.shape != first:
            raise SettingsError(
                f"mi_grid: null needs volumes of one shape, the pool has {tuple(first[1:])} and "
                f"{tuple(image.shape[1:])}."
            )


@contextmanager
def _bar(images: int) -> Iterator[Callable[[int, int], None]]:
    """A bar of images done, told by (done, to do); none for a single image, which would flicker."""
    with tqdm(desc="Mutual information", disable=images < 2 or None, leave=False) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield progress


def aggregate_information(matrix: Tensor, how: str = "mean") -> Tensor:
    """Mutual information of each pool case with the labelled set, from that with each labelled case.

    mean:  MI_i = (1/K') Σ_k MI_ik        max:  MI_i = max_k MI_ik

    over the K' labelled cases for which it is defined: a labelled constant image is left out.

    Args:
        matrix: (N, K) nats, NaN where undefined; K distinct labelled cases.
        how: `mean` or `max`.

    Returns:
        (N,) nats; NaN for a case that is undefined with all, 0 where nothing is labelled (K = 0).

    Raises:
        ValueError: `how` is unknown, or the matrix has not two dimensions.
    """
    if how not in ("mean", "max"):
        raise ValueError(f"Unknown aggregation {how!r}; known are mean, max.")
    if matrix.dim() != 2:
        raise ValueError(f"Aggregation needs a matrix (N, K), got {tuple(matrix.shape)}.")
    if matrix.shape[1] == 0:
        return matrix.new_zeros(len(matrix))
    if how == "mean":
        return matrix.nanmean(1)
    undefined = matrix.isnan()
    highest = matrix.masked_fill(undefined, -torch.inf).amax(1)
    return highest.masked_fill(undefined.all(1), torch.nan)
