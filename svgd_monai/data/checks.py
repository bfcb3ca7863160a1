"""Check every case by name before any training: MONAI loads a damaged volume without a word, or without its name.

Files are read once each: their bytes are hashed, decompressed and judged. What was found is kept in a cache, so that a
resume looks only at sizes and times.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path

import numpy as np
from nibabel.orientations import aff2axcodes, inv_ornt_aff, io_orientation, ornt_transform
from numpy.typing import NDArray

from svgd_monai.data.check_cache import CaseFacts, CheckCache
from svgd_monai.data.entries import Item
from svgd_monai.data.nifti import Volume, read_volume
from svgd_monai.errors import DataError

AFFINE_TOLERANCE = 1e-3  # in voxels, of each entry
#: How far, in voxels, a label's affine may place a corner of the volume beside its image's: what is turned or scaled a
#: little lies the further beside it, the further it is from the first voxel.
CORNER_TOLERANCE = 0.1
#: The orientation transform that changes nothing: each axis stays, and its direction.
_AS_STORED = [[0, 1], [1, 1], [2, 1]]
NAMED_CASES = 5

_logger = logging.getLogger(__name__)


def check_cases(
    items: Mapping[str, Item] | Iterable[Item],
    classes: Mapping[int, str],
    cache_file: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
    channels: int | None = None,
    bad: dict[str, str] | None = None,
) -> dict[str, CaseFacts]:
    """Check all cases, and only then complain: of the first bad one in full, of the others by name.

    Args:
        items: the items, by case id or plain; an item that stands several times is checked once.
        classes: name of each label value, background 0 included.
        cache_file: a JSON file that keeps what was found, also when a case is bad; None: no cache.
        progress: called after each case with the numbers of cases done and of all.
        channels: how many every image must have; None takes any number.
        bad: a dictionary that takes the sentence of each bad case, which then is not an error; None: it is an error.

    Returns:
        The facts of each sound case, in the order of ``items``.

    Raises:
        DataError: a file cannot be read in full, is not a finite 3D NIfTI volume, an image has another number of
            channels, a label more than one, or image, label and classes do not fit one another.
    """
    distinct = {item["case"]: item for item in (items.values() if isinstance(items, Mapping) else items)}
    cache = CheckCache(cache_file, classes, channels, lambda item: check_case(item, classes, channels))
    facts: dict[str, CaseFacts] = {}
    found: dict[str, str] = {}
    try:
        for done, (case, item) in enumerate(distinct.items(), start=1):
            try:
                facts[case] = cache.check(item)
            except DataError as error:
                found[case] = str(error)
            if progress is not None:
                progress(done, len(distinct))
    finally:
        cache.save()
    if found and bad is None:
        raise complaint(found)
    if bad is not None:
        bad.update(found)
    for case, fact in facts.items():
        for number, (least, greatest) in enumerate(zip(fact.image_min, fact.image_max, strict=True)):
            if least == greatest:
                what = "the image" if len(fact.image_min) == 1 else f"channel {number} of the image"
                _logger.warning("%s of case %s is constant: all voxels are %g", what, case, least)
    return facts


def check_case(item: Item, classes: Mapping[int, str], channels: int | None = None) -> CaseFacts:
    """Check one case, without a cache.

    Args:
        item: the case; its label is checked where it has one.
        classes: name of each label value, background 0 included.
        channels: how many the image must have; None takes any number.

    Raises:
        DataError: as :func:`check_cases` says; the sentence begins with the file's path.
    """
    image = read_volume(Path(item["image"]), channels)
    label = read_volume(Path(item["label"]), 1) if "label" in item else None
    counts: dict[int, int] = {}
    if label is not None:
        _check_geometry(image, label)
        counts = _count_classes(label, classes)
    millilitres = float(abs(np.linalg.det(image.affine[:3, :3]))) / 1000.0
    return CaseFacts(
        image_sha256=image.sha256,
        label_sha256=None if label is None else label.sha256,
        shape=image.values.shape[:3],
        spacing=tuple(image.spacing.tolist()),
        affine=tuple(tuple(row) for row in image.affine.tolist()),
        image_min=tuple(map(float, image.values.min((0, 1, 2)))),
        image_max=tuple(map(float, image.values.max((0, 1, 2)))),
        label_values=tuple(value for value, count in counts.items() if count),
        volume_ml={value: count * millilitres for value, count in counts.items()},
    )


def dataset_fingerprint(facts: Mapping[str, CaseFacts]) -> str:
    """SHA-256 over the case ids and the contents of their files, wherever the files lie."""
    digest = hashlib.sha256()
    for case, fact in sorted(facts.items()):
        digest.update(f"{case}\n{fact.image_sha256}\n{fact.label_sha256 or '-'}\n".encode())
    return digest.hexdigest()


def complaint(bad: Mapping[str, str]) -> DataError:
    """The error that tells of bad cases: of the first in full, of the others by name."""
    (case, words), *others = bad.items()
    sentence = f"Case {case}: {words.removesuffix('.')}"
    if others:
        names = named([name for name, _ in others])
        sentence += f" (and {len(others)} more bad case{'s' * (len(others) > 1)}: {names})"
    return DataError(f"{sentence}.")


def named(cases: Sequence[str]) -> str:
    """The names of the first :data:`NAMED_CASES` cases, for a sentence."""
    return ", ".join([*cases[:NAMED_CASES], *["..."] * (len(cases) > NAMED_CASES)])


def _check_geometry(image: Volume, label: Volume) -> None:
    shapes = label.values.shape[:3], image.values.shape[:3]
    beside = _beside(image.affine, label.affine, shapes[1])
    if shapes[0] == shapes[1] and not beside.any():
        return
    turn = ornt_transform(io_orientation(label.affine), io_orientation(image.affine))
    turned = label.affine @ inv_ornt_aff(turn, shapes[0])
    if not np.array_equal(turn, _AS_STORED) and not _beside(image.affine, turned, shapes[1]).any():
        shape = tuple(shapes[0][axis] for axis in np.argsort(turn[:, 0]))
        cut = "" if shape == shapes[1] else f" and is {shape} where that is {shapes[1]}"
        stored, wanted = ("".join(map(str, aff2axcodes(volume.affine))) for volume in (label, image))
        raise DataError(
            f"{label.path} is stored in another orientation than its image ({stored}, the image {wanted}){cut}; "
            "save it on the image's own grid."
        )
    if shapes[0] != shapes[1]:
        raise DataError(f"{label.path} has the shape {shapes[0]}, but its image has {shapes[1]}.")
    raise DataError(f"{label.path} has an affine that differs from its image's by up to {beside.max():.3g} mm.")


def _beside(image: NDArray[np.float64], label: NDArray[np.float64], shape: Sequence[int]) -> NDArray[np.float64]:
    """How far in mm each corner of a volume lies beside itself by two affines; 0 for all where they agree."""
    # A single slice counts as two, for its thickness and its axis are the file's as well; which way it looks shows
    # nowhere.
    single = np.array([*(side == 1 for side in shape), False])
    label = np.where(single & ((label * image)[:3].sum(0) < 0), -label, label)
    corners = np.array([[*corner, 1] for corner in product(*((0, max(side - 1, 1)) for side in shape))]).T
    beside = (label - image) @ corners
    spacing = np.linalg.norm(image[:3, :3], axis=0).min()
    agree = (
        np.abs(label - image).max() <= AFFINE_TOLERANCE * spacing
        and np.abs(np.linalg.solve(image, beside)).max() <= CORNER_TOLERANCE
    )
    return np.zeros(len(corners.T)) if agree else np.linalg.norm(beside, axis=0)


def _count_classes(label: Volume, classes: Mapping[int, str]) -> dict[int, int]:
    """Number of voxels of each class."""
    # As training sees them: 20 times a factor of 0.1 in single precision is 2.00000003 in double, and 2 in single.
    values = label.values.astype(np.float32) if label.values.dtype.kind == "f" else label.values
    if values.dtype.kind == "f" and (broken := values[values != np.rint(values)]).size:
        raise DataError(f"{label.path} has the label value {broken[0]!s}, which is not a whole number.")
    if values.min() < 0 or values.max() > max(classes):
        odd = np.setdiff1d(values, list(classes))[0]
        raise DataError(f"{label.path} has the label value {odd:g}, the task's classes are {dict(classes)}.")
    # Layer by layer: the whole in 64-bit integers is eight times the label.
    least = max(classes) + 1
    counts = np.sum([np.bincount(layer.ravel().astype(np.int64), minlength=least) for layer in values], axis=0)
    return {value: int(counts[value]) for value in sorted(classes)}
