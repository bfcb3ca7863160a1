"""The pre-segmentations that were handed out: people correct them, and some save over them."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from svgd_monai.data.nifti import file_hash
from svgd_monai.errors import DataError
from svgd_monai.rounds.people.cost import correction, read_label
from svgd_monai.rounds.people.ledger import Label, PeopleLedger, slots
from svgd_monai.rounds.people.notes import Complaint

logger = logging.getLogger(__name__)


def presegmentation_of(root: Path, ledger: PeopleLedger, case: str, digest: str = "") -> tuple[Path, str] | None:
    """A pre-segmentation of a case that was handed out: its file, and the hash that it had then.

    Args:
        root: the run's folder.
        ledger: of the run.
        case: the case.
        digest: hash of a label; of several worklists with the case it is the one that handed out just that, if any
            did, else the newest.

    Returns:
        None where that worklist had none, or its file is gone.
    """
    listed = [(n, e.presegmentation) for n, entries in enumerate(ledger.worklists) for e in entries if e.case == case]
    if not listed:
        return None
    number, made = next((each for each in listed if each[1] == digest), listed[-1])
    path = _file(root, number, case)
    return (path, made) if made is not None and path.is_file() else None


def saved_over(path: Path, made: str) -> bool:
    """Whether a pre-segmentation is no longer what its worklist handed out, a file of the hash ``made``."""
    try:
        return file_hash(path) != made
    except DataError:
        return True


def with_correction(
    root: Path, ledger: PeopleLedger, classes: Mapping[int, str], case: str, label: Label, copy: Path
) -> Label:
    """The label with its difference from the pre-segmentation that it is, else from the newest.

    Args:
        root: the run's folder.
        ledger: of the run.
        classes: name of each label value, background 0 included.
        case: the case.
        label: its label.
        copy: the label's file.
    """
    given = presegmentation_of(root, ledger, case, label.sha256)
    if given is None:
        return label
    try:
        if saved_over(*given):
            raise DataError("somebody has saved over it, so its content is lost")
        difference = correction(read_label(copy), read_label(given[0]), classes)
    except (DataError, ValueError) as error:  # a pre-segmentation that somebody has changed costs no label
        logger.warning("%s cannot be compared with the pre-segmentation (%s).", label.source, error)
        return label
    dice = None if math.isnan(difference.dice) else difference.dice
    return replace(label, corrected_voxels=difference.voxels, corrected_surface_voxels=difference.surface_voxels,
                   presegmentation_dice=dice)  # fmt: skip


def misplaced(root: Path, ledger: PeopleLedger) -> list[Complaint]:
    """A complaint of each label of a case to do that lies where a pre-segmentation of it is, or would be.

    It is none yet. A case may be on several worklists, and people may go on with the file of an older one.

    Args:
        root: the run's folder.
        ledger: of the run.
    """
    complaints = []
    to_do = set(ledger.unlabelled)
    newest = {entry.case: entry for entries in ledger.worklists for entry in entries}
    for number, entry in ((n, e) for n, entries in enumerate(ledger.worklists) for e in entries if e.case in to_do):
        path = _file(root, number, entry.case)
        if path.is_file() and (entry.presegmentation is None or saved_over(path, entry.presegmentation)):
            shown = path.relative_to(root).as_posix()
            what = "was not handed out" if entry.presegmentation is None else "has been changed"
            where = " or ".join(save_as for _, save_as in slots(newest[entry.case]))
            sentence = f"{shown} {what}; if it is now the label, save it as {where}."
            complaints.append(Complaint(shown, sentence, entry.case))
    return complaints


def _file(root: Path, number: int, case: str) -> Path:
    return root / f"worklist/round_{number:03d}" / f"{case}_seg.nii.gz"
