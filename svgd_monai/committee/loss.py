"""The Dice log-likelihood."""

from __future__ import annotations

import torch
from monai.networks import one_hot
from monai.utils import LossReduction
from torch import Tensor
from torch.nn.modules.loss import _Loss


class LogDiceLoss(_Loss):
    r"""Minus the Dice log-likelihood, :math:`-\mathrm{mean}_{b, c} \log \mathrm{SoftDice}_{bc}`.

    .. math::
        \mathrm{SoftDice}_{bc} = \frac{2 \sum_v p_{bcv}\, y_{bcv} + \epsilon_n}
                                      {\sum_v p_{bcv}^2 + \sum_v y_{bcv}^2 + \epsilon_d}

    (squared denominators as in V-Net). Its gradient is ∇Dice / Dice, so a class that is missed entirely still pulls;
    the smoothing ε bounds how hard.

    A class that an item's target does not hold has SoftDice ≈ ε / Σp²: a term of about −log ε ≈ 11 whose gradient is
    many times that of all the others and teaches the network to predict the class nowhere at all. Most 48³
    patches of a CT hold no tumour. Such a term is left out of its item's mean (``absent="skip"``, the default); the
    false positives it would have punished still cost Dice in the classes that are there, background among them.

    Args:
        include_background: whether channel 0 takes part in the mean.
        to_onehot_y: the target holds class indices (B, 1, ...) in place of one channel a class.
        softmax: the input holds logits; otherwise probabilities.
        squared_pred: squared denominators; otherwise sums, as in :class:`monai.losses.DiceLoss`.
        reduction: ``mean`` (over the present classes of an item, then over items), ``sum``, or ``none`` (shape
            (B, C, 1, ...), or (1, C, 1, ...) with ``batch``; absent terms are 0).
        smooth_nr: ε_n, above 0.
        smooth_dr: ε_d, above 0.
        batch: sums run over the batch as well, so that a class is absent only when no item holds it.
        absent: ``skip`` leaves the terms of absent classes out, ``smooth`` keeps them (the plain smoothed form).

    Raises:
        ValueError: an argument is out of range; shapes of input and target differ, or there is only background.

    Source: Nath et al. 2021 (arXiv 2101.02323), section III; Milletari et al. 2016 for the squared form.
    """

    def __init__(
        self,
        include_background: bool = True,
        to_onehot_y: bool = False,
        softmax: bool = False,
        squared_pred: bool = True,
        reduction: LossReduction | str = LossReduction.MEAN,
        smooth_nr: float = 1e-5,
        smooth_dr: float = 1e-5,
        batch: bool = False,
        absent: str = "skip",
    ) -> None:
        super().__init__(reduction=LossReduction(reduction).value)
        if absent not in ("skip", "smooth"):
            raise ValueError(f"absent must be 'skip' or 'smooth', got {absent!r}.")
        if min(smooth_nr, smooth_dr) <= 0:
            raise ValueError("smooth_nr and smooth_dr must be above 0: log Dice has no value where Dice is 0.")
        self.include_background = include_background
        self.to_onehot_y = to_onehot_y
        self.softmax = softmax
        self.squared_pred = squared_pred
        self.smooth_nr = smooth_nr
        self.smooth_dr = smooth_dr
        self.batch = batch
        self.absent = absent

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """−log SoftDice.

        Args:
            input: (B, C, ...) logits or probabilities.
            target: (B, C, ...), or (B, 1, ...) class indices with ``to_onehot_y``.

        Returns:
            shape () for ``mean`` and ``sum``.
        """
        full = input if input.dtype == torch.float64 else input.float()  # a sum over voxels in half precision is none
        probabilities = torch.softmax(full, dim=1) if self.softmax else full
        truth = one_hot(target, num_classes=input.shape[1]) if self.to_onehot_y else target
        if truth.shape != input.shape:
            raise ValueError(f"target has the shape {tuple(truth.shape)}, input {tuple(input.shape)}.")
        truth = truth.to(probabilities.dtype)
        if not self.include_background:
            if input.shape[1] == 1:
                raise ValueError("include_background=False leaves nothing of an input of one channel.")
            probabilities, truth = probabilities[:, 1:], truth[:, 1:]

        axes = ([0] if self.batch else []) + list(range(2, input.ndim))
        overlap = (probabilities * truth).sum(axes)
        power = 2 if self.squared_pred else 1
        size = probabilities.pow(power).sum(axes) + truth.pow(power).sum(axes)
        terms = -torch.log((2.0 * overlap + self.smooth_nr) / (size + self.smooth_dr))
        terms = terms.reshape(-1, terms.shape[-1])
        present = (truth.sum(axes) > 0).reshape(terms.shape) if self.absent == "skip" else torch.ones_like(terms)
        return self._reduce(terms, present.to(terms.dtype), input.ndim - 2)

    def _reduce(self, terms: Tensor, present: Tensor, spatial_dims: int) -> Tensor:
        kept = terms * present
        if self.reduction == LossReduction.SUM:
            return kept.sum()
        if self.reduction == LossReduction.NONE:
            return kept.reshape(*kept.shape, *[1] * spatial_dims)
        return (kept.sum(1) / present.sum(1).clamp_min(1.0)).mean()
