"""Preprocessing and augmentation keep world coordinates, classes and types; resampling goes through millimetres."""

import math
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import DataLoader, MetaTensor
from monai.transforms import Compose, Identityd, Lambdad, RandGaussianNoised, ScaleIntensityRanged

from svgd_monai.data import (
    StepSampler,
    VolumeDataset,
    augmentation,
    foreground_crop,
    preprocessing,
    to_grid,
    training_crop,
    training_preprocessing,
)
from svgd_monai.data.checks import check_case
from svgd_monai.data.spatial import FileAffineReader
from svgd_monai.data.transforms import ToPlaind
from svgd_monai.errors import DataError, SettingsError
from svgd_monai.workflow.sentences import sentence_of

identity = Identityd("image")


def rotation(degrees, axis):
    a, b = [i for i in range(3) if i != axis]
    matrix = np.eye(3)
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    matrix[a, a] = matrix[b, b] = cosine
    matrix[a, b], matrix[b, a] = -sine, sine
    return matrix


RAS = np.eye(3)
LPS = np.diag([-1.0, -1.0, 1.0])
PERMUTED = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])
OBLIQUE = rotation(12, 0) @ rotation(-9, 2)


def affine_of(spacing=(1, 1, 1), axes=RAS, origin=(0, 0, 0)):
    affine = np.eye(4)
    affine[:3, :3] = np.asarray(axes) @ np.diag(spacing)
    affine[:3, 3] = origin
    return affine


def world(affine, shape):
    """Millimetres of every voxel, (3, ...)."""
    return np.einsum("ij,j...->i...", affine[:3, :3], np.indices(shape)) + affine[:3, 3].reshape(3, 1, 1, 1)


def sphere(affine, shape, centre, radius):
    return np.linalg.norm(world(affine, shape) - np.reshape(centre, (3, 1, 1, 1)), axis=0) < radius


def save(path, values, affine):
    nib.save(nib.Nifti1Image(values, affine), path)
    return str(path)


def scan(folder, affine, shape=(20, 24, 18), dtype=np.int16):
    """An image that is a ramp through the world, and a label with one ball of each class."""
    middle = affine[:3, :3] @ (np.array(shape) / 2) + affine[:3, 3]
    ramp = np.tensordot([1.0, 2.0, 3.0], world(affine, shape), 1)
    label = np.zeros(shape, np.uint8)
    reach = min(np.array(shape) * np.linalg.norm(affine[:3, :3], axis=0))
    label[sphere(affine, shape, middle, reach / 3)] = 1
    label[sphere(affine, shape, middle, reach / 5)] = 2
    return {
        "case": "scan",
        "image": save(folder / "image.nii.gz", ramp.astype(np.float32), affine),
        "label": save(folder / "label.nii.gz", label, affine),
    }


@pytest.mark.parametrize("axes", [RAS, LPS, PERMUTED], ids=["RAS", "LPS", "permuted"])
@pytest.mark.parametrize("spacing", [None, (1.0, 1.0, 1.0), (2.0, 1.5, 3.0)])
def test_every_voxel_keeps_its_place_in_the_world(tmp_path, axes, spacing):
    item = scan(tmp_path, affine_of((1.0, 1.5, 2.0), axes, (-7, 30, 5)))
    result = preprocessing(identity, spacing)(item)
    affine = result["affine"].numpy()
    assert nib.aff2axcodes(affine) == ("R", "A", "S")
    ramp = np.tensordot([1.0, 2.0, 3.0], world(affine, result["image"].shape[1:]), 1)
    inner = (slice(2, -2),) * 3  # beyond the outermost voxels the border goes on
    np.testing.assert_allclose(result["image"][0].numpy()[inner], ramp[inner], atol=1e-3)
    if spacing is not None:
        np.testing.assert_allclose(np.diag(affine)[:3], spacing, rtol=1e-6)
    centre = world(affine, result["label"].shape[1:])[:, result["label"][0].numpy() == 2].mean(1)
    truth = nib.load(item["label"])
    expected = world(truth.affine, truth.shape)[:, np.asarray(truth.dataobj) == 2].mean(1)
    np.testing.assert_allclose(centre, expected, atol=0.5)


