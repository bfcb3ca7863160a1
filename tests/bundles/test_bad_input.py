"""Whatever is wrong with what a user gives ends the command with one line that names it, before any work."""

import json
import os
import re
import shutil

import nibabel as nib
import numpy as np
import pytest
import torch
from command import TINY, run_bundle, run_bundle_subprocess, words

CASE = "phantom_mr_004"


@pytest.fixture
def config(bundle):
    return bundle / "configs/active_learning.yaml"


@pytest.fixture
def output(tmp_path):
    return tmp_path / "run"


@pytest.fixture
def dataset(phantom_mr, tmp_path):
    """A copy of the phantom to damage; a damaged file is replaced, never written into."""
    return shutil.copytree(phantom_mr, tmp_path / "data", copy_function=os.link)


def refusal(result, *named):
    """The one line on stderr of a command that has failed, which says all of ``named``."""
    assert result.exit_code == 1, result.stdout
    assert result.stderr == result.last_line + "\n", "more than one line"
    assert result.last_line.endswith(".")
    assert all(str(name) in result.last_line for name in named), result.last_line
    assert not re.match(r"\w+: ", result.last_line) or result.last_line[0].islower(), "the end of a traceback"
    assert not any(word in result.last_line for word in ("Failed to", "ConfigExpression", "_target_")), "MONAI's words"
    return result.last_line


def refused(config, output, *named, **keys):
    """The refusal of a loop that, if it began to work, would take seconds."""
    sentence = refusal(run_bundle(*words(config, **{**TINY, "output_dir": output, **keys})), *named)
    assert not output.is_dir() or {path.name for path in output.iterdir()} <= {".lock", "cache"}, "work was begun"
    return sentence


def replace(path, content):
    path.unlink()
    path.write_bytes(content)
    return path


def replace_volume(path, values=None, affine=None):
    old = nib.load(path)
    values = np.asanyarray(old.dataobj) if values is None else values
    new = nib.Nifti1Image(values, old.affine if affine is None else affine)
    path.unlink()
    nib.save(new, path)
    return path


def image_of(dataset):
    return dataset / "imagesTr" / f"{CASE}.nii.gz"


def label_of(dataset):
    return dataset / "labelsTr" / f"{CASE}.nii.gz"


