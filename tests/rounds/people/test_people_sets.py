"""Several annotators, fixed sets of the team's own, labels that are there already, and what may change meanwhile."""

import csv
import json
import shutil
import signal

import nibabel as nib
import numpy as np
import pytest
import torch
from labelling import Team, curve, datalist
from runs import CONFIG

from svgd_monai.committee import CommitteeTrainer
from svgd_monai.data import make_phantom
from svgd_monai.rounds.people.selection import choose_validation


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """Twelve cases, of which two are kept apart for validation and two for a test."""
    root = make_phantom(tmp_path_factory.mktemp("data") / "sixteen", "mr", 16)
    for name, numbers in (("validation", (1, 2)), ("test", (3, 4))):
        for kind in ("images", "labels"):
            folder = root / name / kind
            folder.mkdir(parents=True)
            for number in numbers:
                file = f"phantom_mr_{number:03d}.nii.gz"
                shutil.copy(root / f"{kind}Tr" / file, folder)
                if kind == "images":
                    (root / "imagesTr" / file).unlink()
    return root


def test_two_annotators_share_a_worklist_and_agree_to_a_measured_dice(pool, tmp_path):
    team = Team(pool, tmp_path, rounds=0, initial_labelled=5, annotators="[ann,bob]", double_annotated=1)
    team.works()
    rows = team.table(0)
    doubled = {row["case"] for row in rows if sum(other["case"] == row["case"] for other in rows) == 2}
    assert len(rows) == 6
    assert len(doubled) == 1
    assert sorted(row["annotator"] for row in rows) == ["ann"] * 3 + ["bob"] * 3
    path = team.folder / "worklist/round_000/worklist.csv"
    lines = path.read_text().splitlines()  # minutes are the last column
    path.write_text("\n".join([lines[0], *(f"{line}{number}.5" for number, line in enumerate(lines[1:]))]))
    (case,) = doubled
    for row in rows:
        target = team.folder / row["save_as"]
        target.parent.mkdir(exist_ok=True)
        team.save(row["case"], name=target.relative_to(team.folder / "labels"))
    team.save(case, lambda values, affine: ((values > 0).astype("uint8"), affine), name=f"bob/{case}.nii.gz")
    assert "complete" in team.works()
    record = team.ledger["cases"][case]
    assert sorted(record["agreement"]["annotators"]) == ["ann", "bob"]
    assert record["agreement"]["dice"]["posterior"] == 0.0
    assert 0 < record["agreement"]["dice"]["anterior"] < 1
    assert len(record["minutes"]) == 2
    for row, minutes in zip(rows, range(6), strict=True):
        found = team.ledger["cases"][row["case"]]
        key = f"{row['annotator']}/{row['case']}" if row["case"] == case else row["case"]
        assert found["minutes"][key] == minutes + 0.5
        assert row["annotator"] in {label["annotator"] for label in found["labels"]}
    page = (team.folder / "report.html").read_text()
    assert "posterior 0.000" in page


@pytest.mark.parametrize("annotators", [{}, {"annotators": "[ann]"}])
def test_one_annotator_cannot_do_what_takes_two(pool, tmp_path, annotators):
    result = Team(pool, tmp_path, **annotators, double_annotated=1).command()
    assert result.code == 1
    assert result.last_line.startswith("double_annotated: two annotators are needed")


def test_a_copy_of_a_held_out_scan_in_the_pool_is_flagged(pool, tmp_path):
    """Its label, once made, would be learnt and measured."""
    images = tmp_path / "images"
    shutil.copytree(pool / "imagesTr", images)
    scan = nib.load(pool / "test/images/phantom_mr_003.nii.gz")
    values = np.asarray(scan.dataobj, dtype=float)
    noise = np.random.default_rng(0).normal(0, 0.002 * values.max(), values.shape)
    nib.save(nib.Nifti1Image((values + noise).astype(np.float32), scan.affine), images / "again.nii.gz")
    sets = {"validation": pool / "validation", "test": pool / "test"}
    Team(pool, tmp_path / "run", images=images, **sets).works()
    with (tmp_path / "run/flagged_cases.csv").open() as file:
        copies = [row for row in csv.DictReader(file) if row["what"] == "copy"]
    found = [tuple(row[key] for key in ("case", "role", "other_case", "other_role")) for row in copies]
    assert ("again", "pool", "phantom_mr_003", "test") in found, found