@pytest.mark.parametrize("number", range(12))
def test_a_label_whose_affine_is_a_quaternion_stays_on_its_images_grid(tmp_path, number):
    """The two agree but for rounding, from which Spacingd would make half a difference of voxels."""
    random = np.random.default_rng(number)
    axes = OBLIQUE if number % 2 else random.permutation(RAS) * random.choice([-1, 1], 3)[:, None]
    affine = affine_of(random.choice([0.5, 0.9375, 3.0, 5.0], 3), axes, random.uniform(-100, 100, 3))
    item = scan(tmp_path, affine)
    transform = preprocessing(identity, (1.0, 1.0, 1.0), plain=False)
    expected = transform(dict(item))
    label = nib.Nifti1Image(np.asarray(nib.load(item["label"]).dataobj), affine)
    label.set_qform(affine, 1)
    label.set_sform(None, 0)
    nib.save(label, item["label"])
    assert check_case(item, {0: "background", 1: "a", 2: "b"}).label_values == (0, 1, 2)
    found = transform(dict(item))
    assert torch.equal(found["label"], expected["label"])
    assert torch.equal(found["label"].affine, found["image"].affine)


@pytest.mark.parametrize("channels", [(), (2,)], ids=["3-D", "4-D"])
@pytest.mark.parametrize("qform_code", [0, 1])
def test_the_affine_is_the_files_where_sform_and_voxel_sizes_differ(tmp_path, qform_code, channels):
    """As those of a registration to a template do; MONAI's reader would take the qform, in 3-D files alone."""
    scanner, template = affine_of((1.7, 1.8, 1.7)), affine_of((1.9, 2.0, 2.1), LPS, (90, -40, 10))
    item = {}
    for key, more in (("image", channels), ("label", ())):
        file = nib.Nifti1Image(np.ones((9, 8, 7, *more), np.uint8), scanner)
        file.set_qform(scanner, qform_code)
        file.set_sform(template, 4)
        nib.save(file, tmp_path / f"{key}.nii.gz")
        item[key] = str(tmp_path / f"{key}.nii.gz")
    result = preprocessing(identity)(item)
    expected = nib.as_closest_canonical(nib.load(item["image"])).affine
    np.testing.assert_allclose(result["affine"].numpy(), expected, atol=1e-4)
    assert result["label"].shape[1:] == result["image"].shape[1:]


@pytest.mark.parametrize(
    ("become", "what"),
    [
        (lambda path: path.unlink(), r"cannot be read \(No such file or directory\)"),
        # Stands for one that may not be opened, which root may.
        (lambda path: path.unlink() or path.mkdir(), r"cannot be read \(Is a directory\)"),
        (lambda path: path.write_bytes(path.read_bytes()[:1000]), r"cannot be read \(EOFError: .*\)"),
        (lambda path: path.write_bytes(b""), "is empty"),
        (lambda path: path.write_text("no volume"), r"cannot be read \(ImageFileError: .*\)"),
    ],
    ids=["gone", "closed", "cut off", "emptied", "no volume"],
)
def test_a_file_that_can_no_longer_be_read_is_named(tmp_path, become, what):
    path = Path(save(tmp_path / "scan.nii.gz", np.random.default_rng(0).random((9, 8, 7)), np.eye(4)))
    become(path)
    with pytest.raises(RuntimeError) as caught:  # MONAI's, around it
        preprocessing(identity, None)({"image": str(path)})
    assert re.fullmatch(rf"{path} {what}\.", sentence_of(caught.value))


@pytest.mark.parametrize("become", [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:500])])
def test_threads_that_share_a_reader_name_the_file_that_each_has_read(tmp_path, become):
    """As those of MONAI's ``CacheDataset`` do."""
    names = [save(tmp_path / f"{n}.nii.gz", np.random.default_rng(n).random((9, 8, 7)), np.eye(4)) for n in range(2)]
    become(Path(names[0]))
    reader = FileAffineReader()
    image = reader.read(names[0])
    reader.read(names[1])
    with pytest.raises(DataError, match=rf"^{names[0]} cannot be read"):
        reader.get_data(image)