def truncated(dataset):
    path = image_of(dataset)
    return replace(path, path.read_bytes()[: path.stat().st_size // 2])


def web_page(dataset):
    return replace(image_of(dataset), b"<!DOCTYPE html><html><body>404 Not Found</body></html>")


def all_nan(dataset):
    path = image_of(dataset)
    return replace_volume(path, np.full(nib.load(path).shape, np.nan, np.float32))


def label_of_another_shape(dataset):
    path = label_of(dataset)
    return replace_volume(path, np.asanyarray(nib.load(path).dataobj)[:-1])


def label_with_another_affine(dataset):
    path = label_of(dataset)
    affine = nib.load(path).affine.copy()
    affine[:3, 3] += 5
    return replace_volume(path, affine=affine)


def label_value_7(dataset):
    path = label_of(dataset)
    values = np.asanyarray(nib.load(path).dataobj).copy()
    values[0, 0, 0] = 7
    return replace_volume(path, values)


DAMAGES = {
    truncated: "cut off",
    web_page: "not gzip",
    all_nan: "NaN",
    label_of_another_shape: "shape",
    label_with_another_affine: "affine",
    label_value_7: "label value 7",
}


class TestVolumes:
    @pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
    def test_a_bad_file_is_named_with_its_case(self, config, dataset, output, damage):
        path = damage(dataset)
        refused(config, output, CASE, path, DAMAGES[damage], dataset_dir=dataset)

    def test_a_file_that_went_bad_after_it_was_checked_is_noticed(self, config, dataset, output):
        (output / "round_000").mkdir(parents=True)
        keys = {**TINY, "dataset_dir": dataset, "output_dir": output}
        refusal(run_bundle(*words(config, **keys)), "run.json")  # behind the checks
        (output / "round_000").rmdir()
        assert CASE in (output / "cache/case_checks.json").read_text()
        path = all_nan(dataset)
        refused(config, output, CASE, path, dataset_dir=dataset)


class TestDataset:
    def test_a_missing_folder(self, config, tmp_path, output):
        refused(config, output, tmp_path / "nowhere", dataset_dir=tmp_path / "nowhere")

    def test_a_folder_without_a_dataset_json(self, config, dataset, output):
        (dataset / "dataset.json").unlink()
        refused(config, output, dataset, "dataset.json", dataset_dir=dataset)

    def test_a_damaged_dataset_json(self, config, dataset, output):
        replace(dataset / "dataset.json", b'{"training": [')
        refused(config, output, dataset / "dataset.json", dataset_dir=dataset)

    def test_a_missing_label_file(self, config, dataset, output):
        label_of(dataset).unlink()
        refused(config, output, CASE, label_of(dataset).name, dataset_dir=dataset)

    def test_a_network_with_another_number_of_classes(self, config, phantom_mr, output):
        refused(config, output, "num_classes: 4", phantom_mr, dataset_dir=phantom_mr, num_classes=4)

    def test_more_initial_cases_than_there_are(self, config, phantom_mr, output):
        refused(config, output, "initial_labelled is 99", dataset_dir=phantom_mr, initial_labelled=99)


class TestSplitFile:
    ROLES = ("initial", "pool", "validation", "test")

    def write(self, path, **roles):
        cases = {role: [f"phantom_mr_{number:03d}"] for number, role in enumerate(self.ROLES, start=1)}
        path.write_text(json.dumps({**cases, **roles}))
        return path

    def test_that_is_sound_is_accepted(self, config, phantom_mr, output, tmp_path):
        split = self.write(tmp_path / "split.json")
        # The next thing that is wrong is named.
        refused(config, output, "num_classes", dataset_dir=phantom_mr, split_file=split, num_classes=4)

    def test_that_is_missing(self, config, phantom_mr, output):
        refused(config, output, "split_file nowhere.json", dataset_dir=phantom_mr, split_file="nowhere.json")

    def test_with_an_unknown_case(self, config, phantom_mr, output, tmp_path):
        split = self.write(tmp_path / "split.json", pool=["hippocampus_001"])
        refused(config, output, split, "hippocampus_001", dataset_dir=phantom_mr, split_file=split)

    def test_that_uses_a_case_twice(self, config, phantom_mr, output, tmp_path):
        split = self.write(tmp_path / "split.json", pool=["phantom_mr_004"])
        refused(config, output, split, "phantom_mr_004", "twice", dataset_dir=phantom_mr, split_file=split)


#: What is typed, and what the line begins with. The data set is not looked at: there is none.
BAD_VALUES = {
    "below the least": ("--rounds", "-1", "rounds: -1"),
    "a fraction of a round": ("--rounds", "2.5", "rounds: 2.5"),
    "neither true nor false": ("--keep_labelled", "maybe", "keep_labelled: 'maybe'"),
    "a number for a switch": ("--keep_labelled", "2", "keep_labelled: 2"),
    "null for a number": ("--learning_rate", "None", "learning_rate: null"),
    "null in lower case for a number": ("--learning_rate", "null", "learning_rate: null"),
    "not above zero": ("--learning_rate", "0", "learning_rate: 0"),
    "infinite": ("--learning_rate", "1e999", "learning_rate: inf"),
    "a word for a number": ("--prior_std", "wide", "prior_std: 'wide'"),
    "another committee": ("--committee", "foo", "committee: 'foo'"),
    "another acquisition": ("--acquisition", "foo", "acquisition "),
    "a list that is too short": ("--spacing", "[1,2]", "spacing: [1, 2]"),
    "a list of words": ("--spacing", "[1,1,x]", "spacing: 'x'"),
    "a window too small for the network": ("--roi_size", "[4,4,4]", "roi_size: 4"),
    "another device": ("--device", "gpu", "device: 'gpu'"),
    "an expression of the wrong type": ("--rounds", "$1/2", "rounds: 0.5"),
    "a reference to the wrong type": ("--rounds", "@committee", "rounds: 'svgd'"),
}


class TestKeys:
    @pytest.mark.parametrize("what", BAD_VALUES)
    def test_a_bad_value_is_named(self, config, output, what):
        key, value, begin = BAD_VALUES[what]
        result = run_bundle(*words(config, output_dir=output), f"{key}={value}")
        assert refusal(result).startswith(begin)
        assert not output.exists()

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("learning_rat", "0.1"),
            ("learning_rat", "None"),
            ("train", "{'lr': 1}"),
            ("loop#hook", "1"),
            ("stages::trian", "x.yaml"),
            ("hooks#0#log", "1"),
        ],
    )
    def test_an_unknown_key_is_named(self, config, output, key, value):
        result = run_bundle(*words(config, output_dir=output), f"--{key}={value}")
        refusal(result, f"--{key} ", config)
        assert not output.exists()

    def test_an_unknown_key_of_an_args_file_is_named(self, config, output, tmp_path):
        arguments = tmp_path / "args.yaml"
        arguments.write_text(f"config_file: {config}\noutput_dir: {output}\nlearning_rat: 0.1\n")
        refusal(run_bundle("run", "--args_file", arguments), "learning_rat", config)

    def test_a_bad_value_of_an_args_file_is_named(self, config, output, tmp_path):
        arguments = tmp_path / "args.yaml"
        arguments.write_text(f"config_file: {config}\noutput_dir: {output}\nkeep_labelled: perhaps\n")
        assert refusal(run_bundle("run", "--args_file", arguments)).startswith("keep_labelled: 'perhaps'")

    def test_a_bad_value_of_an_overlay_file_is_named(self, config, output, tmp_path):
        overlay = tmp_path / "overlay.yaml"
        overlay.write_text("batch_size: 0\n")
        assert refusal(run_bundle(*words(config, overlay, output_dir=output))).startswith("batch_size: 0")

    @pytest.mark.parametrize("key", ["images", "labels", "validation", "test"])
    def test_a_folder_of_people_who_label_without_these_is_named(self, config, output, tmp_path, key):
        keys = {"dataset_dir": tmp_path / "nowhere", "output_dir": output, key: tmp_path}
        result = run_bundle(*words(config, **keys))
        assert refusal(result, "oracle: people").startswith(f"{key}: ")
        assert not output.exists()

    @pytest.mark.skipif(torch.cuda.is_available(), reason="the device is there")
    def test_a_device_that_is_not_there_is_named(self, config, output):
        assert refusal(run_bundle(*words(config, output_dir=output, device="cuda"))).startswith("device: cuda")

    @pytest.mark.parametrize("stage", ["train", "evaluate", "acquire", "inference"])
    def test_the_configurations_of_the_stages_check_their_keys_too(self, bundle, output, stage):
        stage_config = bundle / f"configs/{stage}.yaml"
        assert refusal(run_bundle(*words(stage_config, output_dir=output, roi_size=3))).startswith("roi_size: 3")
        refusal(run_bundle(*words(stage_config, output_dir=output, roi_sise=32)), "--roi_sise", stage_config)
        assert not output.exists()


