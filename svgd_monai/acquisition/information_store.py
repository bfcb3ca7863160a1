"""Mutual information kept on disk: it never changes for a pair of images, so it is computed once.

The store is a cache. Losing it costs time and no result, so a damaged file is reported and replaced, never an error.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from svgd_monai import files
from svgd_monai.acquisition.information import binned_mutual_information, is_one_bin
from svgd_monai.acquisition.information_file import DAMAGE, STRIDE, Codes, Values, read_pairs, write_pairs
from svgd_monai.acquisition.information_images import DigitisedImages
from svgd_monai.processes import agreed, everyones, is_first, processes

_LOGGER = logging.getLogger(__name__)
#: Folder of the digitised images, beside the file.
IMAGES = "digitised"
_SECONDS_BETWEEN_SAVES = 60.0


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
        self.settings: dict[str, Any] = json.loads(
            json.dumps({**settings, "bins": self.bins, "value_range": self.value_range})
        )
        self.computed = 0
        self._images = DigitisedImages(self.path.parent / IMAGES, self.settings, self.bins, self.value_range)
        self._positions: dict[str, int] = {}
        self._codes: Codes = np.empty(0, np.int64)  # ascending
        self._values: Values = np.empty(0, np.float64)
        self._fresh: dict[int, float] = {}
        self._read()

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
        rank, ranks = processes()
        if ranks > 1:  # the first may have written since another read
            self._positions, self._codes, self._values = agreed((self._positions, self._codes, self._values))
        codes = self._codes_of(rows, columns)
        work = self._missing(codes, rows, columns)
        if work:
            before = self._codes
            try:
                self._compute(dict(islice(work.items(), rank, None, ranks)), load, progress)
            finally:
                self._save()
            if ranks > 1:
                self._exchange(before)
        return torch.from_numpy(self._values[np.searchsorted(self._codes, codes)])

    def _codes_of(self, rows: Sequence[str], columns: Sequence[str]) -> Codes:
        """(N, K) codes; keys that are new get the next positions."""
        for key in (*rows, *columns):
            self._positions.setdefault(key, len(self._positions))
        row = np.array([self._positions[key] for key in rows], np.int64).reshape(-1, 1)
        column = np.array([self._positions[key] for key in columns], np.int64).reshape(1, -1)
        return np.minimum(row, column) * STRIDE + np.maximum(row, column)

    def _missing(self, codes: Codes, rows: Sequence[str], columns: Sequence[str]) -> dict[str, list[str]]:
        """Row keys and, for each, the column keys to compute; every pair once, whichever way round it was asked."""
        unique, first = np.unique(codes, return_index=True)
        lacking = np.sort(first[~np.isin(unique, self._codes, assume_unique=True)])
        work: dict[str, list[str]] = {}
        for place in lacking.tolist():
            row, column = divmod(place, len(columns))
            work.setdefault(rows[row], []).append(columns[column])
        return work

    def _compute(
        self,
        work: Mapping[str, Sequence[str]],
        load: Callable[[str], Tensor],
        progress: Callable[[int, int], object] | None,
    ) -> None:
        held: dict[str, Tensor] = {}

        def image(key: str) -> Tensor:
            return held[key] if key in held else self._digitised(key, load)

        for key in _distinct(work):
            held[key] = image(key)
            self._check_size(key, held[key], next(iter(held.values())))
            self._keep_entropy(key, held[key])
        constant = {key: is_one_bin(index) for key, index in held.items()}
        saved = time.monotonic()
        for done, (row, keys) in enumerate(work.items(), start=1):
            index = image(row)
            self._check_size(row, index, held[keys[0]])
            values = binned_mutual_information(index, [held[key] for key in keys], self.bins).tolist()
            undefined = is_one_bin(index)
            self._keep_entropy(row, index)
            for key, value in zip(keys, values, strict=True):
                first, second = sorted((self._positions[row], self._positions[key]))
                self._fresh[first * STRIDE + second] = float("nan") if undefined or constant[key] else value
            if time.monotonic() - saved > _SECONDS_BETWEEN_SAVES:
                self._save()
                saved = time.monotonic()
            if progress is not None:
                progress(done, len(work))

    def _keep_entropy(self, key: str, index: Tensor) -> None:
        code = self._positions[key] * (STRIDE + 1)
        if code not in self._fresh and code not in self._codes[np.searchsorted(self._codes, code) :][:1]:
            entropy = float(binned_mutual_information(index, [index], self.bins))
            self._fresh[code] = float("nan") if is_one_bin(index) else entropy

    def _digitised(self, key: str, load: Callable[[str], Tensor]) -> Tensor:
        try:
            return self._images.get(key, load)
        except ValueError as error:
            raise ValueError(f"The mutual information of image {key} cannot be computed: {error}") from error

    @staticmethod
    def _check_size(key: str, index: Tensor, reference: Tensor) -> None:
        if len(index) != len(reference):
            raise ValueError(
                f"Mutual information needs images on one grid: image {key} has {len(index)} voxels, "
                f"another {len(reference)}."
            )

    def _save(self) -> None:
        """Merge what is new and write the whole file."""
        if not self._fresh:
            return
        self.computed += len(self._fresh)
        codes = np.concatenate([self._codes, np.fromiter(self._fresh, np.int64, len(self._fresh))])
        values = np.concatenate([self._values, np.fromiter(self._fresh.values(), np.float64, len(self._fresh))])
        order = np.argsort(codes)
        self._codes, self._values = codes[order], values[order]
        self._fresh.clear()
        self._write()

    def _write(self) -> None:
        if is_first():
            try:
                write_pairs(self.path, self.settings, list(self._positions), self._codes, self._values)
            except PermissionError as error:  # a cache that may only be read
                _LOGGER.warning("%s cannot be written and what is new is computed again (%s).", self.path, error)

    def _exchange(self, before: Codes) -> None:
        """Put together what the processes have computed since the store held the codes ``before``."""
        new = ~np.isin(self._codes, before, assume_unique=True)
        found = everyones((self._codes[new], self._values[new]))
        codes = np.concatenate([self._codes, *(part for part, _ in found)])
        values = np.concatenate([self._values, *(part for _, part in found)])
        self._codes, first = np.unique(codes, return_index=True)
        self._values = values[first]
        self._write()

    def _read(self) -> None:
        if not self.path.exists():
            return
        try:
            header, codes, values = read_pairs(self.path)
        except DAMAGE as error:
            _LOGGER.warning(
                "%s cannot be read and its mutual information is computed again (%s).", self.path, files.reason(error)
            )
            return
        if header["settings"] != self.settings:
            _LOGGER.info(
                "%s was computed with other settings (%s, now %s); it is computed again.",
                self.path,
                header["settings"],
                self.settings,
            )
            return
        self._positions = {key: position for position, key in enumerate(header["keys"])}
        self._codes, self._values = codes, values


def _distinct(work: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Column keys of the work, each once, in order of first use."""
    return iter(dict.fromkeys(key for keys in work.values() for key in keys))
