import math

import numpy as np
import pytest
import torch

from svgd_monai.acquisition import (
    UNCERTAINTY_NAMES,
    bald,
    committee_statistics,
    entropy,
    jensen_shannon,
    maps_from_statistics,
    reduce_map,
    variance,
)
from svgd_monai.statistics import summarise

DIRECT = {"entropy": entropy, "bald": bald, "variance": variance, "jensen_shannon": jensen_shannon}


def softmax_maps(members=4, batch=2, classes=3, shape=(3, 4, 2), seed=0, dtype=torch.float64):
    logits = torch.randn((members, batch, classes, *shape), generator=torch.Generator().manual_seed(seed))
    return (3 * logits.to(dtype)).softmax(2)


def plain_entropy(p):
    return -sum(x * math.log(x) for x in p if x > 0)


def voxel_reference(members):
    """The four values of one voxel from its (M, C) list, in plain Python."""
    count, classes = len(members), len(members[0])
    mean = [sum(p[c] for p in members) / count for c in range(classes)]
    return {
        "entropy": plain_entropy(mean),
        "bald": plain_entropy(mean) - sum(plain_entropy(p) for p in members) / count,
        "variance": sum(sum((p[c] - mean[c]) ** 2 for p in members) / count for c in range(classes)) / classes,
        "jensen_shannon": sum(p[c] * math.log(p[c] / mean[c]) for p in members for c in range(classes) if p[c] > 0)
        / count,
    }


@pytest.mark.parametrize("name", UNCERTAINTY_NAMES)
@pytest.mark.parametrize("members", [1, 2, 5])
def test_equals_a_loop_over_voxels(name, members):
    probabilities = softmax_maps(members=members)
    expected = np.empty(probabilities.shape[1:2] + probabilities.shape[3:])
    for place in np.ndindex(*expected.shape):
        voxel = probabilities[(slice(None), place[0], slice(None), *place[1:])]
        expected[place] = voxel_reference(voxel.tolist())[name]
    result = DIRECT[name](probabilities)
    assert result.dtype == torch.float64
    np.testing.assert_allclose(result.numpy(), expected, atol=1e-12)


def test_hand_worked_values_of_two_sure_members_that_disagree():
    probabilities = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])  # M=2, B=1, C=2, no voxel dimension
    assert entropy(probabilities).item() == pytest.approx(math.log(2))
    assert bald(probabilities).item() == pytest.approx(math.log(2))
    assert jensen_shannon(probabilities).item() == pytest.approx(math.log(2))
    assert variance(probabilities).item() == pytest.approx(0.25)


def test_bald_is_the_jensen_shannon_divergence_voxel_by_voxel():
    probabilities = softmax_maps(members=6, seed=3)
    divergence = jensen_shannon(probabilities)
    assert divergence.min() > 1e-3
    torch.testing.assert_close(bald(probabilities), divergence, atol=1e-12, rtol=0)


def test_bald_sees_disagreement_and_entropy_does_not_tell_it_from_doubt():
    doubt = torch.full((2, 1, 2, 1), 0.5)
    disagreement = torch.tensor([[[[1.0], [0.0]]], [[[0.0], [1.0]]]])
    assert torch.equal(entropy(doubt), entropy(disagreement))
    assert bald(doubt).item() == pytest.approx(0, abs=1e-7)
    assert bald(disagreement).item() > 0.69


def test_entropy_lies_between_zero_and_log_classes_and_reaches_both():
    values = entropy(softmax_maps(classes=4, seed=1))
    assert values.min() > 0
    assert values.max() < math.log(4)
    assert entropy(torch.full((3, 1, 4, 5), 0.25)).sub(math.log(4)).abs().max() < 1e-6
    sure = torch.zeros(3, 1, 4, 5)
    sure[:, :, 2] = 1
    assert torch.equal(entropy(sure), torch.zeros(1, 5))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_identical_members_have_no_disagreement(dtype):
    probabilities = softmax_maps(members=1, shape=(8, 8, 8), dtype=dtype).expand(5, -1, -1, -1, -1, -1)
    statistics = committee_statistics(probabilities)
    for name in ("bald", "jensen_shannon", "variance"):
        for values in (DIRECT[name](probabilities), maps_from_statistics(statistics, 3, name)):
            assert values.min() >= 0
            assert values.max() < 5e-7
    assert entropy(probabilities).min() > 0


@pytest.mark.parametrize("name", UNCERTAINTY_NAMES)
def test_one_hot_members_give_finite_values(name):
    classes = torch.randint(0, 3, (4, 2, 6), generator=torch.Generator().manual_seed(0))
    one_hot = torch.nn.functional.one_hot(classes, 3).movedim(-1, 2)  # integers, as a one-hot transform may leave them
    direct = DIRECT[name](one_hot)
    streamed = maps_from_statistics(committee_statistics(one_hot), 3, name)
    assert direct.dtype == torch.float32
    assert direct.max() > 0.1
    assert torch.isfinite(direct).all()
    assert torch.isfinite(streamed).all()


def test_divergence_survives_a_probability_whose_mean_underflows():
    tiny = torch.tensor([[[1e-45, 1.0]], [[0.0, 1.0]], [[0.0, 1.0]]])
    assert tiny.mean(0)[0, 0] == 0  # the premise
    assert jensen_shannon(tiny).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", UNCERTAINTY_NAMES)
