"""Query strategies by name: from what is known about the pool to the cases to label next.

A :class:`Strategy` gives every case a score; :func:`select` queries the eligible cases of the highest scores. A
strategy that chooses a batch as a whole expresses its choice in the scores, as `random_foreground` does. To add one,
write a function of the type :data:`ScoreFunction` and a line in the table at the end.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from svgd_monai.acquisition.score import NORMALISE_NAMES, acquisition_score, rank_cases
from svgd_monai.acquisition.uncertainty import UncertaintyName
from svgd_monai.errors import SettingsError

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class PoolView:
    """What a strategy may know about the N cases of the pool; later fields have defaults, so that callers stand.

    Attributes:
        cases: N distinct case ids.
        uncertainty: (N,), of the strategy's `uncertainty_map`, reduced to a number per case.
        information: (N,), mutual information with the labelled cases in nats, NaN where undefined; None: not computed.
        foreground: (N,), predicted foreground volume in ml.
        labelled: (N,) bool.
        rng: source of all random choices; drawing from it changes it, so give a fresh one per round.

    Raises:
        ValueError: the shapes differ, or a case id occurs twice.
    """

    cases: tuple[str, ...]
    uncertainty: Tensor
    information: Tensor | None
    foreground: Tensor
    labelled: Tensor
    rng: np.random.Generator

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

    Raises:
        SettingsError: a value is out of range or unknown.
    """

    mi_weight: float = 1.0
    normalise: str = "minmax"
    reference: str = "unlabelled"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.mi_weight) and self.mi_weight >= 0):
            raise SettingsError(f"mi_weight must be a finite number of 0 or more, got {self.mi_weight}.")
        if self.normalise not in NORMALISE_NAMES:
            raise SettingsError(f"normalise must be one of {', '.join(NORMALISE_NAMES)}, got {self.normalise!r}.")
        if self.reference not in ("unlabelled", "all"):
            raise SettingsError(f"The range of scores must be set by unlabelled or all, got {self.reference!r}.")


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
        name: its name in configurations.
        uncertainty_map: the map whose reduction `PoolView.uncertainty` holds.
        uses_information: whether `PoolView.information` is needed; its computation can be left out otherwise.
        score: from the pool to (N,) scores, −∞ allowed, NaN not.
    """

    name: str
    uncertainty_map: UncertaintyName
    uses_information: bool
    score: ScoreFunction


def get_strategy(name: str) -> Strategy:
    """Look up a strategy by its name.

    Raises:
        SettingsError: no strategy has this name.
    """
    if name not in _STRATEGIES:
        raise SettingsError(f"acquisition must be one of {', '.join(STRATEGY_NAMES)}, got {name!r}.")
    return _STRATEGIES[name]


def select(
    strategy: Strategy, view: PoolView, options: ScoreOptions, count: int, keep_labelled: bool
) -> tuple[Tensor, list[str]]:
    """Score the pool and choose the cases to label next.

    Args:
        strategy: see :func:`get_strategy`.
        view: the pool.
        options: how the terms are weighed.
        count: number of queries; fewer are made when fewer cases are eligible.
        keep_labelled: whether labelled cases are eligible too.

    Returns:
        The scores, (N,) float64 on the CPU, of all cases, and the queried case ids, best first.

    Raises:
        ValueError: the count is negative, the view lacks what the strategy uses, or a score is NaN.
    """
    if count < 0:
        raise ValueError(f"The number of queries cannot be negative, got {count}.")
    labelled = view.labelled.to("cpu", torch.bool)
    eligible = torch.ones_like(labelled) if keep_labelled else ~labelled
    count = min(count, int(eligible.sum()))
    scores = strategy.score(view, options, Query(count, eligible)).to("cpu", torch.float64)
    ranked = [position for position in rank_cases(scores, view.cases) if eligible[position]]
    return scores, [view.cases[position] for position in ranked[:count]]


def _reference(view: PoolView, options: ScoreOptions) -> Tensor | None:
    return None if options.reference == "all" else ~view.labelled.bool()


def _uncertainty(view: PoolView, options: ScoreOptions, _query: Query) -> Tensor:
    """Normalised uncertainty alone."""
    return acquisition_score(view.uncertainty, None, 0.0, options.normalise, _reference(view, options))


def _uncertainty_minus_information(view: PoolView, options: ScoreOptions, query: Query) -> Tensor:
    """The score of Nath et al. 2021."""
    if view.information is None:
        raise ValueError("This strategy needs the mutual information of the pool, which was not computed.")
    if bool(view.information.isnan().all()):
        # Every score would be −∞ and the case ids decide: the case when the only labelled image is constant.
        _LOGGER.warning("Mutual information is undefined for every case of the pool; uncertainty alone ranks it.")
        return _uncertainty(view, options, query)
    return acquisition_score(
        view.uncertainty, view.information, options.mi_weight, options.normalise, _reference(view, options)
    )


def _random(view: PoolView, _options: ScoreOptions, _query: Query) -> Tensor:
    """Uniform numbers in [0, 1), dealt out by case id, so that the pool's order does not matter."""
    order = sorted(range(len(view.cases)), key=lambda position: view.cases[position])
    scores = np.empty(len(order))
    scores[order] = view.rng.random(len(order))
    return torch.from_numpy(scores)


def _random_foreground(view: PoolView, options: ScoreOptions, query: Query) -> Tensor:
    """One random case from each of `count` equal strata of predicted foreground volume.

    The chosen ones have scores in [1, 2), the others in [0, 1), so that ranking makes the choice.
    """
    scores = _random(view, options, query)
    if query.count == 0:
        return scores
    volumes = view.foreground.tolist()
    if not all(math.isfinite(volume) for volume in volumes):
        raise ValueError("The predicted foreground volume of a case is not finite.")
    eligible = torch.nonzero(query.eligible).flatten().tolist()
    eligible.sort(key=lambda position: (volumes[position], view.cases[position]))
    for stratum in np.array_split(np.array(eligible), query.count):
        scores[int(view.rng.choice(stratum))] += 1
    return scores


_STRATEGIES = {
    strategy.name: strategy
    for strategy in (
        Strategy("random", "entropy", False, _random),
        Strategy("random_foreground", "entropy", False, _random_foreground),
        Strategy("entropy", "entropy", False, _uncertainty),
        Strategy("bald", "bald", False, _uncertainty),
        Strategy("variance", "variance", False, _uncertainty),
        Strategy("jensen_shannon", "jensen_shannon", False, _uncertainty),
        Strategy("entropy_mi", "entropy", True, _uncertainty_minus_information),
    )
}
STRATEGY_NAMES: tuple[str, ...] = tuple(_STRATEGIES)
