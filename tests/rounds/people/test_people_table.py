"""``worklist.csv`` as a spreadsheet gives it back: whose row is whose, and that no row is lost."""

import csv
import io

import pytest

from svgd_monai.rounds.people.handout import Handout
from svgd_monai.rounds.people.ledger import Entry
from svgd_monai.rounds.people.table import read_assignments, read_worklist

CASES = ["0001", "0002", "0003"]
CLASSES = {0: "background", 1: "organ"}


@pytest.fixture
def items(phantom_mr, tmp_path):
    """Images whose names are numbers with leading zeros."""
    found = {}
    for number, case in enumerate(CASES, start=1):
        image = tmp_path / f"{case}.nii.gz"
        image.symlink_to(phantom_mr / f"imagesTr/phantom_mr_{number:03d}.nii.gz")
        found[case] = {"case": case, "image": str(image)}
    return found


def handout(tmp_path, **settings):
    return Handout(tmp_path / "run", None, settings, CLASSES)


def changed(path, change):
    """Save a table with its rows changed, as a spreadsheet does in some countries."""
    rows = read_worklist(path)
    for row in rows:
        change(row)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), delimiter=";", lineterminator="\r\n")
    writer.writeheader()
    writer.writerows(rows)
    path.write_text(text.getvalue())


def as_numbers(row):
    row["case"] = str(int(row["case"]))
    row |= {"annotator": "zoe", "minutes": f"{int(row['case'])},5"}


def test_a_case_that_a_spreadsheet_took_for_a_number_keeps_what_people_wrote(items, tmp_path):
    lists = handout(tmp_path)
    lists.write(0, [Entry(case) for case in CASES[:2]], items, None)
    (path,) = lists.tables(1)
    changed(path, as_numbers)
    minutes = {"0001": 1.5, "0002": 2.5}
    found = read_assignments([path])
    assert (found.annotators, found.minutes) == (dict.fromkeys(minutes, "zoe"), minutes)
    assert found.unknown(CASES) == []
    lists.write(0, [Entry("0003")], items, None, CASES[:2])
    assert [(row["case"], row["annotator"], row["minutes"]) for row in read_worklist(path)] == [
        ("0001", "zoe", "1,5"), ("0002", "zoe", "2,5"), ("0003", "", ""),
    ]  # fmt: skip
    assert read_assignments([path]).minutes == minutes


def test_of_two_annotators_each_keeps_the_minutes(items, tmp_path):
    lists = handout(tmp_path)
    lists.write(0, [Entry("0001", ("ann", "bob")), Entry("0002", ("ann",))], items, None)
    (path,) = lists.tables(1)
    changed(path, lambda row: row.update(case=row["case"].lstrip("0"), minutes="4"))
    found = read_assignments([path])
    assert found.minutes == {"ann/0001": 4.0, "bob/0001": 4.0, "0002": 4.0}
    assert found.annotators == {"0002": "ann"}


@pytest.mark.parametrize(
    ("row", "case"),
    [
        ("2,labels/0002.nii.gz,0002.nii", "0002"),
        ("0002,labels/elsewhere.nii.gz,0002.nii.gz", "0002"),  # where a person says to have saved it
        ("2,labels/ann/0002.nii.gz,", "0002"),
        ("2,,", "2"),
        ("0002,done,seen", "0002"),
    ],
)
def test_a_row_is_of_the_case_that_its_files_are_of_where_they_agree(row, case, tmp_path):
    path = tmp_path / "worklist/round_000/worklist.csv"
    path.parent.mkdir(parents=True)
    path.write_text(f"case,save_as,image,minutes\n{row},7\n")
    assert read_assignments([path]).minutes == {case: 7.0}


def test_a_row_that_is_of_no_case_is_complained_of_where_a_person_has_filled_it_in(tmp_path):
    path = tmp_path / "worklist/round_000/worklist.csv"
    path.parent.mkdir(parents=True)
    path.write_text("case,annotator,minutes\n1,zoe,\n2,,7\n3,,\n0004,zoe,7\n")
    found = read_assignments([path]).unknown(["0001", "0004"])
    assert [each.sentence for each in found] == [
        f"worklist/round_000/worklist.csv: there is no case of the name {case!r}, so its row does not count."
        for case in ("1", "2")
    ]


def test_no_row_goes_that_a_person_has_filled_in(items, tmp_path):
    """Of a case that is not on the list, as after a kill, or of one that nobody knows."""
    lists = handout(tmp_path, annotators=["ann", "bob"])
    lists.write(0, [Entry(case, ("ann",)) for case in CASES], items, None)
    (path,) = lists.tables(1)
    changed(path, lambda row: row.update(minutes="9" if row["case"] == "0002" else ""))
    with path.open("a") as file:
        file.write("4;total;;;;;;;;;;;;9\r\n5;x;zoe\r\n6;y;bob\r\n")
    lists.write(0, [Entry("0001", ("bob",))], items, None)
    assert [(row["case"], row["annotator"], row["minutes"]) for row in read_worklist(path)] == [
        ("0002", "ann", "9"), ("total", "", "9"), ("x", "zoe", ""), ("0001", "bob", ""),
    ]  # fmt: skip
