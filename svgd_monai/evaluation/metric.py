"""The Dice of ``metrics.json`` as a metric of MONAI's, for a validation within a training."""

from __future__ import annotations

from typing import Any

import torch
from monai.metrics import CumulativeIterationMetric
from torch import Tensor

from svgd_monai.evaluation.cases import dice_per_class, mean_of_known, mean_over_cases


class CaseDice(CumulativeIterationMetric):
    """Mean, over the foreground classes, of each class's mean Dice over the cases, as in ``metrics.json``.

    A class that is predicted where the truth has none counts 0. MONAI's ``DiceMetric`` leaves it out, so that of two
    committees it would prefer the one that invents a tumour. If no case has any foreground, in truth or prediction, the
    mean is NaN, which a checkpoint ignores; MONAI's is 0.

    Predictions and truths are one-hot, (B, C, ...) or lists of (C, ...), background first.

    Wire it by ``monai.handlers.IgniteMetricHandler(metric_fn=CaseDice(), ...)``.
    """

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, **kwargs: Any) -> Tensor:
        """(B, C, ...) one-hot prediction and truth to (B, C - 1), NaN where both lack the class."""
        assert y is not None
        pairs = zip(y_pred.argmax(1), y.argmax(1), strict=True)
        return torch.tensor([dice_per_class(p, t, y.shape[1]) for p, t in pairs], dtype=torch.float64, device=y.device)

    def aggregate(self) -> Tensor:
        """The mean, shape (), in double precision."""
        return torch.tensor(mean_of_known(mean_over_cases(self.get_buffer().tolist())), dtype=torch.float64)
