"""From a map of voxel uncertainties to one number per case, whole or piece by piece."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, get_args

import torch
from torch import Tensor

ReductionName = Literal["mean", "sum", "foreground", "top"]
REDUCTION_NAMES: tuple[str, ...] = get_args(ReductionName)

#: Voxels of a piece: its maps are small beside a volume, and large enough for the processor.
SLAB_VOXELS = 1 << 21


def slabs(volume: Tensor, voxels: int = SLAB_VOXELS) -> Iterator[Tensor]:
    """A volume in slabs along its first axis, as views.

    Args:
        volume: (C, X, ...).
        voxels: of a slab, at most; one layer is the least.

    Yields:
        (C, x, ...).
    """
    yield from volume.split(max(1, voxels // max(1, volume[0, :1].numel())), dim=1)


class MapReduction:
    """One case's number, from the pieces of its map of voxels: no copy of the map is made.

    Args:
        how: as for :func:`reduce_map`.
        voxels: of the whole map.
        top_fraction: as for :func:`reduce_map`.

    Raises:
        ValueError: ``how`` is unknown, there are no voxels, or ``top_fraction`` is out of range.
    """

    def __init__(self, how: str, voxels: int, top_fraction: float = 0.05) -> None:
        if how not in REDUCTION_NAMES:
            raise ValueError(f"Unknown reduction {how!r}; known are {', '.join(REDUCTION_NAMES)}.")
        if voxels < 1:
            raise ValueError("A map needs at least one voxel.")
        if how == "top" and not 0 < top_fraction <= 1:
            raise ValueError(f"top_fraction must be above 0 and at most 1, got {top_fraction}.")
        self.how = how
        self._voxels = voxels
        self._kept = max(1, round(top_fraction * voxels))
        self._sum = self._sum_inside = 0.0
        self._inside = 0
        self._top: Tensor | None = None

    def add(self, values: Tensor, foreground: Tensor | None = None) -> None:
        """Take in a piece.

        Args:
            values: of any shape.
            foreground: bool, of the same shape; needed by ``foreground`` only.

        Raises:
            ValueError: ``foreground`` is needed and missing, or of another shape.
        """
        flat = values.reshape(-1).to(torch.promote_types(values.dtype, torch.float32))
        if self.how == "top":
            self._keep(flat)
            return
        self._sum += float(flat.sum(dtype=torch.float64))
        if self.how == "foreground":
            if foreground is None or foreground.shape != values.shape:
                raise ValueError("The mean over foreground needs a predicted foreground of the map's shape.")
            inside = flat[foreground.reshape(-1).bool()]
            self._sum_inside += float(inside.sum(dtype=torch.float64))
            self._inside += len(inside)

    def value(self) -> float:
        """The number of the whole map, when all its pieces are in."""
        if self.how == "top":
            assert self._top is not None  # a map has a voxel
            return float(self._top.mean(dtype=torch.float64))
        if self.how == "sum":
            return self._sum
        if self.how == "foreground" and self._inside > 0:
            return self._sum_inside / self._inside
        return self._sum / self._voxels

    def _keep(self, flat: Tensor) -> None:
        if self._top is not None:
            # Most pieces have little above what is kept already.
            flat = torch.cat([self._top, flat if len(self._top) < self._kept else flat[flat > self._top.min()]])
        self._top = flat.topk(min(self._kept, len(flat)), sorted=False).values


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
        (B,), in the unit of the map (`sum`: unit times voxels); float32, or float64 where the map is.

    Raises:
        ValueError: `how` is unknown, `foreground` lacks a prediction of the map's shape, there are no voxels, or
            `top_fraction` is out of range.
    """
    if uncertainty.dim() < 2 or uncertainty[0:1].numel() == 0:
        raise ValueError(f"A map needs the shape (B, ...) with at least one voxel, got {tuple(uncertainty.shape)}.")
    if prediction_foreground is not None and len(prediction_foreground) != len(uncertainty):
        raise ValueError(f"{len(uncertainty)} maps need as many foregrounds, got {len(prediction_foreground)}.")
    values = []
    for case, voxels in enumerate(uncertainty):
        reduction = MapReduction(how, voxels.numel(), top_fraction)
        reduction.add(voxels, None if prediction_foreground is None else prediction_foreground[case])
        values.append(reduction.value())
    kind = torch.promote_types(uncertainty.dtype, torch.float32)
    return torch.tensor(values, dtype=kind, device=uncertainty.device)
