"""Measurements of one case against brute force, in millimetres and in the geometry of the file."""

import math

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from svgd_monai.evaluation import CaseResult, measure_case
from svgd_monai.evaluation.cases import (
    CALIBRATION_BINS,
    calibration_bins,
    case_rows,
    dice_per_class,
    expected_calibration_error,
    mean_over_cases,
    summarise_results,
)
from svgd_monai.statistics import summarise

CLASSES = {0: "background", 1: "organ", 2: "tumour"}
pytestmark = pytest.mark.filterwarnings("ignore:.*(all 0|empty|surface).*")


def is_nan(values):
    return [math.isnan(value) for value in values]


# Dice


def test_dice_equals_a_count_of_voxels():
    generator = torch.Generator().manual_seed(0)
    predicted, truth = (torch.randint(0, 4, (1, 5, 6, 7), generator=generator) for _ in range(2))
    p, t = predicted.flatten().tolist(), truth.flatten().tolist()
    expected = [2 * sum(a == b == c for a, b in zip(p, t, strict=True)) / (p.count(c) + t.count(c)) for c in (1, 2, 3)]
    assert dice_per_class(predicted, truth, 4) == pytest.approx(expected)


def test_dice_of_nothing_is_unknown_and_of_a_miss_zero():
    truth = torch.tensor([0, 1, 1, 0])
    predicted = torch.tensor([0, 1, 2, 0])
    values = dice_per_class(predicted, truth, 4)
    assert values[:2] == [pytest.approx(2 / 3), 0.0]
    assert math.isnan(values[2])
    assert dice_per_class(truth, predicted, 4)[1] == 0.0


def test_background_has_no_dice():
    assert dice_per_class(torch.zeros(5), torch.zeros(5), 1) == []


# calibration


def probabilities(seed=0, shape=(4, 5, 6)):
    return (2 * torch.randn(3, *shape, generator=torch.Generator().manual_seed(seed))).softmax(0)


def labels(seed=1, shape=(4, 5, 6)):
    return torch.randint(0, 3, (1, *shape), generator=torch.Generator().manual_seed(seed))


def loop_bins(probability, truth):
    table = [[0.0, 0.0, 0.0] for _ in range(CALIBRATION_BINS)]
    for place in np.ndindex(*truth.shape[1:]):
        values = [float(v) for v in probability[(slice(None), *place)]]
        confidence = max(values)
        row = table[min(CALIBRATION_BINS - 1, int(confidence * CALIBRATION_BINS))]
        row[0] += 1
        row[1] += confidence
        row[2] += values.index(confidence) == int(truth[(0, *place)])
    return table


def test_bins_equal_a_loop_over_voxels():
    bins = calibration_bins(probabilities(), labels())
    assert bins.dtype == torch.float64
    torch.testing.assert_close(bins, torch.tensor(loop_bins(probabilities(), labels()), dtype=torch.float64))


@pytest.mark.parametrize(("confidence", "index"), [(1.0, 9), (0.95, 9), (0.9, 9), (0.89, 8), (0.5, 5), (0.34, 3)])
def test_a_confidence_falls_into_its_bin(confidence, index):
    probability = torch.tensor([confidence, (1 - confidence) / 2, (1 - confidence) / 2], dtype=torch.float64)
    bins = calibration_bins(probability.reshape(3, 1, 1, 1), torch.zeros(1, 1, 1, 1))
    assert bins[:, 0].nonzero().flatten().tolist() == [index]


def test_calibration_error_by_hand():
    bins = torch.zeros(CALIBRATION_BINS, 3, dtype=torch.float64)
    bins[6] = torch.tensor([10.0, 6.5, 4.0])  # confidence 0.65, accuracy 0.4, a quarter of the weight
    bins[9] = torch.tensor([30.0, 28.5, 30.0])  # confidence 0.95, accuracy 1
    assert expected_calibration_error(bins) == pytest.approx(0.25 * 0.25 + 0.75 * 0.05)


def test_calibration_error_equals_a_loop_over_bins():
    table = loop_bins(probabilities(), labels())
    expected = sum(n / 120 * abs(correct / n - confidence / n) for n, confidence, correct in table if n)
    assert expected_calibration_error(calibration_bins(probabilities(), labels())) == pytest.approx(expected)


def test_calibration_error_of_no_voxels_is_unknown():
    assert math.isnan(expected_calibration_error(torch.zeros(CALIBRATION_BINS, 3)))


# a case


def one_hot_statistics(label, classes=3):
    """Statistics of a committee that is sure of ``label`` (X, Y, Z)."""
    certain = torch.nn.functional.one_hot(torch.as_tensor(label).long(), classes).movedim(-1, 0).float()
    return summarise([certain[None]])[0]


