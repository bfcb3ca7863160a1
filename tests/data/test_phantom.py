import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from monai.data import load_decathlon_datalist
from monai.transforms import LoadImaged
from scipy import ndimage

from svgd_monai.data import phantom
from svgd_monai.data.phantom import make_phantom
from svgd_monai.data.phantom_shapes import make_axes, smooth_field, tube
from svgd_monai.errors import DataError, SettingsError
from svgd_monai.temporaries import temporary_path

MR_CASES, CT_CASES = 60, 12


@pytest.fixture(scope="module")
def mr(tmp_path_factory):
    return make_phantom(tmp_path_factory.mktemp("phantoms") / "mr", num_cases=MR_CASES)


@pytest.fixture(scope="module")
def ct(tmp_path_factory):
    return make_phantom(tmp_path_factory.mktemp("phantoms") / "ct", task="ct", num_cases=CT_CASES)


def read(root):
    """The cases of a phantom as (case id, nibabel image, nibabel label)."""
    for item in json.loads((root / "dataset.json").read_text())["training"]:
        yield (
            Path(item["image"]).name.removesuffix(".nii.gz"),
            nib.load(root / item["image"]),
            nib.load(root / item["label"]),
        )


def values(image):
    return np.asarray(image.dataobj)


def hashes(root):
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def hard_cases(root):
    return set(json.loads((root / "phantom.json").read_text())["hard_cases"])


def contrast_to_noise(image, label):
    """Difference between target and what lies 1 to 3 voxels around it, in standard deviations within the target."""
    target = label > 0
    around = ndimage.binary_dilation(target, iterations=3) & ~ndimage.binary_dilation(target)
    core = ndimage.binary_erosion(target)
    return abs(float(image[around].mean()) - float(image[core].mean())) / float(image[core].std())


# --- the folder ---


@pytest.mark.parametrize("task", ["mr", "ct"])
def test_same_arguments_give_the_same_bytes(tmp_path, task):
    first, second = (make_phantom(tmp_path / name, task=task, num_cases=3) for name in ("a", "b"))
    assert hashes(first) == hashes(second)


def test_a_case_does_not_depend_on_the_number_of_cases(tmp_path, mr):
    few, many = hashes(make_phantom(tmp_path / "few", num_cases=7)), hashes(mr)
    volumes = [name for name in few if name.endswith(".nii.gz")]
    assert len(volumes) == 14
    assert all(few[name] == many[name] for name in volumes)
    assert hard_cases(tmp_path / "few") == {case for case in hard_cases(mr) if int(case[-3:]) <= 7}


def test_another_seed_gives_other_cases(tmp_path):
    one, other = (hashes(make_phantom(tmp_path / str(seed), num_cases=2, seed=seed)) for seed in (0, 1))
    assert all(one[name] != other[name] for name in one if name.endswith(".nii.gz"))


@pytest.mark.parametrize(("task", "modality"), [("mr", "MRI"), ("ct", "CT")])
def test_dataset_json_has_the_decathlon_form(request, task, modality):
    root = request.getfixturevalue(task)
    dataset = json.loads((root / "dataset.json").read_text())
    assert list(dataset) == [
        "name",
        "description",
        "reference",
        "licence",
        "release",
        "tensorImageSize",
        "modality",
        "labels",
        "numTraining",
        "numTest",
        "training",
        "test",
    ]
    assert dataset["tensorImageSize"] == "3D"
    assert dataset["modality"] == {"0": modality}
    assert list(dataset["labels"]) == ["0", "1", "2"]
    assert (dataset["numTraining"], dataset["numTest"]) == (len(dataset["training"]), 0)
    assert dataset["test"] == []
    assert dataset["training"][0] == {
        "image": f"./imagesTr/phantom_{task}_001.nii.gz",
        "label": f"./labelsTr/phantom_{task}_001.nii.gz",
    }
    assert sorted(path.name for path in root.iterdir()) == ["dataset.json", "imagesTr", "labelsTr", "phantom.json"]


def test_monai_loads_it(mr):
    items = load_decathlon_datalist(str(mr / "dataset.json"), True, "training")
    assert len(items) == MR_CASES
    loaded = LoadImaged(["image", "label"], ensure_channel_first=True)(items[3])
    assert loaded["image"].shape == loaded["label"].shape
    assert loaded["image"].ndim == 4


def test_second_call_rewrites_nothing(tmp_path):
    root = make_phantom(tmp_path / "p", num_cases=2)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert make_phantom(tmp_path / "p", num_cases=2) == root
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
    assert list(tmp_path.iterdir()) == [root]


