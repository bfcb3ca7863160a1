"""Preprocessing and augmentation, made of MONAI's transforms."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import (
    Compose,
    LoadImaged,
    MapTransform,
    Orientationd,
    RandAdjustContrastd,
    RandAffined,
    RandCropByLabelClassesd,
    RandGaussianNoised,
    RandSpatialCropd,
    SpatialPadd,
    Transform,
)
from monai.transforms.traits import RandomizableTrait

from svgd_monai.data.spatial import IMAGE, LABEL, FileAffineReader, OneGridd, Respacingd
from svgd_monai.errors import SettingsError

AFFINE = "affine"
_MODES = {IMAGE: "bilinear", LABEL: "nearest"}  # of resampling


class ToPlaind(MapTransform):
    """Plain tensors and the image's affine in place of MetaTensors.

    Key ``affine`` becomes a (4, 4) float64 tensor, voxel to mm of the preprocessed grid. Nothing else of the file's
    header goes on: it is not needed, it cannot be cached safely, and its text fields may name a patient.
    """

    def __init__(self) -> None:
        super().__init__((IMAGE, LABEL), allow_missing_keys=True)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Dictionary in, dictionary out."""
        result = dict(data)
        if isinstance(result.get(IMAGE), MetaTensor):
            result[AFFINE] = torch.as_tensor(result[IMAGE].affine, dtype=torch.float64)
        for key in self.key_iterator(result):
            value = result[key].as_tensor() if isinstance(result[key], MetaTensor) else result[key]
            result[key] = value.to(torch.uint8) if key == LABEL else value.float()
        return result


def preprocessing(
    intensity: Callable[..., Any] | Sequence[Callable[..., Any]],
    spacing: Sequence[float] | None = None,
    pad_to: Sequence[int] | None = None,
    plain: bool = True,
    keys: Sequence[str] = (IMAGE, LABEL),
) -> Compose:
    """The deterministic part: load, RAS+ orientation, spacing, intensity.

    Args:
        intensity: dictionary transform(s) of ``image`` to about [0, 1].
        spacing: voxel size in mm to resample to (images linearly, labels by nearest neighbour); None keeps the file's.
        pad_to: pad to this shape at once, as the paper does; None leaves padding to training crops and inferers, so
            that neither uncertainty nor mutual information sees it.
        keys: ``image`` and ``label``; inference names the image alone, for MONAI Label insists on whatever the first
            transform could load.
        plain: end with :class:`ToPlaind`. A pipeline that ends in ``Invertd`` and ``SaveImaged`` keeps the MetaTensors.

    Raises:
        SettingsError: an intensity transform is none of MONAI's, or is random: its result could not be cached.

    Returns:
        A transform of ``{"image": path, "label": path}`` (the label may be missing) to ``image`` (C, X, Y, Z) float32,
        ``label`` (1, X, Y, Z) uint8 and ``affine`` (4, 4).
    """
    given = [intensity] if callable(intensity) else list(intensity)
    intensities = list(Compose(given).flatten().transforms)
    for each in intensities:
        # MONAI's cache ends at the first step that is random or none of its transforms.
        if not isinstance(each, Transform) or isinstance(each, RandomizableTrait):
            name = getattr(each, "__name__", type(each).__name__)
            raise SettingsError(f"intensity: {name} is not a deterministic transform of MONAI's.")
    steps: list[Callable[..., Any]] = [
        LoadImaged(keys, FileAffineReader, ensure_channel_first=True, image_only=True, allow_missing_keys=True),
        OneGridd(),
        Orientationd(keys, axcodes="RAS", labels=None, allow_missing_keys=True),
    ]
    if spacing is not None:
        # Coordinates in single precision are right to a ten-thousandth of a voxel. MONAI holds seven of them for each
        # voxel of the result: in double precision that is twice the memory of all that scoring a volume needs.
        modes = [_MODES[key] for key in keys]
        steps.append(Respacingd(keys, pixdim=tuple(spacing), mode=modes, dtype=torch.float32, allow_missing_keys=True))
    steps += intensities
    if pad_to is not None:
        steps.append(SpatialPadd(keys, tuple(pad_to), allow_missing_keys=True))
    if plain:
        steps.append(ToPlaind())
    return Compose(steps)


def without_padding(transform: Compose) -> Compose:
    """The transforms without those that pad to a shape: the content of a volume."""
    return Compose([step for step in transform.flatten().transforms if not isinstance(step, SpatialPadd)])


