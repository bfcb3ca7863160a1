"""After each round, one plain paragraph: what labels have gained lately, what the pool would score, go on or stop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from svgd_monai.acquisition.handler import SCORES_FILE
from svgd_monai.files import read_csv
from svgd_monai.report.text import count
from svgd_monai.rounds.people.agreement import read_agreement

#: Rounds that the gain is taken over: one is noise.
WINDOW = 3
ADVICE_FILE = "advice.txt"


@dataclass(frozen=True)
class PoolState:
    """What a round says of the unlabelled cases.

    Attributes:
        unlabelled: how many there are.
        predicted: mean over them of the members' Dice with one another; None where it is undefined.
    """

    unlabelled: int
    predicted: float | None


def pool_state(folder: Path) -> PoolState:
    """The state of the pool that a round has scored.

    Args:
        folder: the round's.
    """
    unlabelled = [row["case"] for row in read_csv(folder / SCORES_FILE) if row["labelled"] == "false"]
    agreement = read_agreement(folder)
    known = [agreement[case] for case in unlabelled if case in agreement]
    return PoolState(len(unlabelled), sum(known) / len(known) if known else None)


def advise(
    curve: Sequence[Mapping[str, Any]],
    pool: Sequence[PoolState],
    presegmentation: Sequence[float],
    stop_gain: float,
) -> str:
    """The paragraph of the last round of the curve.

    The advice is to stop when no case is left, or when over the last :data:`WINDOW` rounds a label gained less than
    ``stop_gain`` in the mean: in test Dice, else in validation Dice, else in the Dice predicted for the pool.

    Args:
        curve: rows of the learning curve, oldest first.
        pool: state of the pool at each of these rounds.
        presegmentation: Dice of each label that came back for this round with its pre-segmentation.
        stop_gain: Dice per label.
    """
    row = curve[-1]
    sentences = [f"Round {row['round']}, {count(row['unique_labels'], 'label')}."]
    name, values = _measure(curve, pool)
    gain = None
    if name is None:
        sentences.append("Nothing was measured: there is no test set, no validation set yet, and nothing predicted.")
    else:
        gain, sentence = _gain(name, values, curve)
        sentences.append(sentence)
    if pool[-1].predicted is not None:
        sentences.append(_predicted(pool))
    if presegmentation:
        mean = sum(presegmentation) / len(presegmentation)
        sentences.append(
            f"The {count(len(presegmentation), 'label')} that came back last agreed with their pre-segmentations to a "
            f"Dice of {mean:.3f}."
        )
    if pool[-1].unlabelled == 0:
        sentences.append("Advice: stop, for no case is left to label.")
    elif gain is None or len(curve) <= WINDOW:
        sentences.append(f"Advice: go on, for it takes {WINDOW} rounds of more labels to tell.")
    elif gain < stop_gain:
        sentences.append(
            f"Advice: stop, for over the last {WINDOW} rounds a label gained {gain:.5f}, less than stop_gain "
            f"({stop_gain:g})."
        )
    else:
        sentences.append(
            f"Advice: go on, for over the last {WINDOW} rounds a label gained {gain:.5f}, not less than stop_gain "
            f"({stop_gain:g})."
        )
    return " ".join(sentences)


def _measure(curve: Sequence[Mapping[str, Any]], pool: Sequence[PoolState]) -> tuple[str | None, list[float | None]]:
    """The best measure there is of the last round, and its value in each round."""
    candidates = (
        ("test Dice", [row["test_dice"] for row in curve]),
        ("validation Dice", [row["val_dice"] for row in curve]),
        ("Dice predicted for the pool", [state.predicted for state in pool]),
    )
    # What was measured over the whole window goes before what has only begun to be.
    reach = min(WINDOW + 1, len(curve))
    for name, values in candidates:
        if all(value is not None for value in values[-reach:]):
            return name, values
    return next(((name, values) for name, values in candidates if values[-1] is not None), (None, []))


def _gain(name: str, values: Sequence[float | None], curve: Sequence[Mapping[str, Any]]) -> tuple[float | None, str]:
    first = max(len(curve) - 1 - WINDOW, 0)
    known = [n for n in range(first, len(curve)) if values[n] is not None]
    then, now = known[0], known[-1]
    labels = int(curve[now]["unique_labels"]) - int(curve[then]["unique_labels"])
    before, after = values[then], values[now]
    assert before is not None
    assert after is not None
    if labels <= 0:
        return None, f"The {name} is {after:.4f}; there is no earlier one of fewer labels to compare with."
    gain = (after - before) / labels
    sentence = (
        f"With {count(labels, 'label')} more than in round {curve[then]['round']} the {name} went from {before:.4f} "
        f"to {after:.4f}, {gain:+.5f} per label."
    )
    return (gain if then == first else None), sentence


def _predicted(pool: Sequence[PoolState]) -> str:
    now = pool[-1]
    before = "" if len(pool) < 2 or pool[-2].predicted is None else f", {pool[-2].predicted:.3f} the round before"
    return (
        f"On the {count(now.unlabelled, 'unlabelled case')} the committee's members agree with one another to a Dice "
        f"of {now.predicted:.3f}{before}: what to expect there without labels, more often too high than too low."
    )
