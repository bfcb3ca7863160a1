"""Labels that people hand in: checked one by one, copied by content, and only then counted.

A label that was accepted lies as ``labels_accepted/<case>.<hash>.nii.gz`` and is never touched again: whoever edits
``labels/<case>.nii.gz`` later changes no round in flight, and the old copy stays when a new one comes. What is wrong
with one file holds up no other.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from svgd_monai.data.check_cache import CaseFacts
from svgd_monai.data.checks import check_case
from svgd_monai.data.nifti import NIFTI_SUFFIXES, read_bytes
from svgd_monai.data.people import PeopleData
from svgd_monai.errors import DataError
from svgd_monai.files import write_bytes
from svgd_monai.rounds.people.annotators import compare_annotators, name_annotators
from svgd_monai.rounds.people.cost import empty_label
from svgd_monai.rounds.people.handed import Handed, handed_files
from svgd_monai.rounds.people.ledger import Label, PeopleLedger, now
from svgd_monai.rounds.people.notes import (
    CONFIRMED_FILE,
    DECLINED_FILE,
    EMPTY_FILE,
    Complaint,
    Notes,
    read_notes,
    unheeded,
)
from svgd_monai.rounds.people.presegmentation import misplaced, with_correction
from svgd_monai.rounds.people.table import Assignments

logger = logging.getLogger(__name__)

LABELS_FOLDER = "labels"
ACCEPTED_FOLDER = "labels_accepted"
_INCOMING = ".incoming"


class Intake:
    """Takes in what people have handed in since the last time.

    Args:
        root: the run's folder.
        ledger: changed in place; the caller writes it.
        data: the cases.
        classes: name of each label value, background 0 included.
        channels: how many every image has.
        annotators: who labels.
        annotator: whose labels are those of which nothing else says it.
        more: the team's own folder of labels; None: there is none.
    """

    def __init__(
        self,
        root: Path,
        ledger: PeopleLedger,
        data: PeopleData,
        classes: Mapping[int, str],
        channels: int | None = None,
        annotators: Sequence[str] = (),
        annotator: str | None = None,
        more: Path | None = None,
    ) -> None:
        self.root = root
        self.ledger = ledger
        self.data = data
        self.classes = classes
        self.channels = channels
        asked = {name for entries in ledger.worklists for entry in entries for name in entry.annotators}
        self.annotators = sorted({*annotators, *asked})
        self.annotator = annotator
        self.more = more
        self.complaints: list[Complaint] = []
        self._refused = {(known["file"], known["sha256"], known["sentence"]) for known in ledger.refused}

    def take(self, assignments: Assignments) -> list[Complaint]:
        """Take in every file that is new or has changed.

        Args:
            assignments: what the worklists' tables say of annotators and minutes.

        Returns:
            What was not taken, and why.
        """
        folder = self.root / LABELS_FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        for left in (self.root / ACCEPTED_FOLDER).glob(f"{_INCOMING}*"):  # by a command that was killed
            left.unlink()
        self.complaints = [*assignments.complaints, *assignments.unknown(self.data.items)]
        held_out = {*self.data.validation, *self.data.test}
        notes = read_notes(folder, self.data.pool, held_out)
        self.complaints += notes.complaints
        files, others = self._handed(folder, held_out)
        refused = {(each.case, each.slot) for each in files if not self._take_one(each, notes, assignments)}
        # A file in labels/ goes before one in the team's own folder, but one that is refused holds up no other.
        without = {case for case, _ in refused if not self.ledger.labels.get(case)}
        first = {handed.case for handed in files if not handed.slot} - without
        for handed in others:
            if handed.case not in first:
                self._take_one(handed, notes, assignments)
            elif (handed.case, "") not in refused:
                before = self.ledger.current(handed.case)[handed.slot]
                self._take_one(handed, notes, assignments, behind=before)
        files += others
        for case in sorted(notes.empty - {handed.case for handed in files}):
            if not self.ledger.labels.get(case):  # not every program saves a label of nothing
                nothing = Handed(folder / f"{case}.nii.gz", case, "", f"{LABELS_FOLDER}/{EMPTY_FILE}: {case}")
                self._take_one(nothing, notes, assignments, empty_label(Path(self.data.pool[case]["image"])))
        self._decline(notes)
        self.complaints += unheeded(notes, self.ledger, {handed.case for handed in files})
        self.complaints += misplaced(self.root, self.ledger)
        name_annotators(self.ledger, assignments.annotators)
        # Of a table that cannot be read now, what it said before stands.
        self.ledger.minutes = {**(self.ledger.minutes if assignments.unread else {}), **assignments.minutes}
        compare_annotators(self.root, self.ledger, self.classes)
        return self.complaints

    def _handed(self, folder: Path, held_out: Collection[str]) -> tuple[list[Handed], list[Handed]]:
        """The files in ``labels/``, and those in the team's own folder."""
        others: list[Handed] = []
        files, complaints = handed_files(folder, self.data.pool, self.annotators, held_out, f"{LABELS_FOLDER}/")
        if self.more is not None:
            if not self.more.is_dir():
                raise DataError(f"labels: there is no folder {self.more}.")
            others, more_complaints = handed_files(self.more, self.data.pool, (), held_out)
            complaints += more_complaints
        self.complaints += complaints
        return files, others

    def _take_one(
        self,
        handed: Handed,
        notes: Notes,
        assignments: Assignments,
        content: bytes | None = None,
        behind: Label | None = None,
    ) -> bool:
        """Take a file in, and tell whether it counts now.

        Args:
            handed: the file.
            notes: what the text files say.
            assignments: what the tables say.
            content: stands for a file that nobody has saved.
            behind: the case's label that goes before this file, which is noted as an older one: it must not come back
                when the file of that label is deleted. None: the file counts.
        """
        digest = ""
        incoming = self.root / ACCEPTED_FOLDER / f"{_INCOMING}{_suffix(handed.path)}"
        try:
            said = content is not None  # by a person, and so no pre-segmentation
            content = read_bytes(handed.path) if content is None else content
            digest = hashlib.sha256(content).hexdigest()
            before = self.ledger.current(handed.case).get(handed.slot)
            if digest in {label.sha256 for label in (before, self._last_of(handed)) if label is not None}:
                return True
            # What is checked is what is kept: the person may save anew at any moment.
            write_bytes(incoming, content)
            facts = self._checked(handed, incoming, "" if said else digest, notes)
            file = f"{ACCEPTED_FOLDER}/{handed.case}.{digest[:12]}{_suffix(handed.path)}"
            annotator = handed.slot or assignments.annotators.get(handed.case) or self.annotator
            volumes = {name: facts.volume_ml[value] for value, name in self.classes.items() if value > 0}
            label = Label(handed.slot, annotator, file, digest, now(), handed.shown, volumes)
            label = with_correction(self.root, self.ledger, self.classes, handed.case, label, incoming)
            write_bytes(self.root / file, content)  # on the disk before the ledger names it
        except DataError as error:
            sentence = str(error).replace(str(incoming), handed.shown).replace(str(handed.path), handed.shown)
            if behind is None:  # of what would not count nobody need hear
                self._refuse(handed, digest, sentence)
            return False
        finally:
            incoming.unlink(missing_ok=True)
        labels = self.ledger.labels.setdefault(handed.case, [])
        if behind is not None:
            labels.insert(labels.index(behind), label)
            logger.info("%s does not count, %s goes before it.", handed.shown, behind.source)
            return False
        labels.append(label)
        by = "" if annotator is None else f" by {annotator}"
        logger.info("%s%s is accepted%s.", handed.shown, by, "" if before is None else " in place of the one before")
        return True

    def _last_of(self, handed: Handed) -> Label | None:
        """The case's last label from the team's own folder: taken once, a file of it does not replace a newer label."""
        ours = f"{LABELS_FOLDER}/"
        if handed.shown.startswith(ours):
            return None
        taken = [label for label in self.ledger.labels.get(handed.case, []) if not label.source.startswith(ours)]
        return taken[-1] if taken else None

    def _checked(self, handed: Handed, copy: Path, digest: str, notes: Notes) -> CaseFacts:
        item = {**self.data.pool[handed.case], "label": str(copy)}
        facts = check_case(item, self.classes, self.channels)
        if facts.label_values == (0,) and handed.case not in notes.empty:
            raise DataError(
                f"{handed.shown} is empty; if {handed.case} holds nothing to label, write its name into "
                f"{LABELS_FOLDER}/{EMPTY_FILE}."
            )
        suggested = {e.presegmentation for entries in self.ledger.worklists for e in entries if e.case == handed.case}
        if digest in suggested and handed.case not in notes.confirmed:
            raise DataError(
                f"{handed.shown} is the pre-segmentation, unchanged; if it needs no correction, write {handed.case} "
                f"into {LABELS_FOLDER}/{CONFIRMED_FILE}."
            )
        return facts

    def _refuse(self, handed: Handed, digest: str, sentence: str) -> None:
        self.complaints.append(Complaint(handed.shown, sentence, handed.case))
        if (handed.shown, digest, sentence) not in self._refused:
            self._refused.add((handed.shown, digest, sentence))
            record = {"file": handed.shown, "sha256": digest, "sentence": sentence, "time": now()}
            self.ledger.refused.append(record)

    def _decline(self, notes: Notes) -> None:
        stands = self.ledger.declined if DECLINED_FILE in notes.unread else {}
        declined = {case: record for case, record in stands.items() if not self.ledger.labels.get(case)}
        for case, why in notes.declined.items():
            if self.ledger.labels.get(case):
                shown = f"{LABELS_FOLDER}/{DECLINED_FILE}"
                self.complaints.append(Complaint(shown, f"{shown}: {case} has a label, so it is not declined.", case))
                continue
            known = self.ledger.declined.get(case)
            if known is None:
                logger.info("%s is declined (%s) and leaves the pool.", case, why)
            declined[case] = {"reason": why, "time": known["time"] if known else now()}
        for case in sorted(self.ledger.declined.keys() - declined):
            if case in self.data.pool and not self.ledger.labels.get(case):
                shown = f"{LABELS_FOLDER}/{DECLINED_FILE}"
                logger.info("%s is back in the pool: %s no longer declines it.", case, shown)
        self.ledger.declined = declined


def _suffix(path: Path) -> str:
    return next(suffix for suffix in NIFTI_SUFFIXES if path.name.endswith(suffix))
