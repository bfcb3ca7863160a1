"""Results laid over their scans: the header's geometry to the last bit, files at once and whole, rows that add up."""

import errno
import gzip
import itertools
import math
import os

import nibabel as nib
import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor
from monai.transforms import MapLabelValue

from svgd_monai.errors import SettingsError
from svgd_monai.evaluation import CaseWriter, volume_like
from svgd_monai.files import read_csv

SHAPE = (5, 6, 7)
OBLIQUE = np.array([[0.8, -0.3, 0.5, -20], [0.4, 1.1, -0.2, 30], [-0.3, 0.4, 2.4, 7], [0, 0, 0, 1]])
RIGID = np.array([[0, 0, 2.5, 3], [-0.8, 0, 0, 4], [0, 0.9, 0, 5], [0, 0, 0, 1.0]])
HEADERS = {  # sform and its code, qform and its code
    "sform alone": (OBLIQUE, 1, None, 0),
    "qform alone": (None, 0, RIGID, 1),
    "both, of different spaces": (OBLIQUE, 2, RIGID, 1),
    "both alike": (RIGID, 4, RIGID, 4),
    "neither": (None, 0, None, 0),
}


def scan(path, header="both, of different spaces", image_class=nib.Nifti1Image, unit=("mm", "sec"), order="<"):
    """A scan with a text that may name a patient; ``neither`` leaves only the voxel sizes."""
    sform, sform_code, qform, qform_code = HEADERS[header]
    first = image_class(np.zeros(SHAPE, np.int16), None, image_class.header_class(endianness=order))
    first.header.set_zooms((0.8, 0.9, 2.5))
    first.header.set_xyzt_units(*unit)
    first.header["descrip"] = b"DOE^JANE"
    first.set_sform(sform, sform_code)
    first.set_qform(qform, qform_code)
    nib.save(first, path)
    return path


def saved(volume, path):
    nib.save(volume, path)
    return nib.load(path)


def geometry(image):
    """All of a header that a viewer may place voxels by."""
    header = image.header
    forms = [form(coded=True) for form in (image.get_sform, image.get_qform)]
    return [header.get_zooms(), header.get_xyzt_units(), float(header["pixdim"][0]), image.affine, *forms]


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(flatten(a), flatten(b), strict=True))


def flatten(value):
    if isinstance(value, (list, tuple)):
        return [leaf for part in value for leaf in flatten(part)]
    return [np.asarray(0.0 if value is None else value)]


class TestVolumeLike:
    @pytest.mark.parametrize("header", HEADERS)
    @pytest.mark.parametrize("image_class", [nib.Nifti1Image, nib.Nifti2Image])
    @pytest.mark.parametrize("order", ["<", ">"])
    def test_has_the_scans_geometry_to_the_last_bit(self, tmp_path, header, image_class, order):
        path = scan(tmp_path / "scan.nii.gz", header, image_class, order=order)
        values = np.random.default_rng(0).random(SHAPE).astype(np.float32)
        result = saved(volume_like(values, path), tmp_path / "result.nii.gz")
        assert type(result) is image_class
        assert same(geometry(result), geometry(nib.load(path)))
        assert np.array_equal(result.get_fdata(dtype=np.float32), values)

    @pytest.mark.parametrize("unit", [("mm", "sec"), ("micron", "unknown"), ("unknown", "unknown")])
    def test_has_the_scans_unit(self, tmp_path, unit):
        path = scan(tmp_path / "scan.nii", unit=unit)
        assert saved(volume_like(np.zeros(SHAPE, np.uint8), path), tmp_path / "r.nii").header.get_xyzt_units() == unit

    @pytest.mark.parametrize("dtype", [np.uint8, np.float32])
    def test_holds_its_values_in_their_type_without_a_scale(self, tmp_path, dtype):
        source = nib.load(scan(tmp_path / "plain.nii"))
        source.header.set_slope_inter(2.5, -1000)
        nib.save(nib.Nifti1Image(np.zeros(SHAPE, np.int16), source.affine, source.header), tmp_path / "scan.nii")
        values = np.arange(210).reshape(SHAPE).astype(dtype)
        result = saved(volume_like(values, tmp_path / "scan.nii"), tmp_path / "result.nii")
        assert result.get_data_dtype() == dtype
        assert np.array_equal(np.asanyarray(result.dataobj), values)
        assert np.asanyarray(result.dataobj).dtype == dtype

    def test_holds_no_text_of_the_scans_header(self, tmp_path):
        path = scan(tmp_path / "scan.nii")
        assert b"DOE" in path.read_bytes()
        assert b"DOE" not in volume_like(np.zeros(SHAPE, np.uint8), path).to_bytes()

    def test_of_one_slice_stays_a_volume(self, tmp_path):
        flat = tmp_path / "flat.nii"
        nib.save(nib.Nifti1Image(np.zeros((5, 6, 1), np.int16), OBLIQUE), flat)
        assert saved(volume_like(np.zeros((5, 6, 1), np.uint8), flat), tmp_path / "r.nii").shape == (5, 6, 1)

    def test_of_another_shape_is_refused(self, tmp_path):
        path = scan(tmp_path / "scan.nii")
        with pytest.raises(
            SettingsError, match=r"^postprocessing: .*\(7, 6, 5\) does not lie on .*scan\.nii, .*\(5, 6"
        ):
            volume_like(np.zeros((7, 6, 5), np.uint8), path)