def test_a_constant_image_stays_constant_at_another_spacing(tmp_path):
    affine = affine_of((0.9, 1.1, 1.7), OBLIQUE)
    path = save(tmp_path / "flat.nii.gz", np.full((17, 19, 13), 1234.567, np.float32), affine)
    image = preprocessing(identity, (1.3, 0.7, 1.1))({"image": path})["image"]
    assert image.min() == image.max() == np.float32(1234.567)


def test_a_constant_channel_stays_constant_beside_one_that_varies(tmp_path):
    values = np.random.default_rng(0).normal(0, 5000, (17, 19, 13, 2)).astype(np.float32)
    values[..., 0] = 1234.567
    path = save(tmp_path / "two.nii.gz", values, affine_of((0.9, 1.1, 1.7), OBLIQUE))
    image = preprocessing(identity, (1.3, 0.7, 1.1))({"image": path})["image"]
    assert image[0].min() == image[0].max() == np.float32(1234.567)
    assert values[..., 1].min() <= image[1].min() < image[1].max() <= values[..., 1].max()


def test_shapes_types_and_keys_of_a_result(tmp_path):
    result = preprocessing(identity, (2.0, 2.0, 2.0))(scan(tmp_path, affine_of()))
    assert set(result) == {"case", "image", "label", "affine"}
    assert type(result["image"]) is type(result["label"]) is torch.Tensor
    assert result["image"].dtype == torch.float32
    assert result["label"].dtype == torch.uint8
    assert result["affine"].dtype == torch.float64
    assert result["affine"].shape == (4, 4)
    assert result["image"].shape == result["label"].shape == (1, 10, 12, 10)
    assert set(result["label"].unique().tolist()) == {0, 1, 2}


def test_an_unlabelled_scan_is_preprocessed_alike(tmp_path):
    item = scan(tmp_path, affine_of((1, 1, 2), LPS))
    labelled = preprocessing(identity, (1.0, 1.0, 1.0), pad_to=(30, 30, 40))(item)
    del item["label"]
    result = preprocessing(identity, (1.0, 1.0, 1.0), pad_to=(30, 30, 40))(item)
    assert "label" not in result
    assert torch.equal(result["image"], labelled["image"])
    assert torch.equal(result["affine"], labelled["affine"])


def test_intensities_are_scaled_by_one_or_several_transforms(tmp_path):
    item = scan(tmp_path, affine_of())
    scale = ScaleIntensityRanged("image", 0, 100, 0, 1, clip=True)
    plain, once, twice = (preprocessing(i)(dict(item))["image"] for i in (identity, scale, [scale, scale]))
    torch.testing.assert_close(once, (plain / 100).clamp(0, 1))
    torch.testing.assert_close(twice, once / 100)


def test_a_composed_intensity_is_that_of_its_parts(tmp_path):
    item = scan(tmp_path, affine_of())
    parts = [ScaleIntensityRanged("image", 0, 100, 0, 1), ScaleIntensityRanged("image", 0, 2, 0, 1)]
    assert torch.equal(*(preprocessing(each)(dict(item))["image"] for each in (parts, Compose(parts))))


@pytest.mark.parametrize(
    "intensity",
    [lambda data: data, RandGaussianNoised("image", prob=1.0), Compose([RandGaussianNoised("image", prob=1.0)])],
)
def test_an_intensity_that_could_not_be_cached_is_refused(intensity):
    with pytest.raises(SettingsError, match=r"^intensity: "):
        preprocessing([Lambdad("image", abs), intensity])


def test_padding_is_done_only_on_demand_and_the_affine_follows(tmp_path):
    item = scan(tmp_path, affine_of(origin=(5, 6, 7)))
    assert preprocessing(identity)(dict(item))["image"].shape == (1, 20, 24, 18)
    padded = preprocessing(identity, pad_to=(32, 32, 16))(dict(item))
    assert padded["image"].shape == padded["label"].shape == (1, 32, 32, 18)
    affine = padded["affine"].numpy()
    ramp = np.tensordot([1.0, 2.0, 3.0], world(affine, (32, 32, 18)), 1)
    inside = (slice(6, 26), slice(4, 28), slice(None))
    np.testing.assert_allclose(padded["image"][0].numpy()[inside], ramp[inside], atol=1e-3)
    assert padded["image"][0, :6].abs().max() == 0


