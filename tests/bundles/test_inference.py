"""Inference for people, through the command line: results that lie on their scan, rows that add up, plain refusals."""

import csv
import itertools
import json
import re

import nibabel as nib
import numpy as np
import pytest
import torch
from command import TINY, run_bundle, run_bundle_subprocess, words
from monai.bundle import ConfigParser
from monai.networks.nets import BasicUNet
from monai.transforms import SaveImaged
from runs import run
from scipy.spatial.transform import Rotation

from svgd_monai.committee import committee_mean

HIPPOCAMPUS, PANCREAS = "hippocampus_mri_svgd", "pancreas_ct_svgd"
NAMES = {HIPPOCAMPUS: ("anterior", "posterior"), PANCREAS: ("pancreas", "tumour")}
#: Intensities of the classes, for the MR bundle and for the CT bundle, whose window makes them 0, 0.5 and 1.
LEVELS, HOUNSFIELD = (0.0, 0.5, 1.0), (-87.0, 56.0, 199.0)
#: Three members, each with an opinion of its own on where a class ends.
DIFFERING = [(0.0, 0.5, 1.0), (0.1, 0.7, 1.0), (0.0, 0.4, 0.9)]

#: A network of somebody else's: it reads the class off the intensity, so that on painted images it is right.
PAINTED = """
import torch
from torch import nn

class Painted(nn.Module):
    def __init__(self):
        super().__init__()
        self.levels = nn.Parameter(torch.linspace(0.0, 1.0, 3))

    def forward(self, x):
        return -10 * (x - self.levels.reshape(1, -1, 1, 1, 1)).square()
"""


@pytest.fixture(scope="module")
def bundles(bundle):
    return bundle.parent


@pytest.fixture(scope="module")
def painted(tmp_path_factory):
    """A folder with the network, an overlay that names it, and committees of two and of three that differ or not."""
    folder = tmp_path_factory.mktemp("outside")
    (folder / "painted.py").write_text(PAINTED)
    (folder / "painted.yaml").write_text("architecture: {_target_: painted.Painted, _mode_: callable}\n")
    for name, members in {"perfect": [LEVELS] * 2, "differing": DIFFERING}.items():
        state = {f"networks.{m}.levels": torch.tensor(levels) for m, levels in enumerate(members)}
        torch.save(state, folder / f"{name}.pt")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield folder


def infer(bundles, images, output, painted=None, committee="perfect", bundle=HIPPOCAMPUS, expect=0, **keys):
    """The real command line, in this process."""
    configs = [bundles / bundle / "configs/inference.yaml"]
    if painted is not None:
        configs.append(painted / "painted.yaml")
        keys = {
            "committee_file": painted / f"{committee}.pt",
            "num_particles": 3 if committee == "differing" else 2,
            **keys,
        }
    keys = {"device": "cpu", "dataset_dir": images, "output_dir": output, **keys}
    result = run_bundle(*words(*configs, **keys))
    assert result.exit_code == expect, result.stderr
    return result


def rows_of(folder):
    with (folder / "inference.csv").open(encoding="utf-8", newline="") as file:
        return {row["case"]: row for row in csv.DictReader(file)}


def values_of(path):
    return np.asanyarray(nib.load(path).dataobj)


def dice(a, b):
    return 2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))


def turned(*degrees):
    return Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()


#: Voxel sizes in mm, shape, axes, codes of sform and qform. The window is 48 x 64 x 48 voxels.
GEOMETRIES = {
    "plain": ((1, 1, 1), (52, 70, 50), np.eye(3), (1, 0)),
    "below_window": ((1, 1, 1), (30, 28, 26), np.eye(3), (2, 1)),
    "anisotropic": ((0.7, 0.7, 5), (74, 74, 11), np.diag([-1, -1, 1]), (1, 1)),
    "oblique": ((0.9, 0.8, 1.5), (60, 64, 36), turned(25, -30, 40), (1, 1)),
    "oblique_anisotropic": ((0.7, 0.7, 5), (74, 74, 11), turned(25, -30, 40), (0, 1)),
    "left_handed": ((0.9, 0.8, 1.5), (60, 64, 36), turned(25, -30, 40) @ np.diag([-1, 1, 1]), (4, 4)),
    "LPI": ((1, 1, 1.2), (56, 52, 44), np.diag([-1, -1, -1]), (1, 0)),
    "ASR": ((1, 1, 1.2), (56, 52, 44), np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0]]), (1, 1)),
    "few_slices": ((1, 1, 5), (56, 52, 3), turned(0, 10, 0), (1, 1)),
    "sheared": ((1, 1, 2), (56, 52, 28), np.array([[1, 0, 0], [0, 1, 0.3], [0, 0, 1]]), (1, 0)),
}


