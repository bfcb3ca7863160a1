"""What becomes of a file that a person saves, in this process and without a committee."""

import gzip
import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from svgd_monai import files
from svgd_monai.data.nifti import read_bytes
from svgd_monai.data.people import find_people_data
from svgd_monai.errors import DataError
from svgd_monai.rounds.people.intake import Intake
from svgd_monai.rounds.people.ledger import Entry, PeopleLedger
from svgd_monai.rounds.people.table import Assignments, read_assignments

CLASSES = {0: "background", 1: "anterior", 2: "posterior"}
CASES = [f"phantom_mr_{number:03d}" for number in range(1, 5)]
FIRST, SECOND, THIRD, FOURTH = CASES


class Desk:
    """Where labels are handed in: a run's folder with one worklist of three cases, each pre-segmented.

    Args:
        root: the run's folder.
        phantom: the truth.
        keys: of the intake.
    """

    def __init__(self, root, phantom, **keys):
        self.root, self.truth, self.keys = root, phantom / "labelsTr", keys
        images = root / "images"
        images.mkdir()
        for case in CASES:
            shutil.copy(phantom / f"imagesTr/{case}.nii.gz", images)
        self.data = find_people_data(images).checked(CLASSES, root / "cache", 1)
        self.ledger = PeopleLedger(images={case: self.data.fingerprint(case) for case in CASES})
        self.worklist = root / "worklist/round_000"
        self.worklist.mkdir(parents=True)
        (root / "labels").mkdir()
        self.intake().take(Assignments())

    def intake(self):
        return Intake(self.root, self.ledger, self.data, CLASSES, 1, **self.keys)

    def hand_out(self, *cases, change=lambda values: np.roll(values, 1, 0)):
        """A worklist of cases with pre-segmentations, the changed truth."""
        entries = []
        for case in cases:
            path = self.worklist / f"{case}_seg.nii.gz"
            self.save(case, path, change)
            entries.append(Entry(case, presegmentation=hashlib.sha256(path.read_bytes()).hexdigest()))
        self.ledger.worklists = [entries]

    def save(self, case, path=None, change=lambda values: values):
        """Save a case's truth, changed."""
        truth = nib.load(self.truth / f"{case}.nii.gz")
        path = path or self.root / f"labels/{case}.nii.gz"
        path.parent.mkdir(exist_ok=True)
        nib.save(nib.Nifti1Image(change(np.asarray(truth.dataobj)), truth.affine), path)
        return path

    def take(self, assignments=None):
        """A command's intake; its sentences."""
        complaints = self.intake().take(assignments or read_assignments([self.worklist / "worklist.csv"]))
        return [complaint.sentence for complaint in complaints]

    def labels(self, case):
        return self.ledger.labels.get(case, [])


@pytest.fixture
def desk(tmp_path, phantom_mr):
    return Desk(tmp_path, phantom_mr)


def test_the_accepted_copy_is_on_the_disk_before_the_ledger_can_name_it(desk, monkeypatch):
    """Its name, too: after a power cut the ledger must not name a file that is not there."""
    durable = []
    monkeypatch.setattr(files, "_sync_folder", lambda folder: durable.extend(p.name for p in folder.iterdir()))
    desk.save(CASES[0])
    assert desk.take() == []
    (label,) = desk.labels(CASES[0])
    assert Path(label.file).name in durable
    assert [path.name for path in (desk.root / "labels_accepted").iterdir()] == [Path(label.file).name]


def test_what_a_killed_command_was_looking_at_does_not_stay(desk):
    left = desk.root / "labels_accepted/.incoming.nii"
    left.parent.mkdir()
    left.write_bytes(b"half")
    desk.save(FIRST)
    assert desk.take() == []
    assert [path.name for path in left.parent.iterdir()] == [Path(desk.labels(FIRST)[0].file).name]


def test_what_was_read_is_what_is_checked_whatever_a_person_saves_meanwhile(desk, monkeypatch):
    path = desk.save(FIRST, change=lambda values: values[1:])

    def read(file):
        content = read_bytes(file)
        desk.save(FIRST)
        return content

    monkeypatch.setattr("svgd_monai.rounds.people.intake.read_bytes", read)
    (sentence,) = desk.take()
    assert "has the shape" in sentence
    assert desk.labels(FIRST) == []
    monkeypatch.undo()
    assert desk.take() == []
    assert [label.sha256 for label in desk.labels(FIRST)] == [hashlib.sha256(path.read_bytes()).hexdigest()]


