"""What the check of each case has found, and the file that keeps it, so that a resume looks only at sizes and times."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from svgd_monai.data.entries import Item
from svgd_monai.data.nifti import file_hash
from svgd_monai.errors import DataError, RunFolderError
from svgd_monai.files import read_json, reason, write_json

#: Name of the file in a cache's folder.
CHECKS_FILE = "case_checks.json"
_CACHE_FORMAT = 4  # to be raised when a check is added, so that old caches are not trusted

_logger = logging.getLogger(__name__)
_SHA256 = re.compile(r"[0-9a-f]{64}")
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

    def fingerprint(self, labelled: bool) -> str:
        """What an item has as ``fingerprint``: the hash of its image and, where it is ``labelled``, of its label."""
        return f"{self.image_sha256}+{self.label_sha256 or '-'}" if labelled else self.image_sha256


class CheckCache:
    """Facts on disk, trusted while a file's path, size and time stand, or else its hash.

    Args:
        file: a JSON file, which need not be there; None: nothing is kept.
        classes: what labels are checked against.
        channels: what images are checked against.
        check_case: from an item to its facts, for what the cache does not hold.
    """

    def __init__(
        self,
        file: str | os.PathLike[str] | None,
        classes: Mapping[int, str],
        channels: int | None,
        check_case: Callable[[Item], CaseFacts],
    ) -> None:
        self.file = None if file is None else Path(file)
        self.classes = classes
        self.channels = channels
        self.check_case = check_case
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
        stamps: dict[str, _Stamp] = {key: file_stamp(Path(item[key])) for key in ("image", "label") if key in item}
        old_stamps, facts = self.known.get(item["case"], ({}, None))
        if facts is not None and stamps == old_stamps:
            return facts
        if facts is None or not _same_content(stamps, old_stamps, facts):
            facts = self.check_case(item)
        self.known[item["case"]] = (stamps, facts)
        self.changed = True
        return facts

    def save(self) -> None:
        """Write what was found; a place that cannot be written costs time later, not the run."""
        if self.file is None or not self.changed:
            return
        cases = {case: {"files": stamps, "facts": asdict(facts)} for case, (stamps, facts) in self.known.items()}
        try:
            write_json(self.file, {**self._premises(), "sha256": _digest(cases), "cases": cases})
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
        if content["sha256"] != _digest(content["cases"]):  # a flipped bit may leave JSON, and another hash of a volume
            raise ValueError("its checksum is wrong")
        return {case: (_stamps(entry["files"]), _facts(entry["facts"])) for case, entry in content["cases"].items()}


def check_unchanged(item: Mapping[str, Any]) -> None:
    """Compare the files of an item with its ``fingerprint``, where it has one of :meth:`CaseFacts.fingerprint`.

    One of a user's own making, which stands for the content by other means, is taken at its word.

    Raises:
        DataError: one cannot be read, or is no longer the one that was checked; the sentence names it.
    """
    hashes = str(item.get("fingerprint", "")).split("+")
    for key, known in zip(("image", "label"), hashes, strict=False):
        if key in item and _SHA256.fullmatch(known) and file_hash(Path(item[key])) != known:
            raise DataError(f"{item[key]} has changed since it was checked; the same command checks it again.")


def file_stamp(path: Path) -> _Stamp:
    """A file's path, size in bytes, and time of its last change in nanoseconds.

    Raises:
        DataError: it is gone, or may not be reached.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}).") from error
    return [str(path), status.st_size, status.st_mtime_ns]


def _digest(cases: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(cases, sort_keys=True).encode()).hexdigest()


def _stamps(content: Mapping[str, Any]) -> dict[str, _Stamp]:
    return {key: [str(path), int(size), int(time)] for key, (path, size, time) in content.items()}


def _facts(content: Mapping[str, Any]) -> CaseFacts:
    tuples = {key: tuple(content[key]) for key in ("shape", "spacing", "image_min", "image_max", "label_values")}
    affine = tuple(tuple(row) for row in content["affine"])
    volumes = {int(value): volume for value, volume in content["volume_ml"].items()}
    return CaseFacts(**{**content, **tuples, "affine": affine, "volume_ml": volumes})


def _same_content(stamps: Mapping[str, _Stamp], old_stamps: Mapping[str, _Stamp], facts: CaseFacts) -> bool:
    """Whether files that were moved or touched still hold what was checked; hashed only where the sizes agree."""
    if {key: stamp[1] for key, stamp in stamps.items()} != {key: stamp[1] for key, stamp in old_stamps.items()}:
        return False
    hashes = {"image": facts.image_sha256, "label": facts.label_sha256}
    return all(file_hash(Path(stamp[0])) == hashes[key] for key, stamp in stamps.items())
