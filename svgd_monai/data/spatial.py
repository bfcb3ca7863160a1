"""Where voxels lie: on one grid, at another spacing, in another geometry, always through the world's millimetres."""

from __future__ import annotations

import os
import zlib
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import torch
from monai.data import MetaTensor, NibabelReader
from monai.transforms import Spacingd, SpatialResample, Transform
from monai.utils import ensure_tuple

from svgd_monai.data.nifti import HEADER_ERRORS, read_bytes
from svgd_monai.errors import DataError
from svgd_monai.files import reason

IMAGE, LABEL = "image", "label"


@dataclass(frozen=True)
class _Unread:
    """Files of which nibabel could not even read the headers, and why."""

    names: Sequence[str | os.PathLike[str]]
    error: Exception


class FileAffineReader(NibabelReader):
    """MONAI's NIfTI reader with nibabel's affine, which the checks and all written files use as well.

    MONAI's own replaces an sform whose voxel sizes differ from the header's ``pixdim``, as after a registration to a
    template, by the qform, even one of code 0. It does so in 3D files only, so that an image of several channels would
    no longer lie on its label.
    """

    def read(self, data: Sequence[str | os.PathLike[str]] | str | os.PathLike[str], **kwargs: Any) -> Any:
        """The image of nibabel, or a list of them for several files, not yet loaded; or why they cannot be read.

        The error is left to :meth:`get_data` to raise: whatever a reader raises here, MONAI's ``LoadImage`` says only
        that no reader suits the file, and not that the file has gone.

        Args:
            data: a file, or several.
            kwargs: of :func:`nibabel.load`.
        """
        names = self.filenames = [data] if isinstance(data, (str, os.PathLike)) else list(data)
        try:
            images = [nib.load(name, **{**self.kwargs, **kwargs}) for name in names]
        except Exception as error:  # noqa: BLE001 raised by get_data
            return _Unread(names, error)
        return images if len(images) > 1 else images[0]

    def get_data(self, img: Any) -> Any:
        """As MONAI's, of what :meth:`read` gave.

        Raises:
            DataError: since it was checked the file has gone, may no longer be read, or was damaged.
        """
        # Not the reader's own: of several threads, another may have read since.
        names = img.names if isinstance(img, _Unread) else [each.get_filename() for each in ensure_tuple(img)]
        try:
            if isinstance(img, _Unread):
                raise img.error
            return super().get_data(img)
        except (*HEADER_ERRORS, OSError, EOFError, zlib.error) as error:
            for name in names:
                read_bytes(Path(name))  # nibabel takes one that may not be read for one of an unknown format
            raise DataError(f"{', '.join(map(str, names))} cannot be read ({reason(error)}).") from error

    def __getstate__(self) -> dict[str, Any]:
        """Without the files that were read last: they are no part of the key of a cache."""
        return {name: value for name, value in vars(self).items() if name != "filenames"}


class OneGridd(Transform):
    """Puts the label on the very grid of its image.

    Their affines agree (:func:`~svgd_monai.data.checks.check_case`), but one that was written as a quaternion
    differs in the last digits, and what follows works out the grid of each by itself: MONAI's
    ``Spacingd`` begins at the corner or half a difference of voxels beside it, as a number is 0 or 1e-7.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Dictionary in, dictionary out."""
        result = dict(data)
        image, label = result.get(IMAGE), result.get(LABEL)
        if isinstance(image, MetaTensor) and isinstance(label, MetaTensor):
            label.affine = image.affine.clone()
        return result


class Respacingd(Spacingd):
    """MONAI's ``Spacingd``, shown its own keys alone, whose values stay within those of the file.

    That of MONAI 1.6 takes every key that begins with ``image_`` for a dictionary with the image's header, and fails on
    MONAI Label's ``image_path``. In single precision it gives a constant channel noise in its last digits, of which the
    scaling by percentiles would make an image.
    """

    def __call__(self, data: Mapping[Hashable, Any], lazy: bool | None = None) -> dict[Hashable, Any]:
        """Dictionary in, dictionary out."""
        own = {key: data[key] for key in self.keys if key in data}
        result = super().__call__(own, lazy)
        return {**data, **{key: result[key].clamp(*_extremes(own[key])) for key in own}}


def _extremes(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Lowest and highest value of each channel of (C, X, Y, Z), (C, 1, 1, 1) each."""
    values = torch.as_tensor(image)
    return values.amin((1, 2, 3), keepdim=True), values.amax((1, 2, 3), keepdim=True)


def to_grid(volume: torch.Tensor, affine: torch.Tensor, reference: MetaTensor) -> torch.Tensor:
    """Resample a preprocessed volume onto another grid, through the world's millimetres.

    Args:
        volume: (C, X, Y, Z) float, e.g. probabilities.
        affine: (4, 4), voxel to mm of ``volume``.
        reference: (1, X', Y', Z') with its own affine, e.g. the label as it lies in its file.

    Returns:
        (C, X', Y', Z'), linear interpolation; beyond ``volume`` its border values are repeated.
    """
    source = MetaTensor(volume.float(), affine=affine)
    resample = SpatialResample(mode="bilinear", padding_mode="border", align_corners=True, dtype=torch.float64)
    shape = reference.shape[1:]
    # An axis of one voxel has no two corners to align: torch would take the point half a voxel beyond it.
    result = resample(source, dst_affine=reference.affine, spatial_size=[max(size, 2) for size in shape])
    plain: torch.Tensor = result.as_tensor()[(..., *map(slice, shape))].to(volume.dtype)
    return plain