def test_what_a_label_cost_is_counted_against_what_was_handed_out(desk):
    desk.hand_out(FIRST)
    desk.save(FIRST)
    assert desk.take() == []
    (label,) = desk.labels(FIRST)
    made, truth = (np.asarray(nib.load(p).dataobj) for p in
                   (desk.worklist / f"{FIRST}_seg.nii.gz", desk.truth / f"{FIRST}.nii.gz"))  # fmt: skip
    assert label.corrected_voxels == (made != truth).sum() > 0


def test_a_confirmed_pre_segmentation_of_an_earlier_list_cost_nothing(desk):
    desk.hand_out(FIRST)
    (older,) = desk.ledger.worklists[0]
    shutil.copy(desk.worklist / f"{FIRST}_seg.nii.gz", desk.root / f"labels/{FIRST}.nii.gz")
    (desk.root / "labels/confirmed.txt").write_text(f"{FIRST}\n")
    newer = desk.root / f"worklist/round_001/{FIRST}_seg.nii.gz"
    desk.save(FIRST, newer, lambda values: np.roll(values, 2, 1))
    digest = hashlib.sha256(newer.read_bytes()).hexdigest()
    desk.ledger.worklists.append([Entry(FIRST, presegmentation=digest)])
    assert desk.take() == []
    (label,) = desk.labels(FIRST)
    assert label.sha256 == older.presegmentation
    assert (label.corrected_voxels, label.presegmentation_dice) == (0, 1.0)
    desk.save(FIRST)  # and what is neither of the two is compared with the newest
    assert desk.take() == []
    made, truth = (np.asarray(nib.load(path).dataobj) for path in (newer, desk.truth / f"{FIRST}.nii.gz"))
    assert desk.labels(FIRST)[-1].corrected_voxels == (made != truth).sum()


def test_a_word_counts_for_the_case_that_it_names(desk):
    """Also of a worklist before the newest, whose pre-segmentation somebody may still hand back."""
    desk.hand_out(FIRST, SECOND)
    desk.ledger.worklists.append([Entry(case, presegmentation="another") for case in (FIRST, SECOND)])
    for case in (FIRST, SECOND):
        shutil.copy(desk.worklist / f"{case}_seg.nii.gz", desk.root / f"labels/{case}.nii.gz")
    for case in (THIRD, FOURTH):
        desk.save(case, change=np.zeros_like)
    (desk.root / "labels/confirmed.txt").write_text(f"{FIRST}\n")
    (desk.root / "labels/empty.txt").write_text(f"{THIRD}\n")
    unconfirmed, unsaid = desk.take()
    assert f"labels/{SECOND}.nii.gz is the pre-segmentation, unchanged" in unconfirmed
    assert f"labels/{FOURTH}.nii.gz is empty" in unsaid
    assert desk.ledger.labelled == [FIRST, THIRD]


def test_a_refused_file_is_not_replaced_by_the_word_that_the_case_is_empty(desk):
    desk.save(FIRST, change=lambda values: values[1:])
    (desk.root / "labels/empty.txt").write_text(f"{FIRST}\n")
    assert len(desk.take()) == 1
    assert desk.labels(FIRST) == []


def test_nor_is_a_refused_file_of_the_teams_own_folder(tmp_path, phantom_mr):
    own = tmp_path / "own"
    own.mkdir()
    desk = Desk(tmp_path, phantom_mr, more=own)
    desk.save(FIRST, own / f"{FIRST}.nii.gz", lambda values: values[1:])
    (desk.root / "labels/empty.txt").write_text(f"{FIRST}\n")
    assert len(desk.take()) == 1
    assert desk.labels(FIRST) == []


