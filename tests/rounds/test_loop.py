"""The loop through the command line: what it labels, what it leaves, when it stops."""

import csv
import json
import signal

import numpy as np
import pytest
import torch
from runs import arguments, curve, run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from svgd_monai.data import Split, make_phantom
from svgd_monai.errors import RunFolderError
from svgd_monai.files import write_json
from svgd_monai.rounds.ledger import Ledger
from svgd_monai.rounds.loop import ActiveLearning

SMALL = {"validation_cases": 1, "test_cases": 1, "steps_per_round": 2, "validations_per_round": 1}


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def eight_cases(tmp_path_factory):
    return make_phantom(tmp_path_factory.mktemp("data") / "eight", "mr", 8)


@pytest.fixture(scope="module")
def finished(eight_cases, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    result = run(arguments(eight_cases, folder, **SMALL, initial_labelled=2))
    assert result.code == 0, result.last_line
    return folder


def test_a_run_leaves_the_files_that_everything_agrees_on(finished):
    for name in ("run.json", "ledger.json", "learning_curve.csv", "ranking.csv", "tensorboard", "flagged_cases.csv"):
        assert (finished / name).exists(), name
    names = ("datalist.json", "committee.pt", "metrics.json", "cases.csv", "scores.csv")
    for number in range(3):
        for name in names:
            assert (finished / f"round_{number:03d}" / name).exists(), name
    assert (finished / "round_001/queries.json").exists()
    assert not (finished / "round_002/queries.json").exists()
    assert not (finished / "round_003").exists()


def test_the_learning_curve_has_the_agreed_columns_and_a_row_a_committee(finished):
    table = rows(finished / "learning_curve.csv")
    assert list(table[0]) == [
        "round", "unique_labels", "training_items", "val_dice", "test_dice", "test_dice_anterior",
        "test_dice_posterior", "test_dice_grid", "seconds_train", "seconds_score",
    ]  # fmt: skip
    assert [row["round"] for row in table] == ["0", "1", "2"]
    assert [row["training_items"] for row in table] == ["2", "4", "6"]
    for number, row in enumerate(table):
        names = ("metrics", "training", "times", "datalist")
        metrics, training, times, datalist = (
            json.loads((finished / f"round_{number:03d}/{name}.json").read_text()) for name in names
        )
        test = metrics["test"]
        assert {key: float(value) for key, value in row.items()} == {
            "round": number,
            "unique_labels": len({item["case"] for item in datalist["training"]}),
            "training_items": len(datalist["training"]),
            "val_dice": metrics["validation"]["dice_grid"],
            "test_dice": test["dice"],
            "test_dice_anterior": test["dice_per_class"]["anterior"],
            "test_dice_posterior": test["dice_per_class"]["posterior"],
            "test_dice_grid": test["dice_grid"],
            "seconds_train": training["seconds"],
            "seconds_score": times["acquire"],
        }


def test_the_scores_follow_from_their_terms_and_the_queries_from_the_scores(finished):
    table = rows(finished / "round_000/scores.csv")
    assert {row["case"] for row in table if row["labelled"] == "true"} == labelled_at(finished, 0)
    free = [row for row in table if row["labelled"] == "false"]

    def scaled(row, column):
        values = [float(r[column]) for r in free]
        return (float(row[column]) - min(values)) / (max(values) - min(values))

    for row in table:
        expected = scaled(row, "uncertainty") - scaled(row, "mutual_information")
        assert float(row["score"]) == pytest.approx(expected, abs=1e-6)
    by_score = sorted(table, key=lambda row: -float(row["score"]))
    assert [row["rank"] for row in by_score] == [str(rank) for rank in range(1, len(table) + 1)]
    queries = json.loads((finished / "round_000/queries.json").read_text())
    assert queries == [row["case"] for row in by_score[:2]]
    assert [row["case"] for row in by_score if row["queried"] == "true"] == queries


def labelled_at(folder, number):
    content = json.loads((folder / f"round_{number:03d}/datalist.json").read_text())
    return {item["case"] for item in content["training"]}


def test_the_ranking_holds_the_unlabelled_cases_by_the_newest_committee(finished):
    last = [row for row in rows(finished / "round_002/scores.csv") if row["labelled"] == "false"]
    ranking = rows(finished / "ranking.csv")
    assert [row["case"] for row in ranking] == [row["case"] for row in sorted(last, key=lambda r: -float(r["score"]))]
    assert not {row["case"] for row in ranking} & labelled_at(finished, 2)


def test_a_round_trains_on_what_the_rounds_before_have_queried(finished):
    initial = json.loads((finished / "run.json").read_text())["split"]["initial"]
    drawn = [json.loads((finished / f"round_00{n}/queries.json").read_text()) for n in range(2)]
    content = json.loads((finished / "round_002/datalist.json").read_text())
    assert [item["case"] for item in content["training"]] == [*initial, *drawn[0], *drawn[1]]
    assert all("label" not in item for item in content["unlabeled"]), "labels that nobody has revealed"
    assert all("fingerprint" in item for role in ("training", "validation", "test") for item in content[role])


def test_validation_and_test_cases_are_never_queried(finished):
    split = json.loads((finished / "run.json").read_text())["split"]
    held_out = {*split["validation"], *split["test"]}
    for number in range(3):
        assert not held_out & {row["case"] for row in rows(finished / f"round_00{number}/scores.csv")}


def test_a_committee_file_holds_tensors_and_plain_values(finished):
    content = torch.load(finished / "round_000/committee.pt", weights_only=True)
    assert content["values"].shape[0] == 2
    assert torch.isfinite(content["values"]).all()


def test_mutual_information_is_computed_once_per_pair_over_a_run(finished):
    split = json.loads((finished / "run.json").read_text())["split"]
    pool = len(split["initial"]) + len(split["pool"])
    with np.load(finished / "cache/mutual_information.npz", allow_pickle=False) as content:
        pairs = len(content["codes"])
    labelled = len(labelled_at(finished, 2))
    # distinct pairs (unordered) of a labelled with any case of the pool
    assert pairs == labelled * pool - labelled * (labelled - 1) // 2


def test_volumes_are_preprocessed_once_over_a_run(finished):
    pool, held_out = 6, 2
    # Of the pool without a label, and those that were labelled and drawn with it too.
    assert len(list((finished / "cache/volumes").iterdir())) <= pool + held_out + len(labelled_at(finished, 2))


def test_tensorboard_shows_training_rounds_pool_and_queries(finished):
    events = EventAccumulator(
        str(finished / "tensorboard"), size_guidance={"scalars": 0, "histograms": 0, "images": 0}
    ).Reload()
    scalars = events.Tags()["scalars"]
    particles = [f"loss/particle_{m}" for m in range(2)]
    moved = [f"committee/{n}" for n in ("drive", "prior", "repulsion", "bandwidth", "distance", "kernel", "norm")]
    for tag in (*particles, *moved):
        assert [event.step for event in events.Scalars(tag)] == [1, 2, 3, 4, 5, 6], tag
    for tag in ("dice_validation/mean", "dice_test/mean", "dice_test/anterior", "dice_test/posterior"):
        assert [event.step for event in events.Scalars(tag)] == [2, 4, 6], f"{tag} against unique labels"
    assert {"pool_mean/disagreement", "labels/unique"} <= set(scalars)
    assert [event.step for event in events.Histograms("pool/score")] == [0, 1, 2]
    for rank in (1, 2):
        assert [event.step for event in events.Images(f"queried/{rank}")] == [0, 1]


def test_an_exhausted_pool_ends_the_run_with_a_sentence(eight_cases, tmp_path):
    keys = {**SMALL, "initial_labelled": 3, "rounds": 5, "keep_labelled": "false", "acquisition": "random"}
    argv = arguments(eight_cases, tmp_path, **keys)
    result = run(argv)
    assert result.code == 0
    assert "pool is exhausted" in result.out
    assert " to go." in result.out
    assert " to go." not in result.out.partition("Round 2: ")[2], "nothing follows the last round that can be"
    assert f"The run in {tmp_path} is complete.\n" in result.out, "an empty ranking says nothing of what to label next"
    assert [row["unique_labels"] for row in curve(tmp_path)] == ["3", "5", "6"]
    assert rows(tmp_path / "ranking.csv") == []
    assert json.loads((tmp_path / "run.json").read_text())["finished"] is True
    assert "finished" in run(argv).out
    (tmp_path / "learning_curve.csv").unlink()
    assert run(argv).code == 0
    assert [row["unique_labels"] for row in curve(tmp_path)] == ["3", "5", "6"]


def test_redraws_cost_no_label_and_add_training_items(eight_cases, tmp_path):
    # Two cases of the pool and six draws of random: at least four are redraws.
    keys = {**SMALL, "initial_labelled": 4, "rounds": 3, "acquisition": "random", "log_every": 2}
    assert run(arguments(eight_cases, tmp_path, **keys)).code == 0
    last = curve(tmp_path)[-1]
    rounds = int(last["round"])
    assert int(last["training_items"]) == 4 + 2 * rounds
    assert int(last["unique_labels"]) < int(last["training_items"])
    scores = rows(tmp_path / f"round_{rounds:03d}/scores.csv")
    assert [row["labelled"] for row in scores] == ["true"] * 6, "the pool is exhausted, and scored as long as it stays"
    ledger = json.loads((tmp_path / "ledger.json").read_text())
    assert sum(case["times_drawn"] for case in ledger["cases"].values()) == int(last["training_items"])


@pytest.mark.long
def test_a_warm_start_begins_at_the_committee_of_the_round_before(eight_cases, tmp_path):
    # Steps so small that nothing moves: the second committee is the first if it starts there.
    keys = {**SMALL, "initial_labelled": 3, "rounds": 1, "learning_rate": 1e-30}
    values = {}
    for warm in ("true", "false"):
        assert run(arguments(eight_cases, tmp_path / warm, **keys, warm_start=warm)).code == 0
        values[warm] = [torch.load(tmp_path / warm / f"round_00{n}/committee.pt")["values"] for n in range(2)]
    # A bias of 0 moves by the step itself.
    assert torch.allclose(*values["true"], rtol=0, atol=1e-20)
    assert not torch.allclose(*values["false"], rtol=0, atol=1e-20)


def test_a_training_is_told_how_many_are_to_come(tmp_path):
    loop = ActiveLearning({"output_dir": tmp_path, "rounds": 2}, {})
    assert [loop._round(number).keys["trainings"] for number in range(3)] == [3, 2, 1]


def test_queries_of_a_case_that_is_not_in_the_pool_are_refused_by_their_file(tmp_path):
    file = write_json(tmp_path / "round_000/queries.json", ["stranger"])
    ledger = Ledger(Split(initial=("a",), pool=("b",), validation=(), test=()))
    with pytest.raises(RunFolderError, match=f"^{file}: round 0 queried the case stranger, which is not in"):
        ActiveLearning({"output_dir": tmp_path, "rounds": 1}, {})._read_ledger(ledger)


@pytest.mark.parametrize("killed", [None, 1])
def test_a_hook_of_the_users_own_sees_every_round(eight_cases, tmp_path, killed):
    """Once, also where the run was killed between a round's last file and the hooks behind it."""
    module = tmp_path / "my_hooks.py"
    module.write_text(
        "from svgd_monai.files import read_json\n"
        "class Note:\n"
        "    def __init__(self, path): self.path = path\n"
        "    def before_round(self, run, number): self.write(f'before {number}')\n"
        "    def after_round(self, run, number): self.write(f'after {number} {run.curve[number][\"unique_labels\"]}')\n"
        "    def after_run(self, run): self.write(f'end, finished: {read_json(run.folder.run_file)[\"finished\"]}')\n"
        "    def write(self, text):\n"
        "        with open(self.path, 'a') as file: file.write(text + '\\n')\n"
    )
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text(f"hooks:\n- _target_: my_hooks.Note\n  path: {tmp_path / 'note.txt'}\n")
    keys = {**SMALL, "initial_labelled": 3, "rounds": 1}
    argv = arguments(eight_cases, tmp_path / "run", overlay, **keys)
    if killed is not None:
        deadly = ("svgd_monai.rounds.loop", None, "log_round", killed + 1, None)
        assert run(argv, deadly, path=tmp_path).code == -signal.SIGKILL
    assert run(argv, path=tmp_path).code == 0
    assert (tmp_path / "note.txt").read_text().split("\n") == [
        "before 0",
        "after 0 3",
        "before 1",
        "after 1 5",
        "end, finished: False",
        "",
    ]
