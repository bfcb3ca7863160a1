"""Read a NIfTI file once, whole, and with suspicion: nothing is allocated on the word of a header alone."""

from __future__ import annotations

import gzip
import hashlib
import io
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from svgd_monai.errors import DataError
from svgd_monai.files import reason

NIFTI_SUFFIXES = (".nii.gz", ".nii")
DEFLATE_MAX_RATIO = 1032  # zlib's technical notes: no stream expands more
_HEADER_BYTES = {348: nib.Nifti1Image, 540: nib.Nifti2Image}  # the first field of the header is the header's size
_OTHER_UNITS = {1: "meter", 3: "micron"}  # NIfTI's codes of length; 2 is mm, and 0 and all else are taken for it
#: A damaged header makes nibabel and numpy raise any of these.
HEADER_ERRORS = (HeaderDataError, ImageFileError, ValueError, TypeError, ArithmeticError, LookupError)


@dataclass(frozen=True)
class Volume:
    """A 3D volume of one or more channels in memory.

    Args:
        path: the file it came from.
        sha256: hash of the file as it lies on disk.
        values: the voxels (H, W, D, C), scaled as the header says, all finite.
        affine: (4, 4), from voxel indices to mm.
        spacing: (3,), size of a voxel along each axis in mm.
    """

    path: Path
    sha256: str
    values: NDArray[Any]
    affine: NDArray[np.float64]
    spacing: NDArray[np.float64]


def case_id(path: str) -> str | None:
    """The file name without ``.nii`` or ``.nii.gz``; None for another file, or if nothing is left."""
    name = Path(path).name
    suffix = next((suffix for suffix in NIFTI_SUFFIXES if name.endswith(suffix)), None)
    return name.removesuffix(suffix) or None if suffix else None


def read_volume(path: Path, channels: int | None = None) -> Volume:
    """Read a ``.nii`` or ``.nii.gz`` file, NIfTI-1 or NIfTI-2.

    Channels are the fourth axis, as the Decathlon stores images of several modalities: a file of the shape (H, W, D)
    has one, as one of the shape (H, W, D, 1) has.

    Args:
        path: the file.
        channels: how many the file must have; any other number is refused by its header. None takes any.

    Raises:
        DataError: the file cannot be read in full, is not a finite 3D volume with an invertible affine, or has another
            number of channels.
    """
    raw = read_bytes(path)
    content, image_class = _unpack(path, raw, channels)
    try:
        # Extreme factors of scale overflow to infinity, which is judged below.
        with np.errstate(all="ignore"):
            image = image_class.from_bytes(content)
            values = np.asanyarray(image.dataobj).reshape(*image.shape[:3], -1)
            affine = np.asarray(image.affine, dtype=np.float64)
            unit = _OTHER_UNITS.get(int(image.header["xyzt_units"]) & 7)
    except HEADER_ERRORS as error:
        raise DataError(f"{path} is damaged ({reason(error)}).") from error
    if unit is not None:  # which some programs honour and others, MONAI among them, do not
        raise DataError(f"{path} has its affine in the unit {unit}; write it in mm.")
    _check_finite(path, values)
    spacing = _check_affine(path, affine)
    return Volume(path, hashlib.sha256(raw).hexdigest(), values, affine, spacing)