def test_the_teams_own_sets_are_measured_and_no_label_of_the_pool_is_spent_on_them(pool, tmp_path):
    sets = {"validation": pool / "validation", "test": pool / "test"}
    team = Team(pool, tmp_path, rounds=0, min_validation=2, **sets)
    team.works()
    team.label(*team.worklist(0), slot="")
    assert "complete" in team.works()
    (row,) = curve(tmp_path)
    assert row["unique_labels"] == "3"
    assert all(row[column] != "" for column in ("val_dice", "test_dice", "test_dice_grid"))
    assert datalist(tmp_path, 0, "validation") == ["phantom_mr_001", "phantom_mr_002"]
    assert datalist(tmp_path, 0, "test") == ["phantom_mr_003", "phantom_mr_004"]
    assert len(datalist(tmp_path, 0)) == 3
    refused = team.command(test="null")
    assert refused.code == 1
    assert refused.last_line.startswith("test: the set is not the one that the run was started with")


def test_a_validation_set_that_comes_later_joins_the_cases_that_validate_already(pool, tmp_path):
    team = Team(pool, tmp_path, rounds=2, min_validation=3)
    team.works()
    team.label(*team.worklist(0))
    team.works()
    (first,) = datalist(tmp_path, 0, "validation")
    team.label(*team.worklist(1))
    team.works(validation=pool / "validation")
    assert datalist(tmp_path, 1, "validation") == [first, "phantom_mr_001", "phantom_mr_002"]
    assert first not in datalist(tmp_path, 1)
    assert len(datalist(tmp_path, 1)) >= 4
    advice = (tmp_path / "round_001/advice.txt").read_text()
    assert "validation Dice went" not in advice, "it is of other cases than in round 0"
    assert "of 3 cases" in advice or "The validation Dice is" in advice
    assert [row["unique_labels"] for row in curve(tmp_path)] == ["3", "5"]
    team.works(validation=pool / "validation")
    assert [row["unique_labels"] for row in curve(tmp_path)] == ["3", "5"], "the team's own set costs people no label"


@pytest.mark.long
def test_a_warm_start_never_validates_on_what_it_has_trained_on(pool, tmp_path):
    team = Team(pool, tmp_path, rounds=1, min_validation=4, warm_start="true")
    team.works()
    team.label(*team.worklist(0))
    team.works()
    team.label(*team.worklist(1))
    team.works()
    labelled = [*team.worklist(0), *team.worklist(1)]
    assert choose_validation(labelled, [], None, 4)[0] in datalist(tmp_path, 0), "nothing to tell; choose another seed"
    (validating,) = datalist(tmp_path, 1, "validation")
    assert validating in team.worklist(1)
    assert set(datalist(tmp_path, 1)) == set(labelled) - {validating}


def test_a_listed_case_that_is_held_out_later_is_nobodys_to_do(pool, tmp_path):
    images = tmp_path / "images"
    shutil.copytree(pool / "imagesTr", images)
    shutil.copy(pool / "test/images/phantom_mr_003.nii.gz", images)
    team = Team(pool, tmp_path / "run", images=images, initial_labelled=20)
    team.works()
    team.label("phantom_mr_003")
    said = team.works(test=pool / "test")
    assert "13 cases: 0 labelled, 0 declined, 1 held out, 12 to do" in said
    (line,) = [line for line in team.sheet(0).splitlines() if "labels/phantom_mr_003.nii.gz |" in line]
    assert "held out: now in the validation or test set" in line
    assert "labels/phantom_mr_003.nii.gz is not taken" in team.sheet(0)


