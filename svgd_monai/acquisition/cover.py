"""Maximum cover: the uncertain cases that stand for most of the pool."""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from svgd_monai.acquisition.score import acquisition_score
from svgd_monai.acquisition.view import ImageEntropies, PairInformation, PoolView, Query, ScoreOptions

_LOGGER = logging.getLogger(__name__)


def max_cover(view: PoolView, options: ScoreOptions, query: Query) -> Tensor:
    """Suggestive annotation (Yang et al. 2017, MICCAI, arXiv 1706.04737).

    Of the K most uncertain unlabelled cases, greedily the S that maximises

        F(S) = Σ_{i in U} max_{j in S ∪ L} sim(i, j),    sim(i, j) = MI(i, j) / √( H(i) H(j) )

    with U the unlabelled and L the labelled cases. One case after the other joins S, that of the greatest gain; F grows
    by at least 1 − 1/e of what the best S of that size would add (Nemhauser et al. 1978). K is `options.candidates`, or
    twice the queries where that is more, the ratio of Yang et al. (16 and 8).

    Two things differ from the source. Its sim is the cosine of descriptors from the network; here it is the normalised
    mutual information of the images (Strehl and Ghosh 2002, JMLR 3), from 0 to sim(i, i) = 1, which exists for any
    network. Its S starts empty; here what L covers counts as covered, for with few queries a round it is the earlier
    rounds that a choice must not repeat. So a labelled case would gain nothing: it comes after all candidates.

    An undefined case (a constant image) covers nothing, is not covered, and ranks last.

    Args:
        view: the pool, with `pairs`, of which U × (K + L) are asked for, and `entropies` or the diagonal of `pairs`.
        options: `candidates` is used.
        query: cases that are not eligible are covered but not chosen.

    Returns:
        (N,) float64, such that ranking makes the choice: for the candidate at place t = 0, 1, ... of the greedy order
        1 + (K − t) / K, in (1, 2]; for another defined case the rank of its uncertainty, in (0, 1); else −∞.

    Raises:
        ValueError: the view has no pairs, or an uncertainty is not finite.
    """
    if view.pairs is None:
        raise ValueError("This strategy needs the mutual information of pairs of the pool, which the view lacks.")
    scores = acquisition_score(view.uncertainty, None, 0.0, "rank").cpu()
    in_pool = dict(zip(view.cases, view.labelled.tolist(), strict=True))
    labelled = sorted({*view.labelled_cases, *(case for case, known in in_pool.items() if known)})
    # By case id, so that no sum depends on the order of the pool.
    entropies = _entropies(view.pairs, view.entropies, sorted({*view.cases, *labelled}))
    defined = torch.tensor([case in entropies for case in view.cases], dtype=torch.bool)
    if not bool(defined.any()):
        if len(view.cases) > 0:
            _LOGGER.warning("Every image of the pool is constant; uncertainty alone ranks it.")
        return scores

    scores = scores.masked_fill(~defined, -torch.inf)
    unlabelled = sorted(entropies.keys() - set(labelled))
    eligible = {case for case, may in zip(view.cases, query.eligible.tolist(), strict=True) if may}
    uncertainty = dict(zip(view.cases, view.uncertainty.tolist(), strict=True))
    ranked = sorted((case for case in unlabelled if case in eligible), key=lambda case: (-uncertainty[case], case))
    candidates = ranked[: max(options.candidates, 2 * query.count)]
    known = [case for case in labelled if case in entropies]
    similarity = _similarity(view.pairs, unlabelled, [*known, *candidates], entropies)
    covered = similarity[:, : len(known)].amax(1) if known else torch.zeros(len(unlabelled), dtype=torch.float64)
    positions = {case: position for position, case in enumerate(view.cases)}
    for place, column in enumerate(greedy_cover(similarity[:, len(known) :], covered)):
        scores[positions[candidates[column]]] = 1 + (len(candidates) - place) / len(candidates)
    return scores


def greedy_cover(similarity: Tensor, covered: Tensor) -> list[int]:
    """Order candidates by the greedy maximisation of the cover.

    Next is the j, not yet chosen, of the greatest gain Σ_i max(0, sim_ij − c_i); then c_i becomes max(c_i, sim_ij).

    Args:
        similarity: (N, K), of each case with each candidate, 0 or more.
        covered: (N,), c_i before the first choice: 0, or the similarity with the nearest case already chosen.

    Returns:
        The K columns, in the order of choice; among equal gains the first column is first.
    """
    left = list(range(similarity.shape[1]))
    order: list[int] = []
    while left:
        gains = (similarity[:, left] - covered[:, None]).clamp(min=0).sum(0).tolist()
        best = left.pop(max(range(len(left)), key=gains.__getitem__))
        covered = torch.maximum(covered, similarity[:, best])
        order.append(best)
    return order


def _entropies(pairs: PairInformation, entropies: ImageEntropies | None, cases: list[str]) -> dict[str, float]:
    """Entropy in nats of the cases that have one; of pairs the diagonal alone, for a block would be N × N of them."""
    if entropies is None:
        diagonal = [float(pairs([case], [case])[0, 0]) for case in cases]
    else:
        diagonal = entropies(cases).tolist()
    return {case: value for case, value in zip(cases, diagonal, strict=True) if value > 0}  # not where it is NaN


def _similarity(pairs: PairInformation, rows: list[str], columns: list[str], entropies: dict[str, float]) -> Tensor:
    """(N, K) normalised mutual information of defined cases."""
    own = torch.tensor([entropies[case] for case in rows], dtype=torch.float64)
    other = torch.tensor([entropies[case] for case in columns], dtype=torch.float64)
    return pairs(rows, columns).to("cpu", torch.float64) / (own[:, None] * other).sqrt()
