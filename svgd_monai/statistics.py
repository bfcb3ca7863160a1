r"""A committee's prediction, summarised voxel by voxel in C + 2 channels.

Every uncertainty of this package follows from three means over the M members: the probability
:math:`\bar p_c`, the member entropy :math:`\overline{H} = -\frac1M \sum_m \sum_c p_{mc} \log p_{mc}` (nats) and the
power :math:`\frac1M \sum_m \sum_c p_{mc}^2`. They are plain means, so they can be summed one member at a time and
blended over sliding windows: M full volumes are never held.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

#: Key of the (B, C + 2, ...) statistics in the output of an evaluator.
STATISTICS = "statistics"
#: Channels behind the C mean probabilities: mean member entropy, mean power.
EXTRA_CHANNELS = 2


def summarise(members: Iterable[Tensor]) -> Tensor:
    """Statistics of a committee.

    Args:
        members: the members' probabilities, each (B, C, ...), one after the other.

    Returns:
        (B, C + 2, ...), float32 at least: mean probability, mean member entropy in nats, mean power.

    Raises:
        ValueError: there is no member.
    """
    total, count = None, 0
    for member in members:
        p = member if member.dtype == torch.float64 else member.float()
        entropy = torch.special.entr(p).sum(1, keepdim=True)
        power = p.square().sum(1, keepdim=True)
        statistics = torch.cat([p, entropy, power], dim=1)
        total = statistics if total is None else total.add_(statistics)
        count += 1
    if total is None:
        raise ValueError("a committee needs at least one member.")
    return total / count


def mean_probability(statistics: Tensor) -> Tensor:
    """The C mean probabilities of (B, C + 2, ...) statistics, as a view (B, C, ...)."""
    return statistics[:, :-EXTRA_CHANNELS]
