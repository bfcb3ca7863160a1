"""A worklist's folder: without links, with tables that people have changed, and for classes of their own."""

import errno
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from command import TINY, run_bundle, words
from labelling import KEYS, Team, curve
from matplotlib.figure import Figure
from runs import CONFIG

from svgd_monai.data import make_phantom
from svgd_monai.errors import RunFolderError
from svgd_monai.files import read_json, write_csv
from svgd_monai.report.worklist_panel import worklist_panel
from svgd_monai.rounds.people.handout import Handout
from svgd_monai.rounds.people.ledger import Entry, PeopleLedger
from svgd_monai.rounds.people.sheet import write_sheet
from svgd_monai.rounds.people.table import read_worklist

CASES = [f"phantom_mr_{number:03d}" for number in range(1, 4)]
CLASSES = {0: "background", 1: "anterior", 2: "posterior"}


@pytest.fixture
def no_links(monkeypatch):
    """A file system, or a user, that may make no links; how links are made nonetheless."""
    make = os.symlink

    def refuse(*args, **kwargs):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM), str(args[0]))

    for name in ("symlink", "link"):
        monkeypatch.setattr(os, name, refuse)
    return make


@pytest.fixture
def items(phantom_mr):
    return {case: {"case": case, "image": str(phantom_mr / f"imagesTr/{case}.nii.gz")} for case in CASES}


def handed_out(root, items, cases=CASES, **values):
    """The first worklist: no committee has a say in it, and no stage runs."""
    handout = Handout(root, None, {}, CLASSES)
    handout.write(0, [Entry(case, **values) for case in cases], items, None)
    return handout.folder(0)


def test_the_images_are_links_where_the_system_has_them(items, tmp_path):
    folder = handed_out(tmp_path, items)
    for case in CASES:
        assert (folder / f"{case}.nii.gz").readlink() == type(folder)(items[case]["image"])


def test_where_links_fail_the_images_are_copied_byte_by_byte(no_links, items, tmp_path, caplog):
    with caplog.at_level("INFO"):
        folder = handed_out(tmp_path, items)
    for case in CASES:
        copy, image = folder / f"{case}.nii.gz", type(folder)(items[case]["image"])
        assert not copy.is_symlink()
        assert copy.read_bytes() == image.read_bytes()
        assert f"{image} cannot be linked (Operation not permitted), it is copied." in caplog.text
    assert not list(folder.glob("*.tmp"))


def test_a_copy_is_made_once_and_a_dead_link_becomes_one(no_links, items, tmp_path):
    folder = handed_out(tmp_path, items, CASES[:1])
    before = (folder / f"{CASES[0]}.nii.gz").stat().st_mtime_ns
    no_links(tmp_path / "moved away.nii.gz", folder / f"{CASES[1]}.nii.gz")
    handed_out(tmp_path, items, CASES[:2])
    assert (folder / f"{CASES[0]}.nii.gz").stat().st_mtime_ns == before
    assert not (folder / f"{CASES[1]}.nii.gz").is_symlink()


def test_a_system_that_knows_no_links_at_all_copies_too(items, tmp_path, monkeypatch):
    def unknown(*_, **__):
        raise NotImplementedError("os.symlink() not available on this system")

    monkeypatch.setattr("pathlib.Path.symlink_to", unknown)
    folder = handed_out(tmp_path, items, CASES[:1])
    assert (folder / f"{CASES[0]}.nii.gz").is_file()


def test_a_copy_that_fails_ends_the_command_in_a_sentence_and_is_made_by_the_next(phantom_mr, tmp_path, monkeypatch):
    keys = {**KEYS, "images": phantom_mr / "imagesTr", "output_dir": tmp_path / "run"}
    with monkeypatch.context() as patch:
        patch.setattr(os, "symlink", lambda *_: (_ for _ in ()).throw(PermissionError(errno.EPERM, "no links")))
        patch.setattr(
            "svgd_monai.rounds.people.handout.write_bytes",
            lambda path, _: (_ for _ in ()).throw(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))),
        )
        full = run_bundle(*words(CONFIG, **keys))
        assert full.exit_code == 1
        assert full.last_line.endswith(".nii.gz: No space left on device.")
        assert not list((tmp_path / "run/worklist").rglob("*.nii.gz"))
    with monkeypatch.context() as patch:
        patch.setattr(os, "symlink", lambda *_: (_ for _ in ()).throw(PermissionError(errno.EPERM, "no links")))
        done = run_bundle(*words(CONFIG, **keys))
    assert done.exit_code == 0, done.last_line
    copies = sorted((tmp_path / "run/worklist/round_000").glob("*.nii.gz"))
    assert len(copies) == TINY["initial_labelled"]
    assert all(path.read_bytes() == (phantom_mr / "imagesTr" / path.name).read_bytes() for path in copies)