def test_links_of_a_worklist_follow_the_images(pool, tmp_path):
    images = tmp_path / "images"
    shutil.copytree(pool / "imagesTr", images)
    team = Team(pool, tmp_path / "run", images=images)
    team.works()
    links = [team.folder / f"worklist/round_000/{case}.nii.gz" for case in team.worklist(0)]
    assert all(link.is_symlink() and link.exists() for link in links)
    images.rename(tmp_path / "moved")
    assert not any(link.exists() for link in links)
    team.works(images=tmp_path / "moved")
    assert all(link.exists() for link in links)


def test_a_case_in_the_pool_and_in_a_held_out_set_leaves_the_pool(pool, tmp_path):
    images = tmp_path / "images"
    shutil.copytree(pool / "imagesTr", images)
    shutil.copy(pool / "test/images/phantom_mr_003.nii.gz", images)
    team = Team(pool, tmp_path / "run", images=images, test=pool / "test", initial_labelled=20)
    assert "phantom_mr_003 is in the test set and leaves the pool" in team.works()
    assert "phantom_mr_003" not in team.worklist(0)
    shutil.copy(pool / "imagesTr/phantom_mr_009.nii.gz", images / "phantom_mr_003.nii.gz")
    result = Team(pool, tmp_path / "other", images=images, test=pool / "test").command()
    assert result.code == 1
    assert result.last_line.startswith("test: the case phantom_mr_003 differs from the image")


def test_labels_that_are_there_already_start_the_first_round(pool, tmp_path):
    labels = tmp_path / "known"
    labels.mkdir()
    for number in (5, 6, 7):
        shutil.copy(pool / f"labelsTr/phantom_mr_{number:03d}.nii.gz", labels)
    (labels / "phantom_mr_008.nii.gz").write_bytes(b"no label")
    team = Team(pool, tmp_path / "run", rounds=1, labels=labels, annotator="cleo")
    said = team.works()
    assert said.count("phantom_mr_008.nii.gz is not gzip-compressed") == 1, "also where labels are taken in again"
    assert datalist(tmp_path / "run", 0) == ["phantom_mr_005", "phantom_mr_006", "phantom_mr_007"]
    assert {label["annotator"] for number in (5, 6, 7)
            for label in team.ledger["cases"][f"phantom_mr_{number:03d}"]["labels"]} == {"cleo"}  # fmt: skip
    assert len(team.worklist(1)) == 2
    assert not (tmp_path / "run/worklist/round_000").exists()


def add_images(pool, images, numbers):
    """Copy images of these numbers into a folder."""
    images.mkdir(exist_ok=True)
    for number in numbers:
        shutil.copy(pool / f"imagesTr/phantom_mr_{number:03d}.nii.gz", images)


def test_images_may_join_but_none_may_go_or_change(pool, tmp_path):
    images = tmp_path / "images"
    add_images(pool, images, range(5, 10))
    team = Team(pool, tmp_path / "run", images=images, rounds=1)
    team.works()
    add_images(pool, images, (10, 11))
    team.label(*team.worklist(0))
    assert "2 new images join the pool: phantom_mr_010, phantom_mr_011." in team.works()
    assert "phantom_mr_011" in datalist(tmp_path / "run", 0, "unlabeled")
    (images / "phantom_mr_005.nii.gz").rename(tmp_path / "away.nii.gz")
    assert "the image of the case phantom_mr_005, which the run knows, is gone" in team.command().last_line
    shutil.copy(images / "phantom_mr_006.nii.gz", images / "phantom_mr_005.nii.gz")
    assert "the image of the case phantom_mr_005 is no longer the one" in team.command().last_line


def test_a_run_whose_pool_was_exhausted_goes_on_when_images_join(pool, tmp_path):
    images = tmp_path / "images"
    add_images(pool, images, (5, 6, 7))
    team = Team(pool, tmp_path / "run", images=images, rounds=1)
    team.works()
    team.label(*team.worklist(0))
    assert "The pool is exhausted" in team.works()
    assert "is finished" in team.works()
    before = (team.folder / "round_000/committee.pt").read_bytes()
    add_images(pool, images, (8, 9, 10))
    said = team.works()
    assert "Worklist 1, 2 cases" in said
    assert "no case is left" not in (team.folder / "round_000/advice.txt").read_text()
    assert (team.folder / "round_000/committee.pt").read_bytes() == before
    assert set(team.worklist(1)) < {"phantom_mr_008", "phantom_mr_009", "phantom_mr_010"}
    team.label(*team.worklist(1))
    assert "Worklist 2, 1 case:" in team.works(rounds=2)
    assert [row["unique_labels"] for row in curve(team.folder)] == ["3", "5"]


