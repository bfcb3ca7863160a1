"""The CT bundle on the CT phantom, through the command line: the loop, its resume, and what only CT has."""

import csv
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml
from command import TINY, words
from runs import outcome, run

from svgd_monai.data import make_phantom, read_dataset

BUNDLE = Path(__file__).parents[2] / "bundles/pancreas_ct_svgd"
CONFIGS = BUNDLE / "configs"
#: 8 mm, so that a body is about 25 voxels wide.
KEYS = {
    **TINY,
    "spacing": [8, 8, 8],
    "rounds": 2,
    "steps_per_round": 4,
    "validations_per_round": 2,
    "queries_per_round": 2,
    "test_cases": 3,
}


@pytest.fixture(scope="module")
def phantom_ct(tmp_path_factory):
    """A data set of 14 small CT cases; to be read only."""
    return make_phantom(tmp_path_factory.mktemp("data") / "phantom_ct", "ct", 14)


def arguments(dataset, output, *overlays, **keys):
    configs = (CONFIGS / "active_learning.yaml", *overlays)
    return words(*configs, **{**KEYS, "dataset_dir": dataset, "output_dir": output, **keys})


@pytest.fixture(scope="module")
def uninterrupted(phantom_ct, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    result = run(arguments(phantom_ct, folder))
    assert result.code == 0, result.last_line
    return folder


def test_the_loop_runs_on_ct(uninterrupted):
    found = outcome(uninterrupted)
    assert [row["unique_labels"] for row in found["curve"]] == ["3", "5", "7"]
    assert {"test_dice_pancreas", "test_dice_tumour"} <= set(found["curve"][0])
    assert all(len(chosen) == 2 for chosen in found["queries"])
    shared = [row["mutual_information"] for row in csv.DictReader(found["scores"][0].splitlines())]
    assert all(float(value) > 0 for value in shared)


@pytest.mark.parametrize(
    "deadly",
    [
        ("svgd_monai.committee.keeper", None, "write_torch", 2, None),  # in the first training
        # Ten more moments in tests/rounds/test_resume.py: the loop is the same.
        pytest.param(("svgd_monai.acquisition.handler", None, "write_csv", 2, None), marks=pytest.mark.long),
        pytest.param(("svgd_monai.files", "Path", "replace", 1, "round_001/queries.json"), marks=pytest.mark.long),
    ],
    ids=["training", "between ranking and scores", "between write and rename"],
)
def test_a_run_that_was_killed_ends_as_the_uninterrupted_one(phantom_ct, uninterrupted, tmp_path, deadly):
    argv = arguments(phantom_ct, tmp_path)
    assert run(argv, deadly=deadly).code < 0
    again = run(argv)
    assert again.code == 0, again.last_line
    assert outcome(tmp_path) == outcome(uninterrupted)


def test_the_phantom_overlay_makes_its_own_data(tmp_path):
    keys = {k: v for k, v in KEYS.items() if k not in ("rounds", "test_cases", "surface_distances")}
    argv = words(
        CONFIGS / "active_learning.yaml", CONFIGS / "phantom.yaml", **keys, rounds=0, output_dir=tmp_path,
        **{"dataset_dir#num_cases": 12},
    )  # fmt: skip
    result = run(argv)
    assert result.code == 0, result.last_line
    assert len(list((tmp_path / "phantom_ct/imagesTr").iterdir())) == 12
    assert (tmp_path / "ranking.csv").is_file()


def test_the_papers_overlay_is_the_publications():
    overlay = yaml.safe_load((CONFIGS / "paper.yaml").read_text())
    split = json.loads((BUNDLE.parents[1] / f"data_lists/{overlay['split_file']}.json").read_text())
    assert len(split["validation"]) == overlay["validation_cases"] == 30
    assert len(split["test"]) == overlay["test_cases"] == 30
    for seed in range(5):
        assert len(split["seeds"][str(seed)]["initial"]) == overlay["initial_labelled"] == 20
        assert len(split["seeds"][str(seed)]["pool"]) == 201
    published = {"learning_rate": 0.0004, "batch_size": 8, "num_particles": 5, "rounds": 40, "steps_per_round": 10000,
                 "queries_per_round": 5, "spacing": [4.0] * 3, "roi_size": [48] * 3}  # fmt: skip
    assert {key: overlay[key] for key in published} == published


def test_the_papers_overlay_runs(phantom_ct, tmp_path):
    small = {"split_file": "null", "initial_labelled": 3, "rounds": 0}
    result = run(arguments(phantom_ct, tmp_path, CONFIGS / "paper.yaml", **small))
    assert result.code == 0, result.last_line
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["settings"]["prior_std"] is None
    assert record["settings"]["normalise_over"] == "all"


def test_the_window_of_hu_is_the_papers():
    for stage in ("train", "evaluate", "acquire", "inference"):
        intensity = yaml.safe_load((CONFIGS / f"{stage}.yaml").read_text())["intensity"]
        assert intensity["_target_"] == "ScaleIntensityRanged"
        assert (intensity["a_min"], intensity["a_max"], intensity["clip"]) == (-87.0, 199.0, True)


class TestOddCases:
    """Volumes that are unusual and right, and volumes that are wrong."""

    @pytest.fixture
    def odd(self, phantom_ct, tmp_path):
        return Path(shutil.copytree(phantom_ct, tmp_path / "odd"))

    def change(self, root, number, image=lambda v: v, label=lambda v: v):
        item = list(read_dataset(root).items.values())[number]
        for key, function in (("image", image), ("label", label)):
            found = nib.load(item[key])
            values = function(np.asarray(found.dataobj).copy())
            nib.save(nib.Nifti1Image(values, found.affine), item[key])
        return item["case"]

    def test_empty_labels_small_and_thin_volumes_are_worked_with(self, odd, tmp_path):
        for number in range(14):  # whatever role each plays
            if number % 3 == 0:
                self.change(odd, number, label=lambda v: v * 0)
            elif number % 3 == 1:
                self.change(odd, number, *[lambda v: v[20:60, 20:60, 20:40]] * 2)
            else:
                self.change(odd, number, *[lambda v: v[:, :, 24:26]] * 2)
        result = run(arguments(odd, tmp_path / "run", rounds=0))
        assert result.code == 0, result.last_line
        assert len(outcome(tmp_path / "run")["curve"]) == 1

    @pytest.mark.parametrize(
        ("fault", "words_of_it"),
        [
            (lambda v: np.stack([v, v], -1), "channels"),
            (lambda v: v[..., None, None] + np.zeros((1, 1, 1, 1, 2), v.dtype), "shape"),
        ],
        ids=["two channels", "five dimensions"],
    )
    def test_a_volume_of_another_form_is_refused_by_name(self, odd, tmp_path, fault, words_of_it):
        case = self.change(odd, 5, image=fault)
        result = run(arguments(odd, tmp_path / "run"))
        assert result.code == 1
        assert case in result.last_line
        assert words_of_it in result.last_line
        assert not list((tmp_path / "run").glob("round_*"))
