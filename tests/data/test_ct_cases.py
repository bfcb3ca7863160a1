"""Odd CT cases on the way into training: valid ones are trained on, bad ones are named in a sentence."""

import json
import math
import shutil

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import DataLoader
from monai.handlers import MeanDice, from_engine
from monai.inferers import SlidingWindowInferer
from monai.networks.nets import BasicUNet
from monai.transforms import AsDiscreted, Compose, ScaleIntensityRanged

from svgd_monai import LogDiceLoss, Particles
from svgd_monai.committee import CommitteeEvaluator, CommitteeTrainer, PosteriorStep
from svgd_monai.data import (
    Draw,
    StepSampler,
    VolumeDataset,
    foreground_crop,
    load_task,
    make_phantom,
    preprocessing,
    training_preprocessing,
)
from svgd_monai.errors import DataError
from svgd_monai.evaluation.cases import dice_per_class

CLASSES = 3
WINDOW = (32, 32, 32)
SOFT_TISSUE = ScaleIntensityRanged("image", -87, 199, 0, 1, clip=True)
#: Voxels of 4 mm, so that the working grid is the file's.
ODD = {"smaller_than_the_window": (20, 12, 40), "thin": (40, 36, 2), "one_layer": (40, 36, 1), "a_rod": (1, 40, 1)}


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    return make_phantom(tmp_path_factory.mktemp("data") / "phantom", "ct", 2)


@pytest.fixture
def task(phantom, tmp_path):
    """A copy of the phantom, to which cases can be added."""
    folder = tmp_path / "task"
    shutil.copytree(phantom, folder)
    return folder


def add(task, case, image, label, affine=None):
    affine = np.diag([4.0, 4.0, 4.0, 1.0]) if affine is None else affine
    entry = {}
    for key, values in (("image", image), ("label", label)):
        entry[key] = f"./{key}sTr/{case}.nii.gz"
        nib.save(nib.Nifti1Image(values, affine), task / entry[key])
    content = json.loads((task / "dataset.json").read_text())
    content["training"].append(entry)
    (task / "dataset.json").write_text(json.dumps(content))