def paint(images, labels, levels=LEVELS, factor=1.0, radius=0.4, names=GEOMETRIES):
    """Scans of every geometry with a ball in a ball in their middle, and the truth; the voxels times ``factor``.

    Args:
        images: the folder of the scans, whose intensities are ``levels``.
        labels: the folder of the truths.
        levels: intensity of each class.
        factor: of the voxel sizes.
        radius: of the outer ball, as a share of the least extent; through all slices where they are few.
        names: which geometries.
    """
    for folder in (images, labels):
        folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        zooms, shape, axes, (sform, qform) = GEOMETRIES[name]
        zooms = np.array(zooms) * factor
        affine = np.eye(4)
        affine[:3, :3] = axes @ np.diag(zooms)
        affine[:3, 3] = (-40, 25, -100)
        voxels = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
        millimetres = (voxels - (np.array(shape) - 1) / 2) * zooms * np.where(np.array(shape) > 4, 1, 0.2)
        extent = np.array(shape) * zooms
        size = radius * extent[np.array(shape) > 4].min()
        distance = np.linalg.norm(millimetres, axis=-1)
        truth = (distance < size).astype(np.uint8) + (distance < 0.7 * size)
        for folder, values in ((images, np.array(levels, np.float32)[truth]), (labels, truth)):
            image = nib.Nifti1Image(values, affine)
            image.set_sform(affine if sform else None, sform)
            image.set_qform(affine if qform else None, qform)
            image.header.set_xyzt_units("mm")
            nib.save(image, folder / f"{name}.nii.gz")


def header(path):
    """All of a header by which a viewer may place voxels."""
    found = nib.load(path).header
    fields = ("qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z",
              "srow_x", "srow_y", "srow_z", "xyzt_units")  # fmt: skip
    return {field: found[field].tolist() for field in fields} | {"pixdim": found["pixdim"][:4].tolist()}


@pytest.fixture(scope="module")
def native(bundles, painted, tmp_path_factory):
    folder = tmp_path_factory.mktemp("native")
    paint(folder / "images", folder / "labels")
    infer(bundles, folder / "images", folder / "out", painted, spacing="null")
    return folder


@pytest.fixture(scope="module")
def one_millimetre(bundles, painted, tmp_path_factory):
    folder = tmp_path_factory.mktemp("one_millimetre")
    paint(folder / "images", folder / "labels")
    infer(bundles, folder / "images", folder / "out", painted)
    return folder


@pytest.fixture(scope="module")
def four_millimetres(bundles, painted, tmp_path_factory):
    folder = tmp_path_factory.mktemp("four_millimetres")
    paint(folder / "images", folder / "labels", HOUNSFIELD, factor=3)
    infer(bundles, folder / "images", folder / "out", painted, bundle=PANCREAS)
    return folder