def test_what_was_declined_stays_so_while_the_file_cannot_be_read(desk):
    file = desk.root / "labels/declined.txt"
    file.write_text(f"{FIRST}: motion\n{SECOND}: motion\n")
    assert desk.take() == []
    before = dict(desk.ledger.declined)
    file.write_text(f"{FIRST}: Überlagerung\n", encoding="cp1252")  # as an editor on another system saves it
    (said,) = desk.take()
    assert said.startswith("labels/declined.txt cannot be read as UTF-8 text (")
    assert said.endswith("; what it said before stands.")
    assert desk.ledger.declined == before
    desk.save(SECOND)
    desk.take()
    assert desk.ledger.declined == {FIRST: before[FIRST]}, "a label goes before it"
    file.write_text(f"{FIRST}: Überlagerung\n", encoding="utf-8")
    assert desk.take() == []
    assert desk.ledger.declined == {FIRST: {**before[FIRST], "reason": "Überlagerung"}}


def test_a_complaint_knows_its_case_whose_sheet_tells_it(desk):
    desk.save(FIRST, change=lambda values: values[1:])
    for case in (SECOND, THIRD):
        desk.save(case)
    (desk.root / f"labels/{THIRD}.nii").write_bytes(b"twice")
    (desk.root / "labels/declined.txt").write_text(f"{SECOND}: motion\n{FOURTH}\n")
    table(desk, f"{SECOND},zoe,ten")
    found = desk.intake().take(read_assignments([desk.worklist / "worklist.csv"]))
    assert [(each.file, each.case) for each in found] == [
        ("worklist/round_000/worklist.csv", SECOND),
        ("labels/declined.txt", FOURTH),
        (f"labels/{THIRD}.nii", THIRD),
        (f"labels/{FIRST}.nii.gz", FIRST),
        ("labels/declined.txt", SECOND),
    ]


def test_a_decline_keeps_its_time_and_a_label_goes_before_it(desk, monkeypatch):
    times = iter("abc")
    monkeypatch.setattr("svgd_monai.rounds.people.intake.now", lambda: next(times))
    (desk.root / "labels/declined.txt").write_text(f"{FIRST}: motion\n")
    for _ in range(2):
        assert desk.take() == []
        assert desk.ledger.declined == {FIRST: {"reason": "motion", "time": "a"}}
    desk.save(FIRST)
    assert desk.take() == [f"labels/declined.txt: {FIRST} has a label, so it is not declined."]
    assert desk.ledger.declined == {}
    assert desk.ledger.labelled == [FIRST]


def test_the_log_tells_once_which_cases_leave_the_pool_and_which_are_back(desk, caplog):
    caplog.set_level("INFO")
    file = desk.root / "labels/declined.txt"
    file.write_text(f"{FIRST}: motion\n{SECOND}: motion\n{THIRD}: motion\n")
    for _ in range(2):
        desk.take()
    assert caplog.messages == [f"{case} is declined (motion) and leaves the pool." for case in (FIRST, SECOND, THIRD)]
    caplog.clear()
    desk.data = replace(desk.data, pool={case: desk.data.pool[case] for case in (FIRST, SECOND, FOURTH)})  # held out
    desk.save(SECOND)
    file.unlink()
    desk.take()
    assert [text for text in caplog.messages if "back in the pool" in text] == [
        f"{FIRST} is back in the pool: labels/declined.txt no longer declines it."
    ]


def test_annotators_labels_are_theirs_and_are_compared_anew_when_one_changes(desk):
    """Of those that a worklist has asked, whatever the command names now."""
    desk.ledger.worklists = [[Entry(FIRST, ("bob", "ann"))]]
    table(desk, f"{FIRST},zoe,")
    for name in ("ann", "bob"):
        desk.save(FIRST, desk.root / f"labels/{name}/{FIRST}.nii.gz")
    for _ in range(2):
        assert desk.take() == []
        assert [(label.slot, label.annotator) for label in desk.labels(FIRST)] == [("ann", "ann"), ("bob", "bob")]
    assert desk.ledger.agreement[FIRST]["annotators"] == ["bob", "ann"]
    assert set(desk.ledger.agreement[FIRST]["dice"].values()) == {1.0}
    desk.save(FIRST, desk.root / f"labels/ann/{FIRST}.nii.gz", lambda values: np.roll(values, 1, 0))
    desk.save(FIRST)  # that of labels/ itself trains, and is no annotator's
    assert desk.take() == []
    assert len(desk.labels(FIRST)) == 4
    assert desk.ledger.agreement[FIRST]["annotators"] == ["bob", "ann"]
    assert all(0 < dice < 1 for dice in desk.ledger.agreement[FIRST]["dice"].values())


