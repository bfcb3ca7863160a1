"""Every case is checked by name; whatever is wrong with a file is said in one sentence that names it."""

import gzip
import json
import logging
import os
import pathlib
import time
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from svgd_monai.data import check_cache, checks
from svgd_monai.data.checks import check_case, check_cases, dataset_fingerprint
from svgd_monai.data.datalist import read_dataset
from svgd_monai.errors import DataError

CLASSES = {0: "background", 1: "organ", 2: "tumour"}
SHAPE = (4, 5, 6)
AFFINE = np.diag([-0.5, 1.0, 2.0, 1.0])
DIM, DATATYPE, VOX_OFFSET, XYZT_UNITS, SROW_X = 40, 70, 108, 123, 280  # offsets of fields in a NIfTI-1 header


def write_volume(path, values, affine=AFFINE, kind=nib.Nifti1Image):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(kind(values, affine), path)
    return path


def intensities(shape=SHAPE, dtype=np.float32):
    return np.arange(np.prod(shape), dtype=dtype).reshape(shape)


def labels(shape=SHAPE, dtype=np.uint8):
    values = np.zeros(shape, dtype)
    values[0], values[1, 0] = 1, 2
    return values


def make_case(folder, case="scan_1", image=None, label=None, suffix=".nii.gz"):
    image_path = folder / "imagesTr" / f"{case}{suffix}"
    label_path = folder / "labelsTr" / f"{case}{suffix}"
    write_volume(image_path, intensities() if image is None else image)
    write_volume(label_path, labels() if label is None else label)
    return {"case": case, "image": str(image_path), "label": str(label_path)}


def complaint(function, *arguments, **options):
    with pytest.raises(DataError) as caught:
        function(*arguments, **options)
    sentence = str(caught.value)
    assert len(sentence.splitlines()) == 1
    assert sentence.endswith(".")
    return sentence


def patch(path, offset, content):
    """Overwrite bytes of the uncompressed file."""
    compressed = path.name.endswith(".gz")
    raw = bytearray(gzip.decompress(path.read_bytes()) if compressed else path.read_bytes())
    raw[offset : offset + len(content)] = content
    path.write_bytes(gzip.compress(raw) if compressed else raw)


@pytest.fixture
def item(tmp_path):
    return make_case(tmp_path)


def fault_of(item, key, *parts):
    """The complaint names the file under ``key`` and says ``parts``."""
    sentence = complaint(check_case, item, CLASSES)
    assert item[key] in sentence
    assert all(part in sentence for part in parts), sentence
    return sentence