class TestGeometry:
    """Three runs: the files' own voxels, the bundle's 1 mm, and 4 mm for structures three times as large."""

    @pytest.mark.parametrize("name", GEOMETRIES)
    def test_the_results_lie_on_their_scan(self, native, name):
        scan = native / f"images/{name}.nii.gz"
        for result, dtype in (("seg", np.uint8), ("uncertainty", np.float32)):
            path = native / f"out/{name}_{result}.nii.gz"
            image = nib.load(path)
            assert image.shape == nib.load(scan).shape
            assert image.get_data_dtype() == dtype
            np.testing.assert_allclose(image.affine, nib.load(scan).affine, atol=1e-4, rtol=0)
            assert header(path) == header(scan)

    @pytest.mark.parametrize("name", GEOMETRIES)
    def test_a_perfect_predictor_is_perfect_on_the_files_own_voxels(self, native, name):
        truth = values_of(native / f"labels/{name}.nii.gz")
        assert set(np.unique(truth)) == {0, 1, 2}
        assert np.array_equal(values_of(native / f"out/{name}_seg.nii.gz"), truth)
        uncertainty = values_of(native / f"out/{name}_uncertainty.nii.gz")
        assert 0 < uncertainty.min() < uncertainty.max() < np.log(3)

    def test_a_shift_by_one_voxel_would_be_noticed(self, native):
        """What makes 0.99 a bound: the structures here are small enough that one voxel costs more."""
        for name in GEOMETRIES:
            truth = values_of(native / f"labels/{name}.nii.gz") > 0
            assert dice(truth, np.roll(truth, 1, axis=0)) < 0.99
            assert dice(truth, truth[::-1]) > 0.99  # symmetric: mirrored axes are for the test below

    def test_an_image_without_symmetry_is_not_turned_over(self, bundles, painted, tmp_path):
        paint(tmp_path / "images", tmp_path / "labels", names=("oblique", "left_handed", "ASR", "LPI"))
        for path in (tmp_path / "images").iterdir():
            image = nib.load(path)
            values = np.zeros(image.shape, np.float32)
            values[2:30, 5:20, 3:9] = 0.5
            values[5:9, 7:12, 4:7] = 1
            nib.save(nib.Nifti1Image(values, image.affine), path)
        infer(bundles, tmp_path / "images", tmp_path / "out", painted)
        for path in (tmp_path / "images").iterdir():
            found = values_of(tmp_path / "out" / path.name.replace(".nii", "_seg.nii"))
            assert dice(found > 0, values_of(path) > 0) > 0.97

    @pytest.mark.parametrize("name", GEOMETRIES)
    def test_a_perfect_predictor_on_the_bundles_own_1_mm_stays_above_099(self, one_millimetre, name):
        truth = values_of(one_millimetre / f"labels/{name}.nii.gz")
        found = values_of(one_millimetre / f"out/{name}_seg.nii.gz")
        for value in (1, 2):
            assert dice(found == value, truth == value) > 0.99

    @pytest.mark.parametrize("name", GEOMETRIES)
    def test_on_4_mm_large_structures_stay_above_099(self, four_millimetres, name):
        """Whole balls of 31 to 62 mm radius, 8 to 16 working voxels; the shell is a third of that thick."""
        truth = values_of(four_millimetres / f"labels/{name}.nii.gz")
        found = values_of(four_millimetres / f"out/{name}_seg.nii.gz")
        assert dice(found > 0, truth > 0) > 0.99
        assert min(dice(found == value, truth == value) for value in (1, 2)) > 0.98

    def test_on_4_mm_small_structures_cost_what_the_working_voxel_costs(self, bundles, painted, tmp_path):
        """Scans of about 1 mm on a working grid of 4 mm: balls of about 20 mm radius, 5 working voxels."""
        paint(tmp_path / "images", tmp_path / "labels", HOUNSFIELD, names=("plain", "oblique", "LPI", "ASR"))
        infer(bundles, tmp_path / "images", tmp_path / "out", painted, bundle=PANCREAS)
        for path in (tmp_path / "labels").iterdir():
            found = values_of(tmp_path / "out" / path.name.replace(".nii", "_seg.nii"))
            assert 0.94 < dice(found > 0, values_of(path) > 0) < 0.99

    def test_a_structure_reaches_to_the_border_of_its_scan(self, bundles, painted, tmp_path):
        """Beyond the centres of the outermost working voxels the border goes on."""
        paint(tmp_path / "images", tmp_path / "labels", HOUNSFIELD[::-1], names=("plain", "oblique", "anisotropic"))
        infer(bundles, tmp_path / "images", tmp_path / "out", painted, bundle=PANCREAS)
        for path in (tmp_path / "images").iterdir():
            found = values_of(tmp_path / "out" / path.name.replace(".nii", "_seg.nii"))
            for axis, side in itertools.product(range(3), (0, -1)):
                assert (found.take(side, axis) == 2).all()
            assert not (found == 2).all()


@pytest.fixture(scope="module")
def segmented(bundles, painted, tmp_path_factory):
    """Noisy scans, three members that differ, one voxel seen at a time: every number can be had by hand."""
    folder = tmp_path_factory.mktemp("rows")
    names = ("plain", "oblique_anisotropic", "few_slices")
    paint(folder / "images", folder / "labels", HOUNSFIELD, names=names)
    for number, path in enumerate(sorted((folder / "images").iterdir())):
        image = nib.load(path)
        noise = np.random.default_rng(number).normal(0, 60, image.shape)
        nib.save(nib.Nifti1Image((np.asanyarray(image.dataobj) + noise).astype(np.float32), image.affine), path)
    infer(bundles, folder / "images", folder / "out", painted, "differing", PANCREAS, spacing="null")
    return folder