def test_half_precision_is_computed_in_single(name, dtype):
    probabilities = softmax_maps(dtype=torch.float32).to(dtype)
    exact = DIRECT[name](probabilities.double())
    direct = DIRECT[name](probabilities)
    streamed = maps_from_statistics(committee_statistics(probabilities), 3, name)
    assert direct.dtype == streamed.dtype == torch.float32
    torch.testing.assert_close(direct.double(), exact, atol=2e-6, rtol=0)
    torch.testing.assert_close(streamed.double(), exact, atol=2e-6, rtol=0)


@pytest.mark.parametrize("name", UNCERTAINTY_NAMES)
def test_statistics_give_the_same_map_as_the_members(name):
    probabilities = softmax_maps(members=5, classes=4, dtype=torch.float32)
    statistics = committee_statistics(probabilities)
    assert statistics.shape == (2, 6, 3, 4, 2)
    streamed = maps_from_statistics(statistics, 4, name)
    torch.testing.assert_close(streamed, DIRECT[name](probabilities), atol=1e-6, rtol=0)


def test_statistics_are_the_three_means():
    probabilities = softmax_maps(members=3)
    statistics = committee_statistics(probabilities)
    member_entropy = -(probabilities * probabilities.log()).sum(2).mean(0)
    torch.testing.assert_close(statistics[:, :3], probabilities.mean(0))
    torch.testing.assert_close(statistics[:, 3], member_entropy)
    torch.testing.assert_close(statistics[:, 4], (probabilities**2).sum(2).mean(0))


def test_statistics_of_members_taken_one_at_a_time_leave_the_members_alone():
    probabilities = softmax_maps(members=4)
    kept = probabilities.clone()
    torch.testing.assert_close(summarise(member for member in probabilities), committee_statistics(probabilities))
    assert torch.equal(probabilities, kept)


def test_an_empty_committee_has_no_statistics():
    with pytest.raises(ValueError, match="at least one member"):
        summarise(iter(()))


@pytest.mark.parametrize("name", UNCERTAINTY_NAMES)
def test_statistics_blended_over_windows_stay_finite_and_not_negative(name):
    windows = [committee_statistics(softmax_maps(members=2, seed=seed, dtype=torch.float32)) for seed in range(3)]
    blended = 0.2 * windows[0] + 0.5 * windows[1] + 0.3 * windows[2]
    values = maps_from_statistics(blended, 3, name)
    assert torch.isfinite(values).all()
    assert values.min() > 0
    rounded = committee_statistics(torch.tensor([[[1.0, 0.0]]])) + torch.tensor([[1e-8, -1e-8, 1e-8, -1e-8]])
    assert maps_from_statistics(rounded, 2, name).item() == pytest.approx(0, abs=1e-6)


def test_statistics_of_the_wrong_channels_or_name_are_refused():
    statistics = torch.ones(1, 5, 2)
    with pytest.raises(ValueError, match=r"\(B, 6, \.\.\.\)"):
        maps_from_statistics(statistics, 4, "entropy")
    with pytest.raises(ValueError, match="'entropie'; known are entropy, bald"):
        maps_from_statistics(statistics, 3, "entropie")


@pytest.mark.parametrize("measure", [*DIRECT.values(), committee_statistics])
@pytest.mark.parametrize("shape", [(2, 3), (0, 1, 2, 4)])
def test_other_shapes_than_a_committees_are_refused(measure, shape):
    with pytest.raises(ValueError, match=r"\(M, B, C, \.\.\.\)"):
        measure(torch.ones(shape))


def test_reduce_by_mean_sum_and_top():
    values = torch.arange(40.0).reshape(2, 4, 5)
    assert reduce_map(values).tolist() == [9.5, 29.5]
    assert reduce_map(values, how="sum").tolist() == [190.0, 590.0]
    assert reduce_map(values, how="top", top_fraction=0.2).tolist() == [17.5, 37.5]
    assert reduce_map(values, how="top", top_fraction=1e-6).tolist() == [19.0, 39.0]
    assert reduce_map(values, how="top", top_fraction=1).tolist() == [9.5, 29.5]


def test_reduce_over_foreground_and_over_everything_where_there_is_none():
    values = torch.arange(12.0).reshape(2, 2, 3)
    foreground = torch.zeros(2, 2, 3, dtype=torch.bool)
    foreground[0, 0, 1] = foreground[0, 1, 2] = True
    assert reduce_map(values, foreground, "foreground").tolist() == [3.0, 8.5]


def test_reduce_computes_half_precision_in_single():
    values = torch.full((1, 100_000), 0.5, dtype=torch.float16)
    assert reduce_map(values, how="sum").tolist() == [50_000.0]
    assert reduce_map(values, torch.ones_like(values, dtype=torch.bool), "foreground").item() == 0.5


def test_reduce_refuses_what_makes_no_sense():
    values = torch.rand(2, 3)
    with pytest.raises(ValueError, match="'median'; known are mean, sum, foreground, top"):
        reduce_map(values, how="median")
    with pytest.raises(ValueError, match="needs a predicted foreground"):
        reduce_map(values, how="foreground")
    with pytest.raises(ValueError, match="needs a predicted foreground"):
        reduce_map(values, torch.ones(2, 1, 3), "foreground")
    for fraction in (0, 1.5, math.nan):
        with pytest.raises(ValueError, match="top_fraction"):
            reduce_map(values, how="top", top_fraction=fraction)
    with pytest.raises(ValueError, match="at least one voxel"):
        reduce_map(torch.ones(2, 0))
