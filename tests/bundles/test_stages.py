"""Each configuration by itself, through the command line: train, convert, evaluate, acquire, segment."""

import csv
import json
import shutil

import nibabel as nib
import numpy as np
import pytest
import torch
from command import TINY, words
from monai.networks.nets import UNet
from runs import run

from svgd_monai.committee import committee_mean
from svgd_monai.committee.convert import main as convert
from svgd_monai.data import read_dataset


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def stage(bundle, name, dataset, output, *overlays, **keys):
    known = (bundle / f"configs/{name}.yaml").read_text()
    tiny = {k: v for k, v in TINY.items() if f"\n{k}:" in known}
    if name == "train":
        tiny["model_file"] = output / "models/model.pt"  # not the bundle's own
    keys = {"dataset_dir": dataset, "output_dir": output, **tiny, **keys}
    result = run(words(bundle / f"configs/{name}.yaml", *overlays, **keys))
    assert result.code == 0, result.last_line
    return result


@pytest.fixture(scope="module")
def trained(bundle, phantom_mr, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    stage(bundle, "train", phantom_mr, folder, steps_per_round=6, validations_per_round=2)
    convert([str(folder / "committee.pt"), str(folder / "model.pt")])
    return folder


def test_training_leaves_a_committee_and_its_record(trained):
    record = json.loads((trained / "training.json").read_text())
    assert [v["step"] for v in record["validations"]] == [3, 6]
    assert record["val_dice"] == max(v["val_dice"] for v in record["validations"])
    assert (trained / "committee.pt").is_file()
    assert (trained / "models/model.pt").read_bytes() == (trained / "model.pt").read_bytes()  # that of the converter
    assert not (trained / "training.pt").exists()


@pytest.mark.parametrize("kind", ["CacheDataset, progress: false", "PersistentDataset, cache_dir: FOLDER", "Dataset"])
def test_a_dataset_of_monais_trains_the_same_committee(bundle, phantom_mr, trained, tmp_path, kind):
    """The volumes are smaller than the window, and not augmented, so nothing is drawn but their order."""
    overlay, kind = tmp_path / "dataset.yaml", kind.replace("FOLDER", str(tmp_path / "volumes"))
    overlay.write_text(
        f"train#dataset: {{_target_: {kind}, data: $@datalist.training, transform: '@train#preprocessing'}}\n"
        f"validate#dataset: {{_target_: {kind}, data: $@datalist.validation, transform: '@validate#preprocessing'}}\n"
    )
    stage(bundle, "train", phantom_mr, tmp_path, overlay, steps_per_round=6, validations_per_round=2)
    ours, theirs = (torch.load(folder / "committee.pt", weights_only=True) for folder in (trained, tmp_path))
    assert torch.equal(ours["values"], theirs["values"])


def test_a_converted_committee_measures_the_same_as_the_runs_own(bundle, phantom_mr, trained, tmp_path):
    texts = []
    for name in ("committee.pt", "model.pt"):
        keys = {"committee_file": trained / name, "surface_distances": "true"}
        stage(bundle, "evaluate", phantom_mr, tmp_path / name, **keys)
        texts.append([(tmp_path / name / file).read_text() for file in ("metrics.json", "cases.csv")])
    assert texts[0] == texts[1]
    metrics = json.loads(texts[0][0])
    assert metrics["validation"]["dice_grid"] == pytest.approx(
        json.loads((trained / "training.json").read_text())["val_dice"], abs=1e-6
    )
    table = rows(tmp_path / "model.pt/cases.csv")
    assert sorted(row["role"] for row in table) == ["test", "test", "validation", "validation"]
    assert all(float(row["dice"]) >= 0 for row in table)


def test_the_committee_is_chosen_by_the_dice_that_is_reported_where_labels_lack_a_class(bundle, phantom_mr, tmp_path):
    """Half of the labels have no posterior part, which the committee of a few steps finds all the same."""
    task, run_folder = shutil.copytree(phantom_mr, tmp_path / "task"), tmp_path / "run"
    for file in sorted(task.glob("labelsTr/*.nii.gz"))[::2]:
        label = nib.load(file)
        values = np.asarray(label.dataobj)
        nib.save(nib.Nifti1Image(np.where(values == 2, 0, values), label.affine), file)
    stage(bundle, "train", task, run_folder, steps_per_round=6, validation_cases=6)
    keys = {"committee_file": run_folder / "committee.pt", "validation_cases": 6}
    stage(bundle, "evaluate", task, run_folder, **keys)
    cases = [row for row in rows(run_folder / "cases.csv") if row["role"] == "validation"]
    assert any(row["dice_grid_posterior"] == "0.0" for row in cases)  # predicted where there is none
    reported = json.loads((run_folder / "metrics.json").read_text())["validation"]["dice_grid"]
    assert json.loads((run_folder / "training.json").read_text())["val_dice"] == pytest.approx(reported, abs=1e-9)


def test_acquisition_ranks_the_pool_and_chooses(bundle, phantom_mr, trained, tmp_path):
    stage(bundle, "acquire", phantom_mr, tmp_path, committee_file=trained / "model.pt", queries_per_round=3)
    queries = json.loads((tmp_path / "queries.json").read_text())
    assert len(queries) == len(set(queries)) == 3
    # 20 cases less 2 + 2 held out are the pool, 3 of them labelled.
    assert len(rows(tmp_path / "scores.csv")) == 16
    assert len(rows(tmp_path / "ranking.csv")) == 13


@pytest.mark.parametrize(
    "strategy",
    ["random", "random_foreground", "entropy", "bald", "variance", "jensen_shannon", "max_cover", "power_bald"],
)
def test_every_strategy_runs_by_its_name(bundle, phantom_mr, trained, tmp_path, strategy):
    stage(bundle, "acquire", phantom_mr, tmp_path, committee_file=trained / "model.pt", acquisition=strategy)
    assert len(json.loads((tmp_path / "queries.json").read_text())) == 1


def test_inference_writes_in_the_images_own_geometry(bundle, phantom_mr, trained, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    items = list(read_dataset(phantom_mr).items.values())[:2]
    # One of the two turned and tilted, as scanners give them.
    source = nib.load(items[1]["image"])
    tilt = np.eye(4)
    tilt[:3, :3] = [[0.96, -0.28, 0], [0.28, 0.96, 0], [0, 0, 1]]
    turned = nib.Nifti1Image(np.asarray(source.dataobj), tilt @ np.diag([-1, 1, 1, 1]) @ source.affine)
    nib.save(turned, images / "turned.nii.gz")
    nib.save(nib.load(items[0]["image"]), images / "plain.nii.gz")
    stage(bundle, "inference", images, tmp_path / "out", committee_file=trained / "model.pt")
    for name in ("plain", "turned"):
        image = nib.load(images / f"{name}.nii.gz")
        mask = nib.load(tmp_path / f"out/{name}_seg.nii.gz")
        uncertainty = nib.load(tmp_path / f"out/{name}_uncertainty.nii.gz")
        for result in (mask, uncertainty):
            assert result.shape == image.shape
            np.testing.assert_allclose(result.affine, image.affine, atol=1e-4)
        assert set(np.unique(np.asarray(mask.dataobj))) <= {0, 1, 2}
        values = uncertainty.get_fdata()
        assert values.min() >= 0
        assert 0 < values.max() <= np.log(3) + 1e-3


def test_a_missing_committee_fails_when_it_runs_not_when_it_is_built(bundle, phantom_mr, tmp_path):
    from monai.bundle import ConfigWorkflow

    keys = {
        "dataset_dir": str(phantom_mr),
        "output_dir": str(tmp_path),
        "committee_file": "nowhere.pt",
        "device": "cpu",
    }
    workflow = ConfigWorkflow(
        config_file=str(bundle / "configs/inference.yaml"), workflow_type="infer", logging_file=False, **keys
    )
    workflow.initialize()
    assert workflow.evaluator is not None
    with pytest.raises(SystemExit, match=r"nowhere\.pt"):
        workflow.run()


def test_a_workflow_segments_again_and_does_not_train_again(bundle, phantom_mr, trained, tmp_path):
    from monai.bundle import ConfigWorkflow

    def made(name, **keys):
        known = (bundle / f"configs/{name}.yaml").read_text()
        tiny = {key: value for key, value in TINY.items() if f"\n{key}:" in known}
        found = ConfigWorkflow(str(bundle / f"configs/{name}.yaml"), logging_file=False, **{**tiny, **keys})
        found.initialize()
        return found

    keys = {"dataset_dir": str(phantom_mr), "output_dir": str(tmp_path / "segmented")}
    workflow = made("inference", committee_file=str(trained / "committee.pt"), **keys)
    tables = []
    for _ in range(2):
        workflow.run()
        tables.append((tmp_path / "segmented/inference.csv").read_text())
        (tmp_path / "segmented/inference.csv").unlink()
    assert tables[0] == tables[1]
    workflow = made("train", model_file=None, **{**keys, "output_dir": str(tmp_path / "trained")})
    workflow.run()
    before = (tmp_path / "trained/committee.pt").read_bytes()
    with pytest.raises(SystemExit, match="This training has already run; initialise the workflow again"):
        workflow.run()
    assert (tmp_path / "trained/committee.pt").read_bytes() == before


def test_a_committee_on_another_grid_than_it_was_trained_on_is_refused(bundle, phantom_mr, trained, tmp_path):
    tiny = {k: v for k, v in TINY.items() if f"\n{k}:" in (bundle / "configs/evaluate.yaml").read_text()}
    keys = {**tiny, "dataset_dir": phantom_mr, "output_dir": tmp_path, "committee_file": trained / "committee.pt"}
    result = run(words(bundle / "configs/evaluate.yaml", **{**keys, "spacing": [2.5, 2.5, 2.5]}))
    assert result.code == 1
    assert result.last_line.startswith("spacing: ")
    assert not (tmp_path / "metrics.json").exists()


@pytest.mark.parametrize("fault", ["one voxel is NaN", "not a volume", "two channels"])
def test_an_image_that_cannot_be_segmented_is_refused_by_name(bundle, phantom_mr, trained, tmp_path, fault):
    images = tmp_path / "images"
    images.mkdir()
    source = nib.load(next(iter(read_dataset(phantom_mr).items.values()))["image"])
    values = np.asarray(source.dataobj).astype(np.float32)
    if fault == "not a volume":
        (images / "strange.nii.gz").write_bytes(b"<html>not found</html>")
    else:
        values = np.stack([values, values], -1) if fault == "two channels" else values
        if fault == "one voxel is NaN":
            values[3, 4, 5] = np.nan
        nib.save(nib.Nifti1Image(values, source.affine), images / "strange.nii.gz")
    known = (bundle / "configs/inference.yaml").read_text()
    keys = {k: v for k, v in TINY.items() if f"\n{k}:" in known}
    keys |= {"dataset_dir": images, "output_dir": tmp_path / "out", "committee_file": trained / "committee.pt"}
    result = run(words(bundle / "configs/inference.yaml", **keys))
    assert result.code == 1
    assert "strange" in result.last_line
    assert not (tmp_path / "out").exists()


def test_a_network_of_an_overlay_may_be_a_module_or_a_callable(bundle):
    network = UNet(3, 1, 3, (2, 4), (2,))
    for given in (network, lambda: UNet(3, 1, 3, (2, 4), (2,))):
        committee = committee_mean(given, 2)
        assert committee(torch.rand(1, 1, 8, 8, 8)).shape == (1, 3, 8, 8, 8)
        assert committee.networks[0] is not committee.networks[1]