class TestRows:
    def test_there_is_one_for_each_image_under_the_names_of_the_metadata(self, segmented):
        rows = rows_of(segmented / "out")
        assert list(rows) == ["few_slices", "oblique_anisotropic", "plain"]
        assert list(rows["plain"]) == [
            "case", "image", "volume_ml_pancreas", "volume_ml_tumour", "uncertainty", "uncertainty_foreground",
            "agreement_dice", "agreement_dice_pancreas", "agreement_dice_tumour",
        ]  # fmt: skip
        assert rows["plain"]["image"] == str(segmented / "images/plain.nii.gz")

    def test_volumes_and_uncertainties_are_those_of_the_files(self, segmented):
        for case, row in rows_of(segmented / "out").items():
            mask = values_of(segmented / f"out/{case}_seg.nii.gz")
            uncertainty = values_of(segmented / f"out/{case}_uncertainty.nii.gz")
            millilitres = np.prod(nib.load(segmented / f"images/{case}.nii.gz").header.get_zooms()) / 1000
            for value, name in ((1, "pancreas"), (2, "tumour")):
                assert float(row[f"volume_ml_{name}"]) == pytest.approx((mask == value).sum() * millilitres, rel=1e-5)
            assert float(row["uncertainty"]) == pytest.approx(uncertainty.mean(dtype=float), rel=1e-5)
            assert float(row["uncertainty_foreground"]) == pytest.approx(uncertainty[mask > 0].mean(dtype=float))

    def test_mask_and_map_are_those_of_the_members_mean(self, segmented):
        for case in rows_of(segmented / "out"):
            mean = np.mean(list(self.members(segmented, case)), axis=0)
            assert np.array_equal(values_of(segmented / f"out/{case}_seg.nii.gz"), mean.argmax(-1))
            expected = -(mean * np.log(mean)).sum(-1)
            np.testing.assert_allclose(values_of(segmented / f"out/{case}_uncertainty.nii.gz"), expected, atol=1e-4)

    def test_agreement_is_the_dice_of_the_members_masks_over_all_pairs(self, segmented):
        for case, row in rows_of(segmented / "out").items():
            masks = [p.argmax(-1) for p in self.members(segmented, case)]
            known = []
            for value, name in ((1, "pancreas"), (2, "tumour")):
                pairs = [(a == value, b == value) for a, b in itertools.combinations(masks, 2)]
                shared = sum(2 * np.count_nonzero(a & b) for a, b in pairs)
                known.append(shared / sum(np.count_nonzero(a) + np.count_nonzero(b) for a, b in pairs))
                assert float(row[f"agreement_dice_{name}"]) == pytest.approx(known[-1], abs=1e-4)
            assert 0.2 < known[0] < 0.95
            assert float(row["agreement_dice"]) == pytest.approx(sum(known) / 2, abs=1e-4)

    def members(self, folder, case):
        """Each member's probabilities (X, Y, Z, C)."""
        scaled = np.clip((values_of(folder / f"images/{case}.nii.gz") + 87.0) / 286.0, 0, 1)
        for levels in DIFFERING:
            weights = np.exp(-10 * (scaled[..., None] - np.array(levels)) ** 2)
            yield weights / weights.sum(-1, keepdims=True)

    def test_classes_may_be_named_by_a_key(self, bundles, painted, tmp_path):
        paint(tmp_path / "images", tmp_path / "labels", names=("below_window",))
        infer(bundles, tmp_path / "images", tmp_path / "out", painted, classes="['none', 'shell', 'core']")
        assert "volume_ml_shell" in rows_of(tmp_path / "out")["below_window"]

    def test_one_file_and_a_list_give_what_the_folder_gives(self, bundles, painted, tmp_path):
        paint(tmp_path / "images", tmp_path / "labels", names=("below_window", "few_slices"))
        infer(bundles, tmp_path / "images", tmp_path / "folder", painted)
        infer(bundles, tmp_path / "images/few_slices.nii.gz", tmp_path / "file", painted)
        (tmp_path / "list.json").write_text(json.dumps({"images": ["images/few_slices.nii.gz"]}))
        infer(bundles, tmp_path / "list.json", tmp_path / "list", painted)
        for place in ("file", "list"):
            assert rows_of(tmp_path / place) == {"few_slices": rows_of(tmp_path / "folder")["few_slices"]}
            for path in (tmp_path / place).glob("*.nii.gz"):
                assert path.read_bytes() == (tmp_path / "folder" / path.name).read_bytes()


