"""``worklist.md``: a worklist for people to read, written anew by every command, with what has become of each case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from svgd_monai.files import write_text
from svgd_monai.report.page import Block, Heading, Items, Page, Paragraph, Table
from svgd_monai.report.page import markdown_text as plain
from svgd_monai.report.run_page import inexact, progress
from svgd_monai.rounds.people.ledger import Entry, PeopleLedger, slots
from svgd_monai.rounds.people.notes import Complaint

SHEET_FILE = "worklist.md"
HOW = (
    "Open each image, with its pre-segmentation if there is one. Correct or draw the label, and save it on the "
    "image's own grid under the name in the column 'save as', which is relative to the run's folder. Then run the same "
    "command again: it takes in the labels that have arrived."
)
NOTES = (
    "labels/empty.txt: if a case holds nothing to label, write its name on a line here; it then needs no label file.",
    "labels/confirmed.txt: if you hand a pre-segmentation back unchanged because it is right, write its case on a line "
    "here.",
    "labels/declined.txt: if a case cannot be labelled, write a line 'case: reason' here; it then leaves the pool.",
    "worklist.csv: fill in the minutes that each label took, and the annotator's name where it is missing.",
)


class _Preview:
    """The picture beside the sheet, by its name."""

    def __init__(self, case: str, why: str) -> None:
        self.case, self.why = case, why

    def markdown(self) -> str:
        """As Markdown."""
        return f"![{plain(self.case)}](<{self.case}.png>)\n\n{plain(f'{self.case}: {self.why}')}"

    def html(self) -> str:
        """The sheet is Markdown only."""
        return ""


def write_sheet(
    folder: Path, number: int, ledger: PeopleLedger, complaints: Sequence[Complaint], classes: Mapping[int, str]
) -> Path:
    """Write a worklist's sheet.

    Args:
        folder: the worklist's.
        number: its number.
        ledger: of the run.
        complaints: what this command has not taken. All stand on the newest sheet, on others those of their cases.
        classes: name of each label value, background 0 included.
    """
    entries = ledger.worklists[number]
    cases = {entry.case for entry in entries}
    newest = number == len(ledger.worklists) - 1
    mine = [complaint for complaint in complaints if newest or complaint.case in cases]
    rows = [
        [str(rank), entry.case, annotator or "", save_as, state_of(entry.case, save_as, ledger, complaints), entry.why]
        for rank, entry in enumerate(entries, start=1)
        for annotator, save_as in slots(entry)
    ]
    values = ", ".join(f"{value} {name}" for value, name in sorted(classes.items()))
    blocks: list[Block] = [Paragraph(HOW), Paragraph(f"Label values: {values}."), Items(NOTES)]
    if mine:
        blocks += [Heading("Not taken"), Items([complaint.sentence for complaint in mine])]
    blocks += [
        Heading("Cases"),
        Table(summary(entries, ledger), ["rank", "case", "annotator", "save as", "state", "why"], rows),
        *inexact([entry.case for entry in entries]),
        Heading("Where to look first"),
        *(_Preview(entry.case, entry.why) for entry in entries),
    ]
    return write_text(folder / SHEET_FILE, Page(f"Worklist {number}", blocks).markdown())


def summary(entries: Sequence[Entry], ledger: PeopleLedger) -> str:
    """How far a worklist has come."""
    return progress([_became(entry.case, ledger) for entry in entries])


def _became(case: str, ledger: PeopleLedger) -> str:
    if case not in ledger.images:
        return "held out"  # since it was put on the list
    if case in ledger.declined:
        return "declined"
    return "labelled" if ledger.labels.get(case) else "to do"


def state_of(case: str, save_as: str, ledger: PeopleLedger, complaints: Sequence[Complaint]) -> str:
    """What has become of the label that belongs at ``save_as``."""
    if case not in ledger.images:
        return "held out: now in the validation or test set, so no label is needed"
    if case in ledger.declined:
        return f"declined: {ledger.declined[case]['reason']}"
    parts = save_as.split("/")
    folder = save_as.removesuffix(parts[-1])
    about = [c for c in complaints if c.case == case and c.file.startswith(folder) and not c.file.endswith(".txt")]
    refused = about[0].sentence if about else None
    current = ledger.current(case)
    slot = parts[1] if len(parts) > 2 else ""
    label = current.get(slot) or (next(iter(current.values()), None) if len(parts) == 2 else None)
    instead = f"; the training uses {current[''].source} instead" if slot and "" in current else ""
    if label is not None:
        by = f" by {label.annotator}" if label.annotator else ""
        taken = f"accepted{by}, {label.time[:16].replace('T', ' ')} UTC"
        return (taken if refused is None else f"{taken}; a later file is refused: {refused}") + instead
    return ("to do" if refused is None else f"refused: {refused}") + instead
