"""What a query strategy is given and what it gives: the contracts of this room."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from svgd_monai.acquisition.score import NORMALISE_NAMES
from svgd_monai.acquisition.uncertainty import UNCERTAINTY_NAMES, UncertaintyName
from svgd_monai.errors import SettingsError

#: (rows, columns) -> (N, K) float64: mutual information of images in nats, by case id, NaN where either is constant.
PairInformation = Callable[[Sequence[str], Sequence[str]], Tensor]
#: (cases) -> (N,) float64: entropy of images in nats, by case id, NaN where constant.
ImageEntropies = Callable[[Sequence[str]], Tensor]


@dataclass(frozen=True)
class PoolView:
    """What a strategy may know about the N cases of the pool; later fields have defaults, to keep callers working.

    Attributes:
        cases: N distinct case ids.
        uncertainty: (N,), of the strategy's `uncertainty_map`, reduced to a number per case.
        information: (N,), mutual information with the labelled cases in nats, NaN where undefined; None: not computed.
        foreground: (N,), predicted foreground volume in ml.
        labelled: (N,) bool.
        rng: source of all random choices; drawing from it changes it, so give a fresh one per round.
        pairs: mutual information of any cases with any others, from the pool and the labelled ones, including those
            that have left the pool; MI(a, a) is the entropy of a. Only the pairs asked for are computed. None: absent.
        labelled_cases: ids of all labelled cases, those that have left the pool too.
        entropies: entropy of any cases' images in nats, as `pairs` of each with itself, but in one pass. None: absent.

    Raises:
        ValueError: the shapes differ, or a case id occurs twice.
    """

    cases: tuple[str, ...]
    uncertainty: Tensor
    information: Tensor | None
    foreground: Tensor
    labelled: Tensor
    rng: np.random.Generator
    pairs: PairInformation | None = None
    labelled_cases: tuple[str, ...] = ()
    entropies: ImageEntropies | None = None

    def __post_init__(self) -> None:
        if len(set(self.cases)) != len(self.cases):
            raise ValueError("A case id occurs twice in the pool.")
        for name in ("uncertainty", "information", "foreground", "labelled"):
            values = getattr(self, name)
            if values is not None and values.shape != (len(self.cases),):
                raise ValueError(f"The pool has {len(self.cases)} cases, its {name} the shape {tuple(values.shape)}.")


@dataclass(frozen=True)
class ScoreOptions:
    """How the terms of a score are weighed.

    Attributes:
        mi_weight: weight of mutual information, 0 or more.
        normalise: `minmax`, `zscore` or `rank`, see :func:`acquisition_score`.
        reference: the cases that set the range: `unlabelled`, or `all` (the form of Nath et al. 2021).
        candidates: how many of the most uncertain cases `max_cover` chooses from, twice the queries at the least.

    Raises:
        SettingsError: a value is out of range or unknown.
    """

    mi_weight: float = 1.0
    normalise: str = "minmax"
    reference: str = "unlabelled"
    candidates: int = 16

    def __post_init__(self) -> None:
        if not (math.isfinite(self.mi_weight) and self.mi_weight >= 0):
            raise SettingsError(f"mi_weight must be a finite number of 0 or more, got {self.mi_weight}.")
        if self.normalise not in NORMALISE_NAMES:
            raise SettingsError(f"normalise must be one of {', '.join(NORMALISE_NAMES)}, got {self.normalise!r}.")
        if self.reference not in ("unlabelled", "all"):
            raise SettingsError(f"The range of scores must be that of unlabelled or all cases, got {self.reference!r}.")
        if self.candidates < 1:
            raise SettingsError(f"candidates must be 1 or more, got {self.candidates}.")


@dataclass(frozen=True)
class Query:
    """What is asked for.

    Attributes:
        count: number of cases to choose, at most the eligible ones.
        eligible: (N,) bool, the cases that may be chosen.
    """

    count: int
    eligible: Tensor


ScoreFunction = Callable[[PoolView, ScoreOptions, Query], Tensor]


@dataclass(frozen=True)
class Strategy:
    """A query strategy.

    Attributes:
        name: its name in configurations: a word, or the dotted path of a user's own.
        uncertainty_map: the map whose reduction `PoolView.uncertainty` holds.
        uses_information: whether `PoolView.information` is needed; its computation can be left out otherwise.
        score: from the pool to (N,) scores, −∞ allowed, NaN not.

    Raises:
        SettingsError: there is no such uncertainty map.
    """

    name: str
    uncertainty_map: UncertaintyName
    uses_information: bool
    score: ScoreFunction

    def __post_init__(self) -> None:
        if self.uncertainty_map not in UNCERTAINTY_NAMES:
            known = ", ".join(UNCERTAINTY_NAMES)
            raise SettingsError(
                f"The uncertainty map of a strategy must be one of {known}, got {self.uncertainty_map}."
            )