def test_labels_that_come_after_the_end_are_trained_on(pool, tmp_path):
    images = tmp_path / "images"
    add_images(pool, images, (5, 6, 7))
    team = Team(pool, tmp_path / "run", images=images, rounds=2)
    team.works()
    team.label(*team.worklist(0))
    assert "The pool is exhausted" in team.works()
    add_images(pool, images, (8, 9))
    assert "Worklist 1, 2 cases" in team.works()
    assert json.loads((team.folder / "run.json").read_text())["finished"] is False
    team.label("phantom_mr_008", "phantom_mr_009")
    team.works()
    assert [row["unique_labels"] for row in curve(team.folder)] == ["3", "5"]
    add_images(pool, images, [10])
    team.label("phantom_mr_010")  # with its image, and no command between
    team.works()
    assert [row["unique_labels"] for row in curve(team.folder)] == ["3", "5", "6"]
    assert "is finished" in team.works()
    add_images(pool, images, [11])  # too late for this run, whose rounds stay as they were
    begun = [(team.folder / f"round_{number:03d}/datalist.json").read_bytes() for number in range(3)]
    whole = (team.folder / "learning_curve.csv").read_bytes()
    for left in (whole.splitlines(keepends=True)[:2], []):
        (team.folder / "learning_curve.csv").write_bytes(b"".join(left))
        team.works()
        assert (team.folder / "learning_curve.csv").read_bytes() == whole
        assert [path.read_bytes() for path in sorted(team.folder.glob("round_*/datalist.json"))] == begun
    committee = team.folder / "round_002/committee.pt"
    committee.unlink()  # for its size: no wish for another training
    assert "is finished" in team.works()
    assert not committee.exists()


def test_a_label_that_changes_when_no_case_is_left_is_trained_on_while_rounds_are_left(pool, tmp_path):
    images = tmp_path / "images"
    add_images(pool, images, range(5, 10))
    team = Team(pool, tmp_path / "run", images=images, rounds=1, min_new_labels=3)
    team.works()
    asked = team.worklist(0)
    team.label(*asked)
    rest = [case for case in (f"phantom_mr_{number:03d}" for number in range(5, 10)) if case not in asked]
    team.note("declined.txt", *(f"{case}: motion" for case in rest))
    nothing = "no case is left to label (3 labelled, 2 declined)"
    assert f"The pool is exhausted: after 0 rounds {nothing}. 1 further round was not run." in team.works()
    assert team.works().rstrip().endswith(f"is finished: {nothing}.")
    for number, case in enumerate(asked[:2], start=1):
        team.save(case, lambda values, affine: (np.roll(values, 1, 1), affine))
        if number == 1:  # between the queries of a round that was the last and the worklist after it
            stop = ("svgd_monai.rounds.people.worklists", "Worklists", "follow", 1, None)
            assert team.command(deadly=stop, rounds=number).code == -signal.SIGKILL
        else:
            assert team.works().rstrip().endswith("is finished; a higher number of rounds continues it.")
        assert "is complete" in team.works(rounds=number)
        new = team.ledger["cases"][case]["labels"][-1]["file"]
        assert f"./{new}" in (team.folder / f"round_{number:03d}/datalist.json").read_text()
        assert f"./{new}" not in (team.folder / f"round_{number - 1:03d}/datalist.json").read_text()
        assert team.works(rounds=number).rstrip().endswith(f"is finished: {nothing}.")
    assert [row["unique_labels"] for row in curve(team.folder)] == ["3", "3", "3"]


