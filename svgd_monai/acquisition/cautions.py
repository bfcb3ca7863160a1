"""What the log says of a pool whose scores do not tell what they seem to tell."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

from torch import Tensor

logger = logging.getLogger(__name__)


def warn_undefined(cases: Sequence[str], information: Tensor) -> None:
    """Name the cases, of (N,), whose mutual information is NaN."""
    undefined = [case for case, value in zip(cases, information.tolist(), strict=True) if math.isnan(value)]
    if undefined:
        logger.warning(
            "mutual information is undefined for %s, whose image is constant after preprocessing: ranked last",
            ", ".join(undefined),
        )


def warn_certain(uncertainty: Sequence[float]) -> None:
    """Say where no case of several has any uncertainty, which no strategy could then rank by."""
    if len(uncertainty) > 1 and not any(uncertainty):
        logger.warning(
            "the uncertainty of all cases is 0, which tells none from another, as where predictions are classes in "
            "place of probabilities (leave out what makes them, such as AsDiscreted), or where a single member "
            "disagrees with nobody"
        )
