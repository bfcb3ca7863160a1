"""Which cases go on a worklist, why, and who labels them; which train, and which validate."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from svgd_monai.data.splits import held_out_sizes
from svgd_monai.rounds.people.ledger import Entry

#: The strategies whose choice no number of a case explains.
AT_RANDOM = ("random", "random_foreground")


def next_cases(
    scores: Sequence[Mapping[str, str]], queries: Sequence[str], eligible: Sequence[str], count: int
) -> list[str]:
    """The queried cases that cost a label, topped up with the next best.

    A labelled case that was drawn again is not on the list: it gains weight in training at no label.

    Args:
        scores: rows of ``scores.csv``, in rank order.
        queries: the chosen cases, best first.
        eligible: the cases that may be put on the list.
        count: cases wanted; fewer where there are fewer.
    """
    ranked = [row["case"] for row in sorted(scores, key=lambda row: int(row["rank"]))]
    allowed = set(eligible)
    return [case for case in dict.fromkeys((*queries, *ranked)) if case in allowed][:count]


def assign(
    cases: Sequence[str],
    annotators: Sequence[str],
    double: int,
    number: int,
    known: Mapping[str, Sequence[str]],
) -> dict[str, tuple[str, ...]]:
    """Who labels each case.

    Cases go round among the annotators, who begins changes from list to list; a case that somebody has been asked for
    already stays with that person. The cases with two annotators are drawn by a hash of their ids, not by rank, so that
    their agreement speaks for all.

    Args:
        cases: in rank order.
        annotators: the names; none assigns nobody.
        double: how many cases get two annotators.
        number: of the worklist.
        known: who was asked for a case before.
    """
    if not annotators:
        return dict.fromkeys(cases, ())
    drawn = sorted(cases, key=lambda case: hashlib.sha256(f"double/{number}/{case}".encode()).digest())
    doubled = set(drawn[:double]) if len(annotators) > 1 else set()
    result: dict[str, tuple[str, ...]] = {}
    load = dict.fromkeys(annotators, 0)
    turn = [annotators[(number + place) % len(annotators)] for place in range(len(annotators))]
    for case in cases:
        asked = [name for name in known.get(case, ()) if name in load]
        wanted = 2 if case in doubled else 1
        while len(asked) < wanted:
            asked.append(min((name for name in turn if name not in asked), key=lambda name: load[name]))
        for name in asked:
            load[name] += 1
        result[case] = tuple(asked)
    return result


def training_list(
    previous: Sequence[str], redrawn: Iterable[str], labelled: Sequence[str], validation: Iterable[str]
) -> list[str]:
    """The training list of a round: as that of the round before, then what it drew again, then what is new.

    Args:
        previous: the training list of the round before.
        redrawn: its queries; those that it trained on gain weight.
        labelled: the labelled cases.
        validation: the validation cases, which never train.
    """
    usable, trained = set(labelled) - set(validation), set(previous)
    again = [case for case in redrawn if case in trained]
    new = sorted(usable - trained)
    return [case for case in (*previous, *again, *new) if case in usable]


def choose_validation(
    labelled: Sequence[str], kept: Sequence[str], size: int | None, least: int, barred: Collection[str] = ()
) -> list[str]:
    """The validation cases of a round, from what people have labelled.

    A case once among them stays. New ones are drawn by a hash of their ids, so that they are not the most uncertain
    ones only; one labelled case is always left to train on.

    Args:
        labelled: the labelled cases.
        kept: the validation cases so far, labelled ones.
        size: how many there should be; None: a fifth of the labelled cases, at most 50.
        least: labelled cases below which there is no validation.
        barred: cases that may not be drawn.
    """
    count = len(labelled)
    if count < least:
        return list(kept)
    wanted = held_out_sizes(count, size, 0)["validation_cases"]
    free = set(labelled) - set(kept) - set(barred)
    drawn = sorted(free, key=lambda case: hashlib.sha256(f"validation/{case}".encode()).digest())
    return [*kept, *drawn[: max(min(wanted, count - 1) - len(kept), 0)]]


def cold_entry(case: str, shared: float | None, rank: int, diverse: bool) -> Entry:
    """Why a case is among the first."""
    if not diverse:
        why = "drawn at random"
    elif rank == 1:
        why = "drawn at random as the first; the others are chosen to be unlike it"
    elif shared is None:
        why = "its image is constant after preprocessing; nothing better was left"
    else:
        why = f"unlike the cases above: it shares at most {shared:.3f} nats with any of them"
    return Entry(case, why=why, terms={"mutual_information": shared})


def joined_entry(case: str, shared: float | None, diverse: bool) -> Entry:
    """Why a case is on a list that joined after the pool was scored."""
    if not diverse:
        why = "drawn at random"
    elif shared is None:
        why = "its image is constant after preprocessing; nothing better was left"
    else:
        why = f"shares at most {shared:.3f} nats with any case that is labelled or asked for"
    return Entry(case, why=f"joined after the pool was scored; {why}", terms={"mutual_information": shared})


def added(
    chosen: Sequence[str], scores: Iterable[Mapping[str, str]], queries: Collection[str], again: bool
) -> dict[str, str]:
    """Why each case of a list that was not queried is on it.

    Args:
        chosen: cases of the list, in rank order.
        scores: rows of ``scores.csv``.
        queries: the queried cases.
        again: whether they join a list of which no case is left to label.
    """
    queried = set(queries)
    more = [case for case in chosen if case not in queried]
    if again:
        return dict.fromkeys(more, "no case that was on the list before is left to label")
    redrawn = sum(row["labelled"] == "true" for row in scores if row["case"] in queried)
    free = "a labelled case that is drawn again needs no new label"
    gone = "a case that was chosen is labelled, declined or held out by now"
    return {case: free if place < redrawn else gone for place, case in enumerate(more)}


def scored_entry(
    row: Mapping[str, str], place: int, unlabelled: int, reason: str | None = None, at_random: bool = False
) -> Entry:
    """Why a case of the pool is on the list; expected structures are added with the pre-segmentation.

    Args:
        row: of ``scores.csv``.
        place: the case's place among the unlabelled by uncertainty.
        unlabelled: how many these are.
        reason: why it tops the list up, see :func:`added`; None: the strategy chose it.
        at_random: whether the order of the scores is drawn.
    """
    terms: dict[str, Any] = {
        key: float(row[key]) if row[key] else None for key in ("score", "uncertainty", "mutual_information")
    }
    if at_random:
        why = "drawn at random"
    else:
        why = f"uncertainty {terms['uncertainty']:.4f} (number {place} of {unlabelled} unlabelled cases)"
        if terms["mutual_information"] is not None:
            why += f"; shares {terms['mutual_information']:.3f} nats with the labelled set"
    if reason is not None:
        why += f"; added as the next best: {reason}"
    return Entry(row["case"], why=why, terms=terms)
