"""Check every case by name before any training: MONAI loads a damaged volume without a word, or without its name.

Files are read once each: their bytes are hashed, decompressed and judged. What was found is kept in a cache, so that a
resume looks only at sizes and times.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from svgd_monai.data.entries import Item
from svgd_monai.data.nifti import Volume, read_bytes, read_volume
from svgd_monai.errors import DataError, RunFolderError
from svgd_monai.files import read_json, reason, write_json

AFFINE_TOLERANCE = 1e-3  # in voxels
NAMED_CASES = 5
_CACHE_FORMAT = 2  # to be raised when a check is added, so that old caches are not trusted

_logger = logging.getLogger(__name__)
_Stamp = list[Any]  # path, size in bytes, time of change in ns


@dataclass(frozen=True)
class CaseFacts:
    """What the check of a case found.

    Args:
        image_sha256: hash of the image file as it lies on disk.
        label_sha256: hash of the label file, None for a case without a label.
        shape: size of the volume in voxels, channels apart.
        spacing: size of a voxel along each axis, in mm.
        affine: rows of the (4, 4) matrix from voxel indices to mm.
        image_min: least intensity of each channel.
        image_max: greatest intensity of each channel.
        label_values: the classes that occur in the label, ascending; empty without a label.
        volume_ml: volume of each class in ml, background and absent classes included; empty without a label.
    """

    image_sha256: str
    label_sha256: str | None
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    affine: tuple[tuple[float, ...], ...]
    image_min: tuple[float, ...]
    image_max: tuple[float, ...]
    label_values: tuple[int, ...]
    volume_ml: dict[int, float]


def check_cases(
    items: Mapping[str, Item] | Iterable[Item],
    classes: Mapping[int, str],
    cache_file: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
    channels: int | None = None,
) -> dict[str, CaseFacts]:
    """Check all cases, and only then complain: of the first bad one in full, of the others by name.

    Args:
        items: the items, by case id or plain; an item that stands several times is checked once.
        classes: name of each label value, background 0 included.
        cache_file: a JSON file that keeps what was found, also when a case is bad; None: no cache.
        progress: called after each case with the numbers of cases done and of all.
        channels: how many every image must have; None takes any number.

    Returns:
        The facts of each case, in the order of ``items``.

    Raises:
        DataError: a file cannot be read in full, is not a finite 3D NIfTI volume, an image has other channels than it
            must, a label more than one, or image, label and classes do not fit one another.
    """
    distinct = {item["case"]: item for item in (items.values() if isinstance(items, Mapping) else items)}
    cache = _Cache(cache_file, classes, channels)
    facts: dict[str, CaseFacts] = {}
    bad: dict[str, DataError] = {}
    try:
        for done, (case, item) in enumerate(distinct.items(), start=1):
            try:
                facts[case] = cache.check(item)
            except DataError as error:
                bad[case] = error
            if progress is not None:
                progress(done, len(distinct))
    finally:
        cache.save()
    if bad:
        raise _complaint(bad)
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


def _complaint(bad: Mapping[str, DataError]) -> DataError:
    (case, error), *others = bad.items()
    sentence = f"Case {case}: {str(error).removesuffix('.')}"
    if others:
        names = ", ".join([name for name, _ in others[:NAMED_CASES]] + ["..."] * (len(others) > NAMED_CASES))
        sentence += f" (and {len(others)} more bad case{'s' * (len(others) > 1)}: {names})"
    return DataError(f"{sentence}.")


def _check_geometry(image: Volume, label: Volume) -> None:
    shapes = label.values.shape[:3], image.values.shape[:3]
    if shapes[0] != shapes[1]:
        raise DataError(f"{label.path} has the shape {shapes[0]}, but its image {shapes[1]}.")
    difference = float(np.abs(image.affine - label.affine).max())
    if difference > AFFINE_TOLERANCE * float(image.spacing.min()):
        raise DataError(f"{label.path} has another affine than its image, they differ by up to {difference:.3g} mm.")


def _count_classes(label: Volume, classes: Mapping[int, str]) -> dict[int, int]:
    """Number of voxels of each class."""
    values = label.values
    if values.dtype.kind == "f" and (values != np.rint(values)).any():
        odd = values[values != np.rint(values)][0]
        raise DataError(f"{label.path} has the label value {odd:g}, which is not a whole number.")
    if values.min() < 0 or values.max() > max(classes):
        odd = np.setdiff1d(values, list(classes))[0]
        raise DataError(f"{label.path} has the label value {odd:g}, the task's classes are {dict(classes)}.")
    # Layer by layer: the whole in 64-bit integers is eight times the label.
    least = max(classes) + 1
    counts = np.sum([np.bincount(layer.ravel().astype(np.int64), minlength=least) for layer in values], axis=0)
    return {value: int(counts[value]) for value in sorted(classes)}


class _Cache:
    """Facts on disk, trusted while a file's path, size and time stand, or else its hash."""

    def __init__(self, file: str | os.PathLike[str] | None, classes: Mapping[int, str], channels: int | None) -> None:
        self.file = None if file is None else Path(file)
        self.classes = classes
        self.channels = channels
        self.changed = False
        self.known: dict[str, tuple[dict[str, _Stamp], CaseFacts]] = {}
        if self.file is not None and self.file.exists():
            try:
                self.known = self._read(self.file)
            except (RunFolderError, LookupError, TypeError, ValueError, AttributeError) as error:
                _logger.warning("%s is damaged, all cases are checked again (%s)", self.file, reason(error))

    def check(self, item: Item) -> CaseFacts:
        """The facts of ``item``, from the cache where its files are unchanged."""
        # Taken before the files are read: a file that changes in between is read again next time.
        stamps: dict[str, _Stamp] = {key: _stamp(Path(item[key])) for key in ("image", "label") if key in item}
        old_stamps, facts = self.known.get(item["case"], ({}, None))
        if facts is not None and stamps == old_stamps:
            return facts
        if facts is None or not _same_content(stamps, old_stamps, facts):
            facts = check_case(item, self.classes, self.channels)
        self.known[item["case"]] = (stamps, facts)
        self.changed = True
        return facts

    def save(self) -> None:
        """Write what was found; a place that cannot be written costs time later, not the run."""
        if self.file is None or not self.changed:
            return
        cases = {case: {"files": stamps, "facts": asdict(facts)} for case, (stamps, facts) in self.known.items()}
        try:
            write_json(self.file, {**self._premises(), "cases": cases})
        except OSError as error:
            _logger.warning(
                "%s could not be written, the next start checks all cases again (%s)", self.file, reason(error)
            )

    def _premises(self) -> dict[str, Any]:
        """What the cases were checked against: under other premises, what was found is not trusted."""
        return {"format": _CACHE_FORMAT, "classes": sorted(self.classes), "channels": self.channels}

    def _read(self, file: Path) -> dict[str, tuple[dict[str, _Stamp], CaseFacts]]:
        content = read_json(file)
        if any(content[key] != value for key, value in self._premises().items()):
            return {}
        return {case: (_stamps(entry["files"]), _facts(entry["facts"])) for case, entry in content["cases"].items()}