def file_label(values, spacing=(1.0, 1.0, 1.0), flip=False):
    affine = torch.diag(torch.tensor([*spacing, 1.0], dtype=torch.float64))
    if flip:
        affine[0, 0] *= -1
    return MetaTensor(torch.as_tensor(values)[None].float(), affine=affine)


def cube(start, side=5, shape=(16, 15, 14), value=1):
    volume = np.zeros(shape, np.int64)
    volume[tuple(slice(s, s + side) for s in start)] = value
    return volume


def measure(predicted, truth, spacing=(1.0, 1.0, 1.0), **options):
    label = file_label(truth, spacing)
    return measure_case(
        one_hot_statistics(predicted), label.affine, torch.as_tensor(truth)[None].byte(), label, **options
    )


def surface(mask, spacing):
    """Millimetres of the voxels of ``mask`` with one of six neighbours (in a plane: four) outside, (n, axes)."""
    points = []
    for place in np.argwhere(mask):
        for axis in range(mask.ndim):
            for step in (-1, 1):
                other = place.copy()
                other[axis] += step
                outside = not 0 <= other[axis] < mask.shape[axis]
                if outside or not mask[tuple(other)]:
                    points.append(tuple(place * np.asarray(spacing)))
    return np.array(sorted(set(points)))


def brute_force(predicted, truth, spacing):
    """95 % Hausdorff and mean symmetric surface distance from all pairs of surface points."""
    p, t = surface(predicted, spacing), surface(truth, spacing)
    pairs = np.linalg.norm(p[:, None] - t[None], axis=2)
    forth, back = pairs.min(1), pairs.min(0)
    return max(np.percentile(forth, 95), np.percentile(back, 95)), np.concatenate([forth, back]).mean()


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.5, 1.0, 3.0)])
@pytest.mark.parametrize("shift", [(0, 0, 0), (3, 0, 0), (0, 2, 0), (0, 0, 4), (1, -2, 3)])
def test_distances_of_a_shifted_cube_are_those_of_brute_force_in_millimetres(shift, spacing):
    start = (4, 5, 4)
    predicted, truth = cube(np.add(start, shift)), cube(start)
    result = measure(predicted, truth, spacing)
    hausdorff, mean = brute_force(predicted == 1, truth == 1, spacing)
    assert result.hausdorff95[0] == pytest.approx(hausdorff, rel=1e-5)
    assert result.surface_distance[0] == pytest.approx(mean, rel=1e-5)
    overlap = math.prod(max(0, 5 - abs(s)) for s in shift)
    assert result.dice[0] == pytest.approx(overlap / 125)
    assert result.volume_ml[0] == pytest.approx(125 * math.prod(spacing) / 1000)


def test_distances_count_from_both_surfaces():
    predicted, truth = cube((4, 4, 4), side=3), cube((3, 3, 3), side=8)
    result = measure(predicted, truth, (1.0, 2.0, 0.5))
    hausdorff, mean = brute_force(predicted == 1, truth == 1, (1.0, 2.0, 0.5))
    assert result.hausdorff95[0] == pytest.approx(hausdorff, rel=1e-5)
    assert result.surface_distance[0] == pytest.approx(mean, rel=1e-5)


def test_the_spacing_is_that_of_the_files_axes_however_they_are_turned():
    predicted, truth, spacing = cube((6, 5, 4)), cube((4, 4, 4)), (0.5, 1.0, 3.0)
    axes = torch.tensor([[0.0, 0.6, -0.8], [0.0, 0.8, 0.6], [-1.0, 0.0, 0.0]], dtype=torch.float64)
    label = file_label(truth)
    label.affine[:3, :3] = axes * torch.tensor(spacing, dtype=torch.float64)
    result = measure_case(one_hot_statistics(predicted), label.affine, torch.as_tensor(truth)[None], label)
    hausdorff, mean = brute_force(predicted == 1, truth == 1, spacing)
    assert result.dice[0] == pytest.approx(60 / 125)
    assert result.hausdorff95[0] == pytest.approx(hausdorff, rel=1e-5)
    assert result.surface_distance[0] == pytest.approx(mean, rel=1e-5)
    assert result.volume_ml[0] == pytest.approx(125 * 1.5 / 1000)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_distances_in_a_single_slice_are_those_of_its_outlines(axis):
    predicted, truth, spacing = cube((6, 5, 4))[:, :, 5], cube((4, 4, 4))[:, :, 5], (0.5, 2.0)
    volumes = (np.expand_dims(plane, axis) for plane in (predicted, truth))
    result = measure(*volumes, np.insert(spacing, axis, 7.0))
    hausdorff, mean = brute_force(predicted == 1, truth == 1, spacing)
    assert result.dice[0] == pytest.approx(2 * 12 / 50)
    assert result.hausdorff95[0] == pytest.approx(hausdorff, rel=1e-5)
    assert result.surface_distance[0] == pytest.approx(mean, rel=1e-5)


