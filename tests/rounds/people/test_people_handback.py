"""What people hand back wrongly is refused in a sentence, in the log and on the sheet, and holds up nothing else."""

import gzip
import json

import numpy as np
import pytest
from labelling import Team, curve

from svgd_monai.data import make_phantom
from svgd_monai.rounds import RunFolder
from svgd_monai.rounds.people.loop import PeopleLearning
from svgd_monai.rounds.people.worklists import Worklists


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    return make_phantom(tmp_path_factory.mktemp("data") / "ten", "mr", 10)


@pytest.fixture
def team(pool, tmp_path):
    team = Team(pool, tmp_path, initial_labelled=9, rounds=0)
    team.works()
    return team


@pytest.fixture
def told(monkeypatch):
    """The calls of hooks, and what says that they have been called, in their order."""
    calls = []

    def watch(owner, name):
        original = getattr(owner, name)

        def call(self, *arguments):
            calls.append(arguments[1:] if name == "_call" else (name, *arguments))
            return original(self, *arguments)

        monkeypatch.setattr(owner, name, call)

    for owner, name in ((PeopleLearning, "_call"), (Worklists, "follow"), (RunFolder, "finish")):
        watch(owner, name)
    return calls


def shifted(values, affine):
    affine[:3, 3] += 3.0
    return values, affine


def test_each_bad_label_gets_its_sentence_and_the_good_ones_are_taken(team):
    shape, moved, fraction, unknown, cut, empty, two_channels, good, odd = cases = team.worklist(0)
    team.save(shape, lambda values, affine: (values[:, 1:], affine))
    team.save(moved, shifted)
    team.save(fraction, lambda values, affine: ((values * 0.5).astype(np.float32), affine))
    team.save(unknown, lambda values, affine: (np.where(values == 2, 7, values).astype(np.uint8), affine))
    path = team.save(cut)
    path.write_bytes(path.read_bytes()[:200])
    team.save(empty, lambda values, affine: (np.zeros_like(values), affine))
    team.save(two_channels, lambda values, affine: (np.stack([values, values], -1), affine))
    team.label(good)
    team.save(odd, name=f"{odd}-label.nii.gz")
    (team.folder / "labels/scene.mrml").write_text("<MRML/>")
    said = team.works()
    sentences = {
        shape: f"labels/{shape}.nii.gz has the shape",
        moved: f"labels/{moved}.nii.gz has an affine that differs from its image's by up to 5.2 mm",
        fraction: f"labels/{fraction}.nii.gz has the label value 0.5, which is not a whole number",
        unknown: f"labels/{unknown}.nii.gz has the label value 7, the task's classes are",
        cut: f"labels/{cut}.nii.gz is cut off or damaged",
        empty: f"labels/{empty}.nii.gz is empty; if {empty} holds nothing to label, write its name into labels/empty",
        two_channels: f"labels/{two_channels}.nii.gz has 2 channels",
        odd: f"there is no image of the name {odd}-label; did you mean {odd}.nii.gz?",
        "scene": "labels/scene.mrml is not a label: its name must be that of the image",
    }
    for sentence in sentences.values():
        assert sentence in said
        assert sentence in team.sheet(0)
    assert [case for case in cases if team.ledger["cases"][case]["labelled"]] == [good]
    assert "1 labelled, 0 declined, 8 to do" in said
    assert {record["file"] for record in team.ledger["refused"]} == {
        f"labels/{case}.nii.gz" for case in (shape, moved, fraction, unknown, cut, empty, two_channels)
    }


def test_a_refused_file_is_noted_once_and_forgotten_on_the_sheet_when_it_is_right(team):
    case = team.worklist(0)[0]
    team.save(case, shifted)
    team.works()
    team.works()
    assert len(team.ledger["refused"]) == 1
    team.label(case)
    assert "is accepted" in team.works()
    assert "has an affine" not in team.sheet(0)
    assert len(team.ledger["refused"]) == 1, "the ledger forgets nothing"


def test_an_empty_label_is_taken_when_a_person_says_that_it_is_empty(team):
    case, other = team.worklist(0)[:2]
    for each in (case, other):
        team.save(each, lambda values, affine: (np.zeros_like(values), affine))
    team.note("empty.txt", "# nothing there", case)
    said = team.works()
    assert f"labels/{case}.nii.gz is accepted" in said
    assert f"labels/{other}.nii.gz is empty" in said