class TestFacts:
    def test_say_what_the_files_hold(self, item):
        facts = check_case(item, CLASSES)
        assert (facts.shape, facts.spacing) == (SHAPE, (0.5, 1.0, 2.0))
        assert (facts.image_min, facts.image_max) == ((0.0,), (119.0,))
        assert facts.affine == tuple(map(tuple, AFFINE.tolist()))
        assert facts.label_values == (0, 1, 2)
        # 1 mm³ a voxel, a left-handed affine
        assert facts.volume_ml == pytest.approx({0: 0.084, 1: 0.030, 2: 0.006})

    def test_absent_class_has_no_volume_and_is_no_label_value(self, tmp_path):
        facts = check_case(make_case(tmp_path, label=np.zeros(SHAPE, np.uint8)), CLASSES)
        assert facts.label_values == (0,)
        assert (facts.volume_ml[1], facts.volume_ml[2]) == (0, 0)

    def test_case_without_label_has_none(self, item):
        del item["label"]
        facts = check_case(item, CLASSES)
        assert (facts.label_sha256, facts.label_values, facts.volume_ml) == (None, (), {})

    @pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
    @pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
    @pytest.mark.parametrize("dtype", ["<i2", ">i2", "<f4", ">f8", "u1"])
    def test_do_not_depend_on_how_the_numbers_are_stored(self, tmp_path, kind, suffix, dtype):
        header = kind.header_class(endianness=">" if dtype[0] == ">" else "<")
        path = tmp_path / f"scan_1{suffix}"
        nib.save(kind(intensities(dtype=dtype), AFFINE, header), path)
        facts = check_case({"case": "scan_1", "image": str(path)}, CLASSES)
        assert (facts.shape, facts.spacing) == (SHAPE, (0.5, 1.0, 2.0))
        assert (facts.image_min, facts.image_max) == ((0,), (119,))

    def test_intensities_are_scaled_as_the_header_says(self, tmp_path):
        volume = nib.Nifti1Image(intensities(dtype=np.int16), AFFINE)
        volume.header.set_slope_inter(2.0, -1024.0)
        nib.save(volume, tmp_path / "scan_1.nii.gz")
        facts = check_case({"case": "scan_1", "image": str(tmp_path / "scan_1.nii.gz")}, CLASSES)
        assert (facts.image_min, facts.image_max) == ((-1024,), (2 * 119 - 1024,))

    def test_labels_that_a_scale_makes_whole_but_for_rounding_are_whole(self, tmp_path):
        item = make_case(tmp_path)
        volume = nib.Nifti1Image(labels(dtype=np.uint8) * 10, AFFINE)
        volume.header.set_slope_inter(0.1, 0)
        nib.save(volume, item["label"])
        stored = nib.load(item["label"]).dataobj
        assert set(np.unique(stored)) != {0, 1, 2}, "0.1 in single precision is a little more"
        facts, plain = check_case(item, CLASSES), check_case(make_case(tmp_path / "plain"), CLASSES)
        assert (facts.label_values, facts.volume_ml) == (plain.label_values, plain.volume_ml)

    @pytest.mark.parametrize("unit", ["meter", "micron"])
    def test_another_unit_than_millimetres_is_refused(self, tmp_path, unit):
        item = make_case(tmp_path)
        volume = nib.Nifti1Image(intensities(), AFFINE)
        volume.header.set_xyzt_units(unit)
        nib.save(volume, item["image"])
        fault_of(item, "image", f"in the unit {unit}; write it in mm")

    @pytest.mark.parametrize("code", [0, 2, 10, 5, 0x7F & ~3])
    def test_any_other_unit_is_taken_for_millimetres(self, item, code):
        patch(Path(item["image"]), XYZT_UNITS, bytes([code]))
        assert check_case(item, CLASSES).spacing == (0.5, 1.0, 2.0)

    def test_header_extensions_are_no_fault(self, tmp_path):
        volume = nib.Nifti1Image(intensities(), AFFINE)
        volume.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"x" * 1000))
        nib.save(volume, tmp_path / "scan_1.nii.gz")
        assert check_case({"case": "scan_1", "image": str(tmp_path / "scan_1.nii.gz")}, CLASSES).image_max == (119,)

    def test_gzip_of_several_members_is_read_whole(self, item):
        path = Path(item["image"])
        raw = gzip.decompress(path.read_bytes())
        path.write_bytes(gzip.compress(raw[:400]) + gzip.compress(raw[400:]))
        assert check_case(item, CLASSES).image_max == (119,)

    def test_whole_numbers_stored_as_floats_are_labels(self, tmp_path):
        facts = check_case(make_case(tmp_path, label=labels(dtype=np.float32)), CLASSES)
        assert facts.label_values == (0, 1, 2)

    def test_affines_may_differ_by_rounding(self, item):
        write_volume(Path(item["label"]), labels(), AFFINE + 2e-4)
        assert check_case(item, CLASSES).shape == SHAPE

    def test_a_tenth_of_a_voxel_is_tolerated_at_the_corners(self, tmp_path):
        """A turn moves a voxel the further, the further it lies from the first one."""
        shape, spacing = (200, 3, 2), 0.5
        small, large = 0.04 / 199, 0.16 / 199  # radians: 0.04 and 0.16 voxels at the far end, no entry by 1e-3 voxels
        image = write_volume(tmp_path / "scan_1.nii.gz", intensities(shape), np.diag([spacing] * 3 + [1]))
        for angle in (small, large):
            turned = np.eye(4)
            turned[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
            label = write_volume(tmp_path / "l.nii.gz", labels(shape), turned @ np.diag([spacing] * 3 + [1]))
            item = {"case": "scan_1", "image": str(image), "label": str(label)}
            if angle == small:
                assert check_case(item, CLASSES).shape == shape
            else:
                fault_of(item, "label", "affine", "0.08 mm")


@pytest.mark.parametrize("key", ["image", "label"])
class TestUnreadableFiles:
    def test_missing(self, item, key):
        Path(item[key]).unlink()
        fault_of(item, key, "No such file")

    def test_empty(self, item, key):
        Path(item[key]).write_bytes(b"")
        fault_of(item, key, "is empty")

    def test_no_permission(self, item, key, monkeypatch):
        read_bytes = pathlib.Path.read_bytes

        def refuse(path):
            if str(path) == item[key]:
                raise PermissionError(13, "Permission denied", str(path))
            return read_bytes(path)

        monkeypatch.setattr(pathlib.Path, "read_bytes", refuse)
        fault_of(item, key, "Permission denied")

    def test_a_folder(self, item, key):
        Path(item[key]).unlink()
        Path(item[key]).mkdir()
        fault_of(item, key, "cannot be read")

    @pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
    def test_cut_off_gzip(self, item, key, kept):
        path = Path(item[key])
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
        fault_of(item, key, "cut off or damaged")

    def test_any_flipped_byte(self, tmp_path, key):
        rng = np.random.default_rng(0)
        item = make_case(tmp_path, image=rng.normal(size=SHAPE), label=rng.integers(0, 3, SHAPE, np.uint8))
        path = Path(item[key])
        sound = gzip.compress(gzip.decompress(path.read_bytes()))
        for position in range(10, len(sound), 5):  # behind gzip's own header, which holds time and system
            path.write_bytes(sound[:position] + bytes([sound[position] ^ 0xFF]) + sound[position + 1 :])
            fault_of(item, key)

    def test_web_page_in_place_of_gzip(self, item, key):
        Path(item[key]).write_bytes(b"<!DOCTYPE html>\n<html>404</html>")
        fault_of(item, key, "not gzip", "<!DOCTYPE html>")

    @pytest.mark.parametrize("content", [b"hello", b"x" * 1000, (348).to_bytes(4, "little") * 2])
    def test_gzip_of_something_else(self, item, key, content):
        Path(item[key]).write_bytes(gzip.compress(content))
        fault_of(item, key, "is not a NIfTI file")

    def test_analyze_header_without_the_magic(self, item, key):
        patch(Path(item[key]), 344, b"\0\0\0\0")
        fault_of(item, key, "damaged header")


class TestUncompressedFiles:
    @pytest.fixture
    def item(self, tmp_path):
        return make_case(tmp_path, suffix=".nii")

    def test_cut_off(self, item):
        path = Path(item["image"])
        path.write_bytes(path.read_bytes()[:-7])
        fault_of(item, "image", str(SHAPE), f"{352 + 480} bytes", f"{352 + 480 - 7} bytes")

    def test_surplus(self, item):
        path = Path(item["image"])
        path.write_bytes(path.read_bytes() + b"\0")
        fault_of(item, "image", str(SHAPE), "but holds more")

    def test_gzip_under_the_wrong_name(self, item):
        path = Path(item["image"])
        path.write_bytes(gzip.compress(path.read_bytes()))
        fault_of(item, "image", "is not a NIfTI file")


class TestHeaders:
    @pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
    def test_huge_claim_is_refused_before_it_is_allocated(self, tmp_path, suffix, monkeypatch):
        item = make_case(tmp_path, suffix=suffix)
        patch(Path(item["image"]), DIM, np.array([3, 32767, 32767, 32767], "<i2").tobytes())
        # Reading on would ask for 140 TB.
        monkeypatch.setattr(nib.Nifti1Image, "from_bytes", lambda *_: pytest.fail("the header was believed"))
        fault_of(item, "image", "(32767, 32767, 32767)", "cannot hold")

    def test_claim_beyond_64_bits_is_refused(self, tmp_path):
        path = write_volume(tmp_path / "scan_1.nii.gz", intensities(), kind=nib.Nifti2Image)
        patch(path, 16, np.array([3, 2**62, 2**62, 2**62], "<i8").tobytes())
        fault_of({"case": "scan_1", "image": str(path)}, "image", str(2**62), "cannot hold")

    def test_gzip_that_holds_less_than_claimed(self, item):
        patch(Path(item["image"]), DIM, np.array([3, 8, 5, 6], "<i2").tobytes())
        fault_of(item, "image", "(8, 5, 6)", f"{352 + 960} bytes", f"holds {352 + 480}")

    def test_gzip_that_unpacks_to_far_more_than_claimed_is_not_unpacked(self, item):
        path = Path(item["image"])
        path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + bytes(2**20)))
        fault_of(item, "image", "holds more")

    @pytest.mark.parametrize("shape", [(4,), (4, 5), (4, 5, 6, 1, 1), (4, 5, 6, 1, 3), (4, 5, 6, 2, 1, 1)])
    def test_volume_not_3d_says_its_shape(self, tmp_path, shape):
        fault_of(make_case(tmp_path, image=intensities(shape)), "image", "neither a 3D volume nor", str(shape))

    @pytest.mark.parametrize("shape", [(4, 0, 6), (4, -5, 6), (4, 5, 6, 0), (4, 5, 6, -2)])
    def test_side_without_voxels_says_the_shape(self, item, shape):
        patch(Path(item["image"]), DIM, np.array([len(shape), *shape], "<i2").tobytes())
        fault_of(item, "image", "neither a 3D volume nor", str(shape))

    @pytest.mark.parametrize("code", [32, 128, 1792])  # complex, RGB, complex of doubles
    def test_data_that_are_not_plain_numbers(self, item, code):
        patch(Path(item["image"]), DATATYPE, np.array([code], "<i2").tobytes())
        fault_of(item, "image", "data type")

    def test_unknown_data_type(self, item):
        patch(Path(item["image"]), DATATYPE, np.array([77], "<i2").tobytes())
        fault_of(item, "image", "damaged header")

    @pytest.mark.parametrize("value", [np.nan, np.inf, -1.0, 1e30])
    def test_absurd_start_of_the_data(self, item, value):
        patch(Path(item["image"]), VOX_OFFSET, np.array([value], "<f4").tobytes())
        fault_of(item, "image")

    @pytest.mark.parametrize(
        "rows",
        [
            [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]],
            [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0]],
            [[1, 1, 0, 0], [1, 1 + 5e-7, 0, 0], [0, 0, 1, 0]],
            [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, np.nan, 0]],
            [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, np.inf]],
        ],
    )
    def test_affine_that_cannot_be_inverted(self, item, rows):
        patch(Path(item["image"]), SROW_X, np.array(rows, "<f4").tobytes())
        fault_of(item, "image", "affine that cannot be inverted")

    @pytest.mark.parametrize("side", [1e200, 1e100])
    def test_voxels_beyond_all_measure(self, tmp_path, side):
        affine = np.diag([side, 1.0, 1.0, 1.0])
        path = write_volume(tmp_path / "scan_1.nii.gz", intensities(), affine, nib.Nifti2Image)
        patch(path, 400, np.array(affine[:3], "<f8").tobytes())
        fault_of({"case": "scan_1", "image": str(path)}, "image", "affine")

    def test_small_voxels_are_no_fault(self, tmp_path):
        path = write_volume(tmp_path / "scan_1.nii.gz", intensities(), np.diag([1e-3, 1e-3, 1e-3, 1]))
        assert check_case({"case": "scan_1", "image": str(path)}, CLASSES).spacing == pytest.approx([1e-3] * 3)

    @settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(offset=st.integers(0, 351), content=st.binary(min_size=1, max_size=8))
    def test_no_damage_to_a_header_ends_in_another_error(self, tmp_path, offset, content):
        path = write_volume(tmp_path / "scan_1.nii", intensities())
        patch(path, offset, content[: 352 - offset])
        fault = None
        try:
            check_case({"case": "scan_1", "image": str(path)}, CLASSES)
        except DataError as error:
            fault = str(error)
        assert fault is None or (str(path) in fault and len(fault.splitlines()) == 1)


