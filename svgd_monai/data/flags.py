"""Cases that somebody should look at before they are queried: copies of others, and what lies far from all others.

Flagged cases stay in the pool. A copy of a labelled case would cost a label that teaches nothing, one of a test case
would let the test be learnt, and a scan in other units is mostly an error of an export.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool3d

from svgd_monai.data.check_cache import CaseFacts
from svgd_monai.data.checks import named
from svgd_monai.files import write_csv

FLAGS_FILE = "flagged_cases.csv"
FLAG_COLUMNS = ("case", "role", "what", "detail", "other_case", "other_role")
_SIDE = 8
#: Correlation of signatures from which on two images are one, whatever the rest of the pool looks like.
_SAME = 0.9995
#: Below this, nothing is a copy. Of the 260 scans of Task04 no two correlate above 0.9303 (neighbours there are the two
#: sides of one head); a scan and itself with 3 % noise 0.9998, with gamma 0.8 0.998, cropped by a voxel 0.955 or more.
_ALIKE = 0.95
_CLOSER = 1 / 3  # and it must be so much closer than a case and its nearest usually are
_LEAST_CASES = 11  # with fewer, the range of the pool would hold the case that is far from it
_BLOCK = 1024  # rows of a matrix of correlations

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Flag:
    """What is odd about a case.

    Args:
        case: the case.
        what: ``copy``, ``intensity`` or ``spacing``.
        detail: with numbers.
        other_case: of which it looks like a copy.
    """

    case: str
    what: str
    detail: str
    other_case: str = ""


def signature(image: Tensor) -> Tensor:
    """What is compared of an image: means over 8 x 8 x 8 boxes, centred, of length 1; zeros for a constant image.

    Args:
        image: (C, X, Y, Z), preprocessed and not padded.

    Returns:
        (C · 512,) float32; the product of two is their correlation.
    """
    values = adaptive_avg_pool3d(torch.as_tensor(image).float()[None], _SIDE).flatten()
    centred = values - values.mean()
    length = centred.norm()
    return centred / length if length > 1e-6 * math.sqrt(len(values)) else torch.zeros_like(values)


def find_copies(signatures: Mapping[str, Tensor]) -> list[Flag]:
    """Cases whose image is nearly that of another one.

    Args:
        signatures: of every case, see :func:`signature`.
    """
    if len(signatures) < 2:
        return []
    cases = list(signatures)
    nearest, place = _nearest(torch.stack([signatures[case] for case in cases]))
    alike = nearest.double()
    usual = 1.0 - float(alike.median())
    least = min(max(_ALIKE, 1.0 - _CLOSER * usual), _SAME)
    return [
        Flag(case, "copy", f"correlation {value:.4f}", cases[other])
        for case, value, other in zip(cases, alike.tolist(), place.tolist(), strict=True)
        if value >= least
    ]


def _nearest(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """(N,) highest correlation of each row of (N, K) signatures with another one, and which that is.

    Each pair is multiplied once. Trees or pivots would rule out few pairs: a scan is hardly closer to its nearest than
    scans are to one another (of Task04's, half correlate above 0.88 with their nearest, and half of all pairs above
    0.72).
    """
    nearest, place = torch.full((len(matrix),), -torch.inf), torch.zeros(len(matrix), dtype=torch.long)
    for start in range(0, len(matrix), _BLOCK):
        block, rest = slice(start, start + _BLOCK), slice(start, None)
        products = matrix[block] @ matrix[rest].T
        products.fill_diagonal_(-torch.inf)  # itself
        for cases, axis in ((block, 1), (rest, 0)):
            values, places = products.max(axis)
            place[cases] = torch.where(values > nearest[cases], places + start, place[cases])
            nearest[cases] = torch.maximum(values, nearest[cases])
    return nearest, place


def find_far(facts: Mapping[str, CaseFacts]) -> list[Flag]:
    """Cases whose range of intensities or whose spacing lies far outside that of the others.

    Far is beyond the pool's 10 % and 90 % quantiles by more than their distance and a factor of two, on a logarithmic
    scale, so that a pool of scanners with different units flags none of them.

    Args:
        facts: what the check of every case found.
    """
    if len(facts) < _LEAST_CASES:
        return []
    flags = []
    channels = max(len(fact.image_min) for fact in facts.values())
    measures = [
        ("intensity", "a range of intensities of", {k: f.image_max[c] - f.image_min[c] for k, f in facts.items()})
        for c in range(channels)
    ]
    measures += [
        ("spacing", f"voxels along axis {a}, in mm, of", {k: f.spacing[a] for k, f in facts.items()}) for a in range(3)
    ]
    for what, words, values in measures:
        positive = {case: math.log(value) for case, value in values.items() if value > 0}  # a constant has no range
        if len(positive) < _LEAST_CASES:
            continue
        low, high = np.quantile(list(positive.values()), (0.1, 0.9))
        margin = high - low + math.log(2.0)
        usual = f"{words} {{:g}}, where most have {math.exp(low):g} to {math.exp(high):g}"
        flags += [
            Flag(case, what, usual.format(values[case]))
            for case, value in positive.items()
            if not low - margin <= value <= high + margin
        ]
    return flags


def report_flags(
    path: str | os.PathLike[str],
    signatures: Mapping[str, Tensor],
    facts: Mapping[str, CaseFacts],
    roles: Mapping[str, str] | None = None,
) -> list[Flag]:
    """Write ``flagged_cases.csv``, and warn where it holds a case.

    Args:
        path: the file.
        signatures: of every case of the run.
        facts: of every case of the run.
        roles: of the cases, e.g. ``pool`` or ``test``.

    Returns:
        The flags, by case.
    """
    flags = sorted([*find_copies(signatures), *find_far(facts)], key=lambda flag: (flag.case, flag.what))
    known = roles or {}
    rows = [
        {**asdict(flag), "role": known.get(flag.case, ""), "other_role": known.get(flag.other_case, "")}
        for flag in flags
    ]
    write_csv(path, FLAG_COLUMNS, rows)
    if flags:
        cases = list(dict.fromkeys(flag.case for flag in flags))
        odd, them = ("1 case looks", "it") if len(cases) == 1 else (f"{len(cases)} cases look", "them")
        logger.warning("%s odd, see %s before you label %s: %s", odd, Path(path), them, named(cases))
    return flags
