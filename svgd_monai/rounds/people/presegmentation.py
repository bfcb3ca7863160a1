"""The pre-segmentations that were handed out: people correct them, and some save over them."""

from __future__ import annotations

import hashlib
from pathlib import Path

from svgd_monai.data.nifti import read_bytes
from svgd_monai.errors import DataError
from svgd_monai.rounds.people.ledger import PeopleLedger, slots
from svgd_monai.rounds.people.notes import Complaint


def presegmentation_of(root: Path, ledger: PeopleLedger, case: str) -> Path | None:
    """The file of the newest worklist that holds a case; None where that had none, or it is gone.

    Args:
        root: the run's folder.
        ledger: of the run.
        case: the case.
    """
    number = max((n for n, entries in enumerate(ledger.worklists) if any(e.case == case for e in entries)), default=0)
    path = root / f"worklist/round_{number:03d}" / f"{case}_seg.nii.gz"
    entry = ledger.entry(case)
    return path if entry is not None and entry.presegmentation is not None and path.is_file() else None


def saved_over(path: Path, ledger: PeopleLedger, case: str) -> bool:
    """Whether a case's pre-segmentation is no longer what its worklist handed out."""
    entry = ledger.entry(case)
    try:
        return entry is None or hashlib.sha256(read_bytes(path)).hexdigest() != entry.presegmentation
    except DataError:
        return True


def misplaced(root: Path, ledger: PeopleLedger) -> list[Complaint]:
    """A complaint of each pre-segmentation of a case to do that was corrected in its place: it is no label yet.

    Args:
        root: the run's folder.
        ledger: of the run.
    """
    complaints = []
    for case in ledger.unlabelled:
        path, entry = presegmentation_of(root, ledger, case), ledger.entry(case)
        if path is not None and entry is not None and saved_over(path, ledger, case):
            shown = path.relative_to(root).as_posix()
            where = " or ".join(save_as for _, save_as in slots(entry))
            sentence = f"{shown} is not as it was made; if it is the label now, save it as {where}."
            complaints.append(Complaint(shown, sentence, case))
    return complaints