def test_metadata_stay_for_pipelines_that_invert(tmp_path):
    result = preprocessing(identity, (2.0, 2.0, 2.0), plain=False)(scan(tmp_path, affine_of()))
    assert isinstance(result["image"], MetaTensor)
    assert result["image"].applied_operations
    assert "affine" not in result


def test_an_image_without_metadata_passes_as_it_is():
    result = ToPlaind()({"image": torch.ones(1, 2, 2, 2).double(), "label": torch.ones(1, 2, 2, 2)})
    assert result["image"].dtype == torch.float32
    assert result["label"].dtype == torch.uint8
    assert "affine" not in result


# windows


def volume(shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        "image": torch.rand(1, *shape, generator=generator) + 0.1,
        "label": torch.randint(0, 3, (1, *shape), generator=generator).to(torch.uint8),
    }


def seeded(transform, data, seed):
    transform.set_random_state(seed=seed)
    return transform(data)


@pytest.mark.parametrize("shape", [(10, 12, 14), (5, 6, 7), (8, 8, 8), (20, 4, 8)])
def test_a_window_has_the_asked_size_for_any_volume(shape):
    data = volume(shape)
    result = seeded(training_crop((8, 8, 8)), data, 3)
    assert result["image"].shape == result["label"].shape == (1, 8, 8, 8)
    kept = tuple(min(8, side) for side in shape)
    assert int((result["image"] > 0).sum()) == math.prod(kept)  # image voxels are above 0, padding is 0
    assert (result["label"][result["image"] == 0] == 0).all()


def test_a_window_holds_voxels_of_image_and_label_of_the_same_place():
    places = torch.arange(12 * 13 * 14).reshape(1, 12, 13, 14) + 1
    result = seeded(training_crop((5, 6, 7)), {"image": places.float(), "label": places}, 1)
    assert torch.equal(result["image"].long(), result["label"])
    first = int(result["image"][0, 0, 0, 0]) - 1
    x, y, z = np.unravel_index(first, (12, 13, 14))
    assert torch.equal(result["label"], places[:, x : x + 5, y : y + 6, z : z + 7])


def test_windows_differ_from_draw_to_draw():
    data = volume((12, 12, 12))
    crop = training_crop((4, 4, 4))
    assert len({float(seeded(crop, data, seed)["image"].sum()) for seed in range(10)}) > 5


# windows about the classes


def organ_and_tumour(shape=(24, 24, 24)):
    """An organ of 6³ voxels in the middle, and a tumour of one voxel in it."""
    label = torch.zeros(1, *shape, dtype=torch.uint8)
    label[0, 9:15, 9:15, 9:15] = 1
    label[0, 11, 12, 13] = 2
    return {"image": torch.ones(1, *shape), "label": label}


def centres(crop, data, draws=200):
    """Share of each class among the voxels in the middle of 3³ windows."""
    found = [int(seeded(crop, data, seed)["label"][0, 1, 1, 1]) for seed in range(draws)]
    return [found.count(value) / draws for value in range(3)]


@pytest.mark.parametrize("shape", [(10, 12, 14), (5, 6, 7), (8, 8, 8), (20, 4, 8), (2, 20, 9), (1, 1, 1)])
def test_a_class_window_has_the_asked_size_for_any_volume(shape):
    data = volume(shape)
    for seed in range(5):
        result = seeded(foreground_crop((8, 8, 8), 3), data, seed)
        assert type(result) is dict
        assert result["image"].shape == result["label"].shape == (1, 8, 8, 8)
        kept = tuple(min(8, side) for side in shape)
        assert int((result["image"] > 0).sum()) == math.prod(kept)  # image voxels are above 0, padding is 0
        assert (result["label"][result["image"] == 0] == 0).all()


