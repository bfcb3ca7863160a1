"""What a label cost, against counting by hand."""

import math

import nibabel as nib
import numpy as np
import pytest

from svgd_monai.rounds.people.cost import agreement, correction, empty_label, read_label, surface_of

CLASSES = {0: "background", 1: "organ", 2: "tumour"}


def box(shape=(12, 12, 12), low=2, high=8, value=1):
    volume = np.zeros(shape, dtype=np.int64)
    volume[low:high, low:high, low:high] = value
    return volume


def neighbours_by_hand(mask):
    """Voxels with a face towards what is not in the mask, one by one."""
    padded = np.pad(mask, 1)
    found = np.zeros_like(mask)
    for index in np.argwhere(mask):
        x, y, z = index + 1
        faces = [padded[x - 1, y, z], padded[x + 1, y, z], padded[x, y - 1, z], padded[x, y + 1, z],
                 padded[x, y, z - 1], padded[x, y, z + 1]]  # fmt: skip
        found[tuple(index)] = not all(faces)
    return found


def test_a_surface_is_what_has_a_face_outside():
    mask = np.random.default_rng(0).random((7, 8, 9)) > 0.2
    assert (surface_of(mask) == neighbours_by_hand(mask)).all()
    assert surface_of(np.ones((4, 4, 4), bool)).sum() == 4**3 - 2**3, "the volume's own edge is a surface"


def test_classes_that_were_stored_as_fractions_are_rounded(tmp_path):
    values = np.array([0.9999999, 1.9999998, 0.0, 2.0000002], dtype=np.float32).reshape(1, 2, 2)
    nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / "label.nii.gz")
    assert read_label(tmp_path / "label.nii.gz").flatten().tolist() == [1, 2, 0, 2]


def test_a_label_of_nothing_is_the_same_file_whenever_it_is_made(tmp_path, monkeypatch):
    nib.save(nib.Nifti1Image(np.zeros((2, 3, 4), np.uint8), np.eye(4)), tmp_path / "image.nii.gz")
    made = []
    for second in (1.0, 2.0):  # a killed command is given again
        monkeypatch.setattr("time.time", lambda second=second: second)
        made.append(empty_label(tmp_path / "image.nii.gz"))
    assert made[0] == made[1]


def test_an_unchanged_label_cost_nothing():
    found = correction(box(), box(), CLASSES)
    assert (found.voxels, found.surface_voxels, found.dice) == (0, 0, 1.0)


def test_a_box_that_grew_by_a_layer():
    label, made = box(high=9), box(high=8)
    found = correction(label, made, CLASSES)
    assert found.voxels == 7**3 - 6**3
    # The old and the new surface share the three faces at the low corner, but not where these meet the moved ones.
    expected = int((neighbours_by_hand(label == 1) & ~neighbours_by_hand(made == 1)).sum())
    assert found.surface_voxels == expected
    assert found.dice == pytest.approx(2 * 6**3 / (6**3 + 7**3))


def test_a_changed_class_counts_once_in_volume():
    label = box()
    label[4, 4, 4] = 2
    found = correction(label, box(), CLASSES)
    assert found.voxels == 1
    assert found.surface_voxels == 1 + 6, "the tumour's voxel, and the organ's six around it"


def test_nothing_on_both_sides_has_no_dice():
    empty = np.zeros((4, 4, 4), dtype=np.int64)
    assert math.isnan(correction(empty, empty, CLASSES).dice)


def test_two_annotators_agree_class_by_class():
    first, second = box(), box(low=3, high=9)
    second[10, 10, 10] = 2
    found = agreement(first, second, CLASSES)
    assert found["organ"] == pytest.approx(2 * 5**3 / (2 * 6**3))
    assert found["tumour"] == 0.0
    assert agreement(first, first, CLASSES)["tumour"] is None