def test_an_image_that_is_not_compressed_stands_in_the_table_by_its_own_name(items, tmp_path):
    image = tmp_path / f"{CASES[0]}.nii"
    nib.save(nib.load(items[CASES[0]]["image"]), image)
    items[CASES[0]]["image"] = str(image)
    folder = handed_out(tmp_path, items, CASES[:2])
    names = [row["image"] for row in read_worklist(folder / "worklist.csv")]
    assert names == [f"{CASES[0]}.nii", f"{CASES[1]}.nii.gz"]
    assert all((folder / name).exists() for name in names)


def test_a_table_that_a_kill_left_names_who_is_asked_now(items, tmp_path):
    for name in ("ann", "bob"):
        folder = handed_out(tmp_path, items, CASES[:1], annotators=(name,))
    assert [row["annotator"] for row in read_worklist(folder / "worklist.csv")] == ["bob"]


def test_annotators_find_the_folders_that_they_are_to_save_in(items, tmp_path):
    handed_out(tmp_path, items, annotators=("ann", "bob"))
    assert sorted(path.name for path in (tmp_path / "labels").iterdir()) == ["ann", "bob"]


def test_cases_that_join_a_table_which_nobody_can_read_are_not_lost(items, tmp_path):
    folder = handed_out(tmp_path, items, CASES[:1])
    table = folder / "worklist.csv"
    written = table.read_text().replace(CASES[0] + ",", CASES[0] + ",Zo\xeb,", 1).encode("latin-1")
    table.write_bytes(written)
    with pytest.raises(RunFolderError, match=r"worklist\.csv cannot be read \(UnicodeDecodeError.*mend it or move it"):
        handed_out(tmp_path, items, CASES[1:])
    assert table.read_bytes() == written, "what people wrote stays"
    table.rename(folder / "ours.csv")
    handed_out(tmp_path, items, CASES[1:])
    assert all(case in table.read_text() for case in CASES[1:])


def test_a_kill_before_the_list_was_in_the_ledger_leaves_no_row_of_a_case_that_is_not_on_it(items, tmp_path):
    handout, (first, second, third) = Handout(tmp_path, None, {}, CLASSES), CASES[:3]
    handout.write(0, [Entry(first), Entry(second)], items, None)
    table = tmp_path / "worklist/round_000/worklist.csv"
    lines = table.read_text().splitlines()  # minutes are the last column
    table.write_text("\n".join([*lines[:2], f"{lines[2].replace(f',{second},,', f',{second},zoe,')}12"]) + "\n")
    handout.write(0, [Entry(second), Entry(third)], items, None)  # the first has been declined meanwhile
    assert [(row["rank"], row["case"], row["annotator"], row["minutes"]) for row in read_worklist(table)] == [
        ("1", second, "zoe", "12"), ("2", third, "", ""),
    ]  # fmt: skip


def test_cases_that_join_a_list_stand_behind_those_that_are_on_it(items, tmp_path):
    odd = {f"-{number}": {**items[case], "case": f"-{number}"} for number, case in enumerate(CASES)}
    for case, item in odd.items():
        image = tmp_path / f"{case}.nii.gz"
        image.symlink_to(item["image"])
        item["image"] = str(image)
    handout, (first, second, *_) = Handout(tmp_path / "run", None, {}, CLASSES), odd
    handout.write(0, [Entry(first)], odd, None)
    handout.write(0, [Entry(second)], odd, None, [first])
    table = tmp_path / "run/worklist/round_000/worklist.csv"
    assert [(row["rank"], row["case"], row["save_as"]) for row in read_worklist(table)] == [
        ("1", first, f"labels/{first}.nii.gz"), ("2", second, f"labels/{second}.nii.gz"),
    ]  # fmt: skip
    assert "''" not in table.read_text()