class TestValues:
    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("key", ["image", "label"])
    def test_some_not_finite_are_counted(self, tmp_path, value, key):
        values = (intensities if key == "image" else labels)(dtype=np.float32)
        values[2, 2, :3] = value
        fault_of(make_case(tmp_path, **{key: values}), key, "NaN or infinite: 3 of 120")

    def test_all_nan(self, tmp_path):
        fault_of(make_case(tmp_path, image=np.full(SHAPE, np.nan)), "image", "NaN or infinite: all 120")

    def test_too_great_for_training_in_32_bit(self, tmp_path):
        values = intensities(dtype=np.float64)
        values[0, 0, 0] = 1e300
        fault_of(make_case(tmp_path, image=values), "image", "1 of 120")

    def test_label_of_another_shape(self, tmp_path):
        fault_of(make_case(tmp_path, label=labels((5, 4, 6))), "label", "(5, 4, 6)", "(4, 5, 6)")

    @pytest.mark.parametrize(("position", "moved"), [((0, 0), 0.03), ((0, 1), 0.04), ((2, 3), 0.01)])
    def test_label_of_another_affine(self, item, position, moved):
        affine = AFFINE.copy()
        affine[position] += 0.01
        write_volume(Path(item["label"]), labels(), affine)
        fault_of(item, "label", "affine", f"by up to {moved:.3g} mm")

    @pytest.mark.parametrize(("axes", "code"), [("flipped", "RAS"), ("swapped", "ALS")])
    def test_label_in_another_orientation_on_the_same_grid(self, item, axes, code):
        """As programs leave it that turn what they read to their own orientation."""
        turn = [[0, -1], [1, 1], [2, 1]] if axes == "flipped" else [[1, 1], [0, 1], [2, 1]]
        label = nib.load(item["label"]).as_reoriented(turn)
        nib.save(label, item["label"])
        fault_of(item, "label", f"is stored in another orientation than its image ({code}, the image LAS); save it")

    def test_label_in_another_orientation_and_cut_off(self, item):
        label = nib.load(item["label"]).slicer[:3].as_reoriented([[1, 1], [0, 1], [2, 1]])
        nib.save(label, item["label"])
        fault_of(item, "label", "another orientation", "(ALS, the image LAS) and is (3, 5, 6) where that is (4, 5, 6)")

    @pytest.mark.parametrize("column", [(0, 0, 5), (0, 0.4, 1)])
    def test_a_single_slice_has_a_thickness_and_a_direction(self, tmp_path, column):
        item = make_case(tmp_path, image=intensities((6, 5, 1)), label=labels((6, 5, 1)))
        label = nib.load(item["label"])
        affine = label.affine.copy()
        affine[:3, 2] = column
        nib.save(nib.Nifti1Image(np.asarray(label.dataobj), affine), item["label"])
        fault_of(item, "label", "affine that differs")

    def test_label_with_a_flipped_axis_of_one_voxel_is_on_the_grid(self, tmp_path):
        item = make_case(tmp_path, image=intensities((6, 5, 1)), label=labels((6, 5, 1)))
        nib.save(nib.load(item["label"]).as_reoriented([[0, 1], [1, 1], [2, -1]]), item["label"])
        assert check_case(item, CLASSES).shape == (6, 5, 1)

    def test_label_in_another_orientation_and_beside_its_image(self, item):
        label = nib.load(item["label"]).as_reoriented([[0, -1], [1, 1], [2, 1]])
        label.affine[0, 3] += 3
        nib.save(nib.Nifti1Image(np.asarray(label.dataobj), label.affine), item["label"])
        fault_of(item, "label", "affine that differs")

    def test_affines_are_compared_in_voxels(self, tmp_path):
        affine = np.diag([1e-3, 1e-3, 1e-3, 1])
        image = write_volume(tmp_path / "scan_1.nii.gz", intensities(), affine)
        affine[0, 3] = 5e-4  # half a voxel
        label = write_volume(tmp_path / "label.nii.gz", labels(), affine)
        fault_of({"case": "scan_1", "image": str(image), "label": str(label)}, "label", "affine")

    @pytest.mark.parametrize(("value", "dtype"), [(7, np.uint8), (-1, np.int16), (3, np.float32), (1e30, np.float32)])
    def test_unknown_class_is_named(self, tmp_path, value, dtype):
        values = labels(dtype=dtype)
        values[3, 3, 3] = value
        fault_of(make_case(tmp_path, label=values), "label", f"label value {value:g}", "'tumour'")

    def test_label_between_classes_is_named(self, tmp_path):
        values = labels(dtype=np.float32)
        values[3, 3, 3] = 1.5
        fault_of(make_case(tmp_path, label=values), "label", "label value 1.5")

    def test_label_that_is_nearly_a_class_is_named_in_full(self, tmp_path):
        values = labels(dtype=np.float64)
        values[3, 3, 3] = 2.0000002
        fault_of(make_case(tmp_path, label=values), "label", "label value 2.0000002, which is not a whole number")


