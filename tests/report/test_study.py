"""Which folders are runs, what they are called, and what becomes of those that cannot be used."""

import json
import os

import pytest
from studies import POOL, SPLIT, write_run

from svgd_monai.errors import RunFolderError
from svgd_monai.files import write_json, write_text
from svgd_monai.report.analysis import analyse, reference_method
from svgd_monai.report.consistency import differing_settings, notes
from svgd_monai.report.run import method_name
from svgd_monai.report.study import read_study

DICE = [0.70, 0.75, 0.78]
ALL = len(SPLIT["initial"]) + POOL


def test_runs_are_found_however_deep_and_grouped_by_method_and_seed(tmp_path):
    write_run(tmp_path / "b/deep/er/one", DICE, seed=1)
    write_run(tmp_path / "a", DICE, seed=0)
    write_run(tmp_path / "a/nested", DICE, acquisition="bald", seed=2)
    study = read_study(tmp_path)
    assert {name: [(run.seed, run.place) for run in runs] for name, runs in study.methods.items()} == {
        "svgd/bald": [(2, "a/nested")],
        "svgd/random": [(0, "a"), (1, "b/deep/er/one")],
    }
    assert study.notes == []


def test_runs_stand_in_the_order_of_their_seeds_however_their_folders_sort(tmp_path):
    for seed in (2, 10):
        write_run(tmp_path / f"a/seed_{seed}", [0.5, 0.6 + seed / 100], seed=seed, acquisition="bald")
        write_run(tmp_path / f"b/{12 - seed:02d}", [0.5, 0.5 + seed / 100], seed=seed)
    study = read_study(tmp_path)
    assert [[run.seed for run in runs] for runs in study.methods.values()] == [[2, 10], [2, 10]]
    (pair,) = analyse(study).pairs
    assert pair.differences == pytest.approx([0.05, 0.05]), "seed by seed"


def test_caches_and_the_insides_of_a_run_are_no_runs(tmp_path):
    write_run(tmp_path / "run", DICE)
    for inside in ("cache", "run/cache/copy", "run/round_000", "run/tensorboard"):
        write_run(tmp_path / inside, DICE, acquisition="bald")
    write_run(tmp_path / "round_1/run", DICE, acquisition="entropy")  # only inside a run is that a round
    assert set(read_study(tmp_path).methods) == {"svgd/random", "svgd/entropy"}


def test_the_folder_may_be_a_run_itself(tmp_path):
    write_run(tmp_path, DICE)
    assert [run.place for run in read_study(tmp_path).runs] == ["."]