@pytest.mark.parametrize(
    ("ratios", "shares"), [(None, (1 / 3, 1 / 3, 1 / 3)), ((1, 1, 8), (0.1, 0.1, 0.8)), ((6, 3, 1), (0.6, 0.3, 0.1))]
)
def test_classes_are_centres_in_their_shares(ratios, shares):
    found = centres(foreground_crop((3, 3, 3), 3, ratios), organ_and_tumour())
    np.testing.assert_allclose(found, shares, atol=0.1)  # three standard deviations


def test_every_voxel_of_a_class_may_be_the_centre():
    label = torch.zeros(1, 9, 9, 9, dtype=torch.uint8)
    label[0, 3:6, 3:6, 4:6] = 1
    data = {"image": torch.arange(9.0**3).reshape(1, 9, 9, 9), "label": label}
    crop = foreground_crop((3, 3, 3), 2, (1e-6, 1))
    found = {int(seeded(crop, data, seed)["image"][0, 1, 1, 1]) for seed in range(150)}
    assert found == set(torch.nonzero(label.flatten()).flatten().tolist())


@pytest.mark.filterwarnings("error")
def test_the_others_share_in_the_place_of_a_class_that_a_case_lacks():
    data = organ_and_tumour()
    data["label"][data["label"] == 2] = 1
    found = centres(foreground_crop((3, 3, 3), 3, (1, 3, 4)), data)
    np.testing.assert_allclose(found, (0.25, 0.75, 0), atol=0.1)


@pytest.mark.filterwarnings("error")
def test_an_empty_label_gives_windows_from_anywhere():
    places = torch.arange(12**3).reshape(1, 12, 12, 12)
    data = {"image": places.float(), "label": torch.zeros(1, 12, 12, 12, dtype=torch.uint8)}
    crop = foreground_crop((6, 6, 6), 3)
    starts = np.array(
        [np.unravel_index(int(seeded(crop, data, seed)["image"][0, 0, 0, 0]), (12,) * 3) for seed in range(100)]
    )
    assert (starts.min(0) == 0).all()
    assert (starts.max(0) == 6).all()
    assert len(np.unique(starts, axis=0)) > 50


def test_a_label_without_background_gives_windows():
    data = {"image": torch.ones(1, 9, 9, 9), "label": torch.full((1, 9, 9, 9), 2, dtype=torch.uint8)}
    assert (seeded(foreground_crop((4, 4, 4), 3), data, 0)["label"] == 2).all()


def test_a_class_window_holds_image_and_label_of_one_place():
    data = organ_and_tumour()
    places = torch.arange(24**3).reshape(1, 24, 24, 24)
    for seed in range(5):
        result = seeded(foreground_crop((5, 6, 7), 3), {**data, "image": places.float()}, seed)
        x, y, z = np.unravel_index(int(result["image"][0, 0, 0, 0]), (24,) * 3)
        window = (slice(None), slice(x, x + 5), slice(y, y + 6), slice(z, z + 7))
        assert torch.equal(result["image"], places[window].float())
        assert torch.equal(result["label"].as_tensor(), data["label"][window])


@pytest.mark.parametrize(
    "ratios", [(1, 1), (1, 1, 1, 1), (1, 1, 0), (0, 1, 1), (1, 1, -1), (1, 1, math.inf), (1, 1, math.nan)]
)
def test_ratios_that_fit_no_classes_are_refused(ratios):
    with pytest.raises(SettingsError, match=r"^ratios: .* are not 3 numbers above 0"):
        foreground_crop((8, 8, 8), 3, ratios)


def test_batches_of_class_windows_keep_their_size_and_follow_from_the_draw_alone(tmp_path):
    folders = [tmp_path / name for name in ("a", "b", "c")]
    for folder in folders:
        folder.mkdir()
    cases = [scan(folder, affine_of(origin=(5, place, 0))) for place, folder in enumerate(folders)]
    transform = training_preprocessing(preprocessing(identity), foreground_crop((8, 8, 8), 3), "light")

    def batches(start=0, workers=0):
        np.random.seed(start)
        dataset = VolumeDataset(cases, transform, tmp_path / "cache", seed=7)
        sampler = StepSampler(len(cases), 4, 5, seed=1)
        sampler.start = start
        return list(DataLoader(dataset, batch_sampler=sampler, num_workers=workers))

    expected = batches()
    assert all(set(batch) == {"image", "label"} for batch in expected)
    assert all(batch[key].shape == (4, 1, 8, 8, 8) for batch in expected for key in batch)
    assert len({float(batch["image"].sum()) for batch in expected}) == 5
    for again in (batches(), batches(2), batches(0, workers=1)):
        for batch, other in zip(expected[-len(again) :], again, strict=True):
            assert all(torch.equal(batch[key], other[key]) for key in batch)