class TestOutputDir:
    def test_that_is_a_file_is_named(self, config, phantom_mr, tmp_path):
        file = tmp_path / "notes.txt"
        file.write_text("mine")
        refused(config, file, file, dataset_dir=phantom_mr)
        assert file.read_text() == "mine"

    def test_that_cannot_be_made_is_named(self, config, phantom_mr, tmp_path):
        file = tmp_path / "notes.txt"
        file.write_text("mine")
        refused(config, file / "run", file, dataset_dir=phantom_mr)
        assert file.read_text() == "mine"

    def test_with_rounds_of_an_unknown_run_is_named_and_left_alone(self, config, phantom_mr, output):
        (output / "round_000").mkdir(parents=True)
        result = run_bundle(*words(config, **{**TINY, "dataset_dir": phantom_mr, "output_dir": output}))
        refusal(result, output, "run.json")
        assert list((output / "round_000").iterdir()) == []


@pytest.mark.parametrize("stage", ["evaluate", "acquire"])
class TestCommitteeFile:
    KEYS = ("device", "num_particles", "features", "spacing", "roi_size", "initial_labelled", "validation_cases",
            "test_cases")  # fmt: skip

    def run(self, bundle, stage, phantom_mr, output, committee):
        tiny = {key: TINY[key] for key in self.KEYS}
        places = {"dataset_dir": phantom_mr, "output_dir": output, "committee_file": committee}
        return run_bundle(*words(bundle / f"configs/{stage}.yaml", **tiny, **places))

    def test_that_is_missing_is_named(self, bundle, stage, phantom_mr, output):
        committee = output / "committee.pt"
        refusal(self.run(bundle, stage, phantom_mr, output, committee), "committee_file", committee)
        assert not list(output.glob("*.json")) + list(output.glob("*.csv"))

    @pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"<html>404</html>"])
    def test_that_is_corrupt_is_named(self, bundle, stage, phantom_mr, output, tmp_path, content):
        committee = tmp_path / "committee.pt"
        committee.write_bytes(content)
        refusal(self.run(bundle, stage, phantom_mr, output, committee), committee)

    def test_of_other_tensors_is_named(self, bundle, stage, phantom_mr, output, tmp_path):
        committee = tmp_path / "committee.pt"
        torch.save({"epoch": 3, "weight": torch.zeros(2)}, committee)
        refusal(self.run(bundle, stage, phantom_mr, output, committee), committee)


