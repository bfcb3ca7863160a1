"""Digitised images on disk: what the mutual information of an image needs, made once."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from svgd_monai import files
from svgd_monai.acquisition.information import digitise, index_type

_LOGGER = logging.getLogger(__name__)
_CHECKSUM = 4  # bytes
_NUMPY = {torch.uint8: np.uint8, torch.int16: np.int16, torch.int32: np.int32, torch.int64: np.int64}


class DigitisedImages:
    """Images as the numbers of their bins, a file each: a byte a voxel up to 256 bins, and a checksum.

    A round compares every image of the pool with a few. To read and resample the volumes for that takes many times as
    long as to compare them. The files are a cache: one that is damaged or missing is made again.

    Args:
        folder: of the files.
        settings: what they depend on beside the images, plain values of JSON.
        bins: number of bins.
        value_range: lowest and highest value.
    """

    def __init__(
        self, folder: str | os.PathLike[str], settings: Mapping[str, Any], bins: int, value_range: tuple[float, float]
    ) -> None:
        self.folder = Path(folder)
        self.bins = bins
        self.value_range = value_range
        self._settings = json.dumps(settings, sort_keys=True)

    def get(self, key: str, load: Callable[[str], Tensor]) -> Tensor:
        """A digitised image, (V,), on the CPU where it comes from its file.

        Args:
            key: fingerprint of its content.
            load: from the key to the preprocessed image.

        Raises:
            ValueError: the image holds no voxel or a value that is not finite.
            OSError: the file cannot be written.
        """
        path = self.folder / f"{hashlib.sha256(f'{self._settings}/{key}'.encode()).hexdigest()[:32]}.bin"
        if path.is_file():
            with contextlib.suppress(PermissionError):
                content = path.read_bytes()
                if zlib.crc32(content[_CHECKSUM:]).to_bytes(_CHECKSUM, "big") == content[:_CHECKSUM]:
                    return torch.frombuffer(bytearray(content), dtype=self._kind, offset=_CHECKSUM)
            _LOGGER.warning("%s is damaged or may not be read; it will be made again.", path)
        index = digitise(load(key), self.bins, self.value_range)
        values = index.cpu().numpy().astype(_NUMPY[self._kind], copy=False).tobytes()
        with contextlib.suppress(PermissionError):  # a cache that may only be read
            files.write_bytes(path, zlib.crc32(values).to_bytes(_CHECKSUM, "big") + values, durable=False)
        return index

    @property
    def _kind(self) -> torch.dtype:
        return index_type(self.bins)
