"""The first cases to label, when no label and so no committee is there: by the images alone."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from svgd_monai.acquisition.view import PairInformation

_LOGGER = logging.getLogger(__name__)

COLD_STARTS = ("diversity", "random")


def farthest_first(
    cases: Sequence[str], pairs: PairInformation, count: int, seed: int, known: Sequence[str] = ()
) -> list[tuple[str, float | None]]:
    """Cases that share least with one another: the farthest-first traversal (Gonzalez 1985, Theor. Comput. Sci. 38).

    Nearness is mutual information. The first case is drawn; each that follows is the one whose nearest chosen case is
    the farthest, that is whose greatest mutual information with the chosen ones is the least. K cases of N cost K N
    pairs and not N². Ties go by case id.

    Args:
        cases: N case ids, in any order; the result does not depend on it.
        pairs: (rows, columns) -> mutual information in nats, NaN where an image is constant. Such a case comes last,
            for it is unlike all others without having anything to show.
        count: K, cases to choose; fewer where there are fewer.
        seed: of the first case, where nothing is known.
        known: cases that count as chosen before; those whose image is constant have no say.

    Returns:
        Case ids in the order of their choice; with each, the greatest mutual information with those known or chosen
        before it, in nats: None for the first where nothing is known, and where it is undefined.
    """
    ids = sorted(set(cases))
    nearest = torch.full((len(ids),), -torch.inf, dtype=torch.float64)
    if known and ids:
        information = pairs(ids, known)
        defined = information[:, ~information.isnan().all(0)]
        nearest = _joined(nearest, defined) if defined.numel() else nearest
    begun = bool((nearest > -torch.inf).any())
    result: list[tuple[str, float | None]] = []
    left = np.ones(len(ids), dtype=bool)
    drawn = random_order(ids, seed)
    while len(result) < min(count, len(ids)):
        if not result and not begun:
            position = _first_defined(ids, drawn, pairs)
        else:
            candidates = np.flatnonzero(left)
            position = int(candidates[int(nearest[torch.as_tensor(candidates)].argmin())])
        value = float(nearest[position])
        left[position] = False
        result.append((ids[position], None if not np.isfinite(value) else value))
        nearest = _joined(nearest, pairs(ids, [ids[position]]))
    return result


def random_order(cases: Sequence[str], seed: int) -> list[str]:
    """The cases in an order that depends on their ids and the seed alone."""
    ids = sorted(cases)
    return [ids[index] for index in np.random.default_rng(seed).permutation(len(ids))]


def _joined(nearest: Tensor, information: Tensor) -> Tensor:
    """(N,) greatest information so far, with that of more columns (N, K); +∞ once undefined, which puts a case last."""
    values = torch.nan_to_num(information, nan=torch.inf).amax(1)
    return torch.maximum(nearest, values)


def _first_defined(ids: Sequence[str], drawn: Sequence[str], pairs: PairInformation) -> int:
    """Position of the first case of the drawn order whose image is not constant; of the first at all if all are."""
    for case in drawn:
        if not bool(pairs([case], [case]).isnan().any()):
            return ids.index(case)
        _LOGGER.warning("the image of case %s is constant after preprocessing; it is not labelled first", case)
    return ids.index(drawn[0])