def test_of_three_annotators_those_who_were_asked_last_are_compared(desk):
    desk.ledger.worklists = [[Entry(FIRST, ("ann", "bob"))], [Entry(FIRST, ("cleo", "bob"))]]
    for shift, name in enumerate(("ann", "bob", "cleo")):
        path = desk.root / f"labels/{name}/{FIRST}.nii.gz"
        desk.save(FIRST, path, lambda values, shift=shift: np.roll(values, shift, 0))
    assert desk.take() == []
    assert desk.ledger.agreement[FIRST]["annotators"] == ["cleo", "bob"]


def test_a_label_is_whose_the_table_says_and_else_the_commands(desk):
    desk.keys = {"annotator": "cleo"}
    table(desk, f"{FIRST},zoe,")
    for case in (FIRST, SECOND):
        desk.save(case)
    assert desk.take() == []
    assert [desk.labels(case)[0].annotator for case in (FIRST, SECOND)] == ["zoe", "cleo"]


def test_a_pre_segmentation_that_was_corrected_in_its_place_is_named_and_hides_no_cost(desk):
    desk.hand_out(FIRST, SECOND)
    corrected = desk.save(FIRST, desk.worklist / f"{FIRST}_seg.nii.gz")
    (sentence,) = desk.take()
    assert sentence == (
        f"worklist/round_000/{FIRST}_seg.nii.gz has been changed; if it is now the label, save it as "
        f"labels/{FIRST}.nii.gz."
    )
    assert desk.labels(FIRST) == []
    shutil.copy(corrected, desk.root / f"labels/{FIRST}.nii.gz")
    assert desk.take() == []
    (label,) = desk.labels(FIRST)
    assert label.corrected_voxels is None, "against itself it would be 0"
    assert label.presegmentation_dice is None


def test_a_corrected_pre_segmentation_of_an_older_list_is_named_too(desk):
    desk.hand_out(FIRST, SECOND)
    newer = desk.root / f"worklist/round_001/{FIRST}_seg.nii.gz"
    desk.save(FIRST, newer, lambda values: np.roll(values, 2, 1))
    entry = Entry(FIRST, ("ann", "bob"), presegmentation=hashlib.sha256(newer.read_bytes()).hexdigest())
    desk.ledger.worklists.append([entry])
    assert desk.take() == []
    desk.save(FIRST, desk.worklist / f"{FIRST}_seg.nii.gz")
    where = f"labels/ann/{FIRST}.nii.gz or labels/bob/{FIRST}.nii.gz"
    older = f"worklist/round_000/{FIRST}_seg.nii.gz has been changed; if it is now the label, save it as {where}."
    assert desk.take() == [older], "where it is asked for now"
    desk.save(FIRST, newer)
    assert desk.take() == [older, older.replace("round_000", "round_001")]
    desk.save(FIRST, desk.root / f"labels/ann/{FIRST}.nii.gz")
    assert desk.take() == []


def test_a_label_beside_the_images_of_a_list_without_pre_segmentations_is_named(desk):
    """As of the cold start, when there is no committee."""
    desk.ledger.worklists = [[Entry(FIRST), Entry(SECOND)]]
    desk.worklist.mkdir(parents=True, exist_ok=True)
    desk.save(FIRST, desk.worklist / f"{FIRST}_seg.nii.gz")
    (sentence,) = desk.take()
    assert sentence == (
        f"worklist/round_000/{FIRST}_seg.nii.gz was not handed out; if it is now the label, save it as "
        f"labels/{FIRST}.nii.gz."
    )
    desk.save(FIRST)
    assert desk.take() == []


def test_a_corrected_pre_segmentation_is_named_with_each_annotators_place_unless_its_case_is_declined(desk):
    desk.hand_out(FIRST, SECOND)
    first, second = desk.ledger.worklists[0]
    desk.ledger.worklists = [[replace(first, annotators=("ann", "bob")), second]]
    for case in (FIRST, SECOND):
        desk.save(case, desk.worklist / f"{case}_seg.nii.gz")
    (desk.root / "labels/declined.txt").write_text(f"{SECOND}: motion\n")
    (sentence,) = desk.take()
    assert sentence.endswith(f"save it as labels/ann/{FIRST}.nii.gz or labels/bob/{FIRST}.nii.gz.")


