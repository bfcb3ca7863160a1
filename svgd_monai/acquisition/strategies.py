"""Query strategies by name: from what is known about the pool to the cases to label next.

A :class:`Strategy` gives every case a score; :func:`select` queries the eligible cases of the highest scores. A
strategy that chooses a batch as a whole expresses its choice in the scores, as `random_foreground` and `max_cover` do.
A strategy is a function of the type :data:`~svgd_monai.acquisition.view.ScoreFunction` and a line in the table at the
end, or, outside the package, the dotted path of that function (:mod:`svgd_monai.acquisition.registry`).
"""

from __future__ import annotations

import logging
import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from svgd_monai.acquisition.cover import max_cover
from svgd_monai.acquisition.registry import is_dotted_path, resolve_strategy
from svgd_monai.acquisition.score import acquisition_score, rank_cases
from svgd_monai.acquisition.view import PoolView, Query, ScoreOptions, Strategy
from svgd_monai.errors import SettingsError

_LOGGER = logging.getLogger(__name__)
_POWER = 1.0  # β of power_bald
REDRAWS = ("score", "random")


def get_strategy(name: str) -> Strategy:
    """Look up a strategy by its name, or import it by its dotted path.

    Args:
        name: one of :data:`STRATEGY_NAMES`, which come first, or e.g. ``my_module.my_strategy``.

    Raises:
        SettingsError: no strategy has this name, or the path leads to none.
    """
    if name in _STRATEGIES:
        return _STRATEGIES[name]
    if is_dotted_path(name):
        return resolve_strategy(name)
    known = ", ".join(STRATEGY_NAMES)
    raise SettingsError(f"acquisition must be one of {known}, or your own as module.function, got {name!r}.")


def select(
    strategy: Strategy,
    view: PoolView,
    options: ScoreOptions,
    count: int,
    keep_labelled: bool,
    redraws: str = "score",
    shuffle_scores: bool = False,
) -> tuple[Tensor, list[str]]:
    """Score the pool and choose the cases to label next.

    Args:
        strategy: see :func:`get_strategy`.
        view: the pool.
        options: how the terms are weighed.
        count: number of queries; fewer are made when fewer cases are eligible.
        keep_labelled: whether labelled cases are eligible too.
        redraws: ``score``: labelled cases of the highest scores are drawn again; ``random``: as many labelled cases as
            the scores would draw again, but any of them (a control: the same oversampling, of other cases).
        shuffle_scores: deal the scores out anew at random, among the unlabelled and among the labelled cases each (a
            control: the strategy's number of redraws, and none of its knowledge).

    Returns:
        The scores, (N,) float64 on the CPU, of all cases, and the queried case ids, best first.

    Raises:
        ValueError: the count is negative, or the view lacks what the strategy uses.
        SettingsError: the strategy did not return a number per case, or ``redraws`` is unknown.
    """
    if redraws not in REDRAWS:
        raise SettingsError(f"redraws: {redraws!r} is not one of {', '.join(REDRAWS)}.")
    if count < 0:
        raise ValueError(f"The number of queries cannot be negative, got {count}.")
    labelled = view.labelled.to("cpu", torch.bool)
    eligible = torch.ones_like(labelled) if keep_labelled else ~labelled
    count = min(count, int(eligible.sum()))
    scores = _scores(strategy, view, options, Query(count, eligible))
    if shuffle_scores:
        scores = _shuffled(view, scores)
    chosen = [position for position in rank_cases(scores, view.cases, labelled.tolist()) if eligible[position]][:count]
    if redraws == "random":
        chosen = _redrawn_at_random(view, chosen)
    return scores, [view.cases[position] for position in chosen]


def _by_case(view: PoolView, labelled: bool) -> list[int]:
    """Positions of the labelled or of the unlabelled cases, by case id, so that the pool's order does not matter."""
    positions = [p for p, known in enumerate(view.labelled.tolist()) if known == labelled]
    return sorted(positions, key=lambda position: view.cases[position])


def _shuffled(view: PoolView, scores: Tensor) -> Tensor:
    """The scores dealt out anew among the unlabelled, and among the labelled cases."""
    dealt = scores.clone()
    for labelled in (False, True):
        positions = _by_case(view, labelled)
        # Sorted before they are dealt: a shuffle must not depend on who had them.
        values = scores[positions].sort().values
        dealt[positions] = values[torch.from_numpy(view.rng.permutation(len(positions)))]
    return dealt


def _redrawn_at_random(view: PoolView, chosen: list[int]) -> list[int]:
    """The choice with its labelled cases replaced by as many labelled ones drawn at random."""
    labelled = view.labelled.tolist()
    places = [place for place, position in enumerate(chosen) if labelled[position]]
    drawn = view.rng.choice(np.array(_by_case(view, True), dtype=np.int64), len(places), replace=False)
    replaced = list(chosen)
    for place, position in zip(places, drawn, strict=True):
        replaced[place] = int(position)
    return replaced


def _scores(strategy: Strategy, view: PoolView, options: ScoreOptions, query: Query) -> Tensor:
    returned = strategy.score(view, options, query)
    wanted = f"acquisition: {strategy.name} must return one score per case, ({len(view.cases)},), it returned"
    try:
        scores = torch.as_tensor(returned, dtype=torch.float64, device="cpu").detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise SettingsError(f"{wanted} a {type(returned).__name__}.") from error
    if scores.shape != (len(view.cases),):
        raise SettingsError(f"{wanted} the shape {tuple(scores.shape)}.")
    for case, undefined in zip(view.cases, scores.isnan().tolist(), strict=True):
        if undefined:
            raise SettingsError(f"acquisition: {strategy.name} gave case {case} a score that is not a number.")
    return scores


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
    """Uniform numbers in [0, 1)."""
    return _dealt(view, view.rng.random(len(view.cases)))


def _dealt(view: PoolView, numbers: NDArray[np.float64]) -> Tensor:
    """(N,) random numbers dealt out by case id, so that the pool's order does not matter."""
    order = sorted(range(len(view.cases)), key=lambda position: view.cases[position])
    scores = np.empty(len(order))
    scores[order] = numbers
    return torch.from_numpy(scores)


def _power_bald(view: PoolView, _options: ScoreOptions, query: Query) -> Tensor:
    """Power acquisition (Kirsch et al. 2023, Stochastic Batch Acquisition, TMLR, arXiv 2106.12059).

    score_i = β log BALD_i + G_i,    G_i ~ Gumbel(0, 1),  β = 1

    The highest k are a draw of k cases without replacement, each in proportion to BALD^β among those left: the batch is
    spread out as the top k of BALD are not. BALD is the case's value in nats, of any reduction: a common factor changes
    no draw. A case of BALD 0, whose score would be −∞, gets that of the smallest positive number: it comes after all
    others, and among its like at random.
    """
    if not bool(torch.isfinite(view.uncertainty).all() and (view.uncertainty >= 0).all()):
        raise ValueError("The BALD of a case is negative or not finite.")
    values = view.uncertainty.to("cpu", torch.float64).clamp(min=torch.finfo(torch.float64).tiny)
    return _POWER * values.log() + _dealt(view, view.rng.gumbel(size=len(view.cases)))


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
        Strategy("max_cover", "entropy", True, max_cover),
        Strategy("power_bald", "bald", False, _power_bald),
    )
}
STRATEGY_NAMES: tuple[str, ...] = tuple(_STRATEGIES)