def test_a_pre_segmentation_handed_back_unchanged_is_taken_only_when_it_is_confirmed(pool, tmp_path, told):
    team = Team(pool, tmp_path, rounds=1)
    team.works()
    team.label(*team.worklist(0))
    team.works()
    assert told == [("follow", 0), ("before_round", 0), ("after_round", 0), ("follow", 1)]
    first, second = team.worklist(1)
    for case in (first, second):
        made = (team.folder / f"worklist/round_001/{case}_seg.nii.gz").read_bytes()
        (team.folder / f"labels/{case}.nii.gz").write_bytes(made)
    team.note("empty.txt", first, second)  # so young a committee may see nothing
    team.note("confirmed.txt", first)
    recorded = sorted(team.folder.glob("tensorboard/*"))
    said = team.works()
    assert f"labels/{second}.nii.gz is the pre-segmentation, unchanged" in said
    assert sorted(team.folder.glob("tensorboard/*")) == recorded, "a command that only waits leaves no event file"
    assert len(told) == 4, "and calls no hook"
    label = team.ledger["cases"][first]["labels"][0]
    assert (label["corrected_voxels"], label["corrected_surface_voxels"]) == (0, 0)
    # Saved anew by a program, it is no longer the same file: somebody has looked at it.
    again = gzip.compress(gzip.decompress(made), 9)
    (team.folder / f"labels/{second}.nii.gz").write_bytes(again)
    assert f"labels/{second}.nii.gz is accepted" in team.works()


def test_a_decline_needs_a_reason_and_a_case_that_exists(team):
    case, other, labelled = team.worklist(0)[:3]
    team.label(labelled)
    team.note("declined.txt", f"{case}.nii.gz: metal artefact, unusable", other, "nobody: x", f"{labelled}: no")
    said = team.works()
    assert f"{case} is declined (metal artefact, unusable)" in said
    assert "1 labelled, 1 declined, 7 to do" in said
    for sentence in (
        f"say why {other} is declined",
        "there is no case of the name 'nobody'",
        "has a label, so it is not declined",
    ):
        assert sentence in team.sheet(0)
    (team.folder / "labels/declined.txt").unlink()
    said = team.works()
    assert "1 labelled, 0 declined, 8 to do" in said, "what is no longer declined is back in the pool"
    assert f"{case} is back in the pool: labels/declined.txt no longer declines it." in said
    assert "back in the pool" not in team.works()


def test_when_all_are_declined_the_next_best_take_their_place_and_the_table_keeps_what_people_wrote(pool, tmp_path):
    team = Team(pool, tmp_path, initial_labelled=2)
    team.works()
    asked = team.worklist(0)
    path = team.folder / "worklist/round_000/worklist.csv"
    path.write_text(path.read_text().replace(f"1,{asked[0]},,", f"1,{asked[0]},Zoe,"))
    team.note("declined.txt", *(f"{case}: blurred" for case in asked))
    said = team.works()
    assert "4 cases: 0 labelled, 2 declined, 2 to do" in said
    assert team.worklist(0)[:2] == asked
    assert len(set(team.worklist(0))) == 4
    assert [row["annotator"] for row in team.table(0)] == ["Zoe", "", "", ""]
    assert [row["rank"] for row in team.table(0)] == ["1", "2", "3", "4"]


def test_when_everything_is_declined_the_run_says_so_and_waits(pool, tmp_path):
    team = Team(pool, tmp_path, initial_labelled=10)
    team.works()
    cases = team.worklist(0)
    assert len(cases) == 10
    team.note("declined.txt", *(f"{case}: blurred" for case in cases))
    assert "No case is left to label" in team.works()
    (team.folder / "labels/declined.txt").write_text(f"{cases[0]}: blurred\n")
    assert "9 to do" in team.works()


def test_training_starts_with_min_new_labels(pool, tmp_path, told):
    team = Team(pool, tmp_path, rounds=0)
    team.works()
    first, second, third = team.worklist(0)
    whys = [row["why"] for row in team.table(0)]
    assert ["as the first" in why for why in whys] == [True, False, False]
    assert ["unlike the cases above" in why for why in whys] == [False, True, True]
    team.label(first)
    assert "2 to do" in team.works(min_new_labels=2)
    assert not (team.folder / "tensorboard").exists(), "a command that only waits leaves no event file"
    team.label(second)
    assert "complete" in team.works(min_new_labels=2)
    assert told == [("follow", 0), ("before_round", 0), ("after_round", 0), ("after_run",), ("finish",)]
    content = json.loads((team.folder / "round_000/datalist.json").read_text())
    assert {item["case"] for item in content["training"]} == {first, second}
    assert third in {item["case"] for item in content["unlabeled"]}


def test_labels_that_come_while_a_round_trains_begin_the_next(pool, tmp_path, monkeypatch):
    team = Team(pool, tmp_path, rounds=1)
    team.works()
    team.label(*team.worklist(0))
    follow = Worklists.follow

    def quick(self, number):
        follow(self, number)
        team.label(*team.worklist(number))

    monkeypatch.setattr(Worklists, "follow", quick)
    assert "complete" in team.works()
    assert [row["unique_labels"] for row in curve(team.folder)] == ["3", "5"]


def test_an_accepted_label_that_somebody_changes_stops_the_run_by_name(pool, tmp_path):
    team = Team(pool, tmp_path, rounds=1)
    team.works()
    team.label(*team.worklist(0))
    accepted = team.command(deadly=("svgd_monai.committee.posterior", "PosteriorStep", "__call__", 1, None))
    assert accepted.code < 0
    file = sorted((team.folder / "labels_accepted").iterdir())[0]
    file.write_bytes(file.read_bytes() + b"x")
    result = team.command()
    assert result.code == 1
    assert file.name in result.last_line