def test_a_surface_may_have_any_number_of_voxels(monkeypatch):
    """As noise over a large volume has, which a committee of a few steps may predict."""
    far = torch.arange((1 << 24) + 1) % 101 * 1.0
    monkeypatch.setattr("svgd_monai.evaluation.cases.get_edge_surface_distance", lambda *_, **__: ((), (far, far), ()))
    result = measure(cube((3, 3, 3)), cube((4, 3, 3)))
    assert result.hausdorff95[0] == 95
    assert result.surface_distance[0] == pytest.approx(50, rel=1e-3)


@pytest.mark.parametrize("shape", [(1, 1, 9), (9, 1, 1), (1, 1, 1)])
def test_distances_in_a_column_are_numbers(shape):
    result = measure(np.ones(shape, np.int64), np.ones(shape, np.int64))
    assert result.hausdorff95[0] == result.surface_distance[0] == 0


def test_a_parallel_shift_is_as_many_millimetres_away_as_it_is_long():
    assert measure(cube((7, 4, 4)), cube((4, 4, 4)), (2.0, 1.0, 1.0)).hausdorff95[0] == pytest.approx(6.0)


def test_distances_to_nothing_are_unknown():
    both = cube((3, 3, 3)) + cube((9, 9, 8), value=2)
    missed, invented, absent = cube((3, 3, 3)), both, cube((3, 3, 3))
    for predicted, truth, dice in ((missed, both, 0.0), (invented, absent, 0.0), (missed, absent, math.nan)):
        result = measure(predicted, truth)
        assert result.dice == [1.0, pytest.approx(dice, nan_ok=True)]
        assert is_nan(result.hausdorff95) == is_nan(result.surface_distance) == [False, True]
        assert result.hausdorff95[0] == result.surface_distance[0] == 0


def test_distances_can_be_left_out():
    result = measure(cube((3, 3, 3)), cube((4, 3, 3)), distances=False)
    assert all(is_nan(result.hausdorff95 + result.surface_distance))
    assert result.dice[0] == pytest.approx(0.8)


def test_the_uncertainty_is_the_mean_of_the_map():
    members = [probabilities(seed)[None] for seed in range(3)]
    mean = torch.stack(members).mean(0)[0]
    entropy = -(mean * mean.log()).sum(0)
    label = file_label(labels()[0])
    arguments = (summarise(members)[0], label.affine, labels(), label)
    assert measure_case(*arguments).uncertainty == pytest.approx(float(entropy.mean()), rel=1e-5)
    foreground = mean.argmax(0) > 0
    result = measure_case(*arguments, reduction="foreground")
    assert result.uncertainty == pytest.approx(float(entropy[foreground].mean()), rel=1e-5)
    member_entropy = torch.stack([-(p[0] * p[0].log()).sum(0) for p in members]).mean(0)
    bald = measure_case(*arguments, uncertainty_map="bald").uncertainty
    assert bald == pytest.approx(float((entropy - member_entropy).mean()), rel=1e-4)


def test_the_calibration_is_that_of_the_working_grid():
    label = file_label(labels()[0])
    result = measure_case(summarise([probabilities()[None]])[0], label.affine, labels(), label)
    torch.testing.assert_close(result.calibration, calibration_bins(probabilities(), labels()))


def test_dice_is_measured_in_both_geometries():
    """The file has twice the resolution."""
    truth = np.zeros((16, 16, 16), np.int64)
    truth[4:12, 4:12, 4:12] = 1
    working = truth[::2, ::2, ::2]
    label = file_label(truth)
    affine = torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0], dtype=torch.float64))
    result = measure_case(one_hot_statistics(working), affine, torch.as_tensor(working)[None], label)
    assert result.dice_grid[0] == 1.0
    assert 0.8 < result.dice[0] < 1.0


def test_classes_are_chosen_after_the_resampling_of_probabilities():
    """Between a sure voxel and an undecided one the sure one wins further than half the way."""
    probability = torch.tensor([[0.0, 0.55], [1.0, 0.45]])[:, :, None, None].expand(2, 2, 2, 2).contiguous()
    statistics = summarise([probability[None]])[0]
    fine = MetaTensor(torch.ones(1, 5, 2, 2), affine=torch.diag(torch.tensor([0.25, 1, 1, 1], dtype=torch.float64)))
    result = measure_case(statistics, torch.eye(4, dtype=torch.float64), torch.ones(1, 2, 2, 2), fine, distances=False)
    # At 0, 1/4, 1/2, 3/4, 1 the second class has 1, 0.8625, 0.725, 0.5875, 0.45: four of five.
    assert result.dice[0] == pytest.approx(2 * 4 / 9)
    assert result.volume_ml[0] == pytest.approx(16 * 0.25 / 1000)


