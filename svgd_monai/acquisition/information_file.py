"""The file of mutual information: a NumPy archive of plain arrays."""

from __future__ import annotations

import io
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from svgd_monai import files

_FORMAT = 1
#: A pair (i, j), i <= j, of positions in the list of keys is kept as the single integer i · 2³¹ + j.
STRIDE = 1 << 31
#: What reading a damaged file may raise.
DAMAGE = (OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError, OverflowError, MemoryError,
          zipfile.BadZipFile, zlib.error, struct.error)  # fmt: skip

Codes = NDArray[np.int64]
Values = NDArray[np.float64]


def write_pairs(
    path: str | os.PathLike[str], settings: Mapping[str, Any], keys: list[str], codes: Codes, values: Values
) -> None:
    """Write a store.

    Args:
        path: the file, replaced atomically.
        settings: what the values depend on beside the images.
        keys: of the images.
        codes: of the pairs, ascending.
        values: nats, in their order.

    Raises:
        OSError: the file cannot be written.
    """
    header = {"format": _FORMAT, "settings": settings, "keys": keys}
    buffer = io.BytesIO()
    np.savez(buffer, header=np.frombuffer(json.dumps(header).encode("utf-8"), np.uint8), codes=codes, values=values)
    files.write_bytes(path, buffer.getvalue())


def read_pairs(path: Path) -> tuple[dict[str, Any], Codes, Values]:
    """Read a store's header, codes and values; any damage raises one of :data:`DAMAGE`."""
    with zipfile.ZipFile(path) as archive:
        broken = archive.testzip()  # checksums first, so that NumPy does not interpret damaged headers
    if broken is not None:
        raise ValueError(f"the checksum of {broken} is wrong")
    with np.load(path, allow_pickle=False) as content:
        header = json.loads(content["header"].tobytes().decode("utf-8"))
        codes, values = content["codes"], content["values"]
    keys = header["keys"]
    sound = (
        header["format"] == _FORMAT
        and len(set(keys)) == len(keys)
        and codes.dtype == np.int64
        and values.dtype == np.float64
        and codes.ndim == 1
        and codes.shape == values.shape
        and bool((np.diff(codes) > 0).all())
        and (
            len(codes) == 0
            or (codes[0] >= 0 and codes[-1] // STRIDE < len(keys) and (codes % STRIDE).max() < len(keys))
        )
    )
    if not sound:
        raise ValueError("its parts do not fit together")
    return header, codes, values
