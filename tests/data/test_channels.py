"""Images of several channels, stored as the Decathlon stores them: 4D files, the channels along the fourth axis."""

import json
import logging
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.transforms import ScaleIntensityRangePercentilesd
from two_channels import CLASSES as NAMES
from two_channels import make_two_channels, second_channel

from svgd_monai.data import checked_images, preprocessing, read_images, training_crop, training_preprocessing
from svgd_monai.data.checks import check_case, check_cases
from svgd_monai.data.datalist import read_dataset
from svgd_monai.data.task import load_task
from svgd_monai.errors import DataError

CLASSES = {0: "background", 1: "organ"}
SHAPE = (4, 5, 6)
AFFINE = np.diag([-0.5, 1.0, 2.0, 1.0])
DIM, DATATYPE = 40, 70  # offsets of fields in a NIfTI-1 header


def voxels(channels, dtype=np.float32):
    """(4, 5, 6, channels); channel c runs from 1000 c to 1000 c + 119."""
    first = np.arange(120, dtype=dtype).reshape(SHAPE)
    return np.stack([first + 1000 * channel for channel in range(channels)], axis=-1).astype(dtype)


def write(path, values, affine=AFFINE):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values, affine), path)
    return path


def make_case(folder, image, label=None, case="scan_1"):
    label = np.zeros(SHAPE, np.uint8) if label is None else label
    return {
        "case": case,
        "image": str(write(folder / f"imagesTr/{case}.nii", image)),
        "label": str(write(folder / f"labelsTr/{case}.nii", label)),
    }


def patch(path, offset, content):
    raw = bytearray(Path(path).read_bytes())
    raw[offset : offset + len(content)] = content
    Path(path).write_bytes(raw)


def complaint(function, *arguments, **options):
    with pytest.raises(DataError) as caught:
        function(*arguments, **options)
    sentence = str(caught.value)
    assert len(sentence.splitlines()) == 1
    assert sentence.endswith(".")
    return sentence