@pytest.mark.parametrize(("which", "spacing"), [(HIPPOCAMPUS, "[2, 2, 2]"), (PANCREAS, "[3, 3, 3]")])
def test_evaluation_measures_the_mask_that_inference_writes(bundles, painted, tmp_path, which, spacing):
    """Two ways back to the file's grid, MONAI's inverse and the evaluation's resampling, and one mask."""
    task = tmp_path / "Task99"
    names = ("plain", "oblique", "oblique_anisotropic", "left_handed", "ASR", "few_slices")
    paint(task / "imagesTr", task / "labelsTr", LEVELS if which == HIPPOCAMPUS else HOUNSFIELD, names=names)
    content = {
        "labels": dict(zip("012", ("background", *NAMES[which]), strict=True)),
        "modality": {"0": "any"},
        "training": [{"image": f"imagesTr/{n}.nii.gz", "label": f"labelsTr/{n}.nii.gz"} for n in names],
    }
    (task / "dataset.json").write_text(json.dumps(content))
    shared = {
        "device": "cpu",
        "dataset_dir": task,
        "output_dir": tmp_path / "measured",
        "spacing": spacing,
        "num_particles": 3,
        "committee_file": painted / "differing.pt",
    }
    config = bundles / which / "configs/evaluate.yaml"
    cases = {"initial_labelled": 1, "validation_cases": 2, "test_cases": 3, "surface_distances": "false"}
    result = run_bundle(*words(config, painted / "painted.yaml", **shared, **cases))
    assert result.exit_code == 0, result.stderr
    infer(bundles, task / "imagesTr", tmp_path / "out", painted, "differing", which, spacing=spacing)
    with (tmp_path / "measured/cases.csv").open() as file:
        measured = {row["case"]: row for row in csv.DictReader(file)}
    rows = rows_of(tmp_path / "out")
    assert len(measured) == 5
    for case, row in measured.items():
        truth = values_of(task / f"labelsTr/{case}.nii.gz")
        found = values_of(tmp_path / f"out/{case}_seg.nii.gz")
        for value, name in enumerate(NAMES[which], start=1):
            assert 0.3 < float(row[f"dice_{name}"]) < 0.999
            assert float(row[f"dice_{name}"]) == pytest.approx(dice(found == value, truth == value), abs=1e-9)
            assert float(row[f"volume_ml_{name}"]) == pytest.approx(float(rows[case][f"volume_ml_{name}"]), rel=1e-9)


def turned_affine():
    affine = np.eye(4)
    affine[:3, :3] = turned(10, 20, 30) * 0.9
    return affine


def save(path, values, affine=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values, np.diag([1.0, 1.0, 1.0, 1.0]) if affine is None else affine), path)
    return path


@pytest.fixture(scope="module")
def committee(tmp_path_factory):
    """Two small networks of the bundles' own architecture, as they are initialised."""
    torch.manual_seed(0)
    unet = {"spatial_dims": 3, "in_channels": 1, "out_channels": 3, "features": TINY["features"]}
    path = tmp_path_factory.mktemp("committee") / "model.pt"
    torch.save(committee_mean(lambda: BasicUNet(**unet), 2).state_dict(), path)
    return path


def tiny(committee, **keys):
    """The keys of a small inference with the bundles' own architecture."""
    known = ("num_particles", "features", "roi_size")
    return {**{key: TINY[key] for key in known}, "committee_file": committee, **keys}


#: Shapes of images that are unusual and sound; one has its only channel as a fourth axis.
UNUSUAL = {"two_voxels_thin": (64, 64, 2), "one_slice": (40, 30, 1), "a_column": (1, 1, 40),
          "below_the_window": (5, 6, 7), "one_voxel": (1, 1, 1), "of_constant_value": (20, 20, 20),
           "of_four_axes": (12, 13, 14, 1)}  # fmt: skip