def _stamps(content: Mapping[str, Any]) -> dict[str, _Stamp]:
    return {key: [str(path), int(size), int(time)] for key, (path, size, time) in content.items()}


def _facts(content: Mapping[str, Any]) -> CaseFacts:
    tuples = {key: tuple(content[key]) for key in ("shape", "spacing", "image_min", "image_max", "label_values")}
    affine = tuple(tuple(row) for row in content["affine"])
    volumes = {int(value): volume for value, volume in content["volume_ml"].items()}
    return CaseFacts(**{**content, **tuples, "affine": affine, "volume_ml": volumes})


def _stamp(path: Path) -> _Stamp:
    try:
        status = path.stat()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}).") from error
    return [str(path), status.st_size, status.st_mtime_ns]


def _same_content(stamps: Mapping[str, _Stamp], old_stamps: Mapping[str, _Stamp], facts: CaseFacts) -> bool:
    """Whether files that were moved or touched still hold what was checked; hashed only where the sizes agree."""
    if {key: stamp[1] for key, stamp in stamps.items()} != {key: stamp[1] for key, stamp in old_stamps.items()}:
        return False
    hashes = {"image": facts.image_sha256, "label": facts.label_sha256}
    return all(hashlib.sha256(read_bytes(Path(stamp[0]))).hexdigest() == hashes[key] for key, stamp in stamps.items())
