"""The files of an evaluation, written while MONAI's engine runs over real NIfTI files."""

import gzip
import json
import math
import shutil

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import DataLoader
from monai.inferers import SlidingWindowInferer
from monai.transforms import Identityd
from torch import nn

from svgd_monai.committee import CommitteeEvaluator, CommitteeMean
from svgd_monai.data import VolumeDataset, preprocessing, read_dataset
from svgd_monai.data.roles import RoundDatalist
from svgd_monai.evaluation import CaseMetricsHandler
from svgd_monai.files import read_csv

SHAPE = (14, 16, 12)
pytestmark = pytest.mark.filterwarnings("error:.*(all 0|empty|surface).*")  # the handler keeps MONAI's warnings quiet


class Reader(nn.Module):
    """Reads the class off the intensity, as sure as ``sharpness`` says; from ``blind`` on it sees background."""

    def __init__(self, sharpness=50.0, blind=3):
        super().__init__()
        self.sharpness = sharpness
        self.blind = blind

    def forward(self, x):
        classes = torch.arange(3.0).reshape(1, 3, 1, 1, 1)
        seen = torch.where(x.round() >= self.blind, 0.0, x)
        return -self.sharpness * (seen - classes).square()


unscaled = Identityd("image")


def save(path, values, affine):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values, affine), path)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Four cases whose image is their label; the last has no tumour. The files are stored in LPS."""
    folder = tmp_path_factory.mktemp("data") / "Task99_Readable"
    affine = np.diag([-1.5, -1.0, 2.0, 1.0])
    affine[:3, 3] = (20, 30, -5)
    for n in range(4):
        label = np.zeros(SHAPE, np.uint8)
        label[2 + n : 9, 3:11, 2:9] = 1
        if n < 3:
            label[9:12, 5:9, 3:8] = 2
        save(folder / "imagesTr" / f"scan_{n}.nii.gz", label.astype(np.float32), affine)
        save(folder / "labelsTr" / f"scan_{n}.nii.gz", label, affine)
    names = [f"scan_{n}.nii.gz" for n in range(4)]
    content = {
        "name": "Readable",
        "labels": {"0": "background", "1": "organ", "2": "tumour"},
        "modality": {"0": "CT"},
        "training": [{"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"} for name in names],
    }
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def evaluate(root, folder, networks, spacing=None, rounds=(4,), **options):
    """Evaluate with one handler, in each round on the first so many cases; the files of the last."""
    items = read_dataset(root).items
    datalist = RoundDatalist([], [items["scan_0"]], [items[f"scan_{n}"] for n in (1, 2, 3)], [])
    handler = CaseMetricsHandler(folder, datalist, root, **options)
    for number in rounds:
        listed = [*datalist.validation, *datalist.test][:number]
        data = VolumeDataset(listed, preprocessing(unscaled, spacing), None)
        evaluator = CommitteeEvaluator(
            "cpu",
            DataLoader(data, batch_size=1),
            CommitteeMean(networks),
            inferer=SlidingWindowInferer((8, 8, 8), 4, 0.25),
            val_handlers=[handler],
        )
        evaluator.run()
    return {row["case"]: row for row in read_csv(folder / "cases.csv")}, json.loads(
        (folder / "metrics.json").read_text()
    )


def test_a_perfect_predictor_has_dice_1_in_the_files_own_geometry(root, tmp_path):
    rows, metrics = evaluate(root, tmp_path / "run", [Reader(), Reader()])
    assert list(rows) == ["scan_0", "scan_1", "scan_2", "scan_3"]
    assert [row["role"] for row in rows.values()] == ["validation", "test", "test", "test"]
    for row in rows.values():
        assert float(row["dice"]) == float(row["dice_grid"]) == 1.0
        assert float(row["hausdorff95_mm_organ"]) == float(row["surface_distance_mm_organ"]) == 0.0
        assert float(row["uncertainty"]) == pytest.approx(0, abs=1e-6)
    assert float(rows["scan_0"]["volume_ml_organ"]) == pytest.approx(7 * 8 * 7 * 3 / 1000)
    assert metrics["validation"]["cases"] == 1
    assert metrics["test"]["cases"] == 3
    for role in ("validation", "test"):
        assert metrics[role]["dice"] == metrics[role]["dice_grid"] == 1.0
        assert metrics[role]["dice_per_class"] == {"organ": 1.0, "tumour": 1.0}
        assert metrics[role]["hausdorff95"] == 0.0
        assert metrics[role]["ece"] == pytest.approx(0, abs=1e-6)


def test_labels_with_an_sform_of_other_voxel_sizes_than_the_headers_are_measured_where_they_lie(root, tmp_path):
    moved = shutil.copytree(root, tmp_path / "Task99_Registered")
    for file in moved.rglob("*.nii.gz"):
        image = nib.Nifti1Image.from_bytes(gzip.decompress(file.read_bytes()))
        image.set_sform(np.diag([1.1, 1.2, 1.3, 1.0]) @ image.affine, 4)  # the qform and pixdim stay the scanner's
        nib.save(image, file)
    _, metrics = evaluate(moved, tmp_path / "run", [Reader()])
    assert metrics["test"]["dice"] == 1.0


def test_another_working_spacing_costs_a_little_in_the_files_geometry(root, tmp_path):
    _, metrics = evaluate(root, tmp_path, [Reader()], spacing=(3.0, 3.0, 3.0))
    assert 0.6 < metrics["test"]["dice"] < 1.0
    assert 0.6 < metrics["test"]["dice_grid"] < 1.0  # here the image is interpolated, the label is not
    assert metrics["test"]["dice"] != metrics["test"]["dice_grid"]


def test_what_is_unknown_is_an_empty_field_and_null(root, tmp_path):
    rows, metrics = evaluate(root, tmp_path, [Reader(blind=2)])
    assert rows["scan_1"]["dice_tumour"] == "0.0"
    assert rows["scan_1"]["hausdorff95_mm_tumour"] == ""
    assert rows["scan_3"]["dice_tumour"] == rows["scan_3"]["surface_distance_mm_tumour"] == ""
    assert float(rows["scan_3"]["dice"]) == 1.0
    assert metrics["test"]["dice_per_class"]["tumour"] == 0.0
    assert metrics["test"]["hausdorff95_per_class"]["tumour"] is None
    assert metrics["validation"]["surface_distance_per_class"]["tumour"] is None
    assert "nan" not in (tmp_path / "cases.csv").read_text().lower()
    assert "nan" not in (tmp_path / "metrics.json").read_text().lower()


def test_the_means_are_those_of_the_rows(root, tmp_path):
    rows, metrics = evaluate(root, tmp_path, [Reader(0.5), Reader(0.2, blind=2)], spacing=(2.0, 2.0, 2.0))
    tests = [row for row in rows.values() if row["role"] == "test"]
    for name in ("organ", "tumour"):
        known = [float(row[f"dice_{name}"]) for row in tests if row[f"dice_{name}"]]
        assert metrics["test"]["dice_per_class"][name] == pytest.approx(sum(known) / len(known))
    error = voxels = 0.0
    for b in range(10):
        n, confidence, correct = (
            sum(float(row[f"bin_{b}_{what}"]) for row in tests) for what in ("voxels", "confidence", "correct")
        )
        voxels += n
        error += abs(confidence - correct)
    assert metrics["test"]["ece"] == pytest.approx(error / voxels)
    assert all(math.isfinite(float(row["uncertainty"])) for row in tests)


def test_the_uncertainty_is_that_of_the_strategy(root, tmp_path):
    networks = [Reader(0.5), Reader(2.0)]
    entropy, _ = evaluate(root, tmp_path / "a", networks, acquisition="entropy")
    bald, _ = evaluate(root, tmp_path / "b", networks, acquisition="bald")
    assert float(entropy["scan_1"]["uncertainty"]) > float(bald["scan_1"]["uncertainty"]) > 0


def test_distances_can_be_left_out(root, tmp_path):
    rows, metrics = evaluate(root, tmp_path, [Reader()], distances=False)
    assert rows["scan_1"]["hausdorff95_mm_organ"] == ""
    assert metrics["test"]["hausdorff95"] is None
    assert metrics["test"]["dice"] == 1.0


def test_what_a_killed_run_has_left_half_written_goes(root, tmp_path, left):
    left(tmp_path / "metrics.json")
    evaluate(root, tmp_path, [Reader()], rounds=(1,))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cases.csv", "metrics.json"]


def test_a_second_run_begins_anew(root, tmp_path):
    rows, metrics = evaluate(root, tmp_path, [Reader()], rounds=(4, 2))
    assert list(rows) == ["scan_0", "scan_1"]
    assert metrics["test"]["cases"] == 1