def test_images_that_join_while_all_others_are_declined_are_asked_for(pool, tmp_path):
    images = tmp_path / "images"
    add_images(pool, images, range(5, 10))
    team = Team(pool, tmp_path / "run", images=images, rounds=1)
    team.works()
    team.label(*team.worklist(0))
    team.works()
    team.note("declined.txt", *(f"{case}: blurred" for case in team.worklist(1)))
    add_images(pool, images, (10, 11))
    assert "2 to do" in team.works()
    joined = team.table(1)[-2:]
    assert {row["case"] for row in joined} == {"phantom_mr_010", "phantom_mr_011"}
    assert all(row["why"].startswith("joined after the pool was scored; ") for row in joined)
    for row in joined:
        shared = (
            f"shares at most {float(row['mutual_information']):.3f} nats with any case that is labelled or asked for"
        )
        assert shared in row["why"]
    team.label("phantom_mr_010", "phantom_mr_011")
    assert "complete" in team.works()
    assert [row["unique_labels"] for row in curve(team.folder)] == ["3", "5"]


def test_a_finished_run_that_takes_more_rounds_asks_of_what_is_unlabelled_by_then(pool, tmp_path):
    images = tmp_path / "images"
    add_images(pool, images, range(5, 12))
    team = Team(pool, tmp_path / "run", images=images, rounds=1)
    team.works()
    team.label(*team.worklist(0))
    team.works()
    team.label(*team.worklist(1))
    assert "is complete" in team.works()
    first, second = datalist(team.folder, 1, "unlabeled")
    team.label(first)
    add_images(pool, images, [12])
    assert "Worklist 2, 2 cases" in team.works(rounds=2)
    assert set(team.worklist(2)) == {second, "phantom_mr_012"}


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"images": "null"}, "images: with oracle: people, name the folder"),
        ({"images": "/nowhere"}, "images: There is no folder, data list or image at /nowhere."),
        ({"classes": "[background,organ]"}, "classes names 2 classes, num_classes is 3"),
        ({"validation": "/nowhere"}, "validation: /nowhere has neither a dataset.json nor"),
        ({"min_validation": 1}, "min_validation: 1 is below 2"),
        ({"annotators": "[a/b,c]"}, "annotators: 'a/b' cannot be the name of a folder"),
        ({"cold_start": "best"}, "cold_start: 'best' is not one of diversity, random"),
        ({"roi_size": "[16,16,16]"}, "roi_size: BasicUNet cannot process a window of (16, 16, 16) voxels"),
    ],
)
def test_a_key_that_cannot_be_is_refused_before_anything_is_written(keys, sentence, pool, tmp_path):
    folder = tmp_path / "run"
    result = Team(pool, folder, **keys).command()
    assert result.code == 1
    assert sentence in result.last_line
    assert not folder.exists()


def test_people_keys_may_change_from_command_to_command_and_others_may_not(pool, tmp_path):
    team = Team(pool, tmp_path, cold_start="random", seed=3)
    team.works()
    assert ["at random" in row["why"] for row in team.table(0)] == [True] * 3
    before = json.loads((tmp_path / "ledger.json").read_text())
    team.works(annotators="[x,y]", double_annotated=1, min_new_labels=1, stop_gain=0.1, cold_start="diversity")
    assert json.loads((tmp_path / "ledger.json").read_text()) == before
    assert team.command(queries_per_round=1).last_line.startswith("queries_per_round: ")


@pytest.mark.long
def test_the_other_bundle_serves_people_too(tmp_path):
    dataset = make_phantom(tmp_path / "ct", "ct", 5)
    config = CONFIG.parents[2] / "pancreas_ct_svgd/configs/active_learning.yaml"
    keys = {"spacing": [12, 12, 12], "roi_size": [16, 32, 16], "queries_per_round": 1, "rounds": 1}
    team = Team(dataset, tmp_path / "run", config=config, **keys)
    team.works()
    team.label(*team.worklist(0))
    team.works()
    (row,) = team.table(1)
    assert "expected_ml_tumour" in row
    folder = tmp_path / "run/worklist/round_001"
    image, made = (nib.load(folder / row[key]) for key in ("image", "presegmentation"))
    assert made.shape == image.shape
    assert (made.affine == image.affine).all()