class TestUnusualImages:
    """What is unusual but sound is segmented, in its own shape."""

    @pytest.mark.filterwarnings("ignore:Divide by zero")  # MONAI's word on a constant image
    @pytest.mark.parametrize("which", [HIPPOCAMPUS, PANCREAS])
    def test_are_segmented(self, bundles, committee, tmp_path, which):
        for name, shape in UNUSUAL.items():
            values = np.random.default_rng(0).normal(50, 80, shape)
            values = np.full(shape, 3.0) if name == "of_constant_value" else values
            save(tmp_path / f"images/{name}.nii.gz", values.astype(np.int16), np.diag([0.9, 0.9, 3.0, 1.0]))
        result = infer(bundles, tmp_path / "images", tmp_path / "out", bundle=which, **tiny(committee))
        assert "of_constant_value is constant" in result.stdout
        rows = rows_of(tmp_path / "out")
        assert set(rows) == set(UNUSUAL)
        for name, shape in UNUSUAL.items():
            mask, uncertainty = (values_of(tmp_path / f"out/{name}_{what}.nii.gz") for what in ("seg", "uncertainty"))
            assert mask.shape == uncertainty.shape == shape[:3]
            assert np.isfinite(uncertainty).all()
            assert 0 < uncertainty.max() <= np.log(3) + 1e-3
            assert mask.max() <= 2
            volumes = [float(rows[name][f"volume_ml_{c}"]) for c in NAMES[which]]
            assert sum(volumes) == pytest.approx(np.count_nonzero(mask) * 0.9 * 0.9 * 3 / 1000, rel=1e-5)

    def test_of_as_many_channels_as_the_network_takes_are_segmented(self, bundles, tmp_path):
        unet = {"spatial_dims": 3, "in_channels": 2, "out_channels": 3, "features": TINY["features"]}
        torch.save(committee_mean(lambda: BasicUNet(**unet), 2).state_dict(), tmp_path / "two.pt")
        scan = save(tmp_path / "scan.nii.gz", np.random.default_rng(0).random((20, 18, 16, 2)), turned_affine())
        infer(bundles, scan, tmp_path / "out", **tiny(tmp_path / "two.pt", in_channels=2))
        for what in ("seg", "uncertainty"):
            result = nib.load(tmp_path / f"out/scan_{what}.nii.gz")
            assert result.shape == (20, 18, 16)
            assert np.array_equal(result.affine, nib.load(scan).affine)
        assert list(rows_of(tmp_path / "out")) == ["scan"]


COLOUR = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
NOTHING = np.zeros((8, 9, 7), np.float32)
#: The image, its affine, and words of the sentence.
BAD_IMAGES = {
    "two channels": (np.zeros((8, 9, 7, 2), np.float32), None, "has 2 channels"),
    "five dimensions": (np.zeros((8, 9, 7, 1, 2), np.float32), None, "(8, 9, 7, 1, 2)"),
    "one plane of two dimensions": (np.zeros((8, 9), np.float32), None, "(8, 9)"),
    "colours": (np.zeros((8, 9, 7), COLOUR), None, "plain numbers"),
    "complex numbers": (np.zeros((8, 9, 7), np.complex64), None, "plain numbers"),
    "a NaN": (np.where(np.arange(504).reshape(8, 9, 7) == 100, np.nan, NOTHING), None, "NaN"),
    "an affine that cannot be inverted": (NOTHING, np.diag([1.0, 1.0, 0.0, 1.0]), "cannot be inverted"),
}