class TestAllCases:
    @pytest.fixture
    def items(self, tmp_path):
        return {f"scan_{number}": make_case(tmp_path, f"scan_{number}") for number in range(9)}

    def break_cases(self, items, *cases):
        for case in cases:
            Path(items[case]["label"]).write_bytes(b"")

    def test_facts_come_in_the_order_of_the_items(self, items):
        assert list(check_cases(items, CLASSES)) == list(items)
        assert check_cases(list(items.values()), CLASSES) == check_cases(items, CLASSES)

    def test_case_that_stands_twice_is_checked_once(self, items):
        seen = []
        check_cases([items["scan_1"]] * 3, CLASSES, progress=lambda *numbers: seen.append(numbers))
        assert seen == [(1, 1)]

    def test_progress_counts_cases_good_and_bad(self, items):
        self.break_cases(items, "scan_4")
        seen = []
        complaint(check_cases, items, CLASSES, progress=lambda *numbers: seen.append(numbers))
        assert seen == [(number, 9) for number in range(1, 10)]

    def test_one_bad_case_is_named_alone(self, items):
        self.break_cases(items, "scan_4")
        sentence = complaint(check_cases, items, CLASSES)
        assert sentence == f"Case scan_4: {items['scan_4']['label']} is empty."

    def test_other_bad_cases_are_named_too(self, items):
        self.break_cases(items, "scan_2", "scan_5", "scan_7", "scan_8")
        sentence = complaint(check_cases, items, CLASSES)
        assert sentence.startswith("Case scan_2: ")
        assert sentence.endswith("is empty (and 3 more bad cases: scan_5, scan_7, scan_8).")

    def test_no_more_than_five_others_are_named(self, items):
        self.break_cases(items, *items)
        sentence = complaint(check_cases, items, CLASSES)
        assert sentence.endswith("(and 8 more bad cases: scan_1, scan_2, scan_3, scan_4, scan_5, ...).")

    def test_two_bad_cases(self, items):
        self.break_cases(items, "scan_2", "scan_5")
        assert complaint(check_cases, items, CLASSES).endswith("(and 1 more bad case: scan_5).")

    def test_constant_image_is_named_in_a_warning_and_passes(self, tmp_path, caplog):
        items = [make_case(tmp_path), make_case(tmp_path, "flat", image=np.full(SHAPE, 7.0))]
        for _ in range(2):  # from the files, then from the cache
            caplog.clear()
            facts = check_cases(items, CLASSES, tmp_path / "cache.json")
            assert facts["flat"].image_min == facts["flat"].image_max == (7,)
            (record,) = caplog.records
            assert record.levelno == logging.WARNING
            assert "flat" in record.getMessage()


