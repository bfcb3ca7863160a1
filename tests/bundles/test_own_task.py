"""A task of two channels and four classes on an existing bundle, by the overlay and commands of docs/extending.md."""

import csv
import json
import re
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from command import TINY, run_bundle, words
from monai.bundle import ConfigParser
from monai.networks.nets import BasicUNet
from printed import printed_commands, run_printed
from two_channels import CLASSES, make_two_channels

from svgd_monai.committee import committee_mean
from svgd_monai.workflow import wire

HEADING = "## A bundle for my own task"
STAGES = ("active_learning", "train", "evaluate", "acquire", "inference")


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def page(bundle):
    return bundle / "docs/extending.md"


@pytest.fixture(scope="module")
def commands(page):
    return printed_commands(page, HEADING)


@pytest.fixture(scope="module")
def desk(bundle, phantom_mr, tmp_path_factory):
    """The current folder of someone who follows the page: the overlay, the data set, and scans."""
    folder = tmp_path_factory.mktemp("desk")
    shutil.copy(bundle / "docs/examples/my_task.yaml", folder)
    make_two_channels(phantom_mr, folder / "MyTask")
    (folder / "my_scans").mkdir()
    for path in sorted((folder / "MyTask/imagesTr").iterdir())[:2]:
        shutil.copy(path, folder / "my_scans")
    return folder


@pytest.fixture
def at_desk(desk, monkeypatch):
    monkeypatch.chdir(desk)
    return desk