CLASSES = {0: "background", 1: "organ", 2: "tumour"}


def case(folder, name, mask=None, members=None, header="both, of different spaces"):
    """A batch item and the post-processed output of one case."""
    generator = torch.Generator().manual_seed(len(name))
    mask = torch.randint(0, 3, SHAPE, generator=generator) if mask is None else mask
    members = torch.randint(0, 3, (3, *SHAPE), generator=generator) if members is None else members
    votes = torch.stack([(members == c).float().mean(0) for c in range(3)])
    meta = {"filename_or_obj": str(scan(folder / f"{name}.nii.gz", header))}
    item = {"case": name, "image": MetaTensor(torch.zeros(1, 2, 2, 2), meta=meta)}
    uncertainty = torch.rand(1, *SHAPE, generator=generator)
    return item, {"pred": mask[None].float(), "uncertainty": uncertainty, "votes": votes}


def run(folder, cases, num_members=3, writer=None):
    """The handler on an engine over the cases, one a batch."""
    writer = writer or CaseWriter(folder, CLASSES, num_members)

    def step(engine, batch):
        item, output = batch
        engine.state.batch = [item]
        return [output]

    engine = Engine(step)
    writer.attach(engine)
    engine.run(cases)
    return read_csv(folder / "inference.csv")


class TestCaseWriter:
    def test_writes_a_mask_a_map_and_a_row_a_case(self, tmp_path):
        cases = [case(tmp_path, name) for name in ("b", "a.1")]
        rows = run(tmp_path / "out", cases)
        assert {path.name for path in (tmp_path / "out").iterdir()} == {
            "inference.csv", "b_seg.nii.gz", "b_uncertainty.nii.gz", "a.1_seg.nii.gz", "a.1_uncertainty.nii.gz",
        }  # fmt: skip
        assert [row["case"] for row in rows] == ["b", "a.1"]
        for row, (item, output) in zip(rows, cases, strict=True):
            assert row["image"] == item["image"].meta["filename_or_obj"]
            mask = nib.load(tmp_path / "out" / f"{row['case']}_seg.nii.gz")
            values = nib.load(tmp_path / "out" / f"{row['case']}_uncertainty.nii.gz")
            assert mask.get_data_dtype() == np.uint8
            assert values.get_data_dtype() == np.float32
            assert np.array_equal(np.asanyarray(mask.dataobj), output["pred"][0].numpy())
            assert np.array_equal(np.asanyarray(values.dataobj), output["uncertainty"][0].numpy())
            assert same(geometry(mask), geometry(nib.load(row["image"])))
            assert same(geometry(values), geometry(mask))

    def test_a_row_is_what_the_files_say(self, tmp_path):
        (row,) = run(tmp_path / "out", [case(tmp_path, "a")])
        mask = np.asanyarray(nib.load(tmp_path / "out/a_seg.nii.gz").dataobj)
        values = np.asanyarray(nib.load(tmp_path / "out/a_uncertainty.nii.gz").dataobj)
        voxel = abs(np.linalg.det(nib.load(tmp_path / "a.nii.gz").affine[:3, :3])) / 1000
        assert voxel > 0.002
        for value, name in ((1, "organ"), (2, "tumour")):
            assert float(row[f"volume_ml_{name}"]) == pytest.approx((mask == value).sum() * voxel)
        assert float(row["uncertainty"]) == pytest.approx(values.mean())
        assert float(row["uncertainty_foreground"]) == pytest.approx(values[mask > 0].mean())

    def test_agreement_is_that_of_all_pairs_of_members(self, tmp_path):
        members = torch.randint(0, 3, (4, *SHAPE), generator=torch.Generator().manual_seed(5))
        (row,) = run(tmp_path / "out", [case(tmp_path, "a", members=members)], num_members=4)
        expected = {}
        for value, name in ((1, "organ"), (2, "tumour")):
            pairs = list(itertools.combinations(members == value, 2))
            shared = sum(2 * int((a & b).sum()) for a, b in pairs)
            expected[name] = shared / sum(int(a.sum()) + int(b.sum()) for a, b in pairs)
            assert float(row[f"agreement_dice_{name}"]) == pytest.approx(expected[name], abs=1e-6)
        assert float(row["agreement_dice"]) == pytest.approx(sum(expected.values()) / 2, abs=1e-6)

    def test_what_is_not_there_is_an_empty_field(self, tmp_path):
        nothing = torch.zeros(SHAPE, dtype=torch.long)
        organ = nothing.clone()
        organ[1:3] = 1
        rows = run(
            tmp_path / "out",
            [
                case(tmp_path, "empty", nothing, nothing.expand(3, *SHAPE)),
                case(tmp_path, "organ", organ, organ.expand(3, *SHAPE)),
            ],
        )
        assert rows[0]["volume_ml_organ"] == rows[0]["volume_ml_tumour"] == "0.0"
        assert rows[0]["uncertainty_foreground"] == rows[0]["agreement_dice"] == rows[0]["agreement_dice_organ"] == ""
        assert float(rows[0]["uncertainty"]) > 0
        assert rows[1]["agreement_dice"] == rows[1]["agreement_dice_organ"] == "1.0"
        assert rows[1]["agreement_dice_tumour"] == ""

    @pytest.mark.parametrize(
        ("number", "kind"), [(255, np.uint8), (256, np.uint16), (1006, np.uint16), (70000, np.uint32)]
    )
    def test_classes_that_were_given_other_numbers_are_written_as_such_and_their_volumes_left_out(
        self, tmp_path, number, kind
    ):
        first, other = case(tmp_path, "a"), case(tmp_path, "b")
        first[1]["pred"] = MapLabelValue([1, 2], [2, number])(first[1]["pred"])
        rows = run(tmp_path / "out", [first, other])
        mask = nib.load(tmp_path / "out/a_seg.nii.gz")
        assert mask.get_data_dtype() == kind
        assert np.array_equal(np.asanyarray(mask.dataobj), first[1]["pred"][0].numpy())
        assert set(np.unique(np.asanyarray(mask.dataobj))) == {0, 2, number}
        assert rows[0]["volume_ml_organ"] == rows[0]["volume_ml_tumour"] == ""
        assert float(rows[0]["uncertainty_foreground"]) > 0
        assert nib.load(tmp_path / "out/b_seg.nii.gz").get_data_dtype() == np.uint8
        assert float(rows[1]["volume_ml_organ"]) > 0

    @pytest.mark.parametrize("kind", [torch.bool, torch.uint8, torch.int64, torch.float64])
    def test_classes_of_any_type_are_taken(self, tmp_path, kind):
        item, output = case(tmp_path, "a", mask=torch.randint(0, 2, SHAPE))
        output["pred"] = output["pred"].to(kind)
        (row,) = run(tmp_path / "out", [(item, output)])
        mask = nib.load(tmp_path / "out/a_seg.nii.gz")
        assert mask.get_data_dtype() == np.uint8
        assert np.array_equal(np.asanyarray(mask.dataobj), output["pred"][0].numpy())
        assert float(row["volume_ml_organ"]) > 0

    @pytest.mark.parametrize("value", [0.5, -1.0, math.nan, math.inf, 1e30])
    def test_values_that_are_no_classes_are_refused_before_anything_is_written(self, tmp_path, value):
        item, output = case(tmp_path, "a")
        output["pred"][0, 1, 2, 3] = value
        with pytest.raises(SettingsError, match=r"^postprocessing: the segmentation of case a holds values from .* 0;"):
            run(tmp_path / "out", [(item, output)])
        assert not (tmp_path / "out").exists()

    def test_a_committee_of_one_agrees_with_nobody(self, tmp_path):
        (row,) = run(tmp_path / "out", [case(tmp_path, "a")], num_members=1)
        assert row["agreement_dice"] == row["agreement_dice_organ"] == row["agreement_dice_tumour"] == ""

    def test_rows_are_there_as_soon_as_their_case_is(self, tmp_path):
        seen = []

        def cases():
            for name in ("a", "b"):
                seen.append([row["case"] for row in read_csv(table)] if table.exists() else None)
                yield case(tmp_path, name)

        table = tmp_path / "out/inference.csv"
        run(tmp_path / "out", list_lazily(cases(), 2))
        assert seen == [None, ["a"]]

    def test_the_rows_of_many_cases_cost_no_square_of_their_number(self, tmp_path, monkeypatch):
        written = []
        monkeypatch.setattr("svgd_monai.evaluation.writer.write_bytes", lambda *_: None)
        monkeypatch.setattr("svgd_monai.evaluation.writer.write_csv", lambda *words: written.append(len(words[2])))
        item, output = case(tmp_path, "a")
        writer, engine = CaseWriter(tmp_path / "out", CLASSES, 3), Engine(lambda *_: None)
        engine.state.batch, engine.state.output = [item], [output]
        writer.reset(engine)
        for _ in range(1000):
            writer.write(engine)
            assert 0 <= len(writer.rows) - written[-1] <= written[-1] / 100
        writer.finish(engine)
        assert written[-1] == 1000
        assert sum(written) < 120 * 1000

    def test_what_a_killed_run_has_left_half_written_goes(self, tmp_path, left):
        (tmp_path / "out").mkdir()
        left(tmp_path / "out/a_seg.nii.gz")
        run(tmp_path / "out", [case(tmp_path, "a")])
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
            "a_seg.nii.gz", "a_uncertainty.nii.gz", "inference.csv",
        ]  # fmt: skip

    def test_a_second_run_begins_anew_and_writes_the_same_bytes(self, tmp_path):
        writer = CaseWriter(tmp_path / "out", CLASSES, 3)
        cases = [case(tmp_path, name) for name in ("a", "b")]
        run(tmp_path / "out", cases, writer=writer)
        before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
        run(tmp_path / "out", cases, writer=writer)
        assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before

    @pytest.mark.parametrize("wrong", ["pred", "uncertainty"])
    @pytest.mark.parametrize("shape", [(1, 4, 4, 4), (3, *SHAPE)])
    def test_a_result_on_another_grid_is_refused_before_anything_is_written(self, tmp_path, wrong, shape):
        item, output = case(tmp_path, "a")
        output[wrong] = torch.zeros(shape)
        with pytest.raises(SettingsError, match="postprocessing: "):
            run(tmp_path / "out", [(item, output)])
        assert not (tmp_path / "out").exists()

    def test_a_full_disk_leaves_no_part_of_a_file_and_says_whose_it_is(self, tmp_path, monkeypatch):
        before = run(tmp_path / "out", [case(tmp_path, "a")])
        files = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}

        def full(descriptor):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left") as caught:
            run(tmp_path / "out", [case(tmp_path, "a", mask=torch.zeros(SHAPE))])
        assert caught.value.filename == str(tmp_path / "out/a_seg.nii.gz")
        assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == files
        assert math.isfinite(float(before[0]["volume_ml_organ"]))
        assert gzip.decompress(files["a_seg.nii.gz"])


def list_lazily(iterator, length):
    """An iterable of known length for ignite, drawn one by one."""

    class Lazily:
        def __len__(self):
            return length

        def __iter__(self):
            return iterator

    return Lazily()