def test_an_empty_or_relative_or_nested_folder_will_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for name in ("empty", "new/nested"):
        assert make_phantom(name, num_cases=1) == Path(name)
        assert (tmp_path / name / "dataset.json").is_file()


def test_a_foreign_folder_is_refused_and_left_alone(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(DataError, match=r"mine holds other files"):
        make_phantom(tmp_path / "mine", num_cases=1)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]
    with pytest.raises(DataError, match=r"notes\.txt is a file"):
        make_phantom(tmp_path / "mine" / "notes.txt", num_cases=1)


@pytest.mark.parametrize("other", [{"num_cases": 3}, {"seed": 1}, {"task": "ct"}])
def test_another_phantom_is_refused(tmp_path, other):
    root = make_phantom(tmp_path / "p", num_cases=2)
    before = hashes(root)
    with pytest.raises(DataError, match=r"p holds another phantom \(task mr, num_cases 2, seed 0") as raised:
        make_phantom(root, **{"num_cases": 2, **other})
    assert "\n" not in str(raised.value)
    assert hashes(root) == before


def test_a_phantom_of_another_generator_is_refused(tmp_path, monkeypatch):
    root = make_phantom(tmp_path / "p", num_cases=1)
    monkeypatch.setattr(phantom, "GENERATOR_VERSION", phantom.GENERATOR_VERSION + 1)
    with pytest.raises(DataError, match="another phantom"):
        make_phantom(root, num_cases=1)


def test_lost_files_and_a_broken_record_are_reported(tmp_path):
    root = make_phantom(tmp_path / "p", num_cases=2)
    (root / "labelsTr" / "phantom_mr_002.nii.gz").unlink()
    with pytest.raises(DataError, match=r"p has lost 1 of its files \(labelsTr/phantom_mr_002"):
        make_phantom(root, num_cases=2)
    (root / "phantom.json").write_text("{")
    with pytest.raises(DataError, match=r"phantom\.json cannot be read"):
        make_phantom(root, num_cases=2)


@pytest.mark.parametrize(
    ("wrong", "named"), [({"task": "pet"}, "task"), ({"num_cases": 0}, "num_cases"), ({"seed": -1}, "seed")]
)
def test_wrong_settings_are_named(tmp_path, wrong, named):
    with pytest.raises(SettingsError, match=named):
        make_phantom(tmp_path / "p", **wrong)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("when", ["a volume", "the last file", "the rename"])
def test_an_interruption_leaves_nothing_that_looks_complete(tmp_path, monkeypatch, when):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    def interrupted_at_record(path, content):
        if path.name == "phantom.json":
            raise KeyboardInterrupt
        return path

    with monkeypatch.context() as patch:
        if when == "a volume":
            patch.setattr(phantom, "write_bytes", interrupted)
        elif when == "the last file":
            patch.setattr(phantom, "write_json", interrupted_at_record)
        else:
            patch.setattr(Path, "rename", interrupted)
        with pytest.raises(KeyboardInterrupt):
            make_phantom(tmp_path / "p", num_cases=2)
    assert not any(path.is_dir() for path in tmp_path.iterdir())

    assert len(list(read(make_phantom(tmp_path / "p", num_cases=2)))) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["p"]


def test_what_a_killed_process_left_is_cleared_away_and_nothing_else(tmp_path):
    """What another machine, which shares the folder, is writing stays; a lock does not reach every machine."""
    nobody = 2**31 - 1
    left = temporary_path(tmp_path / ".p", nobody).name
    names = (left, f".p.{nobody}.0123456789abcdef.tmp", ".p.q.123.tmp", ".pq.123.tmp", "p.old")
    for name in names:
        (tmp_path / name / "imagesTr").mkdir(parents=True)
    make_phantom(tmp_path / "p", num_cases=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["p", *names[1:]])


def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(phantom, "write_bytes", full)
    with pytest.raises(DataError, match=r"p: the phantom cannot be written \(OSError: .*No space left"):
        make_phantom(tmp_path / "p", num_cases=1)


def test_two_at_once_make_one(tmp_path):
    with ThreadPoolExecutor(2) as pool:
        roots = list(pool.map(lambda _: make_phantom(tmp_path / "p", num_cases=3), range(2)))
    assert roots == [tmp_path / "p"] * 2
    assert len(list(read(roots[0]))) == 3


# --- the volumes ---