def scan(shape, empty=False, seed=0):
    rng = np.random.default_rng(seed)
    image = rng.normal(50, 60, shape).astype(np.int16)
    label = np.zeros(shape, np.uint8)
    if not empty:
        label[tuple(slice(side // 4, side // 2 + 1) for side in shape)] = 1
        label[tuple(side // 3 for side in shape)] = 2
    return image, label


def items(task, tmp_path, *cases):
    data = load_task(task, tmp_path / "checks", num_classes=CLASSES, in_channels=1)
    return [data.with_fingerprint(data.dataset.items[case]) for case in cases or data.dataset.items]


def training(chosen, steps, batch_size=3, augment="none"):
    """(particles, losses) after some steps of the real trainer on windows of the cases."""
    transform = training_preprocessing(
        preprocessing(SOFT_TISSUE, (4.0, 4.0, 4.0)), foreground_crop(WINDOW, CLASSES), augment
    )
    dataset = VolumeDataset(chosen, transform, None, seed=1)
    loader = DataLoader(dataset, batch_sampler=StepSampler(len(dataset), batch_size, steps), num_workers=0)
    network = BasicUNet(spatial_dims=3, in_channels=1, out_channels=CLASSES, features=(2, 2, 2, 2, 4, 2))
    particles = Particles(network, 2)
    losses = []
    trainer = CommitteeTrainer(
        device="cpu",
        max_epochs=1,
        train_data_loader=loader,
        network=particles,
        optimizer=torch.optim.Adam([particles.values], lr=1e-3),
        loss_function=LogDiceLoss(to_onehot_y=True, softmax=True),
        step=PosteriorStep(),
        decollate=False,
    )
    trainer.add_event_handler("ITERATION_COMPLETED", lambda engine: losses.append(engine.state.member_losses.clone()))
    trainer.run()
    return particles, torch.stack(losses)


@pytest.mark.parametrize("shape", ODD.values(), ids=ODD)
@pytest.mark.parametrize("empty", [False, True], ids=["labelled", "empty"])
def test_a_small_or_thin_case_is_sound_and_gives_whole_windows(task, tmp_path, shape, empty):
    image, label = scan(shape, empty)
    add(task, "odd", image, label)
    odd = items(task, tmp_path, "odd")
    transform = training_preprocessing(preprocessing(SOFT_TISSUE, (4.0, 4.0, 4.0)), foreground_crop(WINDOW, CLASSES))
    dataset = VolumeDataset(odd, transform, None)
    for draw in range(4):
        window = dataset[Draw(0, draw)]
        assert window["image"].shape == window["label"].shape == (1, *WINDOW)
        assert set(window["label"].unique().tolist()) <= ({0} if empty else {0, 1, 2})
        assert 0 <= window["image"].min() < window["image"].max() <= 1
        if all(side <= 32 for side in shape):
            assert int((window["label"] > 0).sum()) == int((label > 0).sum())


def test_training_goes_on_over_small_thin_and_empty_cases(task, tmp_path):
    for name, shape in ODD.items():
        add(task, name, *scan(shape))
    add(task, "empty", *scan((40, 40, 40), empty=True))
    chosen = items(task, tmp_path)
    before = Particles(BasicUNet(spatial_dims=3, in_channels=1, out_channels=3, features=(2, 2, 2, 2, 4, 2)), 2).values
    particles, losses = training(chosen, steps=4, augment="light")
    assert len(chosen) == 7  # two phantoms, four odd cases, an empty one: all are drawn in four steps of three
    assert losses.shape == (4, 2)
    assert losses.isfinite().all()
    assert particles.values.isfinite().all()
    assert not torch.equal(particles.values, before)


def test_a_task_of_empty_labels_trains_the_background(task, tmp_path):
    add(task, "empty", *scan((34, 34, 34), empty=True))
    _, losses = training(items(task, tmp_path, "empty"), steps=6, batch_size=2)
    assert losses.isfinite().all()
    assert (losses[-1] < losses[0]).all()


def test_the_dice_of_an_empty_label_is_left_out_of_the_validation(task, tmp_path):
    add(task, "empty", *scan((34, 34, 34), empty=True))
    particles, _ = training(items(task, tmp_path, "phantom_ct_001"), steps=2)

    def validation_dice(*cases):
        dataset = VolumeDataset(items(task, tmp_path, *cases), preprocessing(SOFT_TISSUE, (4.0, 4.0, 4.0)), None)
        evaluator = CommitteeEvaluator(
            device="cpu",
            val_data_loader=DataLoader(dataset, batch_size=1, num_workers=0),
            network=particles,
            inferer=SlidingWindowInferer(WINDOW, 4, overlap=0.25, mode="gaussian"),
            postprocessing=Compose([AsDiscreted(["pred", "label"], argmax=[True, False], to_onehot=CLASSES)]),
            key_val_metric={
                "val_dice": MeanDice(include_background=False, output_transform=from_engine(["pred", "label"]))
            },
        )
        evaluator.run()
        return evaluator.state.metrics["val_dice"]

    alone = validation_dice("phantom_ct_001")
    assert 0 <= alone <= 1
    assert validation_dice("phantom_ct_001", "empty") == pytest.approx(alone)


def test_the_dice_of_a_class_that_neither_has_is_undefined():
    empty, found = torch.zeros(4, 4, 4), torch.zeros(4, 4, 4)
    found[0, 0, 0] = 2
    assert all(map(math.isnan, dice_per_class(empty, empty, CLASSES)))
    pancreas, tumour = dice_per_class(found, empty, CLASSES)
    assert math.isnan(pancreas)
    assert tumour == 0


def complaint(task, tmp_path):
    with pytest.raises(DataError) as caught:
        load_task(task, tmp_path / "checks", num_classes=CLASSES, in_channels=1)
    sentence = str(caught.value)
    assert sentence.startswith("Case odd: ")
    assert len(sentence.splitlines()) == 1
    assert sentence.endswith(".")
    return sentence


@pytest.mark.parametrize("channels", [2, 5])
def test_a_4d_file_of_other_channels_is_named(task, tmp_path, channels):
    image, label = scan((20, 20, 20))
    add(task, "odd", np.stack([image] * channels, axis=-1), label)
    said = complaint(task, tmp_path)
    assert f"imagesTr/odd.nii.gz has {channels} channels" in said
    assert "but there must be 1" in said


def test_a_4d_file_of_one_channel_is_as_good_as_a_3d_one(task, tmp_path):
    image, label = scan((34, 34, 34))
    add(task, "flat", image, label)
    add(task, "deep", image[..., None], label)
    flat, deep = items(task, tmp_path, "flat", "deep")
    transform = preprocessing(SOFT_TISSUE, (4.0, 4.0, 4.0))
    assert torch.equal(transform(flat)["image"], transform(deep)["image"])


@pytest.mark.parametrize(
    ("shape", "said"), [((20, 20), "neither a 3D volume"), ((20, 20, 20, 1, 2), "neither a 3D volume")]
)
def test_a_file_of_other_dimensions_is_named(task, tmp_path, shape, said):
    add(task, "odd", np.zeros(shape, np.int16), scan((20, 20, 20))[1])
    assert f"imagesTr/odd.nii.gz is {said}" in complaint(task, tmp_path)


def test_a_label_with_channels_is_named(task, tmp_path):
    image, label = scan((20, 20, 20))
    add(task, "odd", image, np.stack([label, label], axis=-1))
    assert "labelsTr/odd.nii.gz has 2 channels" in complaint(task, tmp_path)


def test_a_task_of_other_channels_is_refused_before_any_case_is_read(task, tmp_path):
    with pytest.raises(DataError, match=r"^in_channels: 2 does not fit .*, whose dataset.json has 1 modalities.$"):
        load_task(task, tmp_path / "checks", num_classes=CLASSES, in_channels=2)
