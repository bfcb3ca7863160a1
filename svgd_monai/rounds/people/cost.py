"""What a label cost: how much of the pre-segmentation a person had to change, and how far two people agree."""

from __future__ import annotations

import gzip
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion

from svgd_monai.data.nifti import read_volume
from svgd_monai.evaluation.cases import dice_per_class
from svgd_monai.evaluation.writer import volume_like

Classes = NDArray[np.int64]


@dataclass(frozen=True)
class Correction:
    """How a label differs from its pre-segmentation.

    Attributes:
        voxels: voxels of another class: the volume that was corrected.
        surface_voxels: voxels on the surface of a class of the label that are not on the surface of that class in the
            pre-segmentation: the surface that a person had to draw. Summed over the foreground classes; the "added path
            length" of Vaassen et al. 2020 (Phys. Imaging Radiat. Oncol. 13), which goes with editing time better than
            volume does, here with surfaces in place of contours.
        dice: mean Dice over the foreground classes that either holds; NaN where neither holds any.
    """

    voxels: int
    surface_voxels: int
    dice: float


def read_label(path: Path) -> Classes:
    """The classes (X, Y, Z) of a label's file.

    Raises:
        DataError: the file cannot be read.
    """
    values: Classes = np.rint(read_volume(path, 1).values[..., 0]).astype(np.int64)
    return values


def empty_label(image: Path) -> bytes:
    """A label of nothing, on the grid of an image: the content of its ``.nii.gz``."""
    shape = nib.load(image).shape[:3]
    return gzip.compress(volume_like(np.zeros(shape, dtype=np.uint8), image).to_bytes(), 1, mtime=0)


def correction(label: Classes, presegmentation: Classes, classes: Mapping[int, str]) -> Correction:
    """Compare a label with the pre-segmentation it was made from.

    Args:
        label: (X, Y, Z) classes.
        presegmentation: likewise, the same shape.
        classes: name of each label value, background 0 included.
    """
    surface = 0
    for value in sorted(classes):
        if value > 0:
            surface += int(np.count_nonzero(surface_of(label == value) & ~surface_of(presegmentation == value)))
    dice = [value for value in _dice(label, presegmentation, classes) if not math.isnan(value)]
    return Correction(
        voxels=int(np.count_nonzero(label != presegmentation)),
        surface_voxels=surface,
        dice=sum(dice) / len(dice) if dice else math.nan,
    )


def surface_of(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The voxels of a mask with a face towards another, or towards the outside of the volume."""
    return np.asarray(mask & ~binary_erosion(mask), dtype=np.bool_)


def agreement(first: Classes, second: Classes, classes: Mapping[int, str]) -> dict[str, float | None]:
    """Dice of two annotators' labels of a case, by the name of each foreground class; None where both have none."""
    names = [name for value, name in sorted(classes.items()) if value > 0]
    values = _dice(first, second, classes)
    return {name: None if math.isnan(value) else value for name, value in zip(names, values, strict=True)}


def _dice(first: Classes, second: Classes, classes: Mapping[int, str]) -> list[float]:
    return dice_per_class(torch.from_numpy(first), torch.from_numpy(second), len(classes))