class TestProcess:
    """What a shell sees: warnings may stand before the line on stderr, never behind it."""

    def end(self, *arguments):
        result = run_bundle_subprocess(*arguments)
        assert result.exit_code == 1
        assert "Traceback" not in result.stderr
        return result.last_line

    def test_a_mistyped_key(self, config, output):
        line = self.end(*words(config, output_dir=output, learning_rat=0.1))
        assert line == f"--learning_rat is not a key of {config}."

    def test_a_bad_label(self, config, dataset, output):
        path = label_value_7(dataset)
        line = self.end(*words(config, **{**TINY, "dataset_dir": dataset, "output_dir": output}))
        assert line.startswith(f"Case {CASE}: {path}")
        assert not list(output.glob("round_*"))

    def test_a_missing_committee(self, bundle, phantom_mr, output):
        keys = {key: TINY[key] for key in TestCommitteeFile.KEYS}
        places = {"dataset_dir": phantom_mr, "output_dir": output, "committee_file": output / "committee.pt"}
        line = self.end(*words(bundle / "configs/evaluate.yaml", **keys, **places))
        assert line.startswith(f"committee_file: {output / 'committee.pt'}")


def test_a_function_without_a_name_in_the_preprocessing_is_refused_before_any_work(config, dataset, output, tmp_path):
    overlay = tmp_path / "own.yaml"
    overlay.write_text('intensity: {_target_: Lambdad, keys: image, func: "$lambda x: x / 1000"}\n')
    argv = words(config, overlay, **{**TINY, "dataset_dir": dataset, "output_dir": output})
    refusal(run_bundle(*argv), "Lambdad cannot be part of a cache's key")
    assert not output.exists()


def test_volumes_of_several_shapes_without_a_grid_are_refused_before_a_round_is_trained(config, dataset, output):
    keys = {**TINY, "mi_grid": "null", "dataset_dir": dataset, "output_dir": output}
    refusal(run_bundle(*words(config, **keys)), "mi_grid: null needs volumes of one shape")
    assert not (output / "round_000/committee.pt").exists()
    # It has made nothing yet, so that the folder takes other keys.
    assert run_bundle(*words(config, **{**keys, "acquisition": "bald", "seed": 1})).exit_code == 0
    record = json.loads((output / "run.json").read_text())
    assert (record["settings"]["acquisition"], record["seed"]) == ("bald", 1)
    refusal(run_bundle(*words(config, **{**keys, "acquisition": "bald"})), "seed: the run in ")


def test_intensities_outside_the_histogram_are_told(config, dataset, output, tmp_path):
    overlay = tmp_path / "own.yaml"
    overlay.write_text("intensity: {_target_: NormalizeIntensityd, keys: image}\n")
    result = run_bundle(*words(config, overlay, **{**TINY, "dataset_dir": dataset, "output_dir": output, "rounds": 0}))
    assert result.exit_code == 0
    assert "more than 5 % of the voxels lie outside [0, 1] after preprocessing" in result.stdout + result.stderr


def test_a_word_switches_off_what_the_configuration_computes(bundle, dataset, output):
    keys = {key: TINY[key] for key in ("num_particles", "features", "spacing", "roi_size", "batch_size", "device")}
    keys |= {"steps_per_round": 1, "model_file": "none", "dataset_dir": dataset, "output_dir": output}
    result = run_bundle(*words(bundle / "configs/train.yaml", **keys, **{"train#trainer#amp": "false"}))
    assert result.exit_code == 0, result.last_line


def test_a_component_whose_package_is_not_installed_is_told_in_a_sentence(
    config, dataset, output, monkeypatch, tmp_path
):
    (tmp_path / "needy.py").write_text(
        "from monai.utils import optional_import\nmissing, _ = optional_import('no_such_package')\n"
        "def network(**_):\n    return missing.Network()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    overlay = tmp_path / "own.yaml"
    overlay.write_text("architecture: {_target_: needy.network, _mode_: callable}\n")
    argv = words(config, overlay, **{**TINY, "dataset_dir": dataset, "output_dir": output})
    refusal(run_bundle(*argv), "A component needs a package that is not installed", "no_such_package")


def test_a_path_that_would_become_another_one_is_refused(config, dataset, output):
    """MONAI takes every # for the :: of a reference."""
    sentence = refused(config, output.with_name("run#1"), "output_dir: ", "holds a #", dataset_dir=dataset)
    assert "::" in sentence
    assert not output.with_name("run::1").exists()


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"device": "mps"}, "device: mps is neither a CPU nor CUDA"),
        ({"hooks": "x"}, "hooks: 'x' has none of before_round"),
        ({"hooks": "$object()"}, "hooks: <object object> has none of before_round"),
        ({"stages": "null"}, "stages: None must name a file"),
        ({"stages#train": "[]"}, "stages: "),
    ],
)
def test_a_part_of_the_loop_that_is_none_is_refused(config, dataset, output, keys, sentence):
    refused(config, output, sentence, dataset_dir=dataset, **keys)
