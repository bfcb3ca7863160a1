"""A small study on the phantom, made by the real command line, and its report."""

import csv
import json
import math
import sys

import numpy as np
import pytest
from command import TINY, run_bundle, words

from svgd_monai.data import make_phantom
from svgd_monai.report.__main__ import main
from svgd_monai.report.build import PICTURES
from svgd_monai.report.tables import FILES

KEYS = {**TINY, "initial_labelled": 2, "validation_cases": 1, "test_cases": 3}
METHODS = {"random": {"acquisition": "random"}, "delete": {"keep_labelled": "false"}}
NAMES = {"random": "svgd/random", "delete": "svgd/entropy_mi/delete"}
SEEDS = (0, 1)


@pytest.fixture(scope="module")
def study(tmp_path_factory, bundle):
    dataset = make_phantom(tmp_path_factory.mktemp("data") / "phantom", "mr", 10)
    folder = tmp_path_factory.mktemp("study")
    cache = folder / "random/seed_0/cache"
    for seed in SEEDS:
        cells = {**METHODS, "full": {"initial_labelled": 6}} if seed == 0 else METHODS
        for name, keys in cells.items():
            output = folder / name / f"seed_{seed}"
            given = {**KEYS, **keys, "seed": seed, "dataset_dir": dataset, "output_dir": output, "cache_dir": cache}
            result = run_bundle(*words(bundle / "configs/active_learning.yaml", **given))
            assert result.exit_code == 0, result.last_line
    main([str(folder)])
    return folder


def rows(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_table_and_picture_is_there(study):
    for name in FILES:
        assert rows(study / "report" / name), name
    for name in (*PICTURES, "report.md", "report.html"):
        assert (study / "report" / name).stat().st_size > 1000, name


def test_the_methods_are_those_of_the_command_lines(study):
    found = {row["method"]: row["seeds"] for row in rows(study / "report/summary.csv")}
    assert found == {"svgd/entropy_mi": "1", "svgd/entropy_mi/delete": "2", "svgd/random": "2"}


def test_final_dice_and_areas_follow_from_the_learning_curves(study):
    curves = {}
    for name, seed in ((name, seed) for name in METHODS for seed in SEEDS):
        table = rows(study / name / f"seed_{seed}/learning_curve.csv")
        last = {int(row["unique_labels"]): float(row["test_dice"]) for row in table}
        curves[name, seed] = (np.array(list(last), float), np.array(list(last.values())))
    low, high = (extreme(x[end] for x, _ in curves.values()) for extreme, end in ((max, 0), (min, -1)))
    summary = {row["method"]: row for row in rows(study / "report/summary.csv")}
    for name in METHODS:
        row = summary[NAMES[name]]
        finals = [curves[name, seed][1][-1] for seed in SEEDS]
        assert float(row["final_test_dice_mean"]) == pytest.approx(np.mean(finals), abs=1e-12)
        x = np.linspace(low, high, 100_001)
        area = np.mean([np.interp(x, *curves[name, seed]).mean() for seed in SEEDS])
        assert float(row["aubc_mean"]) == pytest.approx(area, abs=1e-6)


def test_what_was_queried_follows_from_the_ledgers(study):
    found = {row["method"]: row for row in rows(study / "report/queries.csv")}
    made = again = 0
    for seed in SEEDS:
        ledger = json.loads((study / f"random/seed_{seed}/ledger.json").read_text())
        made += sum(len(number["queries"]) for number in ledger["rounds"])
        again += sum(len(number["queries"]) - len(number["new_labels"]) for number in ledger["rounds"])
    assert (int(found["svgd/random"]["queries"]), int(found["svgd/random"]["redraws"])) == (made, again)
    content = [row for row in rows(study / "report/queried_cases.csv") if row["what"] == "volume_ml"]
    assert {row["of"] for row in content} == {"anterior", "posterior"}
    assert all(0.1 < float(row["pool_mean"]) < 10 for row in content)


def test_calibration_is_that_of_the_runs_own_metrics(study):
    own = [
        json.loads((study / f"random/seed_{seed}/round_001/metrics.json").read_text())["test"]["ece"] for seed in SEEDS
    ]
    (row,) = [row for row in rows(study / "report/calibration.csv") if row["method"] == "svgd/random"]
    assert float(row["ece_final_mean"]) == pytest.approx(np.mean(own), abs=1e-9)


def test_what_moved_the_committees_is_what_their_trainings_noted(study):
    last = []
    for seed in SEEDS:
        paths = sorted((study / f"random/seed_{seed}").glob("round_*/training.json"))
        balances = [json.loads(path.read_text())["validations"][-1]["balance"] for path in paths]
        last.append(np.median([b["repulsion"] / b["drive"] for b in balances]))
    (row,) = [row for row in rows(study / "report/balance.csv") if row["method"] == "svgd/random"]
    assert float(row["repulsion_mean"]) == pytest.approx(np.mean(last)) != 0


def test_compute_is_that_of_the_learning_curves(study):
    tables = [rows(study / f"random/seed_{seed}/learning_curve.csv") for seed in SEEDS]
    spent = math.fsum(float(row[c]) for table in tables for row in table for c in ("seconds_train", "seconds_score"))
    (row,) = [row for row in rows(study / "report/compute.csv") if row["method"] == "svgd/random"]
    assert float(row["seconds_all_runs"]) == pytest.approx(spent)


def test_the_report_says_what_it_rests_on(study):
    content = (study / "report/report.md").read_text(encoding="utf-8")
    assert (
        "2 methods and the full data, 5 finished runs, 1 to 2 seeds per method, 3 test cases; data: Phantom MR."
        in content
    )
    assert "Left out" not in content
    assert sys.executable not in content
