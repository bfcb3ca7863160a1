"""The C + 2 channels that stand for a committee."""

import itertools
import math

import pytest
import torch

from svgd_monai.statistics import (
    EXTRA_CHANNELS,
    agreement_row,
    expected_calibration_error,
    mean_probability,
    member_agreement,
    split_votes,
    summarise,
)


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


# votes and agreement


def test_votes_are_the_fraction_of_members_that_choose_the_class():
    given = members(5)
    statistics, votes = split_votes(summarise(given, votes=True))
    torch.testing.assert_close(statistics, summarise(given))
    assert votes.shape == (2, 3, 4, 5)
    for b in range(2):
        for x in range(4):
            for y in range(5):
                chosen = [int(member[b, :, x, y].argmax()) for member in given]
                assert votes[b, :, x, y].tolist() == pytest.approx([chosen.count(c) / 5 for c in range(3)])


def masks(number, seed=0, shape=(6, 7, 5)):
    """Class indices of each member, alike in most voxels; no member of the second case sees class 2."""
    generator = torch.Generator().manual_seed(seed)
    common = torch.randint(0, 3, (2, *shape), generator=generator)
    own = torch.randint(0, 3, (number, 2, *shape), generator=generator)
    chosen = torch.where(torch.rand(own.shape, generator=generator) < 0.7, common, own)
    chosen[:, 1] = chosen[:, 1].clamp(max=1)
    return chosen


def votes_of(chosen, classes=3):
    return torch.stack([(chosen == c).float().mean(0) for c in range(classes)], dim=1)


@pytest.mark.parametrize("number", [2, 3, 5])
def test_agreement_is_the_ratio_of_sums_over_all_pairs_of_members(number):
    chosen = masks(number)
    agreement = member_agreement(votes_of(chosen), number)
    for b, c in itertools.product(range(2), range(3)):
        shared = sizes = 0
        for i, j in itertools.combinations(range(number), 2):
            first, second = chosen[i, b] == c, chosen[j, b] == c
            shared += 2 * int((first & second).sum())
            sizes += int(first.sum()) + int(second.sum())
        expected = shared / sizes if sizes else math.nan
        assert float(agreement[b, c]) == pytest.approx(expected, abs=1e-6, nan_ok=True)
    assert math.isnan(agreement[1, 2])


def test_two_members_agree_by_their_dice():
    first, second = masks(2)
    both = float(2 * ((first[0] == 1) & (second[0] == 1)).sum() / ((first[0] == 1).sum() + (second[0] == 1).sum()))
    assert float(member_agreement(votes_of(torch.stack([first, second])), 2)[0, 1]) == pytest.approx(both)


def test_agreement_is_1_for_equal_members_0_for_disjoint_ones_and_unknown_for_one():
    same = votes_of(masks(1).repeat(3, 1, 1, 1, 1))
    torch.testing.assert_close(member_agreement(same, 3)[0], torch.ones(3, dtype=torch.float64))
    apart = torch.arange(2).reshape(2, 1, 1).expand(2, 1, 4)
    assert member_agreement(votes_of(apart, 2), 2).tolist() == [[0.0, 0.0]]
    assert member_agreement(votes_of(masks(1)), 1).isnan().all()


def test_votes_blended_over_windows_keep_agreement_between_0_and_1():
    generator = torch.Generator().manual_seed(0)
    weights = torch.rand(6, 7, 5, generator=generator)
    blended = weights * votes_of(masks(3, seed=1)) + (1 - weights) * votes_of(masks(3, seed=2))
    agreement = member_agreement(blended, 3)
    known = agreement[~agreement.isnan()]
    assert len(known) == 5
    assert ((known > 0) & (known < 1)).all()
    faint = torch.full((1, 2, 8), 0.1)  # 0.3 members a voxel
    assert member_agreement(faint, 3).tolist() == [[0.0, 0.0]]


def test_agreement_of_many_voxels_is_summed_in_double_precision():
    # In single precision a sum stands still at 2^24.
    votes = torch.ones(1, 1, 300, 300, 300)
    assert float(member_agreement(votes, 2)[0, 0]) == 1.0


def test_agreement_keeps_its_digits_however_many_voxels_there_are():
    """In single precision the sums would be off by parts in 10^8, and more with more voxels."""
    count = torch.tensor(0.77) * 2
    votes = torch.full((1, 1, 1_000_003), 0.77)
    expected = float(count * (count - 1)) / float(count)
    assert float(member_agreement(votes, 2)[0, 0]) == pytest.approx(expected, rel=1e-13)


def test_a_row_has_each_class_by_name_and_the_mean_of_those_that_some_member_sees():
    chosen = masks(3)
    dice = member_agreement(votes_of(chosen), 3)
    both, one = (agreement_row(votes_of(chosen)[case], 3, ["front", "back"]) for case in range(2))
    front, back = dice[0, 1:].tolist()
    assert both == {
        "agreement_dice": pytest.approx((front + back) / 2),
        "agreement_dice_front": pytest.approx(front),
        "agreement_dice_back": pytest.approx(back),
    }
    assert one == {
        "agreement_dice": pytest.approx(float(dice[1, 1])),
        "agreement_dice_front": pytest.approx(float(dice[1, 1])),
        "agreement_dice_back": None,
    }
    nobody = agreement_row(votes_of(chosen * 0)[0], 3, ["front", "back"])
    assert set(nobody.values()) == {None}
    with pytest.raises(ValueError, match="zip"):
        agreement_row(votes_of(chosen)[0], 3, ["front"])


def test_calibration_errors_of_two_bins_do_not_cancel():
    bins = torch.tensor([[4.0, 3.0, 2.0], [0.0, 0.0, 0.0], [4.0, 2.0, 3.0]])  # too sure, empty, not sure enough
    assert expected_calibration_error(bins) == pytest.approx(0.25)
    assert math.isnan(expected_calibration_error(torch.zeros(3, 3)))