@pytest.mark.parametrize("task", ["mr", "ct"])
def test_every_case_is_sound(request, task):
    root = request.getfixturevalue(task)
    for case, image, label in read(root):
        assert image.shape == label.shape, case
        np.testing.assert_array_equal(image.affine, label.affine)
        np.testing.assert_allclose(image.header.get_zooms(), np.abs(np.diag(image.affine)[:3]), rtol=1e-5)
        assert image.header.get_xyzt_units()[0] == "mm"
        assert np.isfinite(values(image)).all(), case
        assert values(image).std() > 0, case
        assert values(label).dtype == np.uint8
        assert set(np.unique(values(label))) == {0, 1, 2}, case
        for value in (1, 2):
            pieces, _ = ndimage.label(values(label) == value)
            largest = np.bincount(pieces.ravel())[1:].max()
            assert largest >= 0.9 * (pieces > 0).sum(), f"{case}: label {value} is in pieces"


@pytest.mark.parametrize("task", ["mr", "ct"])
def test_shapes_origins_and_hardness_vary(request, task):
    root = request.getfixturevalue(task)
    cases = list(read(root))
    assert len({image.shape for _, image, _ in cases}) > 0.8 * len(cases)
    assert len({tuple(image.affine[:3, 3]) for _, image, _ in cases}) == len(cases)
    assert abs(len(hard_cases(root)) - len(cases) / 5) < 1


def test_mr_has_sizes_and_scales_like_task04(mr):
    cases = list(read(mr))
    shapes = np.array([image.shape for _, image, _ in cases])
    assert (shapes.min(0) >= [31, 40, 28]).all()
    assert (shapes.max(0) <= [43, 58, 46]).all()
    assert all(np.array_equal(image.affine[:3, :3], np.eye(3)) for _, image, _ in cases)
    bright = np.array([np.percentile(values(image), 99) for _, image, _ in cases])
    eight_bit = np.array([image.get_data_dtype() == np.uint8 for _, image, _ in cases])
    assert 0.1 < eight_bit.mean() < 0.4
    assert bright[eight_bit].max() <= 255
    assert ((bright > 500) & (bright < 4000)).sum() > 20
    assert ((bright > 8000) & (bright < 200_000)).sum() > 4
    volumes = np.array([[(values(label) == value).sum() for value in (1, 2)] for _, _, label in cases])
    assert (volumes > 300).all()
    assert (volumes < 5000).all()


def test_mr_parts_share_a_face_and_the_anterior_lies_in_front(mr):
    for case, _, label in read(mr):
        anterior, posterior = (values(label) == value for value in (1, 2))
        assert (ndimage.binary_dilation(anterior) & posterior).any(), case
        assert np.argwhere(anterior).mean(0)[1] > np.argwhere(posterior).mean(0)[1], case


def test_mr_target_is_darker_than_what_surrounds_it(mr):
    for case, image, label in read(mr):
        target = values(label) > 0
        around = ndimage.binary_dilation(target, iterations=3) & ~target
        assert np.median(values(image)[target]) < np.median(values(image)[around]), case


def test_hard_mr_cases_have_less_contrast_to_noise(mr):
    hard = hard_cases(mr)
    ratios = {case: contrast_to_noise(values(image), values(label)) for case, image, label in read(mr)}
    assert len(hard) == MR_CASES // 5
    assert np.median([ratios[case] for case in hard]) < 0.5 * np.median([ratios[case] for case in set(ratios) - hard])


def test_ct_is_in_hounsfield_units(ct):
    for case, image, label in read(ct):
        hounsfield, classes = values(image), values(label)
        assert hounsfield.dtype == np.int16
        assert hounsfield.min() >= -1024
        assert 250 < hounsfield.max() < 1500, case
        assert np.median(hounsfield[:4, :4]) == pytest.approx(-1000, abs=15)  # air in the corner
        organ = np.median(hounsfield[ndimage.binary_erosion(classes == 1)])
        assert 50 < organ < 115, case
        assert 10 < organ - np.median(hounsfield[classes == 2]) < 45, case


def test_ct_spacing_is_anisotropic_and_some_axes_are_flipped(ct):
    steps = np.array([np.diag(image.affine)[:3] for _, image, _ in read(ct)])
    assert (np.abs(steps[:, :2]) >= 1.5).all()
    assert (np.abs(steps[:, :2]) <= 2.5).all()
    assert (steps[:, 2] >= 2.5).all()
    assert (steps[:, 2] <= 5.0).all()
    assert (np.abs(steps[:, 2]) > np.abs(steps[:, 0])).all()
    assert {-1, 1} == set(np.sign(steps[:, 0])) == set(np.sign(steps[:, 1]))


def test_ct_anatomy_follows_the_affine(ct):
    for case, image, label in read(ct):

        def middle(mask, affine=image.affine):
            return affine[:3, :3] @ np.argwhere(mask).mean(0) + affine[:3, 3]

        spine = middle(values(image) > 330)
        organ, head = values(label) > 0, values(image) > -300
        assert middle(organ)[1] > spine[1] + 15, f"{case}: the organ lies in front of the spine"
        assert middle(head)[1] > spine[1], f"{case}: the spine lies at the back"