def test_a_pre_segmentation_that_is_gone_or_cut_off_holds_up_nothing(desk):
    desk.hand_out(FIRST, SECOND, THIRD)
    (desk.worklist / f"{FIRST}_seg.nii.gz").unlink()
    (desk.worklist / f"{SECOND}_seg.nii.gz").write_bytes(b"")
    for case in (FIRST, SECOND):
        desk.save(case)
    assert desk.take() == []
    assert [label.corrected_voxels for case in (FIRST, SECOND) for label in desk.labels(case)] == [None, None]
    (desk.worklist / f"{THIRD}_seg.nii.gz").write_bytes(b"")
    assert f"{THIRD}_seg.nii.gz has been changed" in desk.take()[0]


def test_a_case_that_is_said_to_be_empty_needs_no_file(desk):
    desk.hand_out(FIRST, change=np.zeros_like)
    (desk.root / "labels/empty.txt").write_text(f"{FIRST}\n")
    assert desk.take() == []
    (label,) = desk.labels(FIRST)
    assert label.source == f"labels/empty.txt: {FIRST}"
    kept, image = nib.load(desk.root / label.file), nib.load(desk.root / f"images/{FIRST}.nii.gz")
    assert kept.shape == image.shape
    assert (kept.affine == image.affine).all()
    assert not np.asarray(kept.dataobj).any()
    assert (label.corrected_voxels, set(label.volume_ml.values())) == (0, {0.0})
    assert label.presegmentation_dice is None, "of nothing on both sides, and JSON knows no NaN"
    assert desk.take() == []
    assert len(desk.labels(FIRST)) == 1
    desk.save(FIRST)  # a second look
    desk.take()
    assert [sum(each.volume_ml.values()) > 0 for each in desk.labels(FIRST)] == [False, True]
    (desk.root / f"labels/{FIRST}.nii.gz").unlink()
    desk.take()
    assert len(desk.labels(FIRST)) == 2, "the old word does not replace the newer label"


@pytest.mark.parametrize("tidied", [True, False])
def test_a_word_that_a_case_is_empty_is_complained_of_where_its_label_is_not(tidied, desk):
    file = desk.save(FIRST)
    desk.save(SECOND, change=np.zeros_like)
    (desk.root / "labels/empty.txt").write_text(f"{SECOND}\n")
    assert desk.take() == []
    if tidied:
        file.unlink()
    (desk.root / "labels/empty.txt").write_text(f"{FIRST}\n{SECOND}\n{THIRD}\n")
    (complaint,) = desk.intake().take(Assignments())
    assert (complaint.file, complaint.case) == ("labels/empty.txt", FIRST)
    assert complaint.sentence == (
        f"labels/empty.txt: {FIRST} has a label that is not empty, and that counts; if there is nothing to label in "
        f"{FIRST}, save an empty label as labels/{FIRST}.nii.gz, else take the line out."
    )
    assert len(desk.labels(FIRST)) == 1
    desk.save(FIRST, change=np.zeros_like)  # as it says
    assert desk.take() == []
    assert not any(desk.ledger.label(FIRST).volume_ml.values())


def test_a_word_that_a_pre_segmentation_is_right_needs_its_file(desk):
    desk.hand_out(FIRST, SECOND, THIRD)
    first, *others = desk.ledger.worklists[0]
    desk.ledger.worklists = [[replace(first, annotators=("ann", "bob")), *others]]
    desk.save(THIRD, change=lambda values: values[1:])
    (desk.root / "labels/confirmed.txt").write_text("".join(f"{case}\n" for case in CASES))
    (desk.root / "labels/declined.txt").write_text(f"{SECOND}: motion\n")
    refused, *found = desk.intake().take(Assignments())
    assert refused.file == f"labels/{THIRD}.nii.gz"
    assert [(each.file, each.case, each.sentence) for each in found] == [
        ("labels/confirmed.txt", case, f"labels/confirmed.txt: {case} has no label; the line counts when its "
         f"pre-segmentation is saved as {where}.")
        for case, where in ((FIRST, f"labels/ann/{FIRST}.nii.gz or labels/bob/{FIRST}.nii.gz"),
                            (FOURTH, f"labels/{FOURTH}.nii.gz"))
    ]  # fmt: skip
    shutil.copy(desk.worklist / f"{FIRST}_seg.nii.gz", desk.root / f"labels/{FIRST}.nii.gz")
    assert [each.case for each in desk.intake().take(Assignments())] == [THIRD, FOURTH]
    assert desk.ledger.labelled == [FIRST]


