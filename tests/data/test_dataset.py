"""Volumes are read once for their content; a batch depends on the seed and its step alone."""

import hashlib
import importlib
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from functools import partial
from pathlib import Path

import monai
import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import CacheDataset, DataLoader, Dataset
from monai.transforms import Compose, Lambdad, MapTransform, RandGaussianNoised, RandSpatialCropd, ScaleIntensityd

from svgd_monai.data import (
    Draw,
    StepSampler,
    VolumeDataset,
    cache_key,
    epoch_length,
    epochs,
    fingerprints,
    preprocessing,
    transform_key,
)
from svgd_monai.data import dataset as module
from svgd_monai.errors import DataError, SettingsError

READS = []


class Read(MapTransform):
    """Reads a .npy file and notes it."""

    def __init__(self, factor=1.0):
        super().__init__(("image", "label"), allow_missing_keys=True)
        self.factor = factor

    def __call__(self, data):
        READS.append(data["case"])
        return dict(data) | {key: torch.as_tensor(np.load(data[key])) * self.factor for key in self.key_iterator(data)}


class Emptied(MapTransform):
    """Changes what it is given."""

    def __call__(self, data):
        data.pop("image")
        return data


@pytest.fixture(autouse=True)
def no_reads():
    READS.clear()


def items(folder, number=3, fingerprints=True):
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for n in range(number):
        item = {"case": f"case_{n}", "image": str(folder / f"image_{n}.npy"), "label": str(folder / f"label_{n}.npy")}
        np.save(item["image"], np.random.default_rng(n).normal(size=(1, 6, 6, 6)).astype(np.float32))
        np.save(item["label"], np.full((1, 6, 6, 6), n, np.uint8))
        made.append(item | ({"fingerprint": fingerprint(item)} if fingerprints else {}))
    return made


def fingerprint(item):
    return "+".join(hashlib.sha256(Path(item[key]).read_bytes()).hexdigest() for key in ("image", "label"))


def overwritten(item):
    """Another volume in the place of an item's image."""
    np.save(item["image"], np.zeros((1, 6, 6, 6), np.float32))
    return item


def random_transforms(factor=1.0):
    return Compose(
        [Read(factor), RandSpatialCropd(["image", "label"], (3, 3, 3), random_size=False),
         RandGaussianNoised("image", prob=0.5, std=1.0)]
    )  # fmt: skip


def plain(factor=1.0):
    return Compose([Read(factor)])


def test_an_item_holds_what_its_files_hold(tmp_path):
    data = items(tmp_path)
    dataset = VolumeDataset(data, plain(), None)
    assert len(dataset) == 3
    assert torch.equal(dataset[1]["image"], torch.as_tensor(np.load(data[1]["image"])))
    assert (dataset[2]["label"] == 2).all()
    assert dataset[2]["case"] == "case_2"


@pytest.mark.parametrize("on_disk", [True, False])
def test_a_file_is_read_once(tmp_path, on_disk):
    dataset = VolumeDataset(items(tmp_path), random_transforms(), tmp_path / "cache" if on_disk else None)
    for index in (0, 1, 0, Draw(0, 1), Draw(0, 2), 1):
        dataset[index]
    assert Counter(READS) == {"case_0": 1, "case_1": 1}


def test_a_new_data_set_reads_the_disk_cache(tmp_path):
    data = items(tmp_path)
    first = VolumeDataset(data, plain(), tmp_path / "cache")[1]
    READS.clear()
    second = VolumeDataset(data, plain(), tmp_path / "cache")[1]
    assert READS == []
    assert torch.equal(first["image"], second["image"])
    assert first["case"] == second["case"]


def test_moved_files_of_the_same_content_are_not_read_again(tmp_path):
    VolumeDataset(items(tmp_path / "old"), plain(), tmp_path / "cache")[1]
    READS.clear()
    shutil.move(tmp_path / "old", tmp_path / "new")
    moved = items(tmp_path / "new")
    dataset = VolumeDataset(moved, plain(), tmp_path / "cache")
    assert torch.equal(dataset[1]["image"], torch.as_tensor(np.load(moved[1]["image"])))
    assert READS == []