@pytest.fixture(scope="module")
def done(bundle, commands, desk):
    """All printed commands that use the overlay, in their order."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(desk)
        names = []
        for command in (command for command in commands if "$BUNDLE" in command):
            result = run_printed(command, bundle)
            assert result.exit_code == 0, f"{command}: {result.stderr}"
            names.append(re.search(r"configs/(\w+)\.yaml", command).group(1))
    return names


class TestOverlay:
    def test_serves_every_configuration(self, done):
        assert done == list(STAGES)

    def test_the_loop_measures_each_class_by_its_name(self, desk, done):
        curve = rows(desk / "runs/my_task/learning_curve.csv")
        assert len(curve) == TINY["rounds"] + 1
        assert [name for name in curve[0] if name.startswith("test_dice_")] == [
            *(f"test_dice_{name}" for name in CLASSES[1:]),
            "test_dice_grid",
        ]
        assert len(rows(desk / "runs/my_task/ranking.csv")) == 20 - 4 - 3 - TINY["rounds"]

    def test_the_run_records_the_task(self, desk, done):
        record = json.loads((desk / "runs/my_task/run.json").read_text())
        assert (record["settings"]["in_channels"], record["settings"]["num_classes"]) == (2, 4)
        assert record["components"]["intensity"]["channel_wise"] is True
        assert list(record["dataset"]["classes"].values()) == list(CLASSES)

    def test_the_committee_takes_both_channels_and_tells_all_classes_apart(self, desk, done):
        model = torch.load(desk / "runs/full/model.pt", weights_only=True)
        first = next(value for name, value in model.items() if value.ndim == 5)
        last = [value for value in model.values() if value.ndim == 5][-1]
        assert first.shape[1] == 2
        assert last.shape[0] == 4

    def test_a_trained_committee_is_measured(self, desk, done):
        metrics = json.loads((desk / "runs/measured/metrics.json").read_text())
        assert list(metrics["test"]["dice_per_class"]) == list(CLASSES[1:])

    def test_the_pool_is_ranked_by_both_terms(self, desk, done):
        table = rows(desk / "runs/ranked/scores.csv")
        assert all(float(row["mutual_information"]) > 0 for row in table)
        assert len({row["score"] for row in table}) == len(table)

    def test_images_of_both_channels_are_segmented_in_their_geometry(self, desk, done):
        for path in sorted((desk / "my_scans").iterdir()):
            image = nib.load(path)
            mask = nib.load(desk / "segmented" / path.name.replace(".nii.gz", "_seg.nii.gz"))
            assert image.shape[3] == 2
            assert mask.shape == image.shape[:3]
            np.testing.assert_allclose(mask.affine, image.affine, atol=1e-4)
            assert set(np.unique(np.asarray(mask.dataobj))) <= {0, 1, 2, 3}
        (table,) = (desk / "segmented").glob("*.csv")
        for name in CLASSES[1:]:
            assert any(name in column for column in rows(table)[0])

    def test_serves_the_other_bundle_as_well(self, bundle, at_desk, commands):
        (train,) = (command for command in commands if "train.yaml" in command and "$BUNDLE" in command)
        train = train.replace("runs/full", "runs/other")
        result = run_printed(train, bundle.parent / "pancreas_ct_svgd")
        assert result.exit_code == 0, result.stderr
        assert (at_desk / "runs/other/committee.pt").is_file()


class TestMistakes:
    def end(self, bundle, overlay, stage="active_learning", **keys):
        known = (bundle / f"configs/{stage}.yaml").read_text()
        tiny = {key: value for key, value in TINY.items() if f"\n{key}:" in known}
        keys = {**tiny, "output_dir": "runs/wrong", **keys}
        result = run_bundle(*words(bundle / f"configs/{stage}.yaml", *overlay, **keys))
        assert result.exit_code == 1
        assert not list(Path("runs/wrong").glob("round_*"))
        return result.last_line

    def test_a_bundle_without_the_overlay_says_what_does_not_fit(self, bundle, at_desk):
        line = self.end(bundle, (), dataset_dir="MyTask")
        assert line == f"num_classes: 3 does not fit {at_desk / 'MyTask'}, whose dataset.json has 4 labels."
        line = self.end(bundle, (), dataset_dir="MyTask", num_classes=4)
        assert line == f"in_channels: 1 does not fit {at_desk / 'MyTask'}, whose dataset.json has 2 modalities."

    def test_an_image_that_lacks_a_channel_is_named_with_its_case(self, bundle, at_desk, phantom_mr, tmp_path):
        shutil.copytree(at_desk / "MyTask", tmp_path / "task")
        path = tmp_path / "task/imagesTr/phantom_mr_007.nii.gz"
        shutil.copy(phantom_mr / "imagesTr/phantom_mr_007.nii.gz", path)
        line = self.end(bundle, ["my_task.yaml"], dataset_dir=tmp_path / "task")
        assert line.startswith(f"Case phantom_mr_007: {path} has 1 channel (its shape is (")

    def test_scans_of_one_channel_are_not_segmented(self, bundle, at_desk, done, phantom_mr, tmp_path):
        keys = {"committee_file": "runs/full/model.pt", "output_dir": tmp_path / "out"}
        line = self.end(bundle, ["my_task.yaml"], "inference", dataset_dir=phantom_mr / "imagesTr", **keys)
        assert line.startswith(f"Case phantom_mr_001: {phantom_mr}/imagesTr/phantom_mr_001.nii.gz has 1 channel")
        assert not (tmp_path / "out").exists()

    def test_a_ct_of_two_channels_is_named(self, bundle, at_desk, tmp_path):
        keys = {"committee_file": "runs/full/model.pt", "output_dir": tmp_path / "out"}
        pancreas = bundle.parent / "pancreas_ct_svgd"
        line = self.end(pancreas, (), "inference", dataset_dir="MyTask/imagesTr", **keys)
        assert line.startswith("runs/full/model.pt holds another network than the configuration builds")
        unet = {"spatial_dims": 3, "in_channels": 1, "out_channels": 3, "features": TINY["features"]}
        committee = committee_mean(lambda: BasicUNet(**unet), TINY["num_particles"])
        torch.save(committee.state_dict(), tmp_path / "model.pt")
        keys["committee_file"] = tmp_path / "model.pt"
        line = self.end(pancreas, (), "inference", dataset_dir="MyTask/imagesTr", **keys)
        assert re.match(
            r"Case phantom_mr_001: \S+ has 2 channels \(its shape is \(.*, 2\)\), but there must be 1 \(and 19 ", line
        )


def test_thin_volumes_empty_labels_and_a_fourth_axis_of_one_are_no_faults(bundle, phantom_mr, tmp_path):
    """A quarter of the cases one or two voxels thin, a fifth with an empty label, a third with a trailing axis."""
    task = shutil.copytree(phantom_mr, tmp_path / "task")
    for number in range(1, 21):
        for folder in ("imagesTr", "labelsTr"):
            path = task / folder / f"phantom_mr_{number:03d}.nii.gz"
            volume = nib.load(path)
            values = np.asanyarray(volume.dataobj)
            middle = values.shape[2] // 2
            values = values[:, :, middle : middle + 1 + number // 4 % 2] if number % 4 == 0 else values
            values = np.zeros_like(values) if number % 5 == 0 and folder == "labelsTr" else values
            values = values[..., None] if number % 3 == 0 else values
            nib.save(nib.Nifti1Image(values, volume.affine), path)
    keys = {**TINY, "rounds": 0, "initial_labelled": 8, "validation_cases": 4, "test_cases": 5, "steps_per_round": 4}
    keys |= {"surface_distances": "true", "dataset_dir": task, "output_dir": tmp_path / "run"}
    result = run_bundle(*words(bundle / "configs/active_learning.yaml", **keys))
    assert result.exit_code == 0, result.stderr
    assert len(rows(tmp_path / "run/ranking.csv")) == 3
    used = {entry["case"] for entry in json.loads((tmp_path / "run/round_000/datalist.json").read_text())["training"]}
    measured = {row["case"] for row in rows(tmp_path / "run/round_000/cases.csv")}
    thin = {f"phantom_mr_{number:03d}" for number in range(4, 21, 4)}
    assert thin & used
    assert thin & measured


@pytest.fixture(scope="module")
def my_bundle(bundle, desk):
    """What the page says: a copy, whose own keys are set by hand, wired, with its own metadata."""
    folder = shutil.copytree(bundle, desk / "my_bundle", ignore=shutil.ignore_patterns("models", "eval"))
    overlay = yaml.safe_load((desk / "my_task.yaml").read_text())
    for stage in STAGES:
        path = folder / f"configs/{stage}.yaml"
        own, _, rest = path.read_text().partition(wire.MARKER)
        for key, value in overlay.items():
            block = rf"^{key}:.*\n(?:[ -].*\n)*"
            own = re.sub(block, lambda _, k=key, v=value: yaml.safe_dump({k: v}, sort_keys=False), own, flags=re.M)
        path.write_text(own + wire.MARKER + rest[:50])  # the wiring, out of date
    wire.main([str(folder)])
    metadata = json.loads((folder / "configs/metadata.json").read_text())
    network = metadata["network_data_format"]
    size = overlay["roi_size"]
    network["inputs"]["image"] |= {"num_channels": 2, "spatial_shape": size, "channel_def": {"0": "T1", "1": "T2"}}
    names = {str(value): name for value, name in enumerate(CLASSES)}
    network["outputs"]["pred"] |= {"num_channels": 4, "spatial_shape": size, "channel_def": names}
    (folder / "configs/metadata.json").write_text(json.dumps(metadata))
    return folder


class TestBundle:
    @pytest.mark.parametrize("stage", STAGES)
    def test_is_what_the_overlay_makes_of_the_old_one(self, bundle, desk, my_bundle, stage):
        def content(*files):
            return ConfigParser.load_config_files([str(file) for file in files])

        ours = content(my_bundle / f"configs/{stage}.yaml")
        theirs = content(bundle / f"configs/{stage}.yaml", desk / "my_task.yaml")
        differing = {key for key in ours if ours[key] != theirs[key]}
        assert differing <= {"classes"}  # whose names stand in the bundle's metadata

    def test_is_wired(self, my_bundle):
        wire.main([str(my_bundle), "--check"])

    def test_passes_the_printed_checks(self, at_desk, my_bundle, commands):
        printed = [command for command in commands if "my_bundle" in command]
        assert len(printed) == 2
        for command in printed:
            result = run_printed(command, my_bundle)
            assert result.exit_code == 0, f"{command}: {result.stderr}"
        assert (at_desk / "runs/own/committee.pt").is_file()
        assert (my_bundle / "models/model.pt").is_file()

    def test_names_its_classes_by_its_metadata(self, at_desk, my_bundle, tmp_path):
        command = "run --config_file $BUNDLE/configs/inference.yaml --dataset_dir my_scans"
        assert run_printed(command, my_bundle, output_dir=tmp_path / "out").exit_code == 0
        (table,) = (tmp_path / "out").glob("*.csv")
        for name in CLASSES[1:]:
            assert any(name in column for column in rows(table)[0])
