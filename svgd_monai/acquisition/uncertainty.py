"""Where a committee is unsure, voxel by voxel, from its members' class probabilities.

Leading dimensions: M members, B cases, C classes; any number of spatial dimensions follows. All values are in nats but
the variance, which has no unit.

Sliding-window inference never holds M full volumes: every map also follows from the C + 2 statistics of
:mod:`svgd_monai.statistics` (:func:`maps_from_statistics`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, get_args

import torch
from torch import Tensor

from svgd_monai.statistics import EXTRA_CHANNELS, summarise

UncertaintyName = Literal["entropy", "bald", "variance", "jensen_shannon"]
UNCERTAINTY_NAMES: tuple[str, ...] = get_args(UncertaintyName)
#: Of a map's values; a variance of probabilities has none.
UNITS: Mapping[str, str] = MappingProxyType({name: "" if name == "variance" else "nats" for name in UNCERTAINTY_NAMES})


def entropy(probabilities: Tensor) -> Tensor:
    """Entropy of the members' mean, the epistemic uncertainty of Nath et al. 2021 (arXiv 2101.02323).

    H(p̄) = −Σ_c p̄_c log p̄_c,    p̄ = (1/M) Σ_m p_m,    0 log 0 = 0

    Args:
        probabilities: (M, B, C, ...), softmax maps of the members.

    Returns:
        (B, ...), nats, from 0 to log C; float32, or float64 where the input is.

    Raises:
        ValueError: another shape, or no member.
    """
    return _entropy(_members(probabilities).mean(0))


def bald(probabilities: Tensor) -> Tensor:
    """Mutual information of prediction and parameters (Houlsby et al. 2011, arXiv 1112.5745).

    BALD = H(p̄) − (1/M) Σ_m H(p_m)

    It is high where the members are sure of themselves and differ, and 0 where they agree, however unsure.

    Args:
        probabilities: (M, B, C, ...), softmax maps of the members.

    Returns:
        (B, ...), nats, from 0 to log min(C, M).

    Raises:
        ValueError: another shape, or no member.
    """
    members = _members(probabilities)
    mean_entropy = _entropy(members, dim=2).mean(0)
    return (_entropy(members.mean(0)) - mean_entropy).clamp(min=0)


def variance(probabilities: Tensor) -> Tensor:
    """Population variance over members, averaged over classes.

    Var = (1/C) Σ_c (1/M) Σ_m (p_mc − p̄_c)²

    Args:
        probabilities: (M, B, C, ...), softmax maps of the members.

    Returns:
        (B, ...), from 0 to 1/4.

    Raises:
        ValueError: another shape, or no member.
    """
    return _members(probabilities).var(0, correction=0).mean(1)


def jensen_shannon(probabilities: Tensor) -> Tensor:
    """Jensen-Shannon divergence between the members (Kuo et al. 2018, MICCAI, arXiv 1807.06962).

    JS = (1/M) Σ_m KL(p_m ‖ p̄) = (1/M) Σ_m Σ_c p_mc (log p_mc − log p̄_c)

    Voxel by voxel the same number as :func:`bald`.

    Args:
        probabilities: (M, B, C, ...), softmax maps of the members.

    Returns:
        (B, ...), nats, from 0 to log min(C, M).

    Raises:
        ValueError: another shape, or no member.
    """
    members = _members(probabilities)
    # M p̄ is never smaller than a member's p; p̄ itself can underflow to 0 where p does not, and 1 · log 0 would
    # follow.
    total = members.sum(0)
    mass = members.sum(2).mean(0)
    divergence = (torch.xlogy(members, members) - torch.xlogy(members, total)).sum(2).mean(0)
    return (divergence + mass * math.log(len(members))).clamp(min=0)


def committee_statistics(probabilities: Tensor) -> Tensor:
    """Summarise a committee by the C + 2 channels of :mod:`svgd_monai.statistics`.

    Args:
        probabilities: (M, B, C, ...), softmax maps of the members.

    Returns:
        (B, C + 2, ...): mean probability (C), mean member entropy in nats (1), mean of Σ_c p_c² (1).

    Raises:
        ValueError: another shape, or no member.
    """
    return summarise(_members(probabilities))


def maps_from_statistics(statistics: Tensor, num_classes: int, name: str) -> Tensor:
    """Compute an uncertainty map from the C + 2 statistics of a committee.

    entropy  = H(p̄)
    bald     = H(p̄) − E          (jensen_shannon: the same number)
    variance = (S − Σ_c p̄_c²) / C

    with E the mean member entropy and S the mean power. All are concave in p̄, so statistics blended over overlapping
    windows, by weights that sum to 1, give no negative value.

    Args:
        statistics: (B, C + 2, ...), see :func:`committee_statistics`.
        num_classes: C.
        name: `entropy`, `bald`, `variance` or `jensen_shannon`.

    Returns:
        (B, ...), nats (variance: no unit).

    Raises:
        ValueError: the name is unknown, or the channels are not C + 2.
    """
    if statistics.dim() < 2 or statistics.shape[1] != num_classes + EXTRA_CHANNELS:
        raise ValueError(
            f"The statistics of {num_classes} classes need the shape (B, {num_classes + 2}, ...), "
            f"got {tuple(statistics.shape)}."
        )
    values = _upcast(statistics)
    # Blending of windows may leave a p̄ of −1e-9, whose entropy would be −∞.
    mean = values[:, :num_classes].clamp(min=0)
    if name == "entropy":
        return _entropy(mean)
    if name in ("bald", "jensen_shannon"):
        return (_entropy(mean) - values[:, num_classes]).clamp(min=0)
    if name == "variance":
        return ((values[:, num_classes + 1] - mean.square().sum(1)) / num_classes).clamp(min=0)
    raise ValueError(f"Unknown uncertainty {name!r}; known are {', '.join(UNCERTAINTY_NAMES)}.")


def _members(probabilities: Tensor) -> Tensor:
    if probabilities.dim() < 3 or len(probabilities) == 0:
        raise ValueError(
            f"A committee's probabilities need the shape (M, B, C, ...), got {tuple(probabilities.shape)}."
        )
    return _upcast(probabilities)


def _upcast(values: Tensor) -> Tensor:
    """Half precision and integers to float32: the differences below are smaller than half precision resolves."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _entropy(distribution: Tensor, dim: int = 1) -> Tensor:
    """Entropy over the classes, which are dimension `dim`."""
    terms: Tensor = torch.special.entr(distribution)
    return terms.sum(dim)