def test_bad_images_are_left_out_and_listed_until_they_are_mended(pool, tmp_path):
    images = tmp_path / "images"
    shutil.copytree(pool / "imagesTr", images)
    bad = images / "phantom_mr_009.nii.gz"
    whole = bad.read_bytes()
    bad.write_bytes(whole[: len(whole) // 2])
    team = Team(pool, tmp_path / "run", images=images, rounds=1)
    refused = team.command()
    assert refused.code == 1
    assert "phantom_mr_009" in refused.last_line
    assert not (team.folder / "ledger.json").exists()
    team.works(on_bad_case="skip")
    listed = (team.folder / "bad_cases.csv").read_text().splitlines()
    assert listed[0] == "case,reason"
    assert len(listed) == 2
    assert listed[1].startswith("phantom_mr_009,")
    assert str(bad) in listed[1]
    assert "phantom_mr_009" not in (team.folder / "ledger.json").read_text()
    bad.write_bytes(whole)
    assert "1 new images join the pool: phantom_mr_009." in team.works(on_bad_case="skip")
    assert not (team.folder / "bad_cases.csv").exists()
    bad.write_bytes(whole[: len(whole) // 2])
    known = team.command(on_bad_case="skip")
    assert known.code == 1
    assert "the image of the case phantom_mr_009, which the run knows, is bad: " in known.last_line


def test_a_held_out_case_may_not_be_bad(pool, tmp_path):
    held_out = tmp_path / "test"
    shutil.copytree(pool / "test", held_out)
    label = held_out / "labels/phantom_mr_003.nii.gz"
    label.write_bytes(label.read_bytes()[:100])
    refused = Team(pool, tmp_path / "run", test=held_out).command(on_bad_case="skip")
    assert refused.code == 1
    assert "phantom_mr_003" in refused.last_line
    assert not (tmp_path / "run/ledger.json").exists()


def test_images_of_several_shapes_without_a_grid_are_refused_before_a_worklist_goes_out(pool, tmp_path):
    team = Team(pool, tmp_path, rounds=0, mi_grid="null")
    refused = team.command()
    assert refused.code != 0
    assert refused.last_line.startswith("mi_grid: null needs volumes of one shape")
    assert not (tmp_path / "worklist").exists()
    # A strategy that compares no images needs no grid, and the keys of a run that has not begun may change.
    team.works(acquisition="bald", cold_start="random")
    assert len(team.worklist(0)) == team.keys["initial_labelled"]


def test_after_a_first_training_that_wants_too_much_memory_one_that_wants_less_goes_on(pool, tmp_path, monkeypatch):
    team = Team(pool, tmp_path, rounds=0, initial_labelled=3)
    team.works()
    team.label(*team.worklist(0))

    def out_of_memory(self, engine, batch):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(CommitteeTrainer, "_iteration", out_of_memory)
        failed = team.command()
    assert failed.last_line.startswith("The memory does not suffice.")
    assert "a smaller batch_size" in failed.last_line
    refused = team.command(batch_size=1, seed=3)
    assert refused.last_line.startswith("seed: the run in ")
    overlay = tmp_path / "smaller.yaml"
    keys = {"features": "@features", "spatial_dims": 3, "in_channels": "@in_channels", "out_channels": "@num_classes"}
    network = {"_target_": "monai.networks.nets.BasicUNet", "_mode_": "callable", **keys}
    overlay.write_text(json.dumps({"architecture": network}))
    team.config = f"['{CONFIG}','{overlay}']"
    assert "complete" in team.works(batch_size=1, num_particles=2)
    record = json.loads((tmp_path / "run.json").read_text())
    assert (record["settings"]["batch_size"], record["settings"]["num_particles"]) == (1, 2)
    assert list(record["components"]) == ["architecture"]
    assert len(torch.load(tmp_path / "round_000/committee.pt", weights_only=True)["values"]) == 2
    assert team.command(batch_size=2, num_particles=2).last_line.startswith("batch_size: the run in ")
    team.config = CONFIG
    assert team.command(batch_size=1, num_particles=2).last_line.startswith("architecture: differs from the run in ")
