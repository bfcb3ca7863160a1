"""``worklist.csv``: written once, then the team's own to fill in, with whatever spreadsheet it has."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from svgd_monai.data.nifti import case_id
from svgd_monai.files import reason, unguarded
from svgd_monai.rounds.people.notes import Complaint

WORKLIST_FILE = "worklist.csv"


@dataclass(frozen=True)
class Assignments:
    """What the worklists say, the newest last.

    Attributes:
        annotators: by case, where one alone labels it.
        minutes: by case, or by annotator/case where two label it.
        complaints: of a table that cannot be read, or of minutes that are no number.
        unread: the tables that cannot be read.
        tables: the newest that says something, by case.
    """

    annotators: dict[str, str] = field(default_factory=dict)
    minutes: dict[str, float] = field(default_factory=dict)
    complaints: list[Complaint] = field(default_factory=list)
    unread: list[Path] = field(default_factory=list)
    tables: dict[str, str] = field(default_factory=dict)

    def unknown(self, cases: Collection[str]) -> list[Complaint]:
        """A complaint of each row that says something of a case that is none of these."""
        return [
            Complaint(table, f"{table}: there is no case of the name {case!r}, so its row does not count.")
            for case, table in self.tables.items()
            if case not in cases
        ]


def read_assignments(paths: Iterable[Path]) -> Assignments:
    """Read the tables that are there.

    Args:
        paths: of ``worklist.csv``, oldest first.
    """
    result = Assignments()
    for path in paths:
        shown = f"{path.parent.parent.name}/{path.parent.name}/{path.name}"
        if not path.is_file():
            continue
        try:
            rows = read_worklist(path)
        except (OSError, ValueError, csv.Error) as error:
            sentence = f"{shown} cannot be read ({reason(error)}); annotators and minutes in it do not count."
            result.complaints.append(Complaint(shown, sentence))
            result.unread.append(path)
            continue
        times = Counter(map(case_of_row, rows))
        for row in rows:
            _read_row(row, times[case_of_row(row)] > 1, shown, result)
    return result


def read_worklist(path: Path) -> list[dict[str, str]]:
    """The rows of a table that a spreadsheet may have saved: with commas, semicolons or tabs, with a byte-order mark.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not UTF-8, or has no column ``case``.
    """
    text = path.read_text(encoding="utf-8-sig")
    header = text.partition("\n")[0]
    delimiter = max(",;\t", key=header.count)
    rows = list(csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, restval=""))
    if rows and "case" not in rows[0]:
        raise ValueError("no column 'case'")
    return [{str(key): unguarded(value) for key, value in row.items() if isinstance(value, str)} for row in rows]


def case_of_row(row: Mapping[str, str]) -> str:
    """The case of a row, by the names of its files where they agree: a spreadsheet may take 0002 for the number 2."""
    named = {case_id(row.get(column, "").strip()) for column in ("save_as", "image")} - {None}
    return named.pop() or "" if len(named) == 1 else row["case"].strip()


def filled_in(row: Mapping[str, str], asked: Collection[str] = ()) -> bool:
    """Whether a row has minutes, or an annotator who is none of those whom the run asks."""
    return bool(row.get("minutes", "").strip()) or row.get("annotator", "").strip() not in ("", *asked)


def _read_row(row: Mapping[str, str], double: bool, shown: str, result: Assignments) -> None:
    case, annotator = case_of_row(row), row.get("annotator", "").strip()
    if filled_in(row):
        result.tables[case] = shown
    if annotator and not double:
        result.annotators[case] = annotator
    minutes = row.get("minutes", "").strip()
    if not minutes:
        return
    try:
        value = float(minutes.replace(",", "."))
        if not 0 <= value < float("inf"):
            raise ValueError
    except ValueError:
        sentence = f"{shown}: {minutes!r} minutes for {case} is not a number."
        result.complaints.append(Complaint(shown, sentence, case))
    else:
        result.minutes[f"{annotator}/{case}" if double else case] = value
