"""Mutual information kept on disk: it never changes for a pair of images, so it is computed once.

The store is a cache. Losing it costs time and no result, so a damaged file is reported and replaced, never an error.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from svgd_monai import files
from svgd_monai.acquisition.information import binned_mutual_information, is_one_bin
from svgd_monai.acquisition.information_file import DAMAGE, Codes, read_pairs, write_pairs
from svgd_monai.acquisition.information_images import DigitisedImages
from svgd_monai.acquisition.information_table import PairTable
from svgd_monai.processes import agreed, everyones, is_first, processes

_LOGGER = logging.getLogger(__name__)
#: Folder of the digitised images, beside the file.
IMAGES = "digitised"
_SECONDS_BETWEEN_SAVES = 60.0
#: How mutual information is summed. Files that do not say so differ in the last bits.
_SUMS = "whole numbers"


class InformationStore:
    """Pairwise mutual information in one file, computed when first asked for.

    The file is a NumPy archive of plain arrays (no pickle), 16 bytes a pair, replaced atomically after every minute of
    computing and at the end, also when that end is an exception: a run that is killed repeats a minute at most. One
    process writes to it at a time: where several share a pool, each computes the pairs of its share of the rows, and
    the first writes.

    Args:
        path: the file; made at the first save.
        settings: what the values depend on beside the images: `bins` (64), `value_range` ((0, 1)), and whatever else
            the caller puts in (the grid, the normalisation), plain values of JSON. A file of other settings is left
            aside with a logged line and replaced at the next save.

    Attributes:
        computed: how many pairs this object computed itself, rather than read.
    """

    def __init__(self, path: str | os.PathLike[str], settings: Mapping[str, Any]) -> None:
        self.path = Path(path)
        self.bins = int(settings.get("bins", 64))
        low, high = settings.get("value_range", (0.0, 1.0))
        self.value_range = (float(low), float(high))
        own: dict[str, Any] = json.loads(json.dumps({**settings, "bins": self.bins, "value_range": self.value_range}))
        self.settings = {**own, "sums": _SUMS}
        self.computed = 0
        self._images = DigitisedImages(self.path.parent / IMAGES, own, self.bins, self.value_range)
        self._table = self._read()

    def matrix(
        self,
        rows: Sequence[str],
        columns: Sequence[str],
        load: Callable[[str], Tensor],
        progress: Callable[[int, int], object] | None = None,
    ) -> Tensor:
        """Mutual information of every row image with every column image.

        Only pairs that the store lacks are computed. Their images are loaded once and kept on disk in digitised form (a
        byte a voxel up to 256 bins); those of the columns are held in memory, those of the rows one at a time. An image
        that was read leaves its entropy as well, the pair with itself.

        Args:
            rows: N keys, each the fingerprint of a case's image content; the many (the pool).
            columns: K keys; the few (the labelled cases).
            load: from a key to its preprocessed image; all on one device and of one number of voxels.
            progress: called with (row images done, row images to do) after each.

        Returns:
            (N, K) float64 on the CPU, nats; NaN where either image is constant (see `is_constant`), for which mutual
            information is undefined.

        Raises:
            ValueError: an image holds no voxel, a value that is not finite, or another number of voxels than the rest.
            OSError: the file cannot be written; for want of permission that is logged, and costs time later.
        """
        self._agree()
        codes = self._table.pairs(rows, columns)
        self._complete(self._missing(codes, rows, columns), load, progress)
        return torch.from_numpy(self._table.find(codes))

    def entropies(
        self,
        keys: Sequence[str],
        load: Callable[[str], Tensor],
        progress: Callable[[int, int], object] | None = None,
    ) -> Tensor:
        """Entropy of every image, its mutual information with itself: the diagonal of :meth:`matrix` in one pass.

        Args:
            keys: N keys; one image is held at a time.
            load: see :meth:`matrix`.
            progress: see there.

        Returns:
            (N,) float64 on the CPU, nats; NaN for a constant image.

        Raises:
            ValueError: see :meth:`matrix`.
            OSError: see there.
        """
        self._agree()
        codes = self._table.own(keys)
        lacking = self._table.lacks(codes)
        self._complete({key: [] for key, lacks in zip(keys, lacking, strict=True) if lacks}, load, progress)
        return torch.from_numpy(self._table.find(codes))

    def _agree(self) -> None:
        """Where several processes share a pool, the first may have written since another read."""
        if processes()[1] > 1:
            self._table = agreed(self._table)

    def _complete(
        self,
        work: Mapping[str, Sequence[str]],
        load: Callable[[str], Tensor],
        progress: Callable[[int, int], object] | None,
    ) -> None:
        """Compute this process's share of the work, write it, and learn what the others have computed."""
        if not work:
            return
        rank, ranks = processes()
        before = self._table.codes
        try:
            self._compute(dict(islice(work.items(), rank, None, ranks)), load, progress)
        finally:
            self._save()
        if ranks > 1:
            self._exchange(before)

    def _missing(self, codes: Codes, rows: Sequence[str], columns: Sequence[str]) -> dict[str, list[str]]:
        """Row keys and, for each, the column keys to compute; every pair once, whichever way round it was asked.

        An image's pair with itself is left out of its columns: every image that is read leaves it.
        """
        unique, first = np.unique(codes, return_index=True)
        lacking = np.sort(first[self._table.lacks(unique)])
        work: dict[str, list[str]] = {}
        for place in lacking.tolist():
            row, column = rows[place // len(columns)], columns[place % len(columns)]
            others = work.setdefault(row, [])
            if column != row:
                others.append(column)
        return work

    def _compute(
        self,
        work: Mapping[str, Sequence[str]],
        load: Callable[[str], Tensor],
        progress: Callable[[int, int], object] | None,
    ) -> None:
        held: dict[str, Tensor] = {}
        voxels: int | None = None

        def image(key: str) -> Tensor:
            nonlocal voxels
            index = held[key] if key in held else self._digitised(key, load)
            voxels = len(index) if voxels is None else voxels
            self._check_size(key, index, voxels)
            self._keep_entropy(key, index)
            return index

        for key in dict.fromkeys(column for columns in work.values() for column in columns):
            held[key] = image(key)
        constant = {key: is_one_bin(index) for key, index in held.items()}
        saved = time.monotonic()
        for done, (row, keys) in enumerate(work.items(), start=1):
            index = image(row)
            values = binned_mutual_information(index, [held[key] for key in keys], self.bins).tolist()
            undefined = is_one_bin(index)
            for key, value in zip(keys, values, strict=True):
                self._table.note(row, key, float("nan") if undefined or constant[key] else value)
            if time.monotonic() - saved > _SECONDS_BETWEEN_SAVES:
                self._save()
                saved = time.monotonic()
            if progress is not None:
                progress(done, len(work))

    def _keep_entropy(self, key: str, index: Tensor) -> None:
        if not self._table.knows(key):
            entropy = float(binned_mutual_information(index, [index], self.bins))
            self._table.note(key, key, float("nan") if is_one_bin(index) else entropy)

    def _digitised(self, key: str, load: Callable[[str], Tensor]) -> Tensor:
        try:
            return self._images.get(key, load)
        except ValueError as error:
            raise ValueError(f"The mutual information of image {key} cannot be computed: {error}") from error

    @staticmethod
    def _check_size(key: str, index: Tensor, voxels: int) -> None:
        if len(index) != voxels:
            raise ValueError(
                f"Mutual information needs images on one grid: image {key} has {len(index)} voxels, another {voxels}."
            )

    def _save(self) -> None:
        """Settle what is new and write the whole file."""
        new = self._table.settle()
        self.computed += new
        if new > 0:
            self._write()

    def _write(self) -> None:
        if is_first():
            try:
                write_pairs(self.path, self.settings, self._table.keys, self._table.codes, self._table.values)
            except PermissionError as error:  # a cache that may only be read
                _LOGGER.warning("%s cannot be written and what is new is computed again (%s).", self.path, error)

    def _exchange(self, before: Codes) -> None:
        """Put together what the processes have computed since the store held the codes ``before``."""
        table = self._table
        new = ~np.isin(table.codes, before, assume_unique=True)
        table.join(everyones((table.codes[new], table.values[new])))
        self._write()

    def _read(self) -> PairTable:
        if not self.path.exists():
            return PairTable()
        try:
            header, codes, values = read_pairs(self.path)
        except DAMAGE as error:
            _LOGGER.warning(
                "%s cannot be read and its mutual information is computed again (%s).", self.path, files.reason(error)
            )
            return PairTable()
        if header["settings"] != self.settings:
            _LOGGER.info(
                "%s was computed with other settings (%s, now %s); it is computed again.", self.path,
                header["settings"], self.settings,
            )  # fmt: skip
            return PairTable()
        return PairTable(header["keys"], codes, values)
