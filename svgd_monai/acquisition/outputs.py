"""What the engines of MONAI put out, case by case."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from svgd_monai.statistics import STATISTICS, summarise


def statistics_of(output: Any) -> list[Tensor]:
    """The committee statistics, (C + 2, ...) of each case, in the output of a MONAI evaluator.

    Args:
        output: a decollated list of dictionaries or a batched dictionary with one of: ``statistics``, as
            :class:`~svgd_monai.committee.evaluator.CommitteeEvaluator` gives; ``pred_0``, ``pred_1``, ... as
            :class:`monai.engines.EnsembleEvaluator` gives; ``pred`` alone, a committee of one. Predictions are
            probabilities, or else logits, of which the softmax is taken.

    Raises:
        ValueError: it holds none of them.
    """
    if isinstance(output, Mapping):  # other keys may hold anything, as the label of unlabelled cases is None
        batched = {key: value for key, value in output.items() if key in (STATISTICS, "pred") or _member(key)}
        size = len(next(iter(batched.values()))) if batched else 1
        output = [{key: value[index] for key, value in batched.items()} or output for index in range(size)]
    return [_statistics(item) for item in output]


def items_of(batch: Any) -> list[Mapping[str, Any]]:
    """The items of an engine's batch, decollated or a batched dictionary."""
    if isinstance(batch, Mapping):
        return [{key: value[index] for key, value in batch.items()} for index in range(len(batch["case"]))]
    return list(batch)


def voxel_ml(item: Mapping[str, Any]) -> float:
    """Volume of a voxel in ml, from the item's ``affine`` or its image's; 1 mm³ where neither is known."""
    affine = item.get("affine", getattr(item.get("image"), "affine", None))
    if affine is None:
        return 1e-3
    return float(torch.linalg.det(torch.as_tensor(affine, dtype=torch.float64)[:3, :3]).abs()) / 1000.0


def _member(key: Any) -> re.Match[str] | None:
    return re.fullmatch(r"pred_(\d+)", str(key))


def _statistics(item: Mapping[str, Any]) -> Tensor:
    if STATISTICS in item:
        return torch.as_tensor(item[STATISTICS])
    numbers = {int(found[1]): key for key in item if (found := _member(key))}
    members = [item[numbers[number]] for number in sorted(numbers)]
    if not members and "pred" in item:
        members = [item["pred"]]
    if not members:
        raise ValueError(
            f"the evaluator's output has neither statistics nor predictions, only {sorted(map(str, item))}."
        )
    return summarise(_probabilities(torch.as_tensor(member)[None]) for member in members)[0]


def _probabilities(prediction: Tensor) -> Tensor:
    """(1, C, ...) as probabilities: as they are where they sum to one, else the softmax of logits."""
    values = prediction.float()
    total = values.sum(1)
    if bool((values >= 0).all()) and bool(torch.allclose(total, torch.ones_like(total), atol=1e-3)):
        return values
    return torch.softmax(values, dim=1)
