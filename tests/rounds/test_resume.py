"""A run that is killed at any moment and started again ends as if it had not been stopped, bit for bit."""

import json
import math
import shutil
import signal

import pytest
from runs import KEYS, arguments, curve, outcome, run

from svgd_monai.acquisition.ranking import write_ranking
from svgd_monai.files import read_csv

ROUNDS = KEYS["rounds"]


@pytest.fixture(scope="module")
def uninterrupted(phantom_mr, tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    assert run(arguments(phantom_mr, folder)).code == 0
    return folder


MOMENTS = {
    "in the first seconds": ("svgd_monai.rounds.loop", None, "load_task", 1, None),
    "between the run's record and its ledger": ("svgd_monai.rounds.loop", "ActiveLearning", "_read_ledger", 1, None),
    "in training, before the first validation": (
        "svgd_monai.committee.posterior",
        "PosteriorStep",
        "__call__",
        1,
        None,
    ),
    "in training, behind a validation": ("svgd_monai.committee.posterior", "PosteriorStep", "__call__", 7, None),
    "between write and rename of a committee": ("pathlib", "Path", "replace", 2, "committee.pt"),
    "between write and rename of queries": ("pathlib", "Path", "replace", 1, "queries.json"),
    "between write and rename of progress": ("pathlib", "Path", "replace", 2, "training.pt"),
    "in measuring": ("svgd_monai.evaluation.handler", "CaseMetricsHandler", "measure", 7, None),
    "in scoring": ("svgd_monai.acquisition.handler", "AcquisitionHandler", "accumulate", 5, None),
    "between queries and ledger": ("svgd_monai.rounds.ledger", "Ledger", "record", 1, None),
    "between rounds": ("svgd_monai.report.recorders", "RoundRecorder", "after_round", 2, None),
    "behind the last round's scores": ("svgd_monai.rounds.loop", None, "curve_row", ROUNDS + 1, None),
}


#: Those at which least is at stake, or which tests/faults strikes at as well.
LONG = (
    "in the first seconds", "between the run's record and its ledger", "between rounds",
    "between write and rename of a committee", "between queries and ledger", "behind the last round's scores",
)  # fmt: skip


@pytest.mark.parametrize("moment", [pytest.param(m, marks=pytest.mark.long) if m in LONG else m for m in MOMENTS])
def test_a_run_killed_and_started_again_equals_an_uninterrupted_one(moment, uninterrupted, phantom_mr, tmp_path):
    argv = arguments(phantom_mr, tmp_path)
    assert run(argv, deadly=MOMENTS[moment]).code == -signal.SIGKILL
    assert run(argv).code == 0
    assert outcome(tmp_path) == outcome(uninterrupted)
    assert not list(tmp_path.rglob("*.tmp")), "temporary files of the killed process stay behind"
    for folder in tmp_path.glob("round_*"):
        times, training = (json.loads((folder / name).read_text()) for name in ("times.json", "training.json"))
        assert times.get("train", math.inf) >= training["seconds"], "what was trained before the kill counts as well"


def test_a_finished_run_does_nothing(uninterrupted, phantom_mr):
    before = {p: p.stat().st_mtime_ns for p in uninterrupted.rglob("*") if p.is_file() and p.name != ".lock"}
    result = run(arguments(phantom_mr, uninterrupted))
    assert result.code == 0
    after = {p: p.stat().st_mtime_ns for p in uninterrupted.rglob("*") if p.is_file() and p.name != ".lock"}
    changed = {p.name for p in after if after[p] != before.get(p)}
    assert not changed
    assert set(after) == set(before)
    assert "finished" in result.out


def test_more_rounds_go_on_and_equal_a_run_that_had_them_from_the_start(uninterrupted, phantom_mr, tmp_path):
    assert run(arguments(phantom_mr, tmp_path, rounds=1)).code == 0
    assert len(curve(tmp_path)) == 2
    assert run(arguments(phantom_mr, tmp_path)).code == 0
    assert outcome(tmp_path) == outcome(uninterrupted)
    assert json.loads((tmp_path / "run.json").read_text())["settings"]["rounds"] == ROUNDS


def test_a_command_that_is_killed_on_its_way_through_earlier_rounds_leaves_their_curve(
    uninterrupted, phantom_mr, tmp_path
):
    copy = tmp_path / "run"
    shutil.copytree(uninterrupted, copy)
    argv = arguments(phantom_mr, copy, rounds=ROUNDS + 1)
    deadly = ("svgd_monai.rounds.loop", None, "curve_row", 2, None)
    assert run(argv, deadly=deadly).code == -signal.SIGKILL
    assert curve(copy) == curve(uninterrupted)
    (copy / "round_000/metrics.json").unlink()  # so that the first round is made up first
    assert run(argv, deadly=deadly).code == -signal.SIGKILL
    assert (copy / "round_000/metrics.json").is_file()
    assert curve(copy) == curve(uninterrupted)


@pytest.mark.parametrize(
    ("key", "value"),
    [("learning_rate", 0.5), ("rounds", 1), ("seed", 3), ("keep_labelled", "false"), ("test_cases", 4)],
)
def test_another_setting_is_refused_by_name_and_changes_nothing(key, value, uninterrupted, phantom_mr):
    before = outcome(uninterrupted)
    result = run(arguments(phantom_mr, uninterrupted, **{key: value}))
    assert result.code == 1
    assert result.last_line.startswith(f"{key}: ")
    assert outcome(uninterrupted) == before


def test_a_data_set_of_the_same_content_may_move(uninterrupted, phantom_mr, tmp_path):
    moved = tmp_path / "moved"
    moved.symlink_to(phantom_mr)
    assert "finished" in run(arguments(moved, uninterrupted)).out


def test_a_second_process_on_the_same_folder_is_refused(phantom_mr, tmp_path):
    from svgd_monai.rounds import run_lock

    with run_lock(tmp_path):
        result = run(arguments(phantom_mr, tmp_path))
    assert result.code == 1
    assert "another process" in result.last_line
    assert not list(tmp_path.glob("round_*"))


@pytest.mark.parametrize("name", ["round_000/queries.json", "ledger.json"])
def test_a_damaged_record_of_queries_is_refused_by_name_and_the_other_restores_it(
    name, uninterrupted, phantom_mr, tmp_path
):
    """Also in a run that is finished."""
    copy = tmp_path / "run"
    shutil.copytree(uninterrupted, copy)
    (copy / name).write_text('["phantom_mr_0')
    result = run(arguments(phantom_mr, copy))
    assert result.code == 1
    assert f"{name} cannot be read" in result.last_line
    assert result.last_line.endswith("Remove it, and the same command makes it again.")
    (copy / name).unlink()
    assert run(arguments(phantom_mr, copy)).code == 0
    assert outcome(copy) == outcome(uninterrupted)


def test_a_query_file_that_was_changed_by_hand_is_refused(uninterrupted, phantom_mr, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(uninterrupted, copy)
    file = copy / "round_000/queries.json"
    file.write_text(json.dumps(json.loads(file.read_text())[::-1]))
    result = run(arguments(phantom_mr, copy))
    assert result.code == 1
    assert result.last_line.endswith("queries.json differ; one of them was changed by hand.")


#: What is made again also in a run that is finished: of the committees, and of the scores.
ALSO_WHEN_FINISHED = ("round_000/scores.csv", f"round_{ROUNDS:03d}/metrics.json", "learning_curve.csv", "ranking.csv")


@pytest.mark.parametrize(
    "name",
    ["ledger.json", "round_001/queries.json", "round_000/training.json", "round_000/times.json", *ALSO_WHEN_FINISHED],
)
def test_a_run_goes_on_without_a_file_that_may_be_removed(name, uninterrupted, phantom_mr, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(uninterrupted, copy)
    if name not in ALSO_WHEN_FINISHED:
        run_file = copy / "run.json"
        run_file.write_text(run_file.read_text().replace('"finished": true', '"finished": false'))
        (copy / "round_001/datalist.json").write_bytes(b"")  # follows from the split and the queries
    if name == "round_000/times.json":  # emptied, it is named by what looks at every file
        (copy / name).write_bytes(b"")
        assert run(arguments(phantom_mr, copy)).last_line.endswith("the same command goes on without it.")
    (copy / name).unlink()
    assert run(arguments(phantom_mr, copy)).code == 0
    assert outcome(copy) == outcome(uninterrupted)
    lists = [(folder / "round_001/datalist.json").read_bytes() for folder in (copy, uninterrupted)]
    assert lists[0] == lists[1]
    assert (copy / name).is_file() == (name != "round_000/times.json")


def test_what_a_stop_has_left_of_an_earlier_round_is_made_again(uninterrupted, phantom_mr, tmp_path):
    """A stop while a finished run is mended: the curve is cut, or the ranking is that of the round that was scored."""
    copy = tmp_path / "run"
    shutil.copytree(uninterrupted, copy)
    curve, ranking = copy / "learning_curve.csv", copy / "ranking.csv"
    curve.write_bytes(b"".join(curve.read_bytes().splitlines(keepends=True)[:2]))
    older = [row for row in read_csv(copy / "round_000/scores.csv") if row["labelled"] == "false"]
    write_ranking(ranking, older)
    assert ranking.read_bytes() != (uninterrupted / "ranking.csv").read_bytes()
    assert run(arguments(phantom_mr, copy)).code == 0
    assert outcome(copy) == outcome(uninterrupted)
    assert ranking.read_bytes() == (uninterrupted / "ranking.csv").read_bytes()
    written = ranking.stat().st_mtime_ns
    assert run(arguments(phantom_mr, copy)).code == 0
    assert ranking.stat().st_mtime_ns == written


def test_a_finished_run_without_a_committee_is_not_trained_anew(uninterrupted, phantom_mr, tmp_path):
    """Whoever has removed them for their size has not asked for days of training."""
    copy = tmp_path / "run"
    shutil.copytree(uninterrupted, copy)
    for name in ("committee.pt", "scores.csv"):
        (copy / "round_000" / name).unlink()
    assert "nothing is left to do" in run(arguments(phantom_mr, copy)).out
    assert not (copy / "round_000/committee.pt").exists()


def test_a_ranking_that_is_lost_with_its_scores_cut_off_comes_back_when_they_are_removed(
    uninterrupted, phantom_mr, tmp_path
):
    copy = tmp_path / "run"
    shutil.copytree(uninterrupted, copy)
    (copy / "ranking.csv").unlink()
    scores = copy / f"round_{ROUNDS:03d}/scores.csv"
    scores.write_bytes(scores.read_bytes()[:-1])
    assert run(arguments(phantom_mr, copy)).last_line == (
        f"{scores} is cut off. Remove it, and the same command makes it again."
    )
    scores.unlink()
    assert run(arguments(phantom_mr, copy)).code == 0
    for name in ("ranking.csv", scores.relative_to(copy)):
        assert (copy / name).read_bytes() == (uninterrupted / name).read_bytes()
