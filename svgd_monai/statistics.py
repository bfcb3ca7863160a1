r"""A committee's prediction, summarised voxel by voxel in C + 2 channels, or 2 C + 2 with its votes.

Every uncertainty of this package follows from three means over the M members: the probability
:math:`\bar p_c`, the member entropy :math:`\overline{H} = -\frac1M \sum_m \sum_c p_{mc} \log p_{mc}` (nats) and the
power :math:`\frac1M \sum_m \sum_c p_{mc}^2`. Their agreement follows from a fourth, the votes
:math:`v_c = \frac1M \sum_m [\arg\max_k p_{mk} = c]`. They are plain means, so they can be summed one member at a time
and blended over sliding windows: M full volumes are never held.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

#: Key of the (B, C + 2, ...) statistics in the output of an evaluator.
STATISTICS = "statistics"
#: Key of the (B, C, ...) votes, where they were asked for.
VOTES = "votes"
#: Channels behind the C mean probabilities: mean member entropy, mean power.
EXTRA_CHANNELS = 2


def summarise(members: Iterable[Tensor], votes: bool = False) -> Tensor:
    """Statistics of a committee.

    Args:
        members: the members' probabilities, each (B, C, ...), one after the other.
        votes: add C channels, the fraction of the members whose most probable class is c.

    Returns:
        (B, C + 2, ...), float32 at least: mean probability, mean member entropy in nats, mean power; with ``votes``
        (B, 2 C + 2, ...), see :func:`split_votes`.

    Raises:
        ValueError: there is no member.
    """
    total, count = None, 0
    for member in members:
        p = member if member.dtype == torch.float64 else member.float()
        entropy = torch.special.entr(p).sum(1, keepdim=True)
        power = p.square().sum(1, keepdim=True)
        channels = [p, entropy, power]
        if votes:
            channels.append(torch.zeros_like(p).scatter_(1, p.argmax(1, keepdim=True), 1.0))
        statistics = torch.cat(channels, dim=1)
        total = statistics if total is None else total.add_(statistics)
        count += 1
    if total is None:
        raise ValueError("a committee needs at least one member.")
    return total / count


def mean_probability(statistics: Tensor) -> Tensor:
    """The C mean probabilities of (B, C + 2, ...) statistics, as a view (B, C, ...)."""
    return statistics[:, :-EXTRA_CHANNELS]


def split_votes(summary: Tensor) -> tuple[Tensor, Tensor]:
    """The (B, C + 2, ...) statistics and the (B, C, ...) votes of a summary with both, as views."""
    classes = (summary.shape[1] - EXTRA_CHANNELS) // 2
    return summary[:, :-classes], summary[:, -classes:]


def member_agreement(votes: Tensor, num_members: int) -> Tensor:
    r"""Dice of the members' hard segmentations with one another, one number a class for all pairs of members.

    It is the generalised overlap of Crum et al. 2006 (IEEE TMI 25(11)), a ratio of sums over the pairs. With
    :math:`A_i` the voxels that member i gives to the class and :math:`n = M v` the members that give it voxel x:

    .. math::
        \frac{\sum_{i<j} 2 |A_i \cap A_j|}{\sum_{i<j} |A_i| + |A_j|} = \frac{\sum_x n (n - 1)}{(M - 1) \sum_x n}

    for a voxel is in :math:`n (n - 1) / 2` intersections, and each member is in M − 1 pairs. Where windows that were
    blended disagree, n is no whole number; below 1 no two members meet, and the term is 0.

    Args:
        votes: (B, C, ...), fraction of the members whose most probable class is c.
        num_members: M.

    Returns:
        (B, C) float64, 0 to 1; NaN where no member sees the class, and for a committee of one.
    """
    count = votes * num_members
    shared = (count * (count - 1)).clamp(min=0).flatten(2).sum(2, dtype=torch.float64)
    sizes = (num_members - 1) * count.flatten(2).sum(2, dtype=torch.float64)
    return torch.where(sizes > 0, shared / sizes, torch.nan)


def agreement_row(votes: Tensor, num_members: int, classes: Sequence[str]) -> dict[str, float | None]:
    """:func:`member_agreement` of a case as tables have it: its mean over the classes, and each of them by its name.

    Args:
        votes: (C, ...), of a case.
        num_members: M.
        classes: names of the C − 1 foreground classes.

    Returns:
        ``agreement_dice`` and ``agreement_dice_<class>``, None where undefined; the mean is over the defined.
    """
    dice = member_agreement(votes[None], num_members)[0, 1:].tolist()
    known = [value for value in dice if not math.isnan(value)]
    row: dict[str, float | None] = {"agreement_dice": sum(known) / len(known) if known else None}
    for name, value in zip(classes, dice, strict=True):
        row[f"agreement_dice_{name}"] = None if math.isnan(value) else value
    return row


def expected_calibration_error(bins: Tensor) -> float:
    r"""ECE :math:`= \sum_b n_b / n \, |acc_b - conf_b|` (Naeini et al. 2015); NaN without voxels.

    Args:
        bins: (bins, 3), of each bin of confidence: voxels, sum of confidence, correct voxels.
    """
    total = float(bins[:, 0].sum())
    return float((bins[:, 2] - bins[:, 1]).abs().sum()) / total if total else math.nan
