"""Names that people write: which case they are, and which one they may have meant."""

import unicodedata

import pytest

from svgd_monai.rounds.people.handed import handed_files
from svgd_monai.rounds.people.notes import read_notes

COMPOSED, APART = (unicodedata.normalize(form, "Müller_1") for form in ("NFC", "NFD"))


def sentence(folder, name, cases, taken=()):
    """What is said of one file in ``labels/``."""
    (folder / name).write_bytes(b"")
    _, (complaint,) = handed_files(folder, cases, (), taken, "labels/")
    return complaint.sentence


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("scan-label.nii.gz", "; did you mean scan.nii.gz?"),
        ("Scan-label.nii.gz", "; did you mean Scan.nii.gz?"),
        ("SCAN.nii.gz", "; did you mean Scan.nii.gz or scan.nii.gz?"),
        ("SCAN.seg.nrrd", "; save it as NIfTI, Scan.nii.gz or scan.nii.gz."),
        ("scan_2-label.nii.gz", "; did you mean Scan_2.nii.gz?"),
    ],
)
def test_of_cases_that_differ_in_capitals_the_one_that_is_written_is_meant_and_else_all_are_named(tmp_path, name, hint):
    """But a longer name in other capitals goes before a shorter one."""
    assert sentence(tmp_path, name, ["Scan", "scan", "Scan_2"]).endswith(hint)


@pytest.mark.parametrize(
    ("case", "name"), [(APART, COMPOSED), (COMPOSED, APART), ("a b  c", "a b c"), ("a\u00a0b", "a b")]
)
def test_a_name_that_looks_like_that_of_an_image_is_told_to_be_another(tmp_path, case, name):
    told = sentence(tmp_path, f"{name}.nii.gz", ["other", case])
    assert told == (
        f"labels/{name}.nii.gz is not a label: the name of an image looks the same, but its letters or blanks are "
        "coded otherwise; copy the name from the image."
    )
    for file, line in (("declined.txt", f"{name}: motion"), ("empty.txt", name)):
        (tmp_path / file).write_text(f"{line}\n", encoding="utf-8")
        (complaint,) = read_notes(tmp_path, ["other", case]).complaints
        assert complaint.sentence == (
            f"labels/{file}, line 1: there is no case of the name {name!r}, but one that looks the same, with letters "
            "or blanks coded otherwise; copy its name."
        )
        (tmp_path / file).unlink()


def test_a_form_of_letters_is_no_hindrance_to_a_hint(tmp_path):
    assert sentence(tmp_path, f"{COMPOSED}_seg.nii.gz", [APART]).endswith(f"; did you mean {APART}.nii.gz?")


def test_a_case_may_begin_as_a_comment_does(tmp_path):
    for name, line in (("empty", "#7 scan"), ("declined", "#7 scan: motion")):
        (tmp_path / f"{name}.txt").write_text(f"# 7 scans are ours\n#8 scan\n{line}\n#\n")
    notes = read_notes(tmp_path, ["#7 scan", "7", "scan"])
    assert (notes.empty, notes.declined, notes.complaints) == ({"#7 scan"}, {"#7 scan": "motion"}, [])


def test_of_a_held_out_case_nothing_need_be_said(tmp_path):
    (tmp_path / "declined.txt").write_text("scan 3: motion\nscan: blurred\n")
    (tmp_path / "empty.txt").write_text("scan 3\n")
    notes = read_notes(tmp_path, ["scan"], ["scan 3"])
    assert (notes.declined, notes.empty) == ({"scan": "blurred"}, set())
    assert [(each.sentence, each.case) for each in notes.complaints] == [
        (f"labels/{name}.txt, line 1: scan 3 is in a held-out set, so the line is ignored.", "scan 3")
        for name in ("declined", "empty")
    ]