def test_a_label_of_the_teams_own_folder_does_not_come_back_over_a_newer_one(tmp_path, phantom_mr):
    known = tmp_path / "known"
    known.mkdir()
    desk = Desk(tmp_path, phantom_mr, more=known)
    old = desk.save(FIRST, known / f"{FIRST}.nii.gz")
    desk.take()
    new = desk.save(FIRST, change=lambda values: np.roll(values, 1, 1))
    desk.take()
    new.unlink()  # labels/ may be tidied up
    desk.take()
    desk.take()
    assert [label.source for label in desk.labels(FIRST)] == [str(old), f"labels/{FIRST}.nii.gz"]
    moved = known.rename(tmp_path / "moved")
    desk.keys = {"more": moved}
    desk.take()
    assert len(desk.labels(FIRST)) == 2, "the same label, wherever it lies"
    desk.save(FIRST, moved / old.name, lambda values: np.roll(values, 2, 1))
    desk.take()
    assert len(desk.labels(FIRST)) == 3, "what is new there counts"
    desk.save(FIRST, change=lambda values: np.roll(values, 1, 2))
    desk.take()
    new.unlink()
    desk.take()
    assert [label.source for label in desk.labels(FIRST)][2:] == [str(moved / old.name), f"labels/{FIRST}.nii.gz"]


def reread(desk):
    """What the next command knows."""
    desk.ledger = PeopleLedger.from_dict(desk.ledger.as_dict())


@pytest.mark.parametrize("first", [True, False])
def test_a_label_of_the_teams_own_folder_does_not_come_back_over_one_that_hid_it(first, tmp_path, phantom_mr, caplog):
    """Whether both are there from the start, or the own folder's joins later."""
    caplog.set_level("INFO")
    own = tmp_path / "own"
    own.mkdir()
    desk = Desk(tmp_path, phantom_mr, more=own)
    corrected = desk.save(FIRST, change=lambda values: np.roll(values, 1, 1))
    if not first:
        assert desk.take() == []
    old = desk.save(FIRST, own / f"{FIRST}.nii.gz")
    for _ in range(2):
        assert desk.take() == []
        reread(desk)
    corrected.unlink()  # labels/ may be tidied up
    for _ in range(2):
        assert desk.take() == []
        reread(desk)
    assert [label.source for label in desk.labels(FIRST)] == [str(old), f"labels/{FIRST}.nii.gz"]
    assert desk.ledger.label(FIRST).source == f"labels/{FIRST}.nii.gz"
    assert all((desk.root / label.file).is_file() for label in desk.labels(FIRST))
    assert caplog.messages.count(f"{old} does not count, labels/{FIRST}.nii.gz goes before it.") == 1
    desk.save(FIRST, old, lambda values: np.roll(values, 2, 1))
    assert desk.take() == []
    assert desk.ledger.label(FIRST).source == str(old), "what is new there counts"


def test_a_hidden_label_of_the_teams_own_folder_that_is_bad_is_told_of_only_when_it_would_count(tmp_path, phantom_mr):
    own = tmp_path / "own"
    own.mkdir()
    desk = Desk(tmp_path, phantom_mr, more=own, annotators=["ann"])
    (own / f"{FIRST}.nii.gz").write_bytes(b"no label")
    desk.save(FIRST)
    assert desk.take() == []
    assert desk.ledger.refused == []
    (desk.root / f"labels/{FIRST}.nii.gz").unlink()
    assert len(desk.take()) == 1
    assert [label.source for label in desk.labels(FIRST)] == [f"labels/{FIRST}.nii.gz"]