def test_training_and_scoring_share_their_preprocessed_volumes(tmp_path):
    deterministic = preprocessing(identity, (2.0, 2.0, 2.0))
    training = training_preprocessing(deterministic, foreground_crop((8, 8, 8), 3))
    hashes = [VolumeDataset([], transform, tmp_path).transform_hash for transform in (deterministic, training)]
    assert hashes[0] == hashes[1]


# augmentation


def test_no_augmentation_changes_nothing():
    data = volume((8, 8, 8))
    result = seeded(augmentation("none"), dict(data), 0)
    assert all(torch.equal(result[key], data[key]) for key in data)


def test_light_augmentation_changes_images_moderately_and_invents_no_class():
    data, changed, moved = volume((16, 16, 16)), 0, 0
    data["label"] = torch.zeros(1, 16, 16, 16, dtype=torch.uint8)
    data["label"][0, 4:12, 4:12, 4:12] = 2
    for seed in range(20):
        result = seeded(augmentation("light"), dict(data), seed)
        assert result["image"].shape == result["label"].shape == (1, 16, 16, 16)
        assert set(result["label"].unique().tolist()) <= {0, 2}
        assert result["image"].isfinite().all()
        changed += not torch.equal(result["image"], data["image"])
        moved += not torch.equal(result["label"], data["label"])
        overlap = ((result["label"] == 2) & (data["label"] == 2)).sum() / (data["label"] == 2).sum()
        assert overlap > 0.4
    assert 12 <= changed <= 20
    assert 8 <= moved <= changed


def test_light_augmentation_mirrors_nothing():
    """Left stays left: a mirrored scan would teach the wrong side."""
    data = {"image": torch.zeros(1, 16, 16, 16), "label": torch.zeros(1, 16, 16, 16, dtype=torch.uint8)}
    data["label"][0, :6] = 1
    for seed in range(20):
        result = seeded(augmentation("light"), dict(data), seed)
        assert result["label"][0, :8].sum() > 3 * result["label"][0, 8:].sum()


def test_image_and_label_move_together():
    data = {"image": torch.zeros(1, 16, 16, 16), "label": torch.zeros(1, 16, 16, 16, dtype=torch.uint8)}
    data["image"][0, 3:9, 4:12, 5:13] = 1
    data["label"][0, 3:9, 4:12, 5:13] = 1
    for seed in range(10):
        result = seeded(augmentation("light"), dict(data), seed)
        bright, labelled = result["image"][0] > 0.5, result["label"][0] == 1
        assert 2 * (bright & labelled).sum() / (bright.sum() + labelled.sum()) > 0.85


def test_an_unknown_augmentation_is_refused():
    with pytest.raises(ValueError, match="'heavy'"):
        augmentation("heavy")


def test_a_training_item_is_a_window_and_nothing_else(tmp_path):
    item = scan(tmp_path, affine_of())
    transform = training_preprocessing(preprocessing(identity), training_crop((8, 8, 8)), "light")
    assert isinstance(transform, Compose)
    result = transform(item)
    assert set(result) == {"image", "label"}
    assert all(type(value) is torch.Tensor and value.shape == (1, 8, 8, 8) for value in result.values())
    kept = training_preprocessing(preprocessing(identity), training_crop((8, 8, 8)), keep=("image",))(item)
    assert set(kept) == {"image"}


# to_grid


def reference(affine, shape):
    return MetaTensor(torch.zeros(1, *shape), affine=torch.as_tensor(affine))


