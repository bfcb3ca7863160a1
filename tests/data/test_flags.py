"""Copies of cases, and cases far from all others, are flagged; ordinary ones are not."""

from dataclasses import replace

import pytest
import torch

from svgd_monai.data.check_cache import CaseFacts
from svgd_monai.data.checks import NAMED_CASES
from svgd_monai.data.flags import FLAG_COLUMNS, _nearest, find_copies, find_far, report_flags, signature
from svgd_monai.files import read_csv

GENERATOR = torch.Generator().manual_seed(0)


def anatomy(seed):
    """A smooth volume of its own on a shape that all share."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand((1, 1, 6, 8, 6), generator=generator)
    own = torch.nn.functional.interpolate(coarse, size=(24, 32, 24), mode="trilinear", align_corners=True)[0]
    axes = (torch.linspace(-1, 1, side) for side in own.shape[1:])
    shared = torch.exp(-sum(axis**2 for axis in torch.meshgrid(*axes, indexing="ij")))
    return (0.5 * own + shared).clamp(0, 1)


@pytest.fixture
def images():
    return {f"case_{number:02d}": anatomy(number) for number in range(14)}


def flagged(images):
    return {(flag.case, flag.other_case) for flag in find_copies({c: signature(i) for c, i in images.items()})}


def test_different_cases_of_one_anatomy_are_not_flagged(images):
    assert flagged(images) == set()


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image,
        lambda image: image + 0.02 * torch.randn(image.shape, generator=GENERATOR),
        lambda image: 0.7 * image + 0.1,
        lambda image: image**0.9,
        lambda image: image[:, 1:, 1:, 1:],
    ],
    ids=["the same", "noise", "other units", "gamma", "cropped by a voxel"],
)
def test_a_copy_is_flagged_with_its_original(images, change):
    images["copy"] = change(images["case_03"])
    assert flagged(images) == {("copy", "case_03"), ("case_03", "copy")}


def test_a_pool_of_copies_alone_is_flagged():
    """Though none is closer than its neighbours usually are."""
    image, generator = anatomy(0), torch.Generator().manual_seed(0)
    copies = {f"case_{number}": image + 0.02 * torch.randn(image.shape, generator=generator) for number in range(4)}
    assert len(flagged(copies)) == 4


def test_constant_images_are_no_copies_of_one_another(images):
    images |= {name: torch.full((1, 24, 32, 24), value) for name, value in (("flat", 0.3), ("level", 0.3))}
    assert flagged(images) == set()


def test_a_copy_is_three_times_closer_than_neighbours_usually_are():
    def pair(correlation, place):
        """Two signatures of that correlation, at right angles to all others."""
        first, second = torch.zeros(64), torch.zeros(64)
        first[2 * place] = 1
        second[2 * place], second[2 * place + 1] = correlation, (1 - correlation**2) ** 0.5
        return {f"{place}_a": first, f"{place}_b": second}

    usual = {name: values for place in range(10) for name, values in pair(0.94, place).items()}  # 0.06 from 1
    for correlation, odd in ((0.97, False), (0.985, True)):
        found = {flag.case for flag in find_copies(usual | pair(correlation, 20))}
        assert found == ({"20_a", "20_b"} if odd else set())


@pytest.mark.parametrize("block", [1, 3, 7, 20, 64])
@pytest.mark.parametrize("size", [2, 3, 20, 21])
def test_the_nearest_case_is_that_of_all_pairs(size, block, monkeypatch):
    monkeypatch.setattr("svgd_monai.data.flags._BLOCK", block)
    matrix = torch.nn.functional.normalize(torch.randn((size, 5), generator=GENERATOR))
    matrix[-1] = matrix[0]
    pairs = matrix @ matrix.T
    pairs.fill_diagonal_(-2)
    nearest, place = _nearest(matrix)
    torch.testing.assert_close(nearest, pairs.max(1).values)
    assert torch.equal(place, pairs.max(1).indices)


@pytest.mark.parametrize(("spacing", "odd"), [(2.4, False), (3.4, True)])
def test_a_case_is_far_only_beyond_a_factor_of_two(spacing, odd):
    pool = {f"case_{n:02d}": facts(spacing=(1.0, 1.0, 1.0 + 0.02 * n)) for n in range(15)}
    pool["other"] = facts(spacing=(1.0, 1.0, spacing))  # upper end 1.25, range 1.2, so the limit is 3.0
    limits = [flag.case for flag in find_far(pool)]
    assert limits == (["other"] if odd else [])


def test_a_block_of_the_correlations_is_as_good_as_all(images, monkeypatch):
    images["copy"] = images["case_03"]
    monkeypatch.setattr("svgd_monai.data.flags._BLOCK", 4)
    assert flagged(images) == {("copy", "case_03"), ("case_03", "copy")}


def facts(**changes):
    plain = CaseFacts("0" * 64, None, (4, 4, 4), (1.0, 1.0, 1.0), ((1.0,) * 4,) * 4, (0.0,), (1000.0,), (), {})
    return replace(plain, **changes)


@pytest.fixture
def pool():
    return {f"case_{n:02d}": facts(image_max=(900.0 + 20 * n,), spacing=(1.0, 1.0, 1.0 + 0.02 * n)) for n in range(15)}


def test_ordinary_cases_are_near(pool):
    assert find_far(pool) == []


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"image_max": (60000.0,)}, "intensity"),
        ({"image_max": (1.0,)}, "intensity"),
        ({"spacing": (1.0, 1.0, 8.0)}, "spacing"),
        ({"image_min": (999.0,)}, "intensity"),
        ({"spacing": (0.1, 1.0, 1.0)}, "spacing"),
        ({"spacing": (1.0, 8.0, 1.0)}, "spacing"),
    ],
)
def test_a_case_of_other_units_is_far(pool, changes, what):
    pool["odd"] = facts(**changes)
    assert [(flag.case, flag.what) for flag in find_far(pool)] == [("odd", what)]


def test_a_pool_of_two_kinds_of_scanner_is_no_outlier_of_itself(pool):
    pool |= {f"eight_bit_{n}": facts(image_max=(255.0,)) for n in range(6)}
    assert find_far(pool) == []


@pytest.mark.parametrize("constant", [0, 5])
@pytest.mark.parametrize(("others", "odd"), [(1, []), (9, []), (10, ["odd"])])
def test_a_range_takes_ten_others_and_constant_images_have_none(others, odd, constant):
    pool = {f"case_{n}": facts() for n in range(others)} | {"odd": facts(image_max=(60000.0,))}
    pool |= {f"flat_{n}": facts(image_min=(5.0,), image_max=(5.0,)) for n in range(constant)}
    assert [flag.case for flag in find_far(pool)] == odd


def test_every_channel_has_a_range_of_its_own():
    pool = {f"case_{n}": facts(image_min=(0.0, 0.0), image_max=(1000.0, 1.0)) for n in range(12)}
    pool["odd"] = facts(image_min=(0.0, 0.0), image_max=(1000.0, 1000.0))
    assert [(flag.case, flag.what) for flag in find_far(pool)] == [("odd", "intensity")]


def test_the_file_says_who_why_and_whose_copy(pool, images, tmp_path, caplog):
    images["odd"] = images["case_02"]
    pool["odd"] = facts(image_max=(60000.0,))
    path = tmp_path / "flagged_cases.csv"
    report_flags(path, {c: signature(i) for c, i in images.items()}, pool, {"odd": "pool", "case_02": "test"})
    rows = read_csv(path)
    assert list(rows[0]) == list(FLAG_COLUMNS)
    assert [(row["case"], row["role"], row["what"], row["other_case"], row["other_role"]) for row in rows] == [
        ("case_02", "test", "copy", "odd", "pool"), ("odd", "pool", "copy", "case_02", "test"),
        ("odd", "pool", "intensity", "", ""),
    ]  # fmt: skip
    assert "60000" in rows[2]["detail"]
    assert "2 cases look odd" in caplog.text
    assert str(path) in caplog.text


def test_the_warning_of_one_case_speaks_of_one(pool, tmp_path, caplog):
    pool["odd"] = facts(image_max=(60000.0,))
    report_flags(tmp_path / "flagged_cases.csv", {}, pool)
    assert "1 case looks odd, see " in caplog.text
    assert caplog.messages[0].endswith(" before you label it: odd")


def test_the_warning_names_the_first_cases_alone(images, tmp_path, caplog):
    copies = {f"copy_{number}": images["case_00"] for number in range(NAMED_CASES)}
    report_flags(tmp_path / "flagged_cases.csv", {c: signature(i) for c, i in (images | copies).items()}, {})
    *named, dots = caplog.messages[0].rpartition(": ")[2].split(", ")
    assert named == ["case_00", *list(copies)[:-1]]
    assert dots == "..."


@pytest.mark.real
def test_of_task04_few_are_flagged(msd_root, tmp_path):
    """No two of its 260 scans are one, and its three ranges of intensities are its own."""
    from svgd_monai.data import load_task

    task = load_task(msd_root / "Task04_Hippocampus", tmp_path)
    assert len(find_far(task.facts)) <= 5
