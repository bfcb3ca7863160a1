"""What the engines of MONAI put out, case by case."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from svgd_monai.errors import SettingsError
from svgd_monai.statistics import STATISTICS, summarise

#: How far from 1 the sum of probabilities may be, of blended windows and half precision.
_TOLERANCE = 1e-3
#: Voxels that are looked at before all are.
_FEW = 4096


def statistics_of(output: Any) -> list[Tensor]:
    """The committee statistics, (C + 2, ...) of each case, in the output of a MONAI evaluator.

    Args:
        output: a decollated list of dictionaries or a batched dictionary with one of: ``statistics``, as
            :class:`~svgd_monai.committee.evaluator.CommitteeEvaluator` gives; ``pred_0``, ``pred_1``, ... as
            :class:`monai.engines.EnsembleEvaluator` gives; ``pred`` alone, a committee of one. Predictions are
            probabilities (C, ...) that sum to 1; or logits (C, ...), of which the softmax is taken; or the probability
            (1, ...) of the one class beside the background, as a sigmoid gives it.

    Raises:
        ValueError: it holds none of them.
        SettingsError: a prediction is none of these: one channel of logits or of classes, or several between 0 and 1
            that do not sum to 1, as sigmoids do. Logits may lie there by chance if a network is untrained; they are
            refused as well, for the softmax of sigmoids would rank by nearly nothing. All 0 counts as logits.
    """
    if isinstance(output, Mapping):  # other keys may hold anything, as the label of unlabelled cases is None
        batched = {key: value for key, value in output.items() if key in (STATISTICS, "pred") or _member(key)}
        size = len(next(iter(batched.values()))) if batched else 1
        output = [{key: value[index] for key, value in batched.items()} or output for index in range(size)]
    return [_statistics(item) for item in output]


def items_of(batch: Any) -> list[Mapping[str, Any]]:
    """The items of an engine's batch, decollated or a batched dictionary."""
    if isinstance(batch, Mapping):  # other keys may hold anything
        batched = {key: batch[key] for key in ("case", "image", "affine") if batch.get(key) is not None}
        size = len(batched.get("case", batched.get("image", ("",))))
        return [{key: value[index] for key, value in batched.items()} for index in range(size)]
    return list(batch)


def voxel_ml(item: Mapping[str, Any]) -> float:
    """Volume of a voxel in ml, from the item's ``affine`` or its image's; 1 mm³ where neither is known."""
    return float(torch.linalg.det(affine_of(item)[:3, :3]).abs()) / 1000.0


def affine_of(item: Mapping[str, Any]) -> Tensor:
    """(4, 4) float64, the item's ``affine`` or its image's; voxels of 1 mm where neither is known."""
    affine = item.get("affine", getattr(item.get("image"), "affine", None))
    return torch.eye(4, dtype=torch.float64) if affine is None else torch.as_tensor(affine, dtype=torch.float64)


def _member(key: Any) -> re.Match[str] | None:
    return re.fullmatch(r"pred_(\d+)", str(key))


def _statistics(item: Mapping[str, Any]) -> Tensor:
    if STATISTICS in item:
        return torch.as_tensor(item[STATISTICS])
    numbers = {int(found[1]): key for key in item if (found := _member(key))}
    keys = [numbers[number] for number in sorted(numbers)] or [key for key in ("pred",) if key in item]
    if not keys:
        raise ValueError(
            f"the evaluator's output has neither statistics nor predictions, only {sorted(map(str, item))}."
        )
    return summarise(_probabilities(torch.as_tensor(item[key])[None], str(key)) for key in keys)[0]


def _probabilities(prediction: Tensor, key: str) -> Tensor:
    """(1, C, ...) as probabilities of the classes; values that are not finite stay so, for the case to be named."""
    exact = torch.finfo(prediction.dtype).eps if prediction.is_floating_point() else 0.0
    within = max(_TOLERANCE, 2 * exact)
    values = prediction.float()
    low, high = (float(bound) for bound in values.aminmax())
    if values.shape[1] == 1:
        return _of_one_channel(prediction, low, high, within, key)
    if math.isfinite(low) and low >= -within:
        least, most = (float(bound) for bound in values.sum(1).aminmax())
        if 1 - within <= least and most <= 1 + within:
            return values.clamp(min=0) if low < 0 else values  # what a blending of windows leaves below 0
        if 0 < high <= 1 + within:
            raise SettingsError(
                f"postprocessing: {key} has {values.shape[1]} channels between 0 and 1 that do not sum to 1, as "
                f"sigmoids do; add Activationsd(keys={key!r}, softmax=True) to the network's logits, or, where classes "
                "do not exclude one another, give the handler statistics of your own."
            )
    return torch.softmax(values, dim=1)


def _of_one_channel(prediction: Tensor, low: float, high: float, within: float, key: str) -> Tensor:
    """(1, 2, ...) from the probability of the foreground, (1, 1, ...)."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return torch.cat([-prediction.float(), prediction.float()], dim=1)
    if low < -within or high > 1 + within:
        raise SettingsError(
            f"postprocessing: {key} has one channel, with values from {low:g} to {high:g}, which are no "
            f"probabilities; add Activationsd(keys={key!r}, sigmoid=True) if they are logits, or leave out what makes "
            "classes of them, such as AsDiscreted."
        )
    # Of one value alone they may be a sigmoid's.
    if not prediction.is_floating_point() or (low == 0 and high == 1 and _are_whole(prediction)):
        raise SettingsError(
            f"postprocessing: {key} has one channel of whole numbers, which are classes and no probabilities; leave "
            "out what makes them, such as AsDiscreted."
        )
    foreground = prediction.float().clamp(0, 1)
    return torch.cat([1 - foreground, foreground], dim=1)


def _are_whole(values: Tensor) -> bool:
    """Whether all values are whole numbers; a few mostly tell."""
    flat = values.flatten()
    few = flat[:: max(1, len(flat) // _FEW)]
    return all(bool((some == some.round()).all()) for some in (few, flat))