def test_a_bad_label_of_an_annotator_lets_none_of_the_teams_own_folder_come_back(tmp_path, phantom_mr):
    own = tmp_path / "own"
    own.mkdir()
    desk = Desk(tmp_path, phantom_mr, more=own, annotators=["ann"])
    corrected = desk.save(FIRST, change=lambda values: np.roll(values, 1, 1))
    desk.save(FIRST, own / f"{FIRST}.nii.gz")
    (desk.root / "labels/ann").mkdir()
    (desk.root / f"labels/ann/{FIRST}.nii.gz").write_bytes(b"no label")
    for _ in range(2):
        assert len(desk.take()) == 1
        corrected.unlink(missing_ok=True)
    assert desk.ledger.label(FIRST).source == f"labels/{FIRST}.nii.gz"


def test_what_the_teams_own_folder_gave_once_counts_again_when_a_person_saves_it(tmp_path, phantom_mr):
    known = tmp_path / "known"
    known.mkdir()
    desk = Desk(tmp_path, phantom_mr, more=known)
    old = desk.save(FIRST, known / f"{FIRST}.nii.gz")
    desk.take()
    desk.save(FIRST, change=lambda values: np.roll(values, 1, 1))
    desk.take()
    shutil.copy(old, desk.root / f"labels/{FIRST}.nii.gz")
    assert desk.take() == []
    first, _, last = desk.labels(FIRST)
    assert (last.source, last.sha256) == (f"labels/{FIRST}.nii.gz", first.sha256)


def test_an_annotators_label_does_not_hide_that_of_the_teams_own_folder(tmp_path, phantom_mr):
    own = tmp_path / "own"
    own.mkdir()
    desk = Desk(tmp_path, phantom_mr, more=own, annotators=["ann"])
    for place in (own, desk.root / "labels/ann"):
        desk.save(FIRST, place / f"{FIRST}.nii.gz")
    assert desk.take() == []
    assert [label.slot for label in desk.labels(FIRST)] == ["ann", ""]


def test_a_label_of_a_held_out_case_is_told_to_be_one_wherever_it_lies(tmp_path, phantom_mr):
    own = tmp_path / "own"
    own.mkdir()
    desk = Desk(tmp_path, phantom_mr, more=own, annotators=["ann"])
    desk.data = replace(desk.data, validation={"val": {}}, test={"test": {}})
    for path in (desk.root / "labels/ann/test.nii.gz", desk.root / "labels/val.nii.gz", own / "test.nii.gz"):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"any")
    found = desk.intake().take(Assignments())
    assert [each.case for each in found] == ["test", "val", "test"], "the sheet of its worklist tells it"
    assert all("is in a held-out set, whose labels are fixed" in each.sentence for each in found)


def test_a_bad_file_does_not_hide_the_label_of_the_teams_own_folder(tmp_path, phantom_mr):
    own = tmp_path / "own"
    (tmp_path / "run").mkdir()
    own.mkdir()
    desk = Desk(tmp_path / "run", phantom_mr, more=own)
    desk.save(FIRST, own / f"{FIRST}.nii.gz")
    bad = desk.root / f"labels/{FIRST}.nii.gz"
    bad.write_bytes(b"no label")
    (sentence,) = desk.take()
    assert sentence.startswith(f"labels/{FIRST}.nii.gz is not gzip-compressed")
    assert [label.source for label in desk.labels(FIRST)] == [str(own / f"{FIRST}.nii.gz")]
    desk.save(FIRST, change=lambda values: np.roll(values, 1, 1))
    assert desk.take() == []
    assert desk.labels(FIRST)[-1].source == f"labels/{FIRST}.nii.gz"
    bad.write_bytes(b"no label any more")  # what was accepted from there goes on counting
    desk.save(FIRST, own / f"{FIRST}.nii.gz", lambda values: np.roll(values, 2, 1))
    assert len(desk.take()) == 1
    assert desk.labels(FIRST)[-1].source == f"labels/{FIRST}.nii.gz"


def test_a_word_on_a_case_that_is_held_out_now_is_told_to_be_one(desk):
    (desk.root / "labels/declined.txt").write_text(f"{FIRST}: motion\n")
    assert desk.take() == []
    pool = dict(desk.data.pool)
    desk.data = replace(desk.data, validation={FIRST: pool.pop(FIRST)}, pool=pool)
    table(desk, f"{FIRST},zoe,12", f"{SECOND},zoe,12")
    assert desk.take() == [f"labels/declined.txt, line 1: {FIRST} is in a held-out set, so the line is ignored."]
    assert desk.ledger.declined == {}


