"""The label files that lie in a folder, and whose they are."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from svgd_monai.data.nifti import NIFTI_SUFFIXES, case_id
from svgd_monai.rounds.people.names import Names
from svgd_monai.rounds.people.notes import NOTES, Complaint


@dataclass(frozen=True)
class Handed:
    """A file that a person saved.

    Attributes:
        path: where it lies.
        case: the case that its name says.
        slot: the annotator's folder it lies in; empty for none.
        shown: the name that the person knows it by.
    """

    path: Path
    case: str
    slot: str
    shown: str


def handed_files(
    folder: Path,
    cases: Collection[str],
    annotators: Sequence[str] = (),
    taken: Collection[str] = (),
    prefix: str | None = None,
) -> tuple[list[Handed], list[Complaint]]:
    """The label files in a folder and in the annotators' folders below it, sorted by name.

    Hidden files and those that an editor leaves half-written (``~``, ``.tmp``, ``.part``) are passed over.

    Args:
        folder: ``labels/``, or the team's own folder.
        cases: the cases that may be labelled.
        annotators: names of the folders below.
        taken: cases of held-out sets, of which a label is refused in a sentence of its own.
        prefix: what stands before a file's name where it is shown; None shows the path.

    Returns:
        The files, and a complaint of each that is none of them.
    """
    files: list[Handed] = []
    complaints: list[Complaint] = []
    names = Names(cases)
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        shown = str(path) if prefix is None else f"{prefix}{path.name}"
        if _passed_over(path) or (path.is_file() and path.name in NOTES):
            continue
        if path.is_dir():
            if path.name in annotators:
                below = handed_files(path, cases, (), taken, f"{shown}/")
                files += [Handed(each.path, each.case, path.name, each.shown) for each in below[0]]
                complaints += below[1]
            else:
                complaints.append(Complaint(shown, f"{shown} is a folder, but nobody of that name is an annotator."))
            continue
        case = case_id(path.name)
        if case is None or case not in cases:
            named = case if case in taken else None
            complaints.append(Complaint(shown, _wrong_name(shown, path.name, names, taken), named))
        elif path.suffix == ".nii" and path.with_name(f"{path.name}.gz").is_file():
            sentence = f"{shown} and {shown}.gz are both there; the second counts, delete one of them."
            complaints.append(Complaint(shown, sentence, case))
        else:
            files.append(Handed(path, case, "", shown))
    return files, complaints


def _passed_over(path: Path) -> bool:
    return path.name.startswith(".") or path.name.endswith(("~", ".tmp", ".part"))


def _wrong_name(shown: str, name: str, names: Names, taken: Collection[str]) -> str:
    case = case_id(name)
    near = " or ".join(f"{each}{NIFTI_SUFFIXES[0]}" for each in names.near(name))
    if case is None:
        hint = f"; save it as NIfTI, {near}" if near else ""
        return f"{shown} is not a label: its name must be that of the image, <case>.nii.gz{hint}."
    if case in taken:
        return f"{shown} is not taken: {case} is in a held-out set, whose labels are fixed."
    if names.alike(case):
        return (
            f"{shown} is not a label: the name of an image looks the same, but its letters or blanks are coded "
            "otherwise; copy the name from the image."
        )
    hint = f"; did you mean {near}?" if near else "."
    return f"{shown} is not a label: there is no image of the name {case}{hint}"