def test_a_perfect_prediction_is_perfect_in_a_file_that_is_stored_the_other_way_round():
    truth = cube((3, 3, 3)) + cube((9, 9, 8), value=2)
    label = file_label(truth[::-1].copy(), flip=True)
    label.affine[0, 3] = truth.shape[0] - 1
    result = measure_case(
        one_hot_statistics(truth), torch.eye(4, dtype=torch.float64), torch.as_tensor(truth)[None], label
    )
    assert result.dice == result.dice_grid == [1.0, 1.0]
    assert result.hausdorff95 == [0.0, 0.0]


# summaries


def result(dice, calibration=None):
    bins = torch.zeros(CALIBRATION_BINS, 3, dtype=torch.float64) if calibration is None else calibration
    return CaseResult(dice, [v / 2 for v in dice], [math.nan, 2.0], [1.0, math.nan], [3.0, 4.0], 0.25, bins)


def test_means_leave_out_what_is_unknown():
    assert mean_over_cases([[0.5, math.nan], [0.7, 0.2], [math.nan, math.nan]]) == pytest.approx([0.6, 0.2])
    assert is_nan(mean_over_cases([[0.5, math.nan], [0.7, math.nan]])) == [False, True]
    assert mean_over_cases([]) == []


def test_a_summary_averages_cases_and_then_classes():
    bins = [torch.zeros(CALIBRATION_BINS, 3, dtype=torch.float64) for _ in range(2)]
    bins[0][9], bins[1][9] = torch.tensor([10.0, 9.5, 10]), torch.tensor([30.0, 28.5, 20])
    summary = summarise_results({"a": result([0.5, math.nan], bins[0]), "b": result([0.7, 0.2], bins[1])}, CLASSES)
    assert summary["cases"] == 2
    assert summary["dice_per_class"] == {"organ": pytest.approx(0.6), "tumour": pytest.approx(0.2)}
    assert summary["dice"] == pytest.approx(0.4)
    assert summary["dice_grid"] == pytest.approx(0.2)
    assert summary["hausdorff95_per_class"] == {"organ": None, "tumour": 2.0}
    assert summary["hausdorff95"] == 2.0
    assert summary["surface_distance_per_class"] == {"organ": 1.0, "tumour": None}
    assert summary["ece"] == pytest.approx(abs(30 - 38) / 40)


def test_a_summary_of_no_case_is_all_unknown():
    summary = summarise_results({}, CLASSES)
    assert summary.pop("cases") == 0
    assert summary.pop("dice_per_class") == {"organ": None, "tumour": None}
    assert {summary[key] for key in ("dice", "dice_grid", "hausdorff95", "surface_distance", "ece")} == {None}


def test_rows_have_a_column_for_every_class_and_bin():
    bins = torch.zeros(CALIBRATION_BINS, 3, dtype=torch.float64)
    bins[9] = torch.tensor([10.0, 9.5, 8.0])
    columns, rows = case_rows({"a": result([0.5, math.nan], bins)}, {"a": "test"}, CLASSES)
    assert columns[:5] == ["case", "role", "uncertainty", "dice", "dice_grid"]
    assert columns[5:15] == [
        f"{what}_{name}"
        for what in ("dice", "dice_grid", "hausdorff95_mm", "surface_distance_mm", "volume_ml")
        for name in ("organ", "tumour")
    ]
    assert columns[15:18] == ["bin_0_voxels", "bin_0_confidence", "bin_0_correct"]
    assert len(columns) == 15 + 3 * CALIBRATION_BINS
    (row,) = rows
    assert set(row) == set(columns)
    assert (row["case"], row["role"], row["uncertainty"]) == ("a", "test", 0.25)
    assert (row["dice"], row["dice_organ"], row["dice_tumour"]) == (0.5, 0.5, None)
    assert (row["dice_grid"], row["dice_grid_organ"], row["dice_grid_tumour"]) == (0.25, 0.25, None)
    assert (row["hausdorff95_mm_organ"], row["surface_distance_mm_organ"]) == (None, 1.0)
    assert (row["volume_ml_organ"], row["volume_ml_tumour"]) == (3.0, 4.0)
    assert (row["bin_9_voxels"], row["bin_9_confidence"], row["bin_9_correct"]) == (10, 9.5, 8)


def test_a_class_has_its_own_numbers_in_whatever_order_the_task_names_the_classes():
    named = {2: "tumour", 0: "background", 1: "organ"}
    results = {"a": result([0.5, 0.75])}
    assert summarise_results(results, named)["dice_per_class"] == {"organ": 0.5, "tumour": 0.75}
    (row,) = case_rows(results, {"a": "test"}, named)[1]
    assert (row["dice_organ"], row["dice_tumour"]) == (0.5, 0.75)