def test_a_row_of_a_table_that_is_of_no_case_is_complained_of(desk):
    table(desk, f"{FIRST},zoe,12", "1,zoe,12", "2,,")
    assert desk.take() == [
        "worklist/round_000/worklist.csv: there is no case of the name '1', so its row does not count."
    ]
    assert desk.ledger.as_dict()["cases"][FIRST]["minutes"] == {FIRST: 12.0}


def test_the_longest_name_that_a_run_admits_is_one_that_its_files_can_have(tmp_path, phantom_mr):
    """In bytes: a letter may take several."""
    case = "é" * 117 + "x"
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
        shutil.copy(phantom_mr / f"{kind}Tr/{FIRST}.nii.gz", tmp_path / kind / f"{case}.nii.gz")
    data = find_people_data(tmp_path / "images").checked(CLASSES, tmp_path / "cache", 1)
    ledger = PeopleLedger(images={case: data.fingerprint(case)})
    assert Intake(tmp_path, ledger, data, CLASSES, 1).take(Assignments()) == []
    assert (tmp_path / ledger.label(case).file).is_file()
    images = tmp_path / "images"
    (images / f"{case}.nii.gz").rename(images / f"{case}y.nii.gz")
    with pytest.raises(DataError, match=r"^images: The name of .*xy\.nii\.gz is too long: it has 236 bytes before its"):
        find_people_data(images)


def test_each_version_of_a_refused_file_is_noted_by_its_hash(desk):
    digests = []
    for shift in (0, 1):
        path = desk.save(FIRST, change=lambda values, shift=shift: np.roll(values, shift, 1)[1:])
        digests.append(hashlib.sha256(path.read_bytes()).hexdigest())
        desk.take()
    assert [record["sha256"] for record in desk.ledger.refused] == digests


def test_an_older_version_that_a_person_saves_again_counts(desk):
    for change in (np.copy, lambda values: np.roll(values, 1, 1), np.copy):
        desk.save(FIRST, change=change)
        desk.take()
    first, _, third = desk.labels(FIRST)
    assert first.file == third.file


def table(desk, *rows):
    (desk.worklist / "worklist.csv").write_text("case,annotator,minutes\n" + "".join(f"{row}\n" for row in rows))


def test_an_annotator_who_is_written_down_later_is_noted(desk):
    desk.save(FIRST)
    desk.save(SECOND)
    table(desk, f"{FIRST},,", f"{SECOND},bob,")
    desk.take()
    table(desk, f"{FIRST},zoe,12", f"{SECOND},zoe,")
    desk.take()
    assert [desk.labels(case)[0].annotator for case in (FIRST, SECOND)] == ["zoe", "bob"]
    assert len(desk.labels(FIRST)) == 1


def test_minutes_outlive_a_table_that_cannot_be_read_for_a_while(desk):
    table(desk, f"{FIRST},zoe,12")
    desk.take()
    (desk.worklist / "worklist.csv").write_bytes("case;annotator;minutes\nx;Zoë;3\n".encode("latin-1"))
    assert "cannot be read" in desk.take()[0]
    assert desk.ledger.minutes == {FIRST: 12.0}
    table(desk, f"{FIRST},zoe,")
    desk.take()
    assert desk.ledger.minutes == {}, "taken back"


def test_minutes_of_other_tables_count_while_one_cannot_be_read(desk):
    desk.ledger.minutes = {FIRST: 12.0, SECOND: 5.0}
    desk.take(Assignments(minutes={SECOND: 6.0, THIRD: 7.0}, unread=[desk.worklist / "worklist.csv"]))
    assert desk.ledger.minutes == {FIRST: 12.0, SECOND: 6.0, THIRD: 7.0}


def test_a_refusal_names_the_file_as_the_person_knows_it(desk):
    path = desk.save(FIRST)
    path.write_bytes(gzip.compress(b"no volume"))
    (sentence,) = desk.take()
    assert sentence.startswith(f"labels/{FIRST}.nii.gz ")
    assert str(desk.root) not in sentence
    assert list((desk.root / "labels_accepted").iterdir()) == []
    path.write_bytes(b"")
    assert desk.take() == [f"labels/{FIRST}.nii.gz is empty."]
