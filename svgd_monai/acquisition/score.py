"""The acquisition score: how much a case is worth labelling next."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

NormaliseName = Literal["minmax", "zscore", "rank"]
NORMALISE_NAMES: tuple[str, ...] = get_args(NormaliseName)


def acquisition_score(
    uncertainty: Tensor,
    information: Tensor | None,
    mi_weight: float = 1.0,
    normalise: str = "minmax",
    reference: Tensor | None = None,
) -> Tensor:
    """Uncertainty minus redundancy (Nath et al. 2021, arXiv 2101.02323).

    score_i = n(u)_i − mi_weight · n(MI)_i

    where n maps each term to a common scale that the reference cases R set:

    minmax:  n(x)_i = (x_i − min_R x) / (max_R x − min_R x)
    zscore:  n(x)_i = (x_i − mean_R x) / std_R x                               (population standard deviation)
    rank:    n(x)_i = (number of R below x_i + ½ number of R equal to it) / |R|

    A case outside R may leave the scale: a labelled case's MI exceeds 1 where R holds the unlabelled ones. A case whose
    information is NaN (a constant image) is undefined: it sets no range, of either term, and its score is −∞. Where R
    has no defined case, or a term is equal for all of R, as for a single case, all defined cases set the term's range;
    a term that is equal for these too is 0.

    Args:
        uncertainty: (N,), a value per case, any unit.
        information: (N,), mutual information with the labelled cases, nats; NaN: undefined; None: leave the term out.
        mi_weight: weight of the information term.
        normalise: `minmax`, `zscore` or `rank`.
        reference: (N,) bool, the cases that set the range; None: all.

    Returns:
        (N,) float64, the highest first to be labelled.

    Raises:
        ValueError: shapes differ, `normalise` is unknown, an uncertainty or the weight is not finite, or an information
            is infinite.
    """
    uncertainty = uncertainty.to(torch.float64)
    if uncertainty.dim() != 1:
        raise ValueError(f"Acquisition needs one uncertainty per case, (N,), got {tuple(uncertainty.shape)}.")
    if not bool(torch.isfinite(uncertainty).all()):
        raise ValueError("The uncertainty of a case is not finite.")
    if not math.isfinite(mi_weight):
        raise ValueError(f"The weight of mutual information must be finite, got {mi_weight}.")
    if reference is None:
        reference = torch.ones_like(uncertainty, dtype=torch.bool)
    _check_shape(reference, uncertainty, "reference")
    reference = reference.to(uncertainty.device, torch.bool)
    if information is None:
        return _normalised(uncertainty, reference, torch.ones_like(reference), normalise)

    _check_shape(information, uncertainty, "information")
    information = information.to(uncertainty.device, torch.float64)
    if bool(torch.isinf(information).any()):
        raise ValueError("The mutual information of a case is infinite.")
    defined = ~torch.isnan(information)
    redundancy = _normalised(information, reference & defined, defined, normalise)
    score = _normalised(uncertainty, reference & defined, defined, normalise) - mi_weight * redundancy
    return torch.where(defined, score, -torch.inf)


def rank_cases(scores: Tensor, cases: Sequence[str], labelled: Sequence[bool] | None = None) -> list[int]:
    """Order the cases by score, highest first.

    Ties are broken by case id, the unlabelled first: so the order does not depend on the input's, and no label is
    redrawn where a new one would be as good.

    Args:
        scores: (N,), −∞ allowed.
        cases: N distinct ids.
        labelled: whether each is labelled; None: no difference is made.

    Returns:
        The N positions, best first.

    Raises:
        ValueError: the numbers differ, or a score is NaN.
    """
    values = scores.tolist()
    if len(values) != len(cases):
        raise ValueError(f"{len(values)} scores do not fit {len(cases)} cases.")
    for value, case in zip(values, cases, strict=True):
        if math.isnan(value):
            raise ValueError(f"The score of case {case} is not a number.")
    last = [False] * len(cases) if labelled is None else labelled
    return sorted(range(len(cases)), key=lambda position: (-values[position], last[position], cases[position]))


def _normalised(values: Tensor, reference: Tensor, defined: Tensor, normalise: str) -> Tensor:
    """Map (N,) values to the scale that values[reference] set; values[defined] where those are all equal, or none."""
    if normalise not in NORMALISE_NAMES:
        raise ValueError(f"Unknown normalisation {normalise!r}; known are {', '.join(NORMALISE_NAMES)}.")
    among = next((some for some in (values[reference], values[defined]) if _varies(some)), None)
    if among is None:
        return torch.zeros_like(values)
    if normalise == "minmax":
        return (values - among.min()) / (among.max() - among.min())
    if normalise == "zscore":
        return (values - among.mean()) / among.std(correction=0)
    ordered = among.sort().values
    below = torch.searchsorted(ordered, values)
    below_or_equal = torch.searchsorted(ordered, values, right=True)
    return (below + below_or_equal).to(torch.float64) / (2 * len(among))


def _varies(values: Tensor) -> bool:
    return len(values) > 0 and bool(values.min() < values.max())


def _check_shape(tensor: Tensor, like: Tensor, name: str) -> None:
    if tensor.shape != like.shape:
        raise ValueError(f"The {name} has the shape {tuple(tensor.shape)}, the uncertainty {tuple(like.shape)}.")