class TestChecks:
    def test_shape_is_that_of_the_volume_and_intensities_are_told_by_channel(self, tmp_path):
        facts = check_case(make_case(tmp_path, voxels(3)), CLASSES, 3)
        assert (facts.shape, facts.spacing) == (SHAPE, (0.5, 1.0, 2.0))
        assert (facts.image_min, facts.image_max) == ((0, 1000, 2000), (119, 1119, 2119))

    def test_any_number_is_taken_where_none_is_asked_for(self, tmp_path):
        assert len(check_case(make_case(tmp_path, voxels(5)), CLASSES).image_min) == 5

    def test_a_fourth_axis_of_one_is_one_channel_in_image_and_label(self, tmp_path):
        plain = check_case(make_case(tmp_path / "a", voxels(1)[..., 0]), CLASSES, 1)
        label = np.zeros((*SHAPE, 1), np.uint8)
        fourth = check_case(make_case(tmp_path / "b", voxels(1), label), CLASSES, 1)
        for name in ("shape", "spacing", "affine", "image_min", "image_max", "label_values", "volume_ml"):
            assert getattr(fourth, name) == getattr(plain, name)

    @pytest.mark.parametrize(("found", "expected"), [(2, 1), (1, 2), (4, 3)])
    def test_another_number_of_channels_is_named_with_the_shape(self, tmp_path, found, expected):
        item = make_case(tmp_path, voxels(found))
        sentence = complaint(check_case, item, CLASSES, expected)
        assert sentence.startswith(f"{item['image']} has {found} channel")
        assert f"shape is (4, 5, 6, {found})), but there must be {expected}" in sentence

    def test_a_3d_file_is_one_channel(self, tmp_path):
        item = make_case(tmp_path, voxels(1)[..., 0])
        assert "has 1 channel (its shape is (4, 5, 6)), but there must be 2" in complaint(check_case, item, CLASSES, 2)

    def test_a_label_of_several_channels_is_refused(self, tmp_path):
        item = make_case(tmp_path, voxels(2), np.zeros((*SHAPE, 2), np.uint8))
        sentence = complaint(check_case, item, CLASSES, 2)
        assert sentence.startswith(f"{item['label']} has 2 channels")

    def test_another_number_is_refused_before_the_voxels_are_read(self, tmp_path, monkeypatch):
        item = make_case(tmp_path, voxels(4))
        monkeypatch.setattr(nib.Nifti1Image, "from_bytes", lambda *_: pytest.fail("the voxels were read"))
        complaint(check_case, item, CLASSES, 1)

    def test_a_huge_claim_of_channels_is_refused_before_it_is_allocated(self, tmp_path, monkeypatch):
        item = make_case(tmp_path, voxels(2))
        patch(item["image"], DIM, np.array([4, 4, 5, 6, 32767], "<i2").tobytes())
        monkeypatch.setattr(nib.Nifti1Image, "from_bytes", lambda *_: pytest.fail("the header was believed"))
        assert "(4, 5, 6, 32767)" in complaint(check_case, item, CLASSES)

    def test_a_cut_off_channel_is_noticed(self, tmp_path):
        item = make_case(tmp_path, voxels(2))
        Path(item["image"]).write_bytes(Path(item["image"]).read_bytes()[:-480])  # the second one, whole
        assert "(4, 5, 6, 2)" in complaint(check_case, item, CLASSES, 2)

    def test_colours_are_no_channels(self, tmp_path):
        item = make_case(tmp_path, voxels(3))
        patch(item["image"], DATATYPE, np.array([128], "<i2").tobytes())
        assert "data type" in complaint(check_case, item, CLASSES, 3)

    def test_a_voxel_that_is_nan_in_one_channel_is_counted(self, tmp_path):
        values = voxels(2)
        values[1, 2, 3, 1] = np.nan
        assert "NaN or infinite: 1 of 240" in complaint(check_case, make_case(tmp_path, values), CLASSES, 2)

    def test_the_label_is_compared_with_the_volume(self, tmp_path):
        item = make_case(tmp_path, voxels(2), np.zeros((5, 4, 6), np.uint8))
        assert "has the shape (5, 4, 6), but its image has (4, 5, 6)" in complaint(check_case, item, CLASSES, 2)

    def test_a_constant_channel_is_named_by_its_number(self, tmp_path, caplog):
        values = voxels(3)
        values[..., 2] = 7
        check_cases([make_case(tmp_path, values)], CLASSES, channels=3)
        (record,) = caplog.records
        assert record.levelno == logging.WARNING
        assert record.getMessage() == "channel 2 of the image of case scan_1 is constant: all voxels are 7"


class TestCache:
    def test_gives_back_what_was_found(self, tmp_path, monkeypatch):
        items = [make_case(tmp_path, voxels(2))]
        first = check_cases(items, CLASSES, tmp_path / "checks.json", channels=2)
        monkeypatch.setattr(Path, "read_bytes", lambda _: pytest.fail("the files were read again"))
        assert check_cases(items, CLASSES, tmp_path / "checks.json", channels=2) == first

    def test_does_not_hide_that_another_number_is_asked_for(self, tmp_path):
        items = [make_case(tmp_path, voxels(2))]
        for channels in (None, 2):
            check_cases(items, CLASSES, tmp_path / "checks.json", channels=channels)
            assert "2 channels" in complaint(check_cases, items, CLASSES, tmp_path / "checks.json", channels=1)


@pytest.fixture(scope="module")
def task(phantom_mr, tmp_path_factory):
    return make_two_channels(phantom_mr, tmp_path_factory.mktemp("two_channels") / "task")


