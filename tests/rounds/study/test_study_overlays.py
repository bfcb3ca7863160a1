"""The overlays of the hippocampus bundle's study: what they compare, and that they run."""

import csv
import json
import shutil

import pytest
import yaml
from command import TINY, run_bundle, words

from svgd_monai.data import make_phantom
from svgd_monai.rounds.study import Study

OVERLAYS = {
    "tuning": ["baseline.yaml"],
    "variants": ["variants.yaml"],
    "1 mm": ["study_1mm.yaml"],
    "tuning at 1 mm": ["study_1mm.yaml", "baseline.yaml"],
    "paper": ["paper.yaml", "study_paper.yaml"],
}
#: The paper's sizes that a test cannot afford.
SMALL = {
    **TINY,
    "roi_size": [24, 32, 24],
    "pad_to": [24, 32, 24],
    "split_file": None,
    "surface_distances": False,
}


@pytest.fixture
def asked(monkeypatch):
    """Takes the study that a command asks for, in place of running it."""
    found = []

    def run(study):
        found.append(study)

    monkeypatch.setattr(Study, "run", run)
    return found


def command(bundle, overlays, **keys):
    files = [bundle / "configs" / name for name in ("study.yaml", *overlays)]
    return run_bundle(*words(*files, **keys))


def of(study, method):
    """The keys of a method's first run."""
    return next(study.overlay(cell) for cell in study.cells if cell.method == method)


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_overlay_makes_a_study(bundle, asked, tmp_path, name):
    result = command(bundle, OVERLAYS[name], output_dir=tmp_path)
    assert result.exit_code == 0, result.last_line
    (study,) = asked
    keys = [study.overlay(cell) for cell in study.cells]
    assert len({cell.place for cell in study.cells}) == len(keys) > 4


def test_the_papers_study_has_the_papers_keys_and_another_clip_in_its_robust_methods(bundle, asked, tmp_path):
    command(bundle, OVERLAYS["paper"], output_dir=tmp_path)
    (study,) = asked
    method, robust = of(study, "entropy_mi"), of(study, "entropy_mi_robust")
    sizes = {"num_particles": 5, "rounds": 40, "steps_per_round": 1500, "pad_to": [64, 64, 64], "prior_std": "flat"}
    sizes |= {"batch_size": 8, "learning_rate": 0.001, "learning_rate_schedule": "constant"}
    for keys in (method, robust):
        assert {key: keys[key] for key in sizes} == {**sizes, "prior_std": keys["prior_std"]}
        assert keys["prior_std"] in (None, "flat")
        assert "architecture" not in keys  # the bundle's own, BasicUNet
    assert method["intensity"]["a_max"] == 2048.0
    assert robust["intensity"]["_target_"] == "ScaleIntensityRangePercentilesd"
    differ = {key for key in method if method[key] != robust[key]}
    assert differ == {"intensity", "method", "output_dir"}


def test_a_variant_changes_one_thing(bundle, asked, tmp_path):
    command(bundle, OVERLAYS["variants"], output_dir=tmp_path)
    (study,) = asked
    plain = of(study, "entropy_mi")
    for cell in study.cells:
        keys = study.overlay(cell)
        differ = {key for key in keys if plain.get(key) != keys[key]} - {"method", "output_dir", "seed"}
        assert len(differ) <= (2 if cell.method == "a weak prior" else 1), cell.name


def test_the_tuning_at_1_mm_takes_batch_and_steps_from_the_command(bundle, asked, tmp_path):
    command(bundle, OVERLAYS["tuning at 1 mm"], output_dir=tmp_path, batch_size=8, steps_per_round=500)
    (study,) = asked
    start = of(study, "start")
    assert (start["batch_size"], start["steps_per_round"], start["spacing"]) == (8, 500, [1.0, 1.0, 1.0])


def test_methods_may_differ_in_a_key_of_the_users_own(bundle, asked, tmp_path):
    network = {"_target_": "BasicUNet", "_mode_": "callable", "dropout": "@dropout"}
    keys = {"dropout": 0.0, "architecture": network, "methods": {"plain": {}, "dropout": {"dropout": 0.25}}}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(keys))
    result = command(bundle, [tmp_path / "own.yaml"], output_dir=tmp_path)
    assert result.exit_code == 0, result.last_line
    assert [of(asked[0], method)["dropout"] for method in ("plain", "dropout")] == [0.0, 0.25]


def test_a_configuration_whose_stage_is_of_several_files_makes_a_study(bundle, asked, tmp_path):
    configs = tmp_path / "own/configs"
    shutil.copytree(bundle / "configs", configs)
    file = configs / "active_learning.yaml"
    file.write_text(file.read_text().replace("  train: train.yaml", "  train: [train.yaml, more.yaml]"))
    (configs / "more.yaml").write_text("dropout: 0.0\n")
    (tmp_path / "own.yaml").write_text(yaml.safe_dump({"methods": {"dropout": {"dropout": 0.25}}}))
    files = (configs / "study.yaml", tmp_path / "own.yaml")
    result = run_bundle(*words(*files, output_dir=tmp_path / "study"))
    assert result.exit_code == 0, result.last_line
    assert of(asked[0], "dropout")["dropout"] == 0.25


@pytest.mark.long  # a minute or two
@pytest.mark.parametrize(("name", "only"), [("paper", "entropy_mi_robust,full"), ("1 mm", "random")])
def test_the_studies_for_a_gpu_run(bundle, tmp_path, name, only):
    small = {key: value for key, value in SMALL.items() if (name, key) != ("paper", "mi_grid")}
    keys = {"dataset_dir": str(make_phantom(tmp_path / "phantom", "mr", 9)), "queries_per_round": 1, "seeds": [0]}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump({**small, **keys}))
    overlays = [*OVERLAYS[name], tmp_path / "small.yaml"]
    result = command(bundle, overlays, output_dir=tmp_path / "study", only=only, threads=1)
    assert result.exit_code == 0, result.last_line
    with (tmp_path / "study/study.csv").open() as file:
        states = {row["method"]: row["state"] for row in csv.DictReader(file)}
    assert states == {**dict.fromkeys(states, "waiting"), **dict.fromkeys(only.split(","), "done")}
    if name == "paper":
        record = json.loads((tmp_path / "study/runs/entropy_mi_robust/seed_0/run.json").read_text())
        assert record["components"]["intensity"]["upper"] == 99.5
        full = json.loads((tmp_path / "study/runs/full/seed_0/run.json").read_text())
        assert len(full["split"]["pool"]) == 0