@pytest.mark.skipif(os.name != "posix", reason="links")
def test_links_are_followed_once(tmp_path):
    write_run(tmp_path / "elsewhere/run", DICE)
    study = tmp_path / "study"
    study.mkdir()
    (study / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/back").symlink_to(tmp_path / "study")
    assert [run.place for run in read_study(study).runs] == ["linked/run"]


@pytest.mark.parametrize(
    ("keys", "name"),
    [
        ({"committee": "svgd", "acquisition": "entropy_mi"}, "svgd/entropy_mi"),
        ({"committee": "ensemble", "acquisition": "bald", "keep_labelled": True}, "ensemble/bald"),
        ({"committee": "svgd", "acquisition": "random", "keep_labelled": False}, "svgd/random/delete"),
        ({"committee": "svgd", "acquisition": "random", "method": "shuffled"}, "shuffled"),
        ({"method": "shuffled", "keep_labelled": False}, "shuffled/delete"),
        ({"committee": "svgd", "acquisition": "random", "method": None}, "svgd/random"),
        ({"method": "  two\nlines\u202e "}, "two lines"),
    ],
)
def test_a_method_is_named_by_its_setting_or_its_committee_and_acquisition(keys, name):
    assert method_name(keys) == name


@pytest.mark.parametrize("keys", [{}, {"committee": "svgd"}, {"method": 3}, {"method": ["a"]}, {"method": " \n "}])
def test_settings_without_a_name_are_refused(keys):
    with pytest.raises(RunFolderError, match="names neither"):
        method_name(keys)


def test_the_last_curve_value_and_times_are_read(tmp_path):
    write_run(tmp_path, [0.7, 0.8, 0.75], labels=[5, 8, 8])
    (run,) = read_study(tmp_path).runs
    assert run.curve.labels.tolist() == [5, 8]
    assert run.curve.dice.tolist() == [0.7, 0.75]
    assert run.final_dice == 0.75
    assert run.table["seconds_train"].tolist() == [60, 60, 60]
    write_run(tmp_path, [0.7, 0.8, None])
    assert read_study(tmp_path).runs[0].final_dice == 0.8, "that was measured"


@pytest.mark.parametrize(
    ("keys", "labels", "full"),
    [
        ({"method": "full"}, [12], True),
        ({"acquisition": "random"}, [ALL], True),
        ({"acquisition": "random"}, [ALL - 1], False),
    ],
)
def test_a_run_on_all_cases_is_the_full_data(tmp_path, keys, labels, full):
    write_run(tmp_path, [0.8], labels, **keys)
    study = read_study(tmp_path)
    assert [run.full for run in study.runs] == [full]
    assert bool(study.full_data) == full
    assert bool(study.queried) != full


def test_full_data_runs_do_not_hide_among_the_queries_that_they_never_make(tmp_path):
    write_run(tmp_path / "random", DICE, seed=0)
    write_run(tmp_path / "all", [0.8], [ALL], seed=0)
    study = read_study(tmp_path)
    assert set(study.methods) == {"svgd/random", "svgd/random/full"}
    assert [run.place for run in study.full_data] == ["all"]


def test_of_several_full_data_methods_the_one_called_so_sets_the_target(tmp_path):
    for seed in range(3):
        write_run(tmp_path / f"ensemble_{seed}", [0.8], [ALL], committee="ensemble", seed=seed)
    assert len(read_study(tmp_path).full_data) == 3
    write_run(tmp_path / "full", [0.9], [ALL], method="full", seed=0)
    assert [run.place for run in read_study(tmp_path).full_data] == ["full"]


def damage(folder, name, content):
    write_text(folder / name, content)


HEAD = "round,unique_labels,training_items,val_dice,test_dice\n"
DAMAGED = {
    "no curve yet": (lambda f: (f / "learning_curve.csv").unlink(), "no learning_curve.csv yet"),
    "no record": (lambda f: (f / "run.json").unlink(), "no run.json"),
    "cut record": (lambda f: damage(f, "run.json", '{"settings": {"seed"'), "cannot be read as JSON"),
    "deep record": (lambda f: damage(f, "run.json", "[" * 100_000), "RecursionError|recursion|JSON"),
    "other record": (lambda f: damage(f, "run.json", "[1, 2]"), "holds no settings"),
    "no seed": (lambda f: write_json(f / "run.json", {"settings": {"method": "a"}, "finished": True}), "no seed"),
    "odd seed": (lambda f: write_json(f / "run.json", {"settings": {"method": "a", "seed": True}}), "no seed"),
    "empty curve": (lambda f: damage(f, "learning_curve.csv", HEAD), "holds no round"),
    "empty file": (lambda f: damage(f, "learning_curve.csv", ""), "holds no round"),
    "cut row": (lambda f: damage(f, "learning_curve.csv", HEAD + "0,5,5,0.7,0.7\n1,8"), "line 3"),
    "no column": (lambda f: damage(f, "learning_curve.csv", "round,unique_labels\n0,5\n"), "no column test_dice"),
    "a word": (lambda f: damage(f, "learning_curve.csv", HEAD + "0,5,5,0.7,high\n"), "'high', which is not a number"),
    "below 0": (lambda f: damage(f, "learning_curve.csv", HEAD + "0,5,5,0.7,-0.1\n"), "not between 0 and 1"),
    "infinite": (lambda f: damage(f, "learning_curve.csv", HEAD + "0,5,5,0.7,inf\n"), "not a number"),
    "no Dice": (lambda f: damage(f, "learning_curve.csv", HEAD + "0,5,5,0.7,1.7\n"), "not between 0 and 1"),
    "never tested": (
        lambda f: damage(f, "learning_curve.csv", HEAD + "0,5,5,0.7,\n1,8,8,,\n2,9,9,,\n"),
        "no test Dice",
    ),
    "falling": (
        lambda f: damage(f, "learning_curve.csv", HEAD + "0,5,5,.7,.7\n1,4,4,.7,.7\n"),
        "unique labels decrease",
    ),
    "rounds twice": (lambda f: damage(f, "learning_curve.csv", HEAD + "0,5,5,.7,.7\n0,6,6,.7,.7\n"), "do not increase"),
    "bytes": (lambda f: (f / "learning_curve.csv").write_bytes(b"\xff\xfe\x00"), "cannot be read as CSV"),
    "unfinished": (lambda f: write_run(f, DICE, finished=False), "not finished, 3 of 3 rounds"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_run_that_cannot_be_used_is_one_sentence_and_holds_up_no_other(tmp_path, name):
    write_run(tmp_path / "good", DICE)
    bad = write_run(tmp_path / "bad", DICE, seed=1)
    breaks, says = DAMAGED[name]
    breaks(bad)
    study = read_study(tmp_path)
    assert [run.place for run in study.runs] == ["good"]
    (note,) = study.notes
    assert note.startswith("Left out: bad: ")
    assert note.endswith(".")
    assert not note.endswith("..")
    assert str(tmp_path) not in note
    assert pytest.importorskip("re").search(says, note), note


def test_a_record_without_the_word_finished_is_judged_by_its_rounds(tmp_path):
    for name, rounds in (("complete", 2), ("cut", 3)):
        folder = write_run(tmp_path / name, DICE, seed=rounds)
        record = json.loads((folder / "run.json").read_text())
        record["settings"]["rounds"] = rounds
        del record["finished"]
        write_json(folder / "run.json", record)
    unknown = write_run(tmp_path / "unknown", DICE, seed=7)
    write_json(unknown / "run.json", {"settings": {"committee": "svgd", "acquisition": "random", "seed": 7}})
    study = read_study(tmp_path)
    assert [run.place for run in study.runs] == ["complete", "unknown"]
    assert study.notes == ["Left out: cut: the run is not finished, 3 of 4 rounds are in its curve."]


def test_a_run_that_labelled_its_whole_pool_may_end_early(tmp_path):
    folder = write_run(tmp_path, [0.7, 0.8], [5, ALL])
    record = json.loads((folder / "run.json").read_text())
    record["settings"]["rounds"] = 40
    write_json(folder / "run.json", record)
    study = read_study(tmp_path)
    assert len(study.runs) == 1
    assert study.notes == []


def test_a_finished_run_with_a_short_curve_is_used_and_named(tmp_path):
    folder = write_run(tmp_path / "copied", DICE)
    record = json.loads((folder / "run.json").read_text())
    record["settings"]["rounds"] = 9
    write_json(folder / "run.json", record)
    study = read_study(tmp_path)
    assert len(study.runs) == 1
    assert study.notes == ["copied says that it is finished, but its curve holds 3 of 10 rounds."]


def test_the_same_method_and_seed_twice_counts_once(tmp_path):
    write_run(tmp_path / "a", DICE)
    write_run(tmp_path / "b", [0.9, 0.9, 0.9])
    study = read_study(tmp_path)
    assert [run.place for run in study.runs] == ["a"]
    assert study.notes == ["Left out: b: a is also a run of svgd/random with seed 0."]


def test_no_run_at_all_is_an_error_and_only_damaged_ones_are_not(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunFolderError, match="No run lies below"):
        read_study(tmp_path)
    with pytest.raises(RunFolderError, match="is not a folder"):
        read_study(tmp_path / "missing")
    write_run(tmp_path / "half", DICE, finished=False)
    assert read_study(tmp_path).runs == []


@pytest.mark.parametrize(
    ("methods", "expected"),
    [
        ({"m": {}, "random": {"method": "random"}, "random_redraws": {"method": "random_redraws"}}, "random"),
        ({"random": {"method": "random", "keep_labelled": False}, "redraws": {"method": "redraws"}}, "random/delete"),
        ({"a": {"keep_labelled": False}, "b": {}}, "svgd/random/delete"),
        ({"a": {"committee": "ensemble"}, "b": {}}, "svgd/random"),
        ({"a": {"method": "control"}}, "control"),
        ({"a": {"acquisition": "bald"}}, None),
    ],
)
def test_methods_are_compared_with_the_plainest_that_queries_at_random(tmp_path, methods, expected):
    for name, keys in methods.items():
        own = {"acquisition": "bald", "method": "m"} if name == "m" else keys
        write_run(tmp_path / name, [0.5, 0.6, 0.7, 0.8], **own)
    assert reference_method(read_study(tmp_path)) == expected


def test_initial_sets_are_those_of_a_seed_and_held_out_cases_those_of_the_study(tmp_path):
    for seed in range(2):
        own = {**SPLIT, "initial": [f"of_seed_{seed}"]}
        write_run(tmp_path / f"a{seed}", [0.5, 0.6], seed=seed, split=own)
        write_run(tmp_path / f"b{seed}", [0.5, 0.6], seed=seed, split=own, acquisition="bald")
    before = notes(analyse(read_study(tmp_path)))
    assert not any("initial sets" in note or "different" in note for note in before)
    write_run(tmp_path / "b1", [0.5, 0.6], seed=1, split={**own, "validation": ["z"]}, acquisition="bald")
    (note,) = set(notes(analyse(read_study(tmp_path)))) - set(before)
    assert note.startswith("The runs have different validation cases")


def test_components_of_an_overlay_set_a_method_apart(tmp_path):
    write_run(tmp_path / "a", [0.5, 0.6], method="a", record={"components": {"loss": {"_target_": "monai.DiceLoss"}}})
    write_run(tmp_path / "b", [0.5, 0.6], method="b")
    assert differing_settings(read_study(tmp_path)) == {"loss": {"a": '{"_target_": "monai.DiceLoss"}', "b": "–"}}


def test_runs_of_an_earlier_version_or_from_elsewhere_do_not_differ_by_that(tmp_path):
    later = {"learning_rate_schedule": "constant", "deterministic": False, "max_norm": None}
    write_run(tmp_path / "a", [0.5, 0.6, 0.7, 0.8], first_committees="/here/cache", **later)
    write_run(tmp_path / "b", [0.5, 0.6, 0.7, 0.8], seed=1, first_committees="/there/cache")
    study = read_study(tmp_path)
    assert not any("differ in more than their seed" in note for note in notes(analyse(study)))
    assert differing_settings(study) == {}
    write_run(tmp_path / "c", [0.5, 0.6, 0.7, 0.8], seed=2, learning_rate_schedule="cosine")
    (note,) = [note for note in notes(analyse(read_study(tmp_path))) if "in more than their seed" in note]
    assert note.endswith("differ in more than their seed: learning_rate_schedule.")