class TestTask:
    @pytest.fixture
    def root(self, task, tmp_path):
        return shutil.copytree(task, tmp_path / "task")

    def test_of_two_channels_is_read_and_checked(self, root, tmp_path):
        task = load_task(root, tmp_path, num_classes=4, in_channels=2)
        assert task.dataset.channels == 2
        assert list(task.dataset.classes.values()) == list(NAMES)
        assert all(len(fact.image_min) == 2 and len(fact.shape) == 3 for fact in task.facts.values())
        assert {value for fact in task.facts.values() for value in fact.label_values} == {0, 1, 2, 3}

    def test_of_other_channels_than_the_network_is_refused(self, root, tmp_path):
        sentence = complaint(load_task, root, tmp_path, in_channels=1)
        assert sentence.startswith("in_channels: 1 does not fit ")
        assert "2 modalities" in sentence

    def test_whose_image_lacks_a_channel_is_refused_by_case(self, root, tmp_path):
        path = root / "imagesTr/phantom_mr_003.nii.gz"
        volume = nib.load(path)
        nib.save(nib.Nifti1Image(np.asarray(volume.dataobj)[..., 0], volume.affine), path)
        sentence = complaint(load_task, root, tmp_path, in_channels=2)
        assert sentence.startswith(f"Case phantom_mr_003: {path} has 1 channel")

    @pytest.mark.parametrize(
        ("modality", "channels"),
        [({"0": "T1", "1": "T2"}, 2), (["T1", "T2", "FLAIR"], 3), ({"0": "MRI"}, 1), ("MRI", 1), ({}, 1), (None, 1)],
    )
    def test_modalities_are_counted(self, root, modality, channels):
        content = json.loads((root / "dataset.json").read_text()) | {"modality": modality}
        (root / "dataset.json").write_text(json.dumps(content))
        assert read_dataset(root).channels == channels

    def test_with_a_file_for_each_channel_is_told_what_to_do(self, root):
        content = json.loads((root / "dataset.json").read_text())
        content["training"][0]["image"] = ["imagesTr/a_0000.nii.gz", "imagesTr/a_0001.nii.gz"]
        (root / "dataset.json").write_text(json.dumps(content))
        for function in (read_dataset, read_images):
            assert "entry 1 of 'training': 'image' is a list; the channels" in complaint(function, root)

    def test_images_of_an_inference_are_checked_too(self, root):
        assert len(checked_images(read_images(root), 2)) == 20
        assert complaint(checked_images, read_images(root / "imagesTr"), 1).startswith("Case phantom_mr_001: ")


class TestVolumes:
    @pytest.fixture
    def item(self, tmp_path):
        """An image whose channels are different, in a geometry that has to be turned and resampled."""
        rng = np.random.default_rng(0)
        first = rng.normal(size=(12, 10, 8)).astype(np.float32)
        values = np.stack([first, second_channel(first)], axis=-1)
        return make_case(tmp_path, values, np.ones(first.shape, np.uint8))

    def scaled(self, **options):
        keys = {"lower": 0, "upper": 100, "b_min": 0, "b_max": 1}
        return preprocessing(ScaleIntensityRangePercentilesd("image", **keys, **options), [1, 1, 1])

    def test_each_channel_comes_out_as_it_would_alone(self, item, tmp_path):
        both = self.scaled(channel_wise=True)(item)
        assert both["image"].shape[1:] == both["label"].shape[1:] == (6, 10, 15)
        values = np.asarray(nib.load(item["image"]).dataobj)
        for channel in range(2):
            alone = make_case(tmp_path / str(channel), values[..., channel])
            assert torch.equal(both["image"][channel], self.scaled()(alone)["image"][0])

    def test_a_window_is_the_same_place_in_all_channels(self, tmp_path):
        values = np.stack([np.arange(12 * 10 * 8, dtype=np.float32).reshape(12, 10, 8)] * 2, axis=-1)
        label = (values[..., 0] % 2).astype(np.uint8)
        deterministic = preprocessing(ScaleIntensityRangePercentilesd("image", 0, 100, 0, values.max()))
        transform = training_preprocessing(deterministic, training_crop([6, 6, 6])).set_random_state(0)
        places = set()
        for _ in range(5):
            window = transform(make_case(tmp_path, values, label))
            assert window["image"].shape == (2, 6, 6, 6)
            assert torch.equal(window["image"][0], window["image"][1])
            assert torch.equal(window["image"][0].round() % 2, window["label"][0].float())
            places.add(float(window["image"][0, 0, 0, 0]))
        assert len(places) > 1