class TestCache:
    @pytest.fixture
    def items(self, tmp_path):
        return {f"scan_{number}": make_case(tmp_path / "task", f"scan_{number}") for number in range(3)}

    @pytest.fixture
    def cache(self, tmp_path):
        return tmp_path / "run" / "checks.json"

    @pytest.fixture
    def checked(self, monkeypatch):
        """Cases that are checked in full while the test runs."""
        cases = []

        def spy(item, *premises):
            cases.append(item["case"])
            return check_case(item, *premises)

        monkeypatch.setattr(checks, "check_case", spy)
        return cases

    @pytest.fixture
    def read(self, monkeypatch):
        """Files of the data set that are opened while the test runs."""
        files = []
        read_bytes = pathlib.Path.read_bytes
        monkeypatch.setattr(pathlib.Path, "read_bytes", lambda path: (files.append(path.name), read_bytes(path))[1])
        return files

    def test_each_file_is_read_once_and_never_again(self, items, cache, read):
        first = check_cases(items, CLASSES, cache)
        assert sorted(read) == sorted([Path(item[key]).name for item in items.values() for key in ("image", "label")])
        read.clear()
        assert check_cases(items, CLASSES, cache) == first
        assert read == []

    def test_touched_file_is_hashed_but_not_checked(self, items, cache, checked, read):
        first = check_cases(items, CLASSES, cache)
        checked.clear()
        read.clear()
        os.utime(items["scan_1"]["image"], ns=(1, 1))
        assert check_cases(items, CLASSES, cache) == first
        assert checked == []
        assert read == ["scan_1.nii.gz"] * 2
        read.clear()
        check_cases(items, CLASSES, cache)
        assert read == []

    @pytest.mark.parametrize("key", ["image", "label"])
    def test_changed_file_of_the_same_size_is_checked(self, tmp_path, cache, checked, key):
        item = make_case(tmp_path, suffix=".nii")
        check_cases([item], CLASSES, cache)
        checked.clear()
        patch(Path(item[key]), 400, b"\x02")
        facts = check_cases([item], CLASSES, cache)
        assert checked == ["scan_1"]
        assert facts["scan_1"] == check_case(item, CLASSES)

    def test_file_of_another_size_is_checked(self, items, cache, checked):
        check_cases(items, CLASSES, cache)
        checked.clear()
        write_volume(Path(items["scan_2"]["image"]), intensities() + 5)
        assert check_cases(items, CLASSES, cache)["scan_2"].image_min == (5,)
        assert checked == ["scan_2"]

    def test_file_damaged_since_is_found(self, items, cache):
        check_cases(items, CLASSES, cache)
        Path(items["scan_2"]["image"]).write_bytes(b"")
        assert "scan_2" in complaint(check_cases, items, CLASSES, cache)
        Path(items["scan_2"]["image"]).unlink()
        assert "No such file" in complaint(check_cases, items, CLASSES, cache)

    def test_moved_data_set_is_hashed_but_not_checked(self, tmp_path, items, cache, checked):
        first = check_cases(items, CLASSES, cache)
        checked.clear()
        (tmp_path / "task").rename(tmp_path / "moved")
        moved = {
            case: {key: value.replace("/task/", "/moved/") for key, value in item.items()}
            for case, item in items.items()
        }
        assert check_cases(moved, CLASSES, cache) == first
        assert checked == []

    def test_new_label_is_checked(self, items, cache, checked):
        bare = [{key: item[key] for key in ("case", "image")} for item in items.values()]
        assert check_cases(bare, CLASSES, cache)["scan_0"].label_sha256 is None
        checked.clear()
        assert check_cases([items["scan_0"], *bare[1:]], CLASSES, cache)["scan_0"].label_values == (0, 1, 2)
        assert checked == ["scan_0"]

    def test_other_classes_are_checked_again(self, items, cache):
        check_cases(items, CLASSES, cache)
        assert "label value 2" in complaint(check_cases, items, {0: "background", 1: "organ"}, cache)

    def test_good_cases_are_kept_when_one_is_bad(self, items, cache, checked):
        Path(items["scan_1"]["label"]).write_bytes(b"")
        complaint(check_cases, items, CLASSES, cache)
        checked.clear()
        write_volume(Path(items["scan_1"]["label"]), labels())
        check_cases(items, CLASSES, cache)
        assert checked == ["scan_1"]

    def test_work_done_is_kept_when_interrupted(self, items, cache, checked):
        def interrupt(done, _):
            if done == 2:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            check_cases(items, CLASSES, cache, interrupt)
        checked.clear()
        check_cases(items, CLASSES, cache)
        assert checked == ["scan_2"]

    @pytest.mark.parametrize(
        "damage",
        [
            lambda content: "{",
            lambda content: "",
            lambda content: "[]",
            lambda content: "{}",
            lambda content: content.replace('"image_min"', '"image_mean"', 1),
            lambda content: content.replace('"volume_ml": {', '"volume_ml": 3, "x": {', 1),
            lambda content: json.dumps(json.loads(content) | {"cases": []}),
            lambda content: json.dumps(json.loads(content) | {"cases": {"scan_0": {"files": {"image": 5}}}}),
        ],
    )
    def test_damaged_cache_is_named_in_a_warning_and_replaced(self, items, cache, damage, caplog, checked):
        first = check_cases(items, CLASSES, cache)
        cache.write_text(damage(cache.read_text()))
        checked.clear()
        assert check_cases(items, CLASSES, cache) == first
        assert checked == list(items)
        (record,) = caplog.records
        assert str(cache) in record.getMessage()
        assert len(record.getMessage().splitlines()) == 1
        caplog.clear()
        check_cases(items, CLASSES, cache)
        assert not caplog.records

    def test_cache_of_an_older_format_is_not_trusted(self, items, cache, checked, monkeypatch):
        check_cases(items, CLASSES, cache)
        checked.clear()
        monkeypatch.setattr(check_cache, "_CACHE_FORMAT", 99)
        check_cases(items, CLASSES, cache)
        assert checked == list(items)

    def test_cache_that_cannot_be_written_costs_a_warning(self, items, tmp_path, caplog):
        (tmp_path / "file").write_text("in the way")
        assert len(check_cases(items, CLASSES, tmp_path / "file" / "checks.json")) == 3
        assert "checks.json" in caplog.text