@pytest.mark.parametrize("axes", [RAS, LPS, PERMUTED, OBLIQUE], ids=["RAS", "LPS", "permuted", "oblique"])
@pytest.mark.parametrize("target_shape", [(9, 11, 10), (9, 11, 1), (1, 1, 10)], ids=str)
def test_a_ramp_through_the_world_is_a_ramp_on_any_grid(axes, target_shape):
    working = affine_of((2.0, 1.5, 2.5), origin=(-30, -30, -30))
    shape = (32, 40, 26)
    middle = world(working, shape).reshape(3, -1).mean(1)
    target = affine_of((1.3, 0.9, 1.1), axes)
    target[:3, 3] = middle - target[:3, :3] @ (np.array(target_shape) / 2)
    weights = np.array([[1.0, 2.0, 3.0], [-1.0, 0.5, 0.0]])
    ramps = torch.as_tensor(np.tensordot(weights, world(working, shape), 1))
    result = to_grid(ramps, torch.as_tensor(working), reference(target, target_shape))
    assert type(result) is torch.Tensor
    assert result.dtype == torch.float64
    expected = np.tensordot(weights, world(target, target_shape), 1)
    np.testing.assert_allclose(result.numpy(), expected, atol=2e-4)


def test_a_ramp_survives_the_round_trip_through_another_spacing(tmp_path):
    item = scan(tmp_path, affine_of((1.0, 1.5, 2.0), LPS, (3, 4, 5)))
    result = preprocessing(identity, (1.4, 1.4, 1.4))(item)
    file = nib.load(item["image"])
    back = to_grid(result["image"], result["affine"], reference(file.affine, file.shape))
    inner = (slice(2, -2),) * 3
    np.testing.assert_allclose(back[0].numpy()[inner], file.get_fdata()[inner], atol=1e-3)


def test_the_same_grid_gives_the_same_values():
    values = torch.rand(3, 6, 7, 8)
    affine = affine_of((1, 2, 3), origin=(4, 5, 6))
    torch.testing.assert_close(to_grid(values, torch.as_tensor(affine), reference(affine, (6, 7, 8))), values)


def test_a_flipped_grid_gives_the_values_flipped():
    values = torch.rand(2, 6, 7, 8)
    flipped = affine_of(axes=LPS, origin=(5, 6, 0))
    result = to_grid(values, torch.eye(4, dtype=torch.float64), reference(flipped, (6, 7, 8)))
    torch.testing.assert_close(result, values.flip(1, 2))


def test_beyond_the_volume_its_border_goes_on():
    values = torch.rand(1, 4, 4, 4)
    larger = affine_of(origin=(-2, -2, -2))
    result = to_grid(values, torch.eye(4, dtype=torch.float64), reference(larger, (8, 8, 8)))
    torch.testing.assert_close(result[:, 2:6, 2:6, 2:6], values)
    torch.testing.assert_close(result[:, 0, 0, 0], values[:, 0, 0, 0])
    torch.testing.assert_close(result[:, 7, 7, 7], values[:, 3, 3, 3])


def test_probabilities_stay_probabilities():
    probabilities = torch.randn(3, 10, 10, 10).softmax(0)
    target = affine_of((0.7, 0.7, 0.7), OBLIQUE, (2, 2, 2))
    result = to_grid(probabilities, torch.eye(4, dtype=torch.float64), reference(target, (8, 8, 8)))
    assert result.min() >= 0
    torch.testing.assert_close(result.sum(0), torch.ones(8, 8, 8))


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.8, 0.8, 0.8)])
def test_a_structure_of_an_oblique_scan_comes_back(tmp_path, spacing):
    affine = affine_of((1.0, 1.0, 1.2), OBLIQUE @ LPS, (10, -20, 30))
    item = scan(tmp_path, affine, shape=(48, 46, 40))
    result = preprocessing(identity, spacing)(item)
    certain = torch.nn.functional.one_hot(result["label"][0].long(), 3).movedim(-1, 0).float()
    truth = nib.load(item["label"])
    back = to_grid(certain, result["affine"], reference(truth.affine, truth.shape)).argmax(0).numpy()
    for value in (1, 2):
        found, true = back == value, np.asarray(truth.dataobj) == value
        assert 2 * (found & true).sum() / (found.sum() + true.sum()) > 0.98