@pytest.mark.parametrize(
    "change",
    [
        lambda item: item | {"fingerprint": fingerprint(overwritten(item))},
        lambda item: item | {"case": "other"},
        lambda item: {key: value for key, value in item.items() if key != "label"},
    ],
    ids=["fingerprint", "case", "label withdrawn"],
)
def test_another_content_is_read(tmp_path, change):
    data = items(tmp_path)
    VolumeDataset(data, plain(), tmp_path / "cache")[0]
    READS.clear()
    item = VolumeDataset([change(data[0])], plain(), tmp_path / "cache")[0]
    assert len(READS) == 1
    assert ("label" in item) == ("label" in change(data[0]))


def test_a_file_that_changes_between_check_and_reading_is_refused_without_a_cache_too(tmp_path):
    data = items(tmp_path)
    overwritten(data[0])
    with pytest.raises(DataError, match=rf"^{data[0]['image']} has changed since it was checked"):
        VolumeDataset(data, plain(), None)[0]


def test_a_file_that_changes_between_check_and_reading_does_not_enter_the_cache(tmp_path):
    data = items(tmp_path)
    for key in ("image", "label"):
        before = Path(data[0][key]).read_bytes()
        np.save(data[0][key], np.zeros((1, 6, 6, 6), np.int16))
        with pytest.raises(DataError, match=rf"^{data[0][key]} has changed since it was checked"):
            VolumeDataset(data, plain(), tmp_path / "cache").prepare(0)
        Path(data[0][key]).write_bytes(before)
    item = VolumeDataset(data, plain(), tmp_path / "cache")[0]
    assert torch.equal(item["image"], torch.as_tensor(np.load(data[0]["image"])))


def test_a_fingerprint_of_the_users_own_is_taken_at_its_word(tmp_path):
    data = [item | {"fingerprint": f"version {n}"} for n, item in enumerate(items(tmp_path))]
    first = VolumeDataset(data, plain(), tmp_path / "cache")[0]
    overwritten(data[0])
    assert torch.equal(VolumeDataset(data, plain(), tmp_path / "cache")[0]["image"], first["image"])
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_another_preprocessing_is_computed(tmp_path):
    data = items(tmp_path)
    first = VolumeDataset(data, plain(), tmp_path / "cache")[0]
    second = VolumeDataset(data, plain(2.0), tmp_path / "cache")[0]
    torch.testing.assert_close(second["image"], 2 * first["image"])


@pytest.mark.parametrize("key", ["image", "label"])
def test_without_a_fingerprint_a_files_time_stands_for_its_content(tmp_path, key):
    data = items(tmp_path, fingerprints=False)
    VolumeDataset(data, plain(), tmp_path / "cache")[0]
    assert VolumeDataset(data, plain(), tmp_path / "cache")[0] is not None
    assert len(READS) == 1
    os.utime(data[0][key], ns=(1, 1))
    VolumeDataset(data, plain(), tmp_path / "cache")[0]
    assert len(READS) == 2
    Path(data[0][key]).unlink()
    with pytest.raises(DataError, match=rf"^{data[0][key]} cannot be read \(No such file or directory\)\.$"):
        VolumeDataset(data, plain(), tmp_path / "cache")[0]


def volumes(folder, number):
    """An item without case and fingerprint, its files named as those of every other."""
    folder.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(number).normal(size=(6, 6, 6)).astype(np.float32)
    for name, values in (("t1", noise), ("seg", np.full((6, 6, 6), number, np.uint8))):
        nib.save(nib.Nifti1Image(values, np.eye(4)), folder / f"{name}.nii.gz")
    return {"image": str(folder / "t1.nii.gz"), "label": str(folder / "seg.nii.gz")}


def read_volumes(data, cache_dir):
    dataset = VolumeDataset(data, preprocessing(ScaleIntensityd("image"), (1.0, 1.0, 1.0)), cache_dir, num_classes=4)
    return [dataset[index] for index in range(len(dataset))]