def test_a_pre_segmented_case_tells_what_is_expected_in_it(items, tmp_path, phantom_mr, monkeypatch):
    """Against a stage that writes what inference.yaml would."""
    asked, drawn = {}, []

    def inference(stage, dataset_dir, output_dir, **keys):
        asked.update(keys, stage=stage, images=read_json(dataset_dir)["images"])
        for number, case in enumerate(CASES, start=1):
            shutil.copy(phantom_mr / f"labelsTr/{case}.nii.gz", f"{output_dir}/{case}_seg.nii.gz")
            heat = np.full(nib.load(items[case]["image"]).shape, number / 10, np.float32)
            nib.save(nib.Nifti1Image(heat, np.eye(4)), f"{output_dir}/{case}_uncertainty.nii.gz")
        columns = ["case", "volume_ml_anterior", "volume_ml_posterior", "agreement_dice"]
        rows = [(CASES[0], 1.23456789, 0.0, 0.876), (CASES[1], 0.0, 0.0, None), (CASES[2], 1.0, 2.0, 0.5)]
        write_csv(f"{output_dir}/inference.csv", columns, [dict(zip(columns, row, strict=True)) for row in rows])

    def panel(image, mask, heat, names, label, top):
        drawn.append((label, round(top, 6)))
        return worklist_panel(image, mask, heat, names, label, top)

    monkeypatch.setattr("svgd_monai.rounds.people.handout.worklist_panel", panel)
    settings = {"acquisition": "variance", "cache_dir": str(tmp_path / "cache")}
    handout = Handout(tmp_path, SimpleNamespace(run=inference), settings, CLASSES)
    entries = handout.write(1, [Entry(case, why="first") for case in CASES], items, Path("committee.pt"))
    assert asked["images"] == [items[case]["image"] for case in CASES]
    assert {key: asked[key] for key in ("stage", "uncertainty_map", "on_bad_case")} == {
        "stage": "inference", "uncertainty_map": "variance", "on_bad_case": "fail",
    }  # fmt: skip
    assert drawn == [("variance", 0.3)] * 3, "one scale for a list"
    assert [entry.why for entry in entries] == [
        "first; expected: anterior 1.23 ml (members agree to a Dice of 0.88)",
        "first; expected: no structure",
        "first; expected: anterior 1.00 ml, posterior 2.00 ml (members agree to a Dice of 0.50)",
    ]
    assert entries[0].terms["expected_ml_anterior"] == 1.23456789
    rows = read_worklist(handout.folder(1) / "worklist.csv")
    assert [(row["expected_ml_anterior"], row["agreement_dice"]) for row in rows] == [
        ("1.23457", "0.876"), ("0.0", ""), ("1.0", "0.5"),
    ]  # fmt: skip
    assert [row["presegmentation"] for row in rows] == [f"{case}_seg.nii.gz" for case in CASES]
    assert not (handout.folder(1) / "inference.csv").exists(), "its numbers stand in worklist.csv"


def test_a_pre_segmentation_of_unknown_volumes_is_not_said_to_be_empty(items, tmp_path, monkeypatch):
    """The team's own files for inference may give the classes other numbers, whose volumes inference.csv leaves out."""

    def inference(stage, output_dir, **keys):
        shutil.copy(items[CASES[0]]["image"], f"{output_dir}/{CASES[0]}_seg.nii.gz")
        shutil.copy(items[CASES[0]]["image"], f"{output_dir}/{CASES[0]}_uncertainty.nii.gz")
        columns = ["case", "volume_ml_anterior", "volume_ml_posterior", "agreement_dice"]
        write_csv(f"{output_dir}/inference.csv", columns, [{"case": CASES[0]}])

    monkeypatch.setattr("svgd_monai.rounds.people.handout.worklist_panel", lambda *_: Figure())
    settings = {"acquisition": "variance", "cache_dir": str(tmp_path / "cache")}
    handout = Handout(tmp_path, SimpleNamespace(run=inference), settings, CLASSES)
    (entry,) = handout.write(1, [Entry(CASES[0], why="first")], items, Path("committee.pt"))
    assert entry.why == "first; expected: structures of unknown volume"
    assert entry.terms["expected_ml_anterior"] is None
    assert read_worklist(handout.folder(1) / "worklist.csv")[0]["expected_ml_anterior"] == ""


def test_the_sheet_says_which_value_is_which_class(items, tmp_path):
    folder = handed_out(tmp_path, items)
    ledger = PeopleLedger(worklists=[[Entry(case) for case in CASES]], images=dict.fromkeys(CASES, ""))
    text = write_sheet(folder, 0, ledger, [], CLASSES).read_text()
    assert "Label values: 0 background, 1 anterior, 2 posterior." in text


def test_classes_of_the_teams_own_hold_from_the_sheet_to_the_curve(tmp_path):
    """The bundle's metadata names three classes; these people label one structure."""
    dataset = make_phantom(tmp_path / "ten", "mr", 10)
    named = {"classes": "[background,hippocampus]", "num_classes": 2}
    team = Team(dataset, tmp_path / "run", rounds=1, min_validation=2, **named)
    team.works()
    assert "Label values: 0 background, 1 hippocampus." in team.sheet(0)

    def whole(values, affine):
        return (values > 0).astype(np.uint8), affine

    bad, *good = team.worklist(0)
    team.label(bad)  # of three classes
    for case in good:
        team.save(case, whole)
    said = team.works()
    assert (
        f"labels/{bad}.nii.gz has the label value 2, the task's classes are {{0: 'background', 1: 'hippocampus'}}"
        in said
    )
    team.save(bad, whole)
    team.works()
    columns = ("val_dice", "test_dice_hippocampus")
    assert [curve(team.folder)[0][name] != "" for name in columns] == [True, False], "measured, and nothing to test"
    (first, *_) = rows = team.table(1)
    assert [name for name in first if name.startswith("expected_ml")] == ["expected_ml_hippocampus"]
    made = [np.unique(np.asarray(nib.load(team.folder / f"worklist/round_001/{row['presegmentation']}").dataobj))
            for row in rows]  # fmt: skip
    assert set(np.concatenate(made)) <= {0, 1}
    assert list(team.ledger["cases"][bad]["labels"][0]["volume_ml"]) == ["hippocampus"]
    other = team.command(classes="[background,whole]")
    assert other.code == 1
    assert other.last_line.startswith("classes: the run in ")
