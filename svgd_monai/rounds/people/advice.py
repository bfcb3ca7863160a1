"""After each round, one plain paragraph: what labels have gained lately, what the pool would score, go on or stop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from svgd_monai.acquisition.handler import SCORES_FILE
from svgd_monai.files import read_csv, write_text
from svgd_monai.rounds.people.agreement import read_agreement
from svgd_monai.words import count

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


def write_advice(
    folders: Sequence[Path],
    curve: Sequence[Mapping[str, Any]],
    validating: Sequence[frozenset[str]],
    presegmentation: Sequence[float | None],
    stop_gain: float,
) -> None:
    """Write the newest round's paragraph, unless it stands there: it says what was known then.

    Args:
        folders: of the newest round and those that it is compared with, :data:`WINDOW` at most, oldest first.
        curve: of these rounds, see :func:`advise`, like what follows.
        validating: likewise.
        presegmentation: likewise.
        stop_gain: likewise.
    """
    path = folders[-1] / ADVICE_FILE
    if not path.is_file():
        pool = [pool_state(folder) for folder in folders]
        write_text(path, advise(curve, pool, validating, presegmentation, stop_gain) + "\n")


def advise(
    curve: Sequence[Mapping[str, Any]],
    pool: Sequence[PoolState],
    validating: Sequence[frozenset[str]],
    presegmentation: Sequence[float | None],
    stop_gain: float,
) -> str:
    """The paragraph of the last round of the curve.

    The advice is to stop when no case is left, or when over the last :data:`WINDOW` rounds a label gained less than
    ``stop_gain`` in the mean: in test Dice, else in validation Dice, else in the Dice predicted for the pool. A
    validation set that has grown meanwhile is another set, whose Dice says nothing beside the old one's.

    Args:
        curve: rows of the learning curve, oldest first; of more than the last :data:`WINDOW` + 1 nothing is told.
        pool: state of the pool at each of these rounds.
        validating: the validation cases of each of these rounds.
        presegmentation: Dice of each label that came back for this round with its pre-segmentation; None where it
            cannot be compared.
        stop_gain: Dice per label.
    """
    row = curve[-1]
    sentences = [f"Round {row['round']}, {count(row['unique_labels'], 'label')}."]
    name, values = _measure(curve, pool, validating)
    gain = None
    if name is None:
        sentences.append("Nothing was measured: there is no test set, no validation set yet and no predicted Dice.")
    else:
        gain, sentence = _gain(name, values, curve)
        sentences.append(sentence)
    if row["val_dice"] is not None and name != "validation Dice":
        sentences.append(f"The validation Dice is {row['val_dice']:.4f}, on {count(len(validating[-1]), 'case')}.")
    if pool[-1].predicted is not None:
        sentences.append(_predicted(pool))
    if any(dice is not None for dice in presegmentation):
        sentences.append(_agreed(presegmentation))
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


def _measure(
    curve: Sequence[Mapping[str, Any]], pool: Sequence[PoolState], validating: Sequence[frozenset[str]]
) -> tuple[str | None, list[float | None]]:
    """The best measure that can be compared over the window, and its value in each round; else the last value alone."""
    reach = min(WINDOW + 1, len(curve))
    test, validation = ([row[column] for row in curve] for column in ("test_dice", "val_dice"))
    predicted = [state.predicted for state in pool]
    same = len(set(validating[-reach:])) == 1
    candidates = [("test Dice", test), ("Dice predicted for the pool", predicted)]
    candidates.insert(1 if same else 2, ("validation Dice", validation if same else _last_alone(validation)))
    for name, values in candidates:
        if all(value is not None for value in values[-reach:]):
            return name, values
    return next(((name, _last_alone(values)) for name, values in candidates if values[-1] is not None), (None, []))


def _last_alone(values: Sequence[float | None]) -> list[float | None]:
    return [*(None for _ in values[1:]), values[-1]]


def _gain(name: str, values: Sequence[float | None], curve: Sequence[Mapping[str, Any]]) -> tuple[float | None, str]:
    """What a label gained over the window, and the sentence that says it."""
    then = max(len(curve) - 1 - WINDOW, 0)
    before, after = values[then], values[-1]
    assert after is not None
    labels = int(curve[-1]["unique_labels"]) - int(curve[then]["unique_labels"])
    if before is None:
        return None, f"The {name} is {after:.4f}; there is no earlier one to compare it with."
    if labels <= 0:  # rounds of labels that have changed
        since = curve[then]["round"]
        return None, f"With no label more than in round {since} the {name} went from {before:.4f} to {after:.4f}."
    gain = (after - before) / labels
    return gain, (
        f"With {count(labels, 'label')} more than in round {curve[then]['round']} the {name} went from {before:.4f} to "
        f"{after:.4f}, {gain:+.5f} per label."
    )


def _agreed(presegmentation: Sequence[float | None]) -> str:
    known = [dice for dice in presegmentation if dice is not None]
    mean, labels = sum(known) / len(known), count(len(presegmentation), "label")
    if len(known) < len(presegmentation):
        their = "its pre-segmentation" if len(known) == 1 else "their pre-segmentations"
        return (
            f"Of the {labels} that came back last {len(known)} could be compared with {their}: they agreed to a Dice "
            f"of {mean:.3f}."
        )
    if len(known) == 1:
        return f"The label that came back last agreed with its pre-segmentation to a Dice of {mean:.3f}."
    return f"The {labels} that came back last agreed with their pre-segmentations to a Dice of {mean:.3f}."


def _predicted(pool: Sequence[PoolState]) -> str:
    now = pool[-1]
    before = "" if len(pool) < 2 or pool[-2].predicted is None else f" ({pool[-2].predicted:.3f} in the round before)"
    return (
        f"On the {count(now.unlabelled, 'unlabelled case')} the committee's members agree with one another to a Dice "
        f"of {now.predicted:.3f}{before}. This predicts the Dice of their segmentations; it is more often too high "
        "than too low."
    )
