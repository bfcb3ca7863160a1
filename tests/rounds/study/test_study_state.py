"""What is done, what is left, and for how long."""

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest

from svgd_monai.report.budget import Curve
from svgd_monai.rounds.study.cells import Cell
from svgd_monai.rounds.study.environment import run_environment
from svgd_monai.rounds.study.state import (
    DONE,
    FAILED,
    RUNNING,
    WAITING,
    Progress,
    remaining_seconds,
    run_progress,
    summary,
    write_table,
)


def cell(name, seed=0):
    return Cell(name, seed, {}, Path("runs") / name / f"seed_{seed}")


def validation(labels=(), dice=()):
    return Curve(np.array(labels, float), np.array(dice, float))


def progress(done, rounds, seconds=()):
    return Progress(done == rounds, done, rounds, tuple(seconds), {}, validation())


def test_progress_is_read_from_a_runs_folder(tmp_path):
    nothing = run_progress(tmp_path, 3)
    assert (nothing.finished, nothing.done, nothing.rounds, nothing.row) == (False, 0, 4, {})
    (tmp_path / "run.json").write_text(json.dumps({"settings": {"rounds": 3}, "finished": False}))
    (tmp_path / "learning_curve.csv").write_text("round,unique_labels,val_dice,test_dice\n0,3,0.5,0.4\n1,4,0.6,\n")
    (tmp_path / "round_000").mkdir()
    (tmp_path / "round_000/times.json").write_text('{"train": 4, "evaluate": 1.5}')
    found = run_progress(tmp_path, 3)
    assert (found.finished, found.done, found.rounds, found.seconds) == (False, 2, 4, (5.5, 0.0))
    assert found.row == {"round": "1", "unique_labels": "4", "val_dice": "0.6", "test_dice": ""}
    assert [column.tolist() for column in found.validation] == [[3, 4], [0.5, 0.6]]


@pytest.mark.parametrize(("asked", "finished"), [(3, True), (5, False)])
def test_a_run_is_finished_for_the_rounds_that_are_asked_for(tmp_path, asked, finished):
    (tmp_path / "run.json").write_text(json.dumps({"settings": {"rounds": 3}, "finished": True}))
    assert run_progress(tmp_path, asked).finished is finished


def test_a_run_that_ended_early_for_everything_is_labelled_has_no_rounds_left(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"settings": {"rounds": 9}, "finished": True}))
    (tmp_path / "learning_curve.csv").write_text("round,unique_labels,val_dice,test_dice\n0,3,0.5,0.4\n1,4,0.6,0.5\n")
    found = run_progress(tmp_path, 9)
    assert (found.finished, found.done, found.rounds) == (True, 2, 2)


def test_the_time_left_is_the_rounds_left_times_their_mean_shared_out():
    a, b, c = cell("a"), cell("b"), cell("c")
    found = {a: progress(3, 3, (2, 10, 20)), b: progress(1, 3, (12,)), c: progress(0, 3)}
    states = {a: DONE, b: RUNNING, c: WAITING}
    # 5 rounds are left, of 15 s each: round 0 may be another run's
    assert remaining_seconds([a, b, c], states, found, 1) == 75
    # two workers cannot share the 3 rounds of c
    assert remaining_seconds([a, b, c], states, found, 2) == 45
    assert remaining_seconds([a, b, c], {**states, b: FAILED}, found, 1) == 45


def test_threads_are_the_users_else_the_studys_else_the_cores_lent_to_it(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert [run_environment(None, workers)["OMP_NUM_THREADS"] for workers in (1, 2, 8)] == ["6", "3", "1"]
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert run_environment(None, 1)["OMP_NUM_THREADS"] == "2"
    assert run_environment(3, 2)["OMP_NUM_THREADS"] == "3"
    for found, workers, share in (
        ("16", 2, "3"),
        ("4", 8, "1"),
        ("", 2, "3"),
        ("2,2", 3, "2"),
        ("2,1", 1, "2"),
        (" 4 ", 1, "4"),
        ("x", 1, "6"),
        ("²", 1, "6"),
        ("0", 1, "1"),
    ):
        monkeypatch.setenv("OMP_NUM_THREADS", found)
        assert run_environment(None, workers)["OMP_NUM_THREADS"] == share
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.delattr(os, "sched_getaffinity")
    assert run_environment(None, 2)["OMP_NUM_THREADS"] == "32"


def test_one_run_is_left():
    a, b = cell("a"), cell("b")
    assert summary([a, b], {a: DONE, b: WAITING}, {a: progress(3, 3), b: progress(0, 3)}, 1).startswith(
        "1 of 2 runs are done, 1 is left"
    )


def test_nothing_is_estimated_from_nothing():
    a = cell("a")
    assert remaining_seconds([a], {a: WAITING}, {a: progress(0, 3)}, 1) is None


def test_the_table_has_a_row_per_run(tmp_path):
    a, b = cell("a"), cell("b", 4)
    known = Progress(True, 2, 2, (1.0, 2.26), {"val_dice": "0.5", "test_dice": ""}, validation([2, 4], [0.2, 0.5]))
    found = {a: known, b: progress(0, 2)}
    write_table(tmp_path, [a, b], {a: DONE, b: WAITING}, found)
    with (tmp_path / "study.csv").open() as file:
        first, second = csv.DictReader(file)
    assert first == {
        "method": "a", "seed": "0", "state": "done", "rounds_done": "2", "rounds": "2", "val_dice": "0.5",
        "val_aubc": "0.35", "test_dice": "", "seconds": "3.3", "folder": "runs/a/seed_0",
    }  # fmt: skip
    assert second["val_aubc"] == ""
    assert (second["seed"], second["state"], second["rounds_done"]) == ("4", "waiting", "0")


def test_validation_areas_are_on_the_range_that_all_finished_runs_share(tmp_path):
    cells = [cell(name) for name in "abcd"]
    curves = ([2, 6], [0.2, 0.6]), ([2, 4], [0.4, 0.6]), ([9], [0.9]), ([2, 3], [0.9, 0.9])
    found = {c: Progress(True, 2, 2, (), {}, validation(*curve)) for c, curve in zip(cells, curves, strict=True)}
    write_table(tmp_path, cells, dict(zip(cells, (DONE, DONE, DONE, RUNNING), strict=True)), found)
    with (tmp_path / "study.csv").open() as file:
        areas = [row["val_aubc"] for row in csv.DictReader(file)]
    assert [round(float(value), 9) if value else None for value in areas] == [0.3, 0.5, None, None]