class TestFingerprint:
    def test_does_not_depend_on_paths_or_order(self, tmp_path):
        one = check_cases([make_case(tmp_path / "one", case) for case in ("a", "b")], CLASSES)
        two = check_cases([make_case(tmp_path / "two", case) for case in ("b", "a")], CLASSES)
        # gzip writes the time of saving into its header
        two = {case: replace(two[case], image_sha256=one[case].image_sha256) for case in two}
        two = {case: replace(two[case], label_sha256=one[case].label_sha256) for case in two}
        assert dataset_fingerprint(one) == dataset_fingerprint(two)
        assert len(dataset_fingerprint(one)) == 64

    def test_depends_on_ids_images_and_labels(self, item):
        facts = check_case(item, CLASSES)
        different = [
            {"a": facts},
            {"b": facts},
            {"a": facts, "b": facts},
            {"a": replace(facts, image_sha256="0" * 64)},
            {"a": replace(facts, label_sha256="0" * 64)},
            {"a": replace(facts, label_sha256=None)},
        ]
        assert len({dataset_fingerprint(each) for each in different}) == len(different)


@pytest.mark.real
@pytest.mark.skipif("SVGD_MONAI_MSD_ROOT" not in os.environ, reason="SVGD_MONAI_MSD_ROOT is not set")
def test_real_hippocampus_is_sound_and_a_resume_starts_at_once(tmp_path):
    dataset = read_dataset(Path(os.environ["SVGD_MONAI_MSD_ROOT"]) / "Task04_Hippocampus")
    facts = check_cases(dataset.items, dataset.classes, tmp_path / "checks.json")
    assert len(facts) == 260
    assert all(fact.spacing == (1.0, 1.0, 1.0) for fact in facts.values())
    assert all(0.5 < fact.volume_ml[1] + fact.volume_ml[2] < 10 for fact in facts.values())
    start = time.perf_counter()
    assert check_cases(dataset.items, dataset.classes, tmp_path / "checks.json") == facts
    assert time.perf_counter() - start < 1.0  # 0.01 s on an idle core
