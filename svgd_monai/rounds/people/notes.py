"""The text files that people put beside their labels: what they decline, what is empty, what needs no correction."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from svgd_monai.data.nifti import case_id
from svgd_monai.files import reason
from svgd_monai.rounds.people.ledger import PeopleLedger, slots
from svgd_monai.rounds.people.names import Names

#: ``<case>: <reason>`` a line; the other two hold a case a line.
DECLINED_FILE, EMPTY_FILE, CONFIRMED_FILE = NOTES = ("declined.txt", "empty.txt", "confirmed.txt")
_SEPARATORS = " \t:,;"
#: Behind a case's name, a word more of a name and the reason's colon: `scan 3: motion` is no decline of `scan`.
_MORE_OF_A_NAME = re.compile(r" +[^\s:,;]+ *:(?=\s|$)")


@dataclass(frozen=True)
class Complaint:
    """Why something that a person handed in was not taken.

    Attributes:
        file: the file, as the person knows it.
        sentence: the reason, which names the file.
        case: the case, where it is known.
    """

    file: str
    sentence: str
    case: str | None = None


@dataclass(frozen=True)
class Notes:
    """What the text files say.

    Attributes:
        declined: the reason, by case.
        empty: cases that hold nothing to label.
        confirmed: cases whose pre-segmentation is right as it is.
        complaints: lines that say nothing.
        unread: names of the files that are there and cannot be read.
    """

    declined: dict[str, str] = field(default_factory=dict)
    empty: set[str] = field(default_factory=set)
    confirmed: set[str] = field(default_factory=set)
    complaints: list[Complaint] = field(default_factory=list)
    unread: set[str] = field(default_factory=set)


def read_notes(folder: Path, cases: Collection[str], taken: Collection[str] = ()) -> Notes:
    """Read the text files of a folder, those that are there.

    Args:
        folder: ``labels/``.
        cases: the cases that may be labelled.
        taken: cases of held-out sets, of which a line is refused in a sentence of its own.
    """
    notes = Notes()
    for case, rest, where in _lines(folder / DECLINED_FILE, cases, taken, notes):
        if rest:
            notes.declined[case] = rest
        else:
            sentence = f"{where}: say why {case} is declined, as in `{case}: motion`; it needs a reason to count."
            notes.complaints.append(Complaint(f"labels/{DECLINED_FILE}", sentence, case))
    for name, named in ((EMPTY_FILE, notes.empty), (CONFIRMED_FILE, notes.confirmed)):
        for case, rest, where in _lines(folder / name, cases, taken, notes):
            if rest:  # which may be the end of a mistyped name that begins like this one
                sentence = f"{where}: {rest!r} follows the case {case}, so the line is ignored;"
                notes.complaints.append(Complaint(f"labels/{name}", f"{sentence} write one case on each line."))
            else:
                named.add(case)
    return notes


def unheeded(notes: Notes, ledger: PeopleLedger, handed: Collection[str]) -> list[Complaint]:
    """A complaint of each word that changes nothing: a label stands against it, or it needs one.

    Args:
        notes: the words.
        ledger: of the run, with what has been handed in by now.
        handed: the cases of which a file is there, be it taken or refused.
    """
    complaints = []
    shown = f"labels/{EMPTY_FILE}"
    for case in sorted(notes.empty):
        if ledger.labels.get(case) and any(ledger.label(case).volume_ml.values()):
            sentence = (
                f"{shown}: {case} has a label that is not empty, and that counts; if there is nothing to label in "
                f"{case}, save an empty label as labels/{case}.nii.gz, else take the line out."
            )
            complaints.append(Complaint(shown, sentence, case))
    shown = f"labels/{CONFIRMED_FILE}"
    newest = {entry.case: entry for entries in ledger.worklists for entry in entries}
    for case in sorted(notes.confirmed - {*ledger.labelled, *ledger.declined, *handed}):
        where = " or ".join(place for _, place in slots(newest[case])) if case in newest else f"labels/{case}.nii.gz"
        sentence = f"{shown}: {case} has no label; the line counts when its pre-segmentation is saved as {where}."
        complaints.append(Complaint(shown, sentence, case))
    return complaints


def _lines(path: Path, cases: Collection[str], taken: Collection[str], notes: Notes) -> list[tuple[str, str, str]]:
    """Case, rest of the line, and place, of each line that begins with a case; others are complained of."""
    shown = f"labels/{path.name}"
    if not path.is_file():
        return []
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        stands = "; what it said before stands" if path.name == DECLINED_FILE else ""
        notes.complaints.append(Complaint(shown, f"{shown} cannot be read as UTF-8 text ({reason(error)}){stands}."))
        notes.unread.add(path.name)
        return []
    found = []
    names = Names(cases)
    for number, line in enumerate(text.splitlines(), start=1):
        content = line.strip()
        case = _leading_case(content, cases, taken)
        if not content or (case is None and content.startswith("#")):  # the name of a case may begin so, too
            continue
        where = f"{shown}, line {number}"
        rest = "" if case is None else re.sub(r"^\.nii(\.gz)?", "", content[len(case) :])
        reasoned = path.name == DECLINED_FILE
        if case is None or (reasoned and _MORE_OF_A_NAME.match(rest)):
            name = content.partition(":")[0].strip() if reasoned else content  # which may hold blanks
            sentence = f"{where}: there is no case of the name {name!r}"
            if names.alike(name):
                sentence += ", but one that looks the same, with letters or blanks coded otherwise; copy its name"
            notes.complaints.append(Complaint(shown, f"{sentence}."))
        elif case not in cases:
            sentence = f"{where}: {case} is in a held-out set, so the line is ignored."
            notes.complaints.append(Complaint(shown, sentence, case))
        else:
            found.append((case, rest.strip(_SEPARATORS), where))
    return found


def _leading_case(line: str, *cases: Collection[str]) -> str | None:
    """The longest case that the line begins with: ids may hold any letter that file names may."""
    for end in range(len(line), 0, -1):
        ends = end == len(line) or line[end] in _SEPARATORS
        if ends and (case := _known(line[:end], *cases)):
            return case
    return None


def _known(word: str, *cases: Collection[str]) -> str | None:
    return next((name for name in (word, case_id(word)) for known in cases if name in known), None)
