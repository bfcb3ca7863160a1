"""What a committee is worth, case by case, in the geometry that people work in."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.metrics.utils import get_edge_surface_distance
from torch import Tensor

from svgd_monai.acquisition import maps_from_statistics, reduce_map
from svgd_monai.data.spatial import to_grid
from svgd_monai.statistics import expected_calibration_error, mean_probability

#: Bins of confidence, [0, 0.1), ..., [0.9, 1], for calibration.
CALIBRATION_BINS = 10


@dataclass(frozen=True)
class CaseResult:
    """Measurements of one case.

    Attributes:
        dice: per foreground class, in the original geometry; NaN where neither truth nor prediction holds the class,
            0 where one of them does.
        dice_grid: likewise, on the working grid.
        hausdorff95: per class, 95 % Hausdorff distance in mm, original geometry; NaN where either is empty.
        surface_distance: per class, mean symmetric surface distance in mm; likewise. Of a single slice both are
            distances of outlines.
        volume_ml: per class, predicted, original geometry.
        uncertainty: the case's value of the run's uncertainty map.
        calibration: (bins, 3): voxels, sum of confidence, correct voxels, by the mean probability of the predicted
            class on the working grid.
    """

    dice: list[float]
    dice_grid: list[float]
    hausdorff95: list[float]
    surface_distance: list[float]
    volume_ml: list[float]
    uncertainty: float
    calibration: Tensor


def measure_case(
    statistics: Tensor,
    affine: Tensor,
    label_grid: Tensor,
    label_file: MetaTensor,
    uncertainty_map: str = "entropy",
    reduction: str = "mean",
    distances: bool = True,
) -> CaseResult:
    """Measure a committee's prediction of one case.

    The mean *probabilities* are resampled to the file's grid and the class chosen there.

    Args:
        statistics: (C + 2, X, Y, Z), see :mod:`svgd_monai.statistics`.
        affine: (4, 4), voxel to mm of the working grid.
        label_grid: (1, X, Y, Z) class indices on the working grid.
        label_file: (1, X', Y', Z') class indices as they lie in the file, with their affine.
        uncertainty_map: name of the map.
        reduction: from voxels to the case's value.
        distances: whether to compute the distances; NaN otherwise.
    """
    batch = torch.as_tensor(statistics)[None]
    probability = mean_probability(batch)[0]
    classes = probability.shape[0]
    grid_class = probability.argmax(0, keepdim=True)
    grid_truth = label_grid.long().to(probability.device)
    truth = label_file.as_tensor().long().to(probability.device)
    file_class = to_grid(probability, affine, label_file).argmax(0, keepdim=True)

    uncertainty = maps_from_statistics(batch, classes, uncertainty_map)
    axes = torch.as_tensor(label_file.affine, dtype=torch.float64)[:3, :3]
    voxel_ml = float(torch.linalg.det(axes).abs()) / 1000.0
    hausdorff = surface = [math.nan] * (classes - 1)
    if distances:
        hausdorff, surface = _distances(file_class, truth, classes, axes.norm(dim=0).tolist())
    return CaseResult(
        dice=dice_per_class(file_class, truth, classes),
        dice_grid=dice_per_class(grid_class, grid_truth, classes),
        hausdorff95=hausdorff,
        surface_distance=surface,
        volume_ml=[float((file_class == c).sum()) * voxel_ml for c in range(1, classes)],
        uncertainty=float(reduce_map(uncertainty, grid_class > 0, reduction)),
        calibration=calibration_bins(probability, grid_truth),
    )


def dice_per_class(predicted: Tensor, truth: Tensor, classes: int) -> list[float]:
    r"""Dice of each foreground class: :math:`2 |P \cap T| / (|P| + |T|)`; NaN where both are empty.

    Args:
        predicted: class indices, any shape.
        truth: likewise, the same shape.
        classes: C, background among them.
    """
    values = []
    for c in range(1, classes):
        p, t = predicted == c, truth == c
        size = int(p.sum()) + int(t.sum())
        values.append(2.0 * int((p & t).sum()) / size if size else math.nan)
    return values


def calibration_bins(probability: Tensor, truth: Tensor) -> Tensor:
    """Reliability of the predicted class's probability.

    Args:
        probability: (C, X, Y, Z).
        truth: (1, X, Y, Z) class indices.

    Returns:
        (bins, 3) float64: voxels, sum of confidence, correct voxels. The expected calibration error of any set of
        cases follows from the sum of their bins.
    """
    confidence, predicted = probability.max(0)
    correct = (predicted == truth[0]).reshape(-1).double()
    confidence = confidence.reshape(-1).double()
    index = (confidence * CALIBRATION_BINS).long().clamp(0, CALIBRATION_BINS - 1)
    counts = [torch.bincount(index, weights=w, minlength=CALIBRATION_BINS) for w in (None, confidence, correct)]
    return torch.stack([count.double() for count in counts], dim=1).cpu()


def mean_over_cases(results: Sequence[Sequence[float]]) -> list[float]:
    """Mean per class over cases, NaN left out; NaN where no case has the class."""
    return [mean_of_known(column) for column in zip(*results, strict=True)]


def mean_of_known(values: Sequence[float]) -> float:
    """The mean, NaN left out; NaN where all are.

    It is rounded once, so it depends neither on the order of the values nor on how often all of them are there, as
    where several processes validate on the same cases: of two committees that are as good, no digit makes one better.
    """
    known = [float(v) for v in values if not math.isnan(v)]
    return statistics.mean(known) if known else math.nan


def summarise_results(results: Mapping[str, CaseResult], classes: Mapping[int, str]) -> dict[str, Any]:
    """Means over cases as plain values, None where there is nothing to average.

    Args:
        results: by case.
        classes: name of each label value, background 0 included.
    """
    names = _foreground(classes)
    summary: dict[str, Any] = {"cases": len(results)}
    for field in ("dice", "dice_grid", "hausdorff95", "surface_distance"):
        means = mean_over_cases([getattr(result, field) for result in results.values()])
        summary[field] = _plain(mean_of_known(means))
        summary[f"{field}_per_class"] = {
            n: _plain(v) for n, v in zip(names, means or [math.nan] * len(names), strict=True)
        }
    bins = [result.calibration for result in results.values()]
    summary["ece"] = _plain(expected_calibration_error(torch.stack(bins).sum(0))) if bins else None
    return summary


def case_rows(
    results: Mapping[str, CaseResult], roles: Mapping[str, str], classes: Mapping[int, str]
) -> tuple[list[str], list[dict[str, Any]]]:
    """Columns and rows of ``cases.csv``."""
    names = _foreground(classes)
    fields = {"dice": "dice", "dice_grid": "dice_grid", "hausdorff95_mm": "hausdorff95",
              "surface_distance_mm": "surface_distance", "volume_ml": "volume_ml"}  # fmt: skip
    columns = ["case", "role", "uncertainty", "dice", "dice_grid"]
    columns += [f"{column}_{name}" for column in fields for name in names]
    columns += [f"bin_{b}_{what}" for b in range(CALIBRATION_BINS) for what in ("voxels", "confidence", "correct")]
    rows = []
    for case, result in results.items():
        row: dict[str, Any] = {"case": case, "role": roles[case], "uncertainty": result.uncertainty}
        row["dice"], row["dice_grid"] = _plain(mean_of_known(result.dice)), _plain(mean_of_known(result.dice_grid))
        for column, field in fields.items():
            row |= {f"{column}_{n}": _plain(v) for n, v in zip(names, getattr(result, field), strict=True)}
        for b, (voxels, confidence, correct) in enumerate(result.calibration.tolist()):
            row |= {f"bin_{b}_voxels": int(voxels), f"bin_{b}_confidence": confidence, f"bin_{b}_correct": int(correct)}
        rows.append(row)
    return columns, rows


def _foreground(classes: Mapping[int, str]) -> list[str]:
    """Names of all classes but the background, by label value."""
    return [name for value, name in sorted(classes.items()) if value > 0]


def _distances(
    predicted: Tensor, truth: Tensor, classes: int, spacing: Sequence[float]
) -> tuple[list[float], list[float]]:
    """95 % Hausdorff and mean symmetric surface distance per foreground class, from one search of the surfaces."""
    sides = list(truth.shape[1:])
    if sides.count(1) == 1:  # a single slice, whose outline counts: in space every voxel of it is surface
        axis = sides.index(1)
        predicted, truth = predicted.squeeze(axis + 1), truth.squeeze(axis + 1)
        spacing = [*spacing[:axis], *spacing[axis + 1 :]]
    hausdorff, surface = [math.nan] * (classes - 1), [math.nan] * (classes - 1)
    for c in range(1, classes):
        p, t = (x[0] == c for x in (predicted, truth))
        if not p.any() or not t.any():
            continue  # a distance to nothing, left out of means
        _, distances, _ = get_edge_surface_distance(
            p.cpu(), t.cpu(), spacing=list(spacing), symmetric=True, class_index=c
        )
        hausdorff[c - 1] = max(map(_percentile95, distances))
        surface[c - 1] = float(torch.cat(list(distances)).mean())
    return hausdorff, surface


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else value


def _percentile95(distances: Tensor) -> float:
    # torch refuses more values, which noise over a large CT has on its surface; numpy rounds otherwise.
    large = distances.numel() > 1 << 24
    return float(np.percentile(distances.numpy(), 95) if large else torch.quantile(distances, 0.95))
