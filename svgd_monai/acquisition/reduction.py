"""From a map of voxel uncertainties to one number per case."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

ReductionName = Literal["mean", "sum", "foreground", "top"]
REDUCTION_NAMES: tuple[str, ...] = get_args(ReductionName)


def reduce_map(
    uncertainty: Tensor,
    prediction_foreground: Tensor | None = None,
    how: str = "mean",
    top_fraction: float = 0.05,
) -> Tensor:
    """Reduce a map of voxels to one number per case.

    Args:
        uncertainty: (B, ...), one value per voxel.
        prediction_foreground: (B, ...), true where the committee predicts another class than background; needed by
            `foreground` only.
        how: `mean` over all voxels, which dilutes small structures; `sum`, which favours large volumes; `foreground`,
            the mean over predicted foreground, or over all voxels where there is none; `top`, the mean of the highest
            `top_fraction` of the voxels (at least one).
        top_fraction: above 0, at most 1.

    Returns:
        (B,), in the unit of the map (`sum`: unit times voxels).

    Raises:
        ValueError: `how` is unknown, `foreground` lacks a prediction of the map's shape, there are no voxels, or
            `top_fraction` is out of range.
    """
    if uncertainty.dim() < 2 or uncertainty[0:1].numel() == 0:
        raise ValueError(f"A map needs the shape (B, ...) with at least one voxel, got {tuple(uncertainty.shape)}.")
    flat = uncertainty.flatten(1).to(torch.promote_types(uncertainty.dtype, torch.float32))
    if how == "mean":
        return flat.mean(1)
    if how == "sum":
        return flat.sum(1)
    if how == "foreground":
        if prediction_foreground is None or prediction_foreground.shape != uncertainty.shape:
            raise ValueError("The mean over foreground needs a predicted foreground of the map's shape.")
        inside = prediction_foreground.reshape(flat.shape).bool()
        inside = inside | ~inside.any(1, keepdim=True)
        return torch.where(inside, flat, 0).sum(1) / inside.sum(1)
    if how == "top":
        if not 0 < top_fraction <= 1:
            raise ValueError(f"top_fraction must be above 0 and at most 1, got {top_fraction}.")
        return flat.topk(max(1, round(top_fraction * flat.shape[1])), dim=1, sorted=False).values.mean(1)
    raise ValueError(f"Unknown reduction {how!r}; known are {', '.join(REDUCTION_NAMES)}.")