def test_ct_tumour_is_small_and_touches_the_organ(ct):
    for case, image, label in read(ct):
        organ, tumour = (values(label) == value for value in (1, 2))
        voxel = abs(np.linalg.det(image.affine[:3, :3])) / 1000
        assert 10 < organ.sum() * voxel < 90, case
        assert 0.2 < tumour.sum() * voxel < 5, case
        assert tumour.sum() < 0.25 * organ.sum(), case
        assert tumour.mean() < 0.003, case
        assert (ndimage.binary_dilation(tumour) & organ).any(), case


# --- what they are drawn with ---


def test_smooth_field_has_variance_one_and_a_length():
    axes = make_axes(np.array([60, 60, 60]), np.ones(3))
    fields = np.stack([smooth_field(np.random.default_rng(seed), axes, 6.0) for seed in range(4)])
    assert fields.var() == pytest.approx(1, abs=0.1)

    def correlation(lag):
        return float((fields[:, lag:] * fields[:, : 60 - lag]).mean())

    assert correlation(1) > 0.9
    assert abs(correlation(24)) < 0.1


def test_a_tube_is_the_union_of_its_balls_on_flipped_axes_too():
    points, radii = np.array([[-5.0, 0, 0], [5.0, 1, 2]]), np.array([3.0, 4.0])
    for steps in ([1.0, 2.0, 1.5], [-1.0, -2.0, 1.5]):
        axes = make_axes(np.array([30, 20, 18]), np.array(steps))
        grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
        expected = np.any([np.linalg.norm(grid - p, axis=-1) < r for p, r in zip(points, radii, strict=True)], axis=0)
        shape = tube(axes, points, radii)
        drawn = np.zeros(expected.shape, bool)
        drawn[shape.box] = shape.distance < 0
        np.testing.assert_array_equal(drawn, expected)


# --- room to learn ---


@pytest.mark.long
def test_mr_leaves_room_to_learn(tmp_path):
    """On 30 other cases, one small network gains much from 40 labels over 5, and hard cases stay below easy ones."""
    import torch
    from monai.data import Dataset
    from monai.losses import DiceLoss
    from monai.networks.nets import BasicUNet
    from monai.transforms import (
        Compose,
        ResizeWithPadOrCropd,
        ScaleIntensityRangePercentilesd,
        Spacingd,
    )

    root = make_phantom(tmp_path / "p", num_cases=90)
    keys = ["image", "label"]
    transform = Compose(
        [
            LoadImaged(keys, ensure_channel_first=True),
            Spacingd(keys, (2, 2, 2), mode=("bilinear", "nearest")),
            ScaleIntensityRangePercentilesd("image", 0.5, 99.5, 0, 1, clip=True),
            ResizeWithPadOrCropd(keys, (24, 32, 24)),
        ]
    )
    cases = list(Dataset(load_decathlon_datalist(str(root / "dataset.json"), True, "training"), transform))
    images, labels = (torch.stack([case[key].as_tensor().float() for case in cases]) for key in keys)
    hard = np.array([f"phantom_mr_{index + 1:03d}" in hard_cases(root) for index in range(60, 90)])

    def test_dice(num_labels):
        torch.manual_seed(0)
        network = BasicUNet(spatial_dims=3, in_channels=1, out_channels=3, features=[8, 8, 16, 32, 64, 8])
        optimiser = torch.optim.Adam(network.parameters(), 1e-3)
        loss = DiceLoss(to_onehot_y=True, softmax=True, squared_pred=True)
        rng = np.random.default_rng(0)
        labelled = rng.permutation(60)[:num_labels]
        batches = np.concatenate([rng.permutation(labelled) for _ in range(1200 // num_labels)]).reshape(300, 4)
        for batch in batches:
            optimiser.zero_grad()
            loss(network(images[batch]), labels[batch]).backward()
            optimiser.step()
        with torch.no_grad():
            predicted = torch.cat([network(image[None]).argmax(1, keepdim=True) for image in images[60:]])
        overlap = [
            2
            * ((predicted == c) & (labels[60:] == c)).flatten(1).sum(1)
            / ((predicted == c).flatten(1).sum(1) + (labels[60:] == c).flatten(1).sum(1))
            for c in (1, 2)
        ]
        return torch.stack(overlap).mean(0).numpy()

    five, forty = test_dice(5), test_dice(40)
    assert 0.35 < five.mean() < 0.68
    assert 0.70 < forty.mean() < 0.90
    assert forty.mean() - five.mean() > 0.1
    assert forty[~hard].mean() - forty[hard].mean() > 0.1
