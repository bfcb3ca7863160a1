"""The bundle's overlay files, through the command line."""

import csv
import json

import yaml
from command import TINY, words
from runs import CONFIG, run

CONFIGS = CONFIG.parent


def test_the_phantom_overlay_makes_its_own_data_and_learns_from_it(tmp_path):
    keys = {k: v for k, v in TINY.items() if k != "surface_distances"}
    argv = words(CONFIG, CONFIGS / "phantom.yaml", **keys, output_dir=tmp_path, **{"dataset_dir#num_cases": 12})
    result = run(argv)
    assert result.code == 0, result.last_line
    assert len(list((tmp_path / "phantom_mr/imagesTr").iterdir())) == 12
    assert (tmp_path / "ranking.csv").is_file()
    assert "finished" in run(argv).out


def test_the_overlay_for_a_cpu_fits_the_loop_and_all_that_uses_its_committee(phantom_mr, tmp_path):
    overlay, device = CONFIGS / "cpu.yaml", {"device": "cpu"}
    # A step, of the sizes and rates that the overlay sets.
    few = {"rounds": 0, "steps_per_round": 1, "validations_per_round": 1, "validation_cases": 2, "test_cases": 2}
    result = run(words(CONFIG, overlay, **few, **device, dataset_dir=phantom_mr, output_dir=tmp_path / "run"))
    assert result.code == 0, result.last_line
    settings = json.loads((tmp_path / "run/run.json").read_text())["settings"]
    assert {**settings, **yaml.safe_load(overlay.read_text()), **few} == settings
    committee = {"committee_file": tmp_path / "run/round_000/committee.pt"}
    for stage, file in (("evaluate", "metrics.json"), ("acquire", "ranking.csv"), ("inference", "inference.csv")):
        images = next((phantom_mr / "imagesTr").iterdir()) if stage == "inference" else phantom_mr
        keys = {**committee, **device, "dataset_dir": images, "output_dir": tmp_path / stage}
        result = run(words(CONFIGS / f"{stage}.yaml", overlay, **keys))
        assert result.code == 0, f"{stage}: {result.last_line}"
        assert (tmp_path / stage / file).is_file()


def test_the_papers_overlay_pads_compares_padded_volumes_and_normalises_over_all(phantom_mr, tmp_path):
    keys = {k: v for k, v in TINY.items() if k != "mi_grid"}
    # Of the paper's sizes only those that a test cannot afford are changed.
    small = {"pad_to": [24, 32, 24], "roi_size": [24, 32, 24], "split_file": "null", "initial_labelled": 3}
    argv = words(CONFIG, CONFIGS / "paper.yaml", **{**keys, **small}, dataset_dir=phantom_mr, output_dir=tmp_path)
    result = run(argv)
    assert result.code == 0, result.last_line
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["settings"]["prior_std"] is None
    assert record["settings"]["mi_grid"] is None
    assert record["settings"]["likelihood_scale"] == 1.0
    assert record["components"]["intensity"]["a_max"] == 2048.0
    assert record["settings"]["pad_to"] == [24, 32, 24]
    with (tmp_path / "round_000/scores.csv").open() as file:
        table = list(csv.DictReader(file))
    shared = [float(row["mutual_information"]) for row in table]
    unsure = [float(row["uncertainty"]) for row in table]

    def scaled(value, values):
        return (value - min(values)) / (max(values) - min(values))

    for row, u, m in zip(table, unsure, shared, strict=True):
        assert abs(float(row["score"]) - (scaled(u, unsure) - scaled(m, shared))) < 1e-6


def test_the_papers_split_is_the_one_in_the_data_lists(tmp_path):
    overlay = yaml.safe_load((CONFIGS / "paper.yaml").read_text())
    split = json.loads((CONFIGS.parents[2] / f"data_lists/{overlay['split_file']}.json").read_text())
    assert len(split["validation"]) == overlay["validation_cases"] == 50
    assert len(split["test"]) == overlay["test_cases"] == 50
    for seed in range(5):
        assert len(split["seeds"][str(seed)]["initial"]) == overlay["initial_labelled"] == 10
        assert len(split["seeds"][str(seed)]["pool"]) == 150
