"""Before the first round every case is looked at, and what is odd is named once."""

import hashlib
from dataclasses import replace

import nibabel
import numpy as np
import pytest
from monai.transforms import Identityd, ScaleIntensityd

from svgd_monai.data import Split, load_task, make_phantom, preprocessing
from svgd_monai.errors import SettingsError
from svgd_monai.files import read_csv
from svgd_monai.rounds.prepare import prepare_items, prepare_volumes

PADDED = preprocessing(Identityd("image"), pad_to=(16, 16, 16))


@pytest.fixture
def make(tmp_path):
    """An item of the values given; with a label it is another one to the cache, of the same case."""

    def item(case, values, **label):
        path = tmp_path / f"{case}.nii.gz"
        nibabel.save(nibabel.Nifti1Image(values.astype(np.float32), np.eye(4)), path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        known = "+".join([digest] * (1 + len(label)))
        return {"case": case, "image": str(path), "fingerprint": known, **{key: str(path) for key in label}}

    return item


def values(seed, shape=(10, 10, 10)):
    return np.random.default_rng(seed).random(shape)


def test_constant_images_and_those_beyond_the_histogram_are_named_once(make, tmp_path, caplog):
    flat, level = np.full((10, 10, 10), 0.5), np.full((16, 16, 16), 0.5)
    high, low, nearly = values(1), values(2), values(3)
    high.flat[:60], low.flat[:60], nearly.flat[:40] = 2, -1, 2
    items = [
        make("plain", values(0)), make("flat", flat, label=True), make("flat", flat), make("level", level),
        make("high", high, label=True), make("high", high), make("low", low), make("nearly", nearly),
    ]  # fmt: skip
    assert prepare_items(items, PADDED, tmp_path / "cache") == ["flat", "level"]
    constant, also, beyond = caplog.messages
    assert constant == "case flat: the image is constant after preprocessing"
    assert also.startswith("case level: ")
    assert beyond.startswith("intensity: in 2 cases (high first) more than 5 % of the voxels")


def test_images_that_were_clipped_at_the_top_are_named_once(make, tmp_path, caplog):
    """A clip for Hounsfield units leaves little of a scan in other ones, and nobody would see why."""
    high, nearly = values(0), values(1)
    high.flat[:260] = nearly.flat[:240] = 1
    one_channel = np.stack([values(2), high], -1)
    items = [
        make("nearly", nearly), make("high", high, label=True), make("high", high), make("one channel", one_channel),
        make("flat", np.ones((10, 10, 10))),
    ]  # fmt: skip
    assert prepare_items(items, preprocessing(Identityd("image")), tmp_path / "cache") == ["flat"]
    _, clipped = caplog.messages
    assert clipped.startswith("intensity: in 2 cases (high first) more than 25 % of the voxels have the highest value")


def test_an_image_with_one_constant_channel_is_not_constant(make, tmp_path):
    flat = np.full((10, 10, 10), 0.5)
    items = [make("one", np.stack([values(0), flat], -1)), make("both", np.stack([flat, flat], -1))]
    assert prepare_items(items, preprocessing(Identityd("image")), tmp_path / "cache") == ["both"]


def test_the_images_that_are_compared_are_of_one_shape(make, tmp_path):
    items = [make("small", values(0)), make("large", values(1, (10, 10, 12))), make("other", values(2))]
    plain = preprocessing(Identityd("image"))
    sentence = r"^mi_grid: null .* but small has \(10, 10, 10\) voxels and large \(10, 10, 12\); give a"
    with pytest.raises(SettingsError, match=sentence):
        prepare_items(items, plain, tmp_path / "cache", compared=("small", "large", "other"))
    prepare_items(items, plain, tmp_path / "cache", compared=("small", "other"))
    prepare_items(items, PADDED, tmp_path / "cache", compared=("small", "large", "other"))


def test_a_run_prepares_all_its_cases_compares_its_pool_and_flags_what_is_odd(tmp_path):
    root = make_phantom(tmp_path / "data", "mr", 12)
    names = sorted(path.name for path in (root / "imagesTr").iterdir())
    for folder in ("imagesTr", "labelsTr"):  # the last case is a copy of the first one
        (root / folder / names[-1]).write_bytes((root / folder / names[0]).read_bytes())
    task = load_task(root, tmp_path / "cache")
    first, second, third, *others, last = sorted(task.dataset.items)
    split = Split(initial=(last,), pool=(second, *others), validation=(third,), test=(first,))
    task.facts[third] = replace(task.facts[third], spacing=(1.0, 1.0, 9.0))
    scaled, flags = preprocessing(ScaleIntensityd("image")), tmp_path / "flagged_cases.csv"
    with pytest.raises(SettingsError, match=r"^mi_grid: null needs volumes of one shape"):
        prepare_volumes(task, split, scaled, tmp_path / "volumes", one_shape=True)
    assert prepare_volumes(task, replace(split, pool=()), scaled, tmp_path / "volumes", one_shape=True) == []
    assert prepare_volumes(task, split, scaled, tmp_path / "volumes", flags) == []
    assert [(row["case"], row["role"], row["what"], row["other_role"]) for row in read_csv(flags)] == [
        (first, "test", "copy", "initial"), (third, "validation", "spacing", ""), (last, "initial", "copy", "test"),
    ]  # fmt: skip
    # The initial one with its label and without.
    assert len(list((tmp_path / "volumes").iterdir())) == 12 + 1
