"""The C + 2 channels that stand for a committee."""

import math

import pytest
import torch

from svgd_monai.statistics import EXTRA_CHANNELS, mean_probability, summarise


def members(number=3, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 3, 4, 5, generator=generator).to(dtype).softmax(1) for _ in range(number)]


@pytest.mark.parametrize("number", [1, 2, 5])
def test_the_channels_equal_a_loop_over_voxels(number):
    given = members(number)
    statistics = summarise(given)
    assert statistics.shape == (2, 3 + EXTRA_CHANNELS, 4, 5)
    for b in range(2):
        for x in range(4):
            for y in range(5):
                voxels = [member[b, :, x, y].tolist() for member in given]
                mean = [sum(p[c] for p in voxels) / number for c in range(3)]
                entropy = sum(-q * math.log(q) for p in voxels for q in p) / number
                power = sum(q * q for p in voxels for q in p) / number
                assert statistics[b, :, x, y].tolist() == pytest.approx([*mean, entropy, power], abs=1e-13)


def test_members_are_taken_one_at_a_time():
    alive = []

    def one_by_one():
        for member in members():
            alive.append(member)
            yield member

    stream = one_by_one()
    torch.testing.assert_close(summarise(stream), summarise(members()))
    assert len(alive) == 3


def test_the_members_are_left_as_they_were():
    given = members(dtype=torch.float32)
    before = [member.clone() for member in given]
    summarise(given)
    assert all(torch.equal(a, b) for a, b in zip(given, before, strict=True))


def test_a_certain_member_has_no_entropy_and_no_nan():
    certain = torch.zeros(1, 2, 3)
    certain[:, 0] = 1
    assert summarise([certain])[0].tolist() == [[1.0] * 3, [0.0] * 3, [0.0] * 3, [1.0] * 3]


@pytest.mark.parametrize(
    ("given", "kept"),
    [(torch.float16, torch.float32), (torch.bfloat16, torch.float32), (torch.float64, torch.float64)],
)
def test_sums_are_single_precision_at_least(given, kept):
    assert summarise(members(dtype=given)).dtype == kept


def test_means_over_windows_are_means_over_members():
    """What makes them fit for blending: the summary of two committees is the mean of their summaries."""
    given = members(4)
    torch.testing.assert_close(summarise(given), (summarise(given[:2]) + summarise(given[2:])) / 2)


def test_the_mean_probability_is_a_view_of_the_first_channels():
    statistics = summarise(members())
    mean = mean_probability(statistics)
    torch.testing.assert_close(mean, torch.stack(members()).mean(0))
    torch.testing.assert_close(mean.sum(1), torch.ones(2, 4, 5, dtype=torch.float64))
    assert mean.data_ptr() == statistics.data_ptr()


def test_a_committee_of_nobody_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        summarise([])