def training_crop(roi_size: Sequence[int]) -> Compose:
    """A random window of ``roi_size`` voxels, zero-padded where the volume is smaller."""
    keys = (IMAGE, LABEL)
    return Compose([RandSpatialCropd(keys, tuple(roi_size), random_size=False), SpatialPadd(keys, tuple(roi_size))])


def foreground_crop(roi_size: Sequence[int], num_classes: int, ratios: Sequence[float] | None = None) -> Compose:
    """A window of ``roi_size`` voxels about a random voxel of a random class, zero-padded where the volume is smaller.

    For each draw a class is drawn by ``ratios`` among those that the label holds, then one of its voxels: the window's
    centre, moved inwards where the window would leave the volume. A label without foreground gives a window about any
    voxel. Nath et al. 2021 say of their 48³ windows no more than that they are random; the ratios are ours. Classes and
    not foreground as a whole take turns (as in :class:`monai.transforms.RandCropByPosNegLabeld`): a tumour is a small
    part of its organ and would be as rare a centre.

    Args:
        roi_size: the window, voxels.
        num_classes: classes of the label, background among them.
        ratios: share of each class, background first, all above 0; None: equal shares.

    Raises:
        SettingsError: there is not one ratio above 0 for each class.
    """
    shares = [1.0] * num_classes if ratios is None else [float(ratio) for ratio in ratios]
    if len(shares) != num_classes or not all(0 < share < math.inf for share in shares):
        raise SettingsError(f"ratios: {shares} are not {num_classes} numbers above 0, one for each class.")
    keys = (IMAGE, LABEL)
    # Padded last: a deterministic step before the random one would belong to the cache's key, and every volume would
    # be preprocessed once for training and once more for scoring.
    return Compose([_ClassWindowd(roi_size, shares), SpatialPadd(keys, tuple(roi_size))])


class _ClassWindowd(RandCropByLabelClassesd):
    """One window as a dictionary, where MONAI's transform gives a list of windows."""

    def __init__(self, roi_size: Sequence[int], ratios: Sequence[float]) -> None:
        super().__init__(
            keys=(IMAGE, LABEL),
            label_key=LABEL,
            spatial_size=tuple(roi_size),
            ratios=list(ratios),
            num_classes=len(ratios),
            allow_smaller=True,
            warn=False,  # of classes that a label does not hold
        )

    def __call__(self, data: Mapping[Hashable, Any], lazy: bool | None = None) -> dict[Hashable, Any]:
        window: dict[Hashable, Any] = super().__call__(data, lazy)[0]
        return window


def augmentation(name: str = "none") -> Compose:
    """Random changes of a training window.

    Args:
        name: ``none``; or ``light``: rotation up to 10 degrees, scale within 10 %, shift up to 2 voxels, Gaussian noise
            of standard deviation up to 0.03, gamma within 0.8 to 1.25. No mirroring: it would swap left and right.

    Raises:
        ValueError: the name is unknown.
    """
    keys = (IMAGE, LABEL)
    if name == "none":
        return Compose([])
    if name != "light":
        raise ValueError(f"augmentation {name!r} is neither 'none' nor 'light'.")
    affine = RandAffined(
        keys,
        prob=0.7,
        rotate_range=(0.175, 0.175, 0.175),
        scale_range=(0.1, 0.1, 0.1),
        translate_range=(2, 2, 2),
        mode=("bilinear", "nearest"),
        padding_mode="zeros",
    )
    noise = RandGaussianNoised(IMAGE, prob=0.3, std=0.03)
    return Compose([affine, noise, RandAdjustContrastd(IMAGE, prob=0.3, gamma=(0.8, 1.25))])


def training_preprocessing(
    deterministic: Compose, crop: Callable[..., Any], augment: str = "none", keep: Sequence[str] = (IMAGE, LABEL)
) -> Compose:
    """A training item's transforms: the cached deterministic part, then crop and augmentation, drawn anew each time."""
    return Compose([deterministic, crop, augmentation(augment), _Only(keep)]).flatten()


class _Only(MapTransform):
    """Leaves the named keys: what the trainer collates."""

    def __init__(self, keys: Sequence[str]) -> None:
        super().__init__(keys)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        return {key: data[key].as_tensor() if isinstance(data[key], MetaTensor) else data[key] for key in self.keys}