class TestRefusals:
    """One line that names what is wrong, exit status 1, and nothing written."""

    def refused(self, bundles, committee, images, output, *named, **keys):
        result = infer(bundles, images, output, expect=1, **tiny(committee, **keys))
        assert result.stderr == result.last_line + "\n"
        assert result.last_line.endswith(".")
        assert not re.match(r"\w+Error", result.last_line)
        for word in named:
            assert str(word) in result.last_line
        return result

    @pytest.mark.parametrize("what", BAD_IMAGES)
    def test_an_unsound_image_is_named_and_no_sound_one_is_begun(self, bundles, committee, tmp_path, what):
        values, affine, words_of_it = BAD_IMAGES[what]
        save(tmp_path / "images/a_sound_one.nii.gz", NOTHING + np.arange(7))
        path = save(tmp_path / "images/strange.nii.gz", values)
        if affine is not None:  # nibabel will not make such a header
            image = nib.load(path)
            image.header.set_sform(affine, 1)
            path.write_bytes(nib.Nifti1Image(np.asanyarray(image.dataobj), None, image.header).to_bytes())
            path = path.rename(path.with_suffix(""))
        self.refused(bundles, committee, tmp_path / "images", tmp_path / "out", f"Case strange: {path}", words_of_it)
        assert not (tmp_path / "out").exists()

    def test_an_unsound_image_is_left_out_where_that_is_asked_for(self, bundles, committee, tmp_path):
        save(tmp_path / "images/a_sound_one.nii.gz", NOTHING + np.arange(7))
        save(tmp_path / "images/strange.nii.gz", NOTHING[0, 0])
        keys = tiny(committee, on_bad_case="skip")
        result = infer(bundles, tmp_path / "images", tmp_path / "out", **keys)
        assert "Bad cases left out: 1" in result.stdout
        assert list(rows_of(tmp_path / "out")) == ["a_sound_one"]
        assert "strange.nii.gz" in (tmp_path / "out/inference_bad_cases.csv").read_text()

    def test_a_committee_that_does_not_fit_is_told_before_any_image_is_read(self, bundles, committee, tmp_path):
        save(tmp_path / "images/strange.nii.gz", NOTHING[0, 0])
        keys = {"on_bad_case": "skip", "num_particles": 3}
        self.refused(bundles, committee, tmp_path / "images", tmp_path / "out", "holds 2 particles", **keys)
        assert not (tmp_path / "out").exists()

    def test_a_file_that_is_cut_off(self, bundles, committee, tmp_path):
        path = save(tmp_path / "images/short.nii.gz", np.random.default_rng(0).random((20, 20, 20)))
        path.write_bytes(path.read_bytes()[:5000])
        self.refused(bundles, committee, path, tmp_path / "out", f"Case short: {path}", "cut off")
        assert not (tmp_path / "out").exists()

    def test_an_empty_folder_a_missing_one_and_one_of_other_files(self, bundles, committee, tmp_path):
        (tmp_path / "empty").mkdir()
        (tmp_path / "others").mkdir()
        (tmp_path / "others/scan.dcm").write_bytes(b"DICM")
        for name in ("empty", "others", "missing"):
            self.refused(bundles, committee, tmp_path / name, tmp_path / "out", tmp_path / name)
        assert not (tmp_path / "out").exists()

    def test_two_images_of_one_case(self, bundles, committee, tmp_path):
        for name in ("scan.nii", "scan.nii.gz"):
            save(tmp_path / "images" / name, NOTHING + np.arange(7))
        self.refused(bundles, committee, tmp_path / "images", tmp_path / "out", "two images of the case scan")
        assert not (tmp_path / "out").exists()

    def test_results_among_the_images(self, bundles, committee, tmp_path):
        save(tmp_path / "images/scan.nii.gz", NOTHING + np.arange(7))
        self.refused(bundles, committee, tmp_path / "images", tmp_path / "images", "output_dir", "scan.nii.gz")
        assert [path.name for path in (tmp_path / "images").iterdir()] == ["scan.nii.gz"]

    def test_fewer_channels_than_the_network_takes(self, bundles, tmp_path):
        path = save(tmp_path / "images/scan.nii.gz", NOTHING + np.arange(7))
        unet = {"spatial_dims": 3, "in_channels": 2, "out_channels": 3, "features": TINY["features"]}
        torch.save(committee_mean(lambda: BasicUNet(**unet), 2).state_dict(), tmp_path / "two.pt")
        named = (f"Case scan: {path}", "1 channel", "there must be 2")
        self.refused(bundles, tmp_path / "two.pt", tmp_path / "images", tmp_path / "out", *named, in_channels=2)
        assert not (tmp_path / "out").exists()

    def test_classes_that_do_not_fit(self, bundles, committee, tmp_path):
        save(tmp_path / "images/scan.nii.gz", NOTHING + np.arange(7))
        keys = {"classes": "['background', 'organ']"}
        self.refused(bundles, committee, tmp_path / "images", tmp_path / "out", "classes names 2", **keys)
        assert not (tmp_path / "out").exists()

    def test_a_full_disk(self, bundles, committee, tmp_path, monkeypatch):
        save(tmp_path / "images/scan.nii.gz", NOTHING + np.arange(7))

        def full(descriptor):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("os.fsync", full)
        named = (tmp_path / "out/scan_seg.nii.gz", "No space left")
        self.refused(bundles, committee, tmp_path / "images", tmp_path / "out", *named)
        assert list((tmp_path / "out").iterdir()) == []

    def test_what_a_shell_sees(self, bundles, committee, tmp_path):
        save(tmp_path / "images/strange.nii.gz", BAD_IMAGES["two channels"][0])
        keys = {**tiny(committee), "device": "cpu", "dataset_dir": tmp_path / "images", "output_dir": tmp_path / "out"}
        result = run_bundle_subprocess(*words(bundles / PANCREAS / "configs/inference.yaml", **keys))
        assert result.exit_code == 1
        assert result.last_line.startswith(f"Case strange: {tmp_path / 'images/strange.nii.gz'}")
        assert "Traceback" not in result.stderr
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("sync", [1, 3, 5])
def test_a_kill_leaves_nothing_by_halves_and_the_same_command_ends_the_same(bundles, committee, tmp_path, sync):
    """Files are synced twice each, in the order mask, map, table: the kill comes before one of them has its name."""
    for name in ("a", "b"):
        save(tmp_path / f"images/{name}.nii.gz", np.random.default_rng(len(name)).random((16, 20, 18)))
    keys = {**tiny(committee), "device": "cpu", "dataset_dir": tmp_path / "images", "output_dir": tmp_path / "out"}
    argv = words(bundles / HIPPOCAMPUS / "configs/inference.yaml", **keys)
    assert run(argv, deadly=("os", None, "fsync", sync, None)).code == -9
    left = sorted(path.name for path in (tmp_path / "out").iterdir() if path.suffix != ".tmp")
    assert left == sorted(("a_seg.nii.gz", "a_uncertainty.nii.gz", "inference.csv")[: sync // 2])
    for name in left:
        path = tmp_path / "out" / name
        assert (
            values_of(path).shape == (16, 20, 18) if name.endswith(".nii.gz") else list(rows_of(path.parent)) == ["a"]
        )
    assert run(argv).code == 0
    again = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir() if path.suffix != ".tmp"}
    assert len(again) == 5
    whole = tmp_path / "whole"
    infer(bundles, tmp_path / "images", whole, **tiny(committee))
    assert again == {path.name: path.read_bytes() for path in whole.iterdir()}


class TestOtherPrograms:
    """MONAI Label's stock app runs the parts of the bundle itself, with the network's mean probability alone."""

    def segment(self, config, committee, image, **keys):
        """As its ``BundleInferTask`` does: savers are filtered out, nothing else is known."""
        parser = ConfigParser()
        parser.read_config(str(config))
        root = str(config.parent.parent)
        parser.config.update({"bundle_root": root, "device": "cpu", **tiny(committee), **keys})
        network = parser.get_parsed_content("network_def", instantiate=True)
        network.load_state_dict(torch.load(committee, weights_only=True))
        data = {"image": str(image)}
        for transform in parser.get_parsed_content("preprocessing", instantiate=True).transforms:
            data = transform(data)
        inferer = parser.get_parsed_content("inferer", instantiate=True)
        with torch.no_grad():
            data["pred"] = inferer(data["image"][None], network.eval())[0]
        for transform in parser.get_parsed_content("postprocessing", instantiate=True).transforms:
            if not isinstance(transform, SaveImaged):
                data = transform(data)
        return data

    @pytest.mark.parametrize("which", [HIPPOCAMPUS, PANCREAS])
    def test_get_the_mask_and_the_entropy_that_inference_writes(self, bundles, committee, tmp_path, which):
        paint(tmp_path / "images", tmp_path / "labels", names=("oblique",))
        image = tmp_path / "images/oblique.nii.gz"
        data = self.segment(bundles / which / "configs/inference.yaml", committee, image)
        infer(bundles, image, tmp_path / "out", bundle=which, **tiny(committee))
        assert np.array_equal(data["pred"][0].numpy(), values_of(tmp_path / "out/oblique_seg.nii.gz"))
        entropy = values_of(tmp_path / "out/oblique_uncertainty.nii.gz")
        np.testing.assert_allclose(data["uncertainty"][0].numpy(), entropy, atol=1e-4)
        np.testing.assert_allclose(data["pred"].affine, nib.load(image).affine, atol=1e-4)

    def test_get_the_mask_where_the_map_needs_more_than_the_mean(self, bundles, committee, tmp_path):
        paint(tmp_path / "images", tmp_path / "labels", names=("below_window",))
        image = tmp_path / "images/below_window.nii.gz"
        config = bundles / HIPPOCAMPUS / "configs/inference.yaml"
        data = self.segment(config, committee, image, uncertainty_map="bald")
        assert data["pred"].shape == (1, 30, 28, 26)
        assert "uncertainty" not in data