class TestItemsThatNobodyHasChecked:
    def test_files_of_one_name_in_several_folders_are_read_each(self, tmp_path):
        one, other = read_volumes([volumes(tmp_path / f"patient_{n}", n) for n in (1, 2)], tmp_path / "cache")
        assert not torch.equal(one["image"], other["image"])
        assert (one["label"] == 1).all()
        assert (other["label"] == 2).all()

    def test_several_labels_of_an_image_are_read_each(self, tmp_path):
        first, second = (volumes(tmp_path / f"annotator_{n}", n) for n in (1, 2))
        data = [first, {**second, "image": first["image"]}, {"image": first["image"]}]
        one, other, unlabelled = read_volumes(data, tmp_path / "cache")
        assert (one["label"] == 1).all()
        assert (other["label"] == 2).all()
        assert "label" not in unlabelled

    def test_of_files_of_one_name_the_bad_one_is_named(self, tmp_path):
        data = [volumes(tmp_path / f"patient_{n}", n) for n in (1, 2)]
        Path(data[0]["image"]).write_bytes(b"")
        with pytest.raises(DataError, match=rf"^Case {re.escape(data[0]['image'])} and .*is empty"):
            read_volumes(data, tmp_path / "cache")

    def test_a_label_that_was_corrected_is_read(self, tmp_path):
        item, other = (volumes(tmp_path / f"patient_{n}", n) for n in (1, 3))
        (before,) = read_volumes([item], tmp_path / "cache")
        shutil.copy(other["label"], item["label"])
        (after,) = read_volumes([item], tmp_path / "cache")
        assert (before["label"] == 1).all()
        assert (after["label"] == 3).all()


def test_a_transform_that_changes_its_item_in_place_leaves_the_list_alone(tmp_path):
    data = items(tmp_path)
    dataset = VolumeDataset(data, Compose([Emptied("image")]), None, memory=0)
    for read in (dataset.prepare, dataset.__getitem__):
        read(0)
        assert dataset.data[0].keys() == {"case", "image", "label", "fingerprint"}


@pytest.mark.parametrize("share", [0.0, 0.3, 0.95])
def test_a_damaged_cache_file_is_made_again(tmp_path, share):
    data = items(tmp_path)
    expected = VolumeDataset(data, plain(), tmp_path / "cache")[0]
    (file,) = (tmp_path / "cache").iterdir()
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    READS.clear()
    again = VolumeDataset(data, plain(), tmp_path / "cache")[0]
    assert READS == ["case_0"]
    assert torch.equal(again["image"], expected["image"])
    assert torch.equal(VolumeDataset(data, plain(), tmp_path / "cache")[0]["image"], expected["image"])
    assert READS == ["case_0"]


def test_a_cache_that_may_only_be_read_gives_the_same_volumes(tmp_path, monkeypatch):
    data = items(tmp_path)

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(module, "write_torch", refuse)
    dataset = VolumeDataset(data, plain(), tmp_path / "cache")
    assert torch.equal(dataset[1]["image"], torch.as_tensor(np.load(data[1]["image"])))


def test_a_write_of_the_cache_that_fails_leaves_no_part_of_a_file(tmp_path, monkeypatch):
    dataset = VolumeDataset(items(tmp_path), plain(), tmp_path / "cache")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="No space"):
        dataset[0]
    assert list((tmp_path / "cache").iterdir()) == []


def test_changes_to_an_item_do_not_reach_the_cache(tmp_path):
    dataset = VolumeDataset(items(tmp_path), plain(), tmp_path / "cache")
    expected = dataset[0]["image"].clone()
    dataset[0]["image"].zero_()
    assert torch.equal(dataset[0]["image"], expected)


def test_memory_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MEMORY_BYTES", 6**3 * 8 * 2)  # two of the three
    dataset = VolumeDataset(items(tmp_path), plain(), None)
    for index in (0, 1, 2, 0, 1, 2):
        dataset[index]
    assert Counter(READS) == {"case_0": 1, "case_1": 1, "case_2": 2}