def read_bytes(path: Path) -> bytes:
    """Read a file.

    Raises:
        DataError: the file is missing, empty or not readable.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or reason(error)}).") from error
    if not raw:
        raise DataError(f"{path} is empty.")
    return raw


def file_hash(path: Path) -> str:
    """SHA-256 of a file's content, hexadecimal.

    Raises:
        DataError: the file is missing, empty or not readable.
    """
    return hashlib.sha256(read_bytes(path)).hexdigest()


def _unpack(path: Path, raw: bytes, channels: int | None) -> tuple[bytes, Any]:
    """The uncompressed content, exactly as long as its header says, and nibabel's class for it."""
    compressed = path.name.endswith(".gz")
    if compressed and not raw.startswith(b"\x1f\x8b"):
        raise DataError(f"{path} is not gzip-compressed, it begins with {raw[:16]!r}.")
    stream = gzip.GzipFile(fileobj=io.BytesIO(raw)) if compressed else io.BytesIO(raw)
    limit = len(raw) * (DEFLATE_MAX_RATIO if compressed else 1)
    try:
        head = stream.read(max(_HEADER_BYTES))
        image_class, shape, claimed = _read_header(path, head)
        _check_shape(path, shape, channels)
        if claimed > limit:
            raise DataError(
                f"{path} claims the shape {shape}, {claimed} bytes, which its {len(raw)} bytes cannot hold."
            )
        # One byte more than claimed finds a surplus, and otherwise reads to the end, where gzip's checksum stands.
        content = head + stream.read(max(claimed - len(head), 0) + 1)
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(f"{path} is cut off or damaged ({reason(error)}).") from error
    if len(content) != claimed:
        found = f"{len(content)}" if len(content) < claimed else "more"
        raise DataError(
            f"{path} claims the shape {shape}, which is {claimed} bytes with its header, but holds {found}."
        )
    return content, image_class


def _read_header(path: Path, head: bytes) -> tuple[Any, tuple[int, ...], int]:
    """The class of nibabel, the shape, and the number of bytes that header and voxels claim together."""
    sizes = {int.from_bytes(head[:4], "little"), int.from_bytes(head[:4], "big")} & set(_HEADER_BYTES)
    if not sizes or len(head) < min(sizes):
        raise DataError(f"{path} is not a NIfTI file.")
    size = sizes.pop()
    image_class = _HEADER_BYTES[size]
    try:
        header = image_class.header_class(head[:size])
        shape = tuple(int(side) for side in header.get_data_shape())
        voxel = header.get_data_dtype()
        offset = int(header.get_data_offset())
    except HEADER_ERRORS as error:
        raise DataError(f"{path} has a damaged header ({reason(error)}).") from error
    if voxel.kind not in "iuf":
        raise DataError(f"{path} does not hold plain numbers, its data type is {voxel}.")
    return image_class, shape, offset + math.prod(shape) * voxel.itemsize


def _check_shape(path: Path, shape: tuple[int, ...], channels: int | None) -> None:
    if len(shape) not in (3, 4) or min(shape) < 1:
        raise DataError(
            f"{path} is neither a 3D volume nor one with channels as the fourth axis, its shape is {shape}."
        )
    found = shape[3] if len(shape) == 4 else 1
    if channels is not None and found != channels:
        plural = "" if found == 1 else "s"
        raise DataError(f"{path} has {found} channel{plural} (its shape is {shape}), but there must be {channels}.")


def _check_finite(path: Path, values: NDArray[Any]) -> None:
    if values.dtype.kind != "f":
        return
    with np.errstate(over="ignore"):
        bad = values.size - np.count_nonzero(np.isfinite(values.astype(np.float32)))  # as training will see them
    if bad:
        amount = f"all {bad}" if bad == values.size else f"{bad} of {values.size}"
        raise DataError(f"{path} has voxels that are NaN or infinite: {amount}.")


def _check_affine(path: Path, affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """The spacing of an affine that can be inverted."""
    axes = affine[:3, :3]
    with np.errstate(all="ignore"):  # what overflows is refused
        spacing: NDArray[np.float64] = np.sqrt((axes**2).sum(axis=0))
        # Of unit axes, so that a small spacing is no fault.
        determinant = np.abs(np.linalg.det(axes / spacing))
        finite = np.isfinite(affine).all() and np.isfinite(np.float32(spacing.prod()))
    if not finite or not determinant > 1e-6:
        raise DataError(f"{path} has an affine that cannot be inverted: {affine.tolist()}.")
    return spacing