def test_a_volume_that_is_read_once_is_not_kept_in_memory(tmp_path):
    dataset = VolumeDataset(items(tmp_path), plain(), tmp_path / "cache", memory=0)
    first = dataset[0]["image"]
    assert dataset[0]["image"] is not first
    assert torch.equal(dataset[0]["image"], first)
    assert Counter(READS) == {"case_0": 1}  # the disk cache holds it
    first.zero_()
    assert not torch.equal(dataset[0]["image"], first)


def images(dataset, numbers):
    """The draws of these numbers, of the items in turn."""
    size = len(dataset)
    return {number: dataset[Draw(number % size, number // size)]["image"].clone() for number in numbers}


def equal(one, other):
    return all(torch.equal(one[index], other[index]) for index in one)


def test_a_draw_depends_on_the_seed_and_its_number_alone(tmp_path):
    data = items(tmp_path)
    forwards = images(VolumeDataset(data, random_transforms(), None, seed=5), range(12))
    backwards = images(VolumeDataset(data, random_transforms(), tmp_path / "cache", seed=5), reversed(range(12)))
    alone = images(VolumeDataset(data, random_transforms(), tmp_path / "cache", seed=5), [7])
    assert equal(forwards, backwards)
    assert torch.equal(alone[7], forwards[7])
    assert not equal(forwards, images(VolumeDataset(data, random_transforms(), None, seed=6), range(12)))


def test_equal_files_give_equal_items_at_a_draw(tmp_path):
    data = items(tmp_path)
    twins = [data[0], data[0] | {"case": "twin", "fingerprint": "twin"}]
    dataset = VolumeDataset(twins, random_transforms(), None)
    for draw in range(10):
        assert torch.equal(*images(dataset, [2 * draw, 2 * draw + 1]).values())


def test_the_draws_of_an_item_differ(tmp_path):
    dataset = VolumeDataset(items(tmp_path, 1), random_transforms(), None)
    drawn_images = {tuple(image.flatten().tolist()) for image in images(dataset, range(60)).values()}
    # About half of the draws have no noise; those share 4 x 4 x 4 windows.
    assert len(drawn_images) > 45


def test_the_global_streams_do_not_matter_and_are_left_alone(tmp_path):
    dataset = VolumeDataset(items(tmp_path), random_transforms(), None, seed=5)
    np.random.seed(1)  # which transforms could draw from
    torch.manual_seed(1)
    first = images(dataset, range(6))
    assert np.random.get_state()[1].tolist() == np.random.RandomState(1).get_state()[1].tolist()
    assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(1)))
    assert equal(first, images(dataset, range(6)))


def loaded(dataset, workers, steps=6, start=0):
    sampler = StepSampler(len(dataset), 2, steps, seed=3)
    sampler.start = start
    loader = DataLoader(dataset, batch_sampler=sampler, num_workers=workers)
    return [(batch["case"], batch["image"]) for batch in loader]


def test_batches_are_the_same_for_any_number_of_workers_and_after_a_restart(tmp_path):
    data = items(tmp_path)
    alone = loaded(VolumeDataset(data, random_transforms(), tmp_path / "cache", seed=5), 0)
    shared = loaded(VolumeDataset(data, random_transforms(), tmp_path / "cache", seed=5), 2)
    resumed = loaded(VolumeDataset(data, random_transforms(), None, seed=5), 0, start=4)
    assert len(alone) == 6
    for one, other in [*zip(alone, shared, strict=True), *zip(alone[4:], resumed, strict=True)]:
        assert one[0] == other[0]
        assert torch.equal(one[1], other[1])


@pytest.mark.parametrize("kind", [Dataset, partial(CacheDataset, progress=False)])
def test_the_batches_of_a_dataset_of_monais_have_the_same_items(tmp_path, kind):
    data = items(tmp_path)
    ours, theirs = (loaded(dataset, 0) for dataset in (VolumeDataset(data, plain(), None), kind(data, plain())))
    for one, other in zip(ours, theirs, strict=True):
        assert one[0] == other[0]
        assert torch.equal(one[1], other[1])
    assert fingerprints(kind(data, plain())) == fingerprints(VolumeDataset(data, plain(), None))


def test_an_index_counts_from_either_end_and_not_beyond(tmp_path):
    dataset = VolumeDataset(items(tmp_path), plain(), None)
    assert dataset[-1]["case"] == dataset[2]["case"] == "case_2"
    with pytest.raises(IndexError):
        dataset[3]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_sampler_of_the_users_own_gives_other_draws_in_every_epoch(tmp_path, workers):
    loader = DataLoader(VolumeDataset(items(tmp_path), random_transforms(), None), num_workers=workers)
    first, *others = [torch.cat([batch["image"] for batch in loader]) for _ in range(4)]
    assert not any(torch.equal(first, other) for other in others)


USERS = """
from monai.transforms import MapTransform

class Divide(MapTransform):
    def __call__(self, data):
        return {**data, "image": data["image"] / DIVISOR}

def halve(x):
    return x / 2
"""


def test_a_transform_of_the_users_whose_code_has_changed_is_another_one(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    module, keys = tmp_path / "users_own_transform.py", []
    for divisor in (100, 1000, 1000):
        module.write_text(USERS + f"DIVISOR = {divisor}")
        for name in [name for name in sys.modules if name == "users_own_transform"]:
            del sys.modules[name]
        importlib.invalidate_caches()
        own = importlib.import_module("users_own_transform")
        keys.append([transform_key([own.Divide("image")]), transform_key([Lambdad("image", own.halve)])])
    assert keys[1] == keys[2]
    assert keys[0][0] != keys[1][0]
    assert keys[0][1] != keys[1][1], "the function that a transform of MONAI's calls"
    assert transform_key([ScaleIntensityd("image")]) != transform_key([ScaleIntensityd("image", maxv=2.0)])


@pytest.mark.parametrize(("owner", "name"), [(cache_key, "FORMAT"), (monai, "__version__")])
def test_volumes_of_another_version_are_made_again(owner, name, monkeypatch):
    before = transform_key([ScaleIntensityd("image")])
    monkeypatch.setattr(owner, name, "another")
    assert transform_key([ScaleIntensityd("image")]) != before


def test_a_class_that_inherits_from_one_whose_code_has_changed_is_another_one(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "users_heir.py").write_text("import users_base\n\nclass Half(users_base.Divide):\n    pass\n")
    keys = []
    for divisor in (100, 1000):
        (tmp_path / "users_base.py").write_text(USERS + f"DIVISOR = {divisor}")
        for name in ("users_base", "users_heir"):
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        keys.append(transform_key([importlib.import_module("users_heir").Half("image")]))
    assert keys[0] != keys[1]


def test_a_transform_with_a_nameless_function_is_refused(tmp_path):
    with pytest.raises(SettingsError, match=r"^Lambdad cannot be part of a cache's key .*define the function"):
        VolumeDataset(items(tmp_path / "data"), Compose([Lambdad("image", lambda x: x)]), tmp_path)


def hash_of_the_preprocessing():
    steps = preprocessing(ScaleIntensityd("image"), (1.0, 1.0, 2.0))
    return VolumeDataset([{"case": "a", "image": "a.nii"}], steps, None).transform_hash


def test_the_hash_of_a_preprocessing_is_the_same_when_it_was_used(phantom_mr):
    steps = preprocessing(ScaleIntensityd("image"))
    before = transform_key(steps.transforms)
    steps({"image": min((phantom_mr / "imagesTr").iterdir())})
    assert transform_key(steps.transforms) == before


def test_the_hash_of_a_preprocessing_is_the_same_in_every_process():
    """The keeper asks for it before it continues a training."""
    script = "import test_dataset; print(test_dataset.hash_of_the_preprocessing())"
    environment = os.environ | {"PYTHONHASHSEED": "7", "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == hash_of_the_preprocessing()


# StepSampler


def drawn(size, batch_size, steps, seed=0, start=0):
    sampler = StepSampler(size, batch_size, steps, seed)
    sampler.start = start
    return list(sampler)


@pytest.mark.parametrize(("size", "batch_size", "steps"), [(7, 3, 20), (3, 8, 9), (1, 4, 5), (8, 8, 4), (5, 1, 11)])
def test_every_permutation_covers_all_items_once(size, batch_size, steps):
    batches = drawn(size, batch_size, steps)
    assert [len(batch) for batch in batches] == [batch_size] * steps
    draws = [index for batch in batches for index in batch]
    assert [draw.number for draw in draws] == list(range(batch_size * steps))
    for begin in range(0, len(draws) - size + 1, size):
        assert sorted(draws[begin : begin + size]) == list(range(size))


def test_a_case_drawn_twice_stands_in_every_permutation_twice(tmp_path):
    data = items(tmp_path)
    dataset = VolumeDataset([data[0], data[1], data[2], data[1]], plain(), None)
    cases = [dataset[index]["case"] for batch in drawn(4, 2, 6) for index in batch]
    for begin in (0, 4, 8):
        assert Counter(cases[begin : begin + 4]) == {"case_0": 1, "case_1": 2, "case_2": 1}


def test_permutations_differ_from_one_another_and_by_seed():
    assert len({tuple(order) for order in drawn(9, 9, 6)}) == 6
    assert drawn(9, 9, 6) == drawn(9, 9, 6)
    assert drawn(9, 9, 6) != drawn(9, 9, 6, seed=1)


@pytest.mark.parametrize("start", [0, 1, 5, 11, 12])
def test_a_start_passes_over_exactly_its_steps(start):
    sampler = StepSampler(5, 3, 12)
    whole = list(sampler)
    sampler.start = start
    assert list(sampler) == whole[start:]
    assert len(sampler) == 12 - start


def test_more_steps_begin_like_fewer():
    assert drawn(5, 3, 20)[:7] == drawn(5, 3, 7)


@pytest.mark.parametrize(("size", "batch_size"), [(0, 1), (1, 0), (-1, 2)])
def test_nothing_can_be_drawn_from_nothing(size, batch_size):
    with pytest.raises(ValueError, match="cannot be drawn"):
        StepSampler(size, batch_size, 5)


# epochs between validations


def test_epochs_hold_all_steps_and_no_epoch_is_empty():
    for steps in range(1, 120):
        for validations in range(1, 30):
            length, count = epoch_length(steps, validations), epochs(steps, validations)
            assert (count - 1) * length < steps <= count * length
            assert 1 <= count <= validations
            assert length == 1 or (length - 1) * min(validations, steps) < steps  # the least such length


@pytest.mark.parametrize(("steps", "validations", "length", "count"), [(1500, 5, 300, 5), (10, 4, 3, 4), (3, 5, 1, 3)])
def test_worked_numbers_of_epochs(steps, validations, length, count):
    assert (epoch_length(steps, validations), epochs(steps, validations)) == (length, count)


def test_streams_are_shuffled_independently_and_the_first_is_the_shared_one():
    alone, three = drawn(7, 2, 35), list(StepSampler(7, 2, 35, streams=3))
    items = [[batch[2 * s : 2 * s + 2] for batch in three] for s in range(3)]
    assert items[0] == alone
    for stream in items:
        flat = [item for batch in stream for item in batch]
        assert all(sorted(flat[begin : begin + 7]) == list(range(7)) for begin in range(0, 70, 7))
    assert items[0] != items[1] != items[2] != items[0]
    numbers = [draw.number for batch in three for draw in batch]
    assert len(set(numbers)) == len(numbers)  # which seed the random transforms


def test_streams_continue_where_they_were():
    sampler = StepSampler(5, 2, 12, streams=2)
    whole = list(sampler)
    sampler.start = 5
    assert list(sampler) == whole[5:]
