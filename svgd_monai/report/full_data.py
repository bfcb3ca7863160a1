"""How much a study's last committees lack of those that have every label."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from svgd_monai.report.significance import PairedTest, paired_test
from svgd_monai.report.study import Study


@dataclass(frozen=True)
class AgainstFull:
    """A method against the full data, at the seeds that both have with the same data and test cases.

    Attributes:
        method: its name.
        labels: unique labels of its last committees, in the mean over seeds.
        full_labels: those of the full data.
        dice: test Dice of its last committees, in the mean over seeds.
        full_dice: that of the full data.
        test: of the last Dice, the method's − the full data's. Its interval is told, not its p: the area alone is
            tested.
    """

    method: str
    labels: float
    full_labels: float
    dice: float
    full_dice: float
    test: PairedTest


def against_full(study: Study) -> list[AgainstFull]:
    """Every method that queries and has a seed in common with the full data, of the same data and test cases.

    Args:
        study: the runs.
    """
    found = []
    for name, runs in study.queried.items():
        full = {run.seed: run for run in study.full_data_of(name)}
        pairs = [(run, full[run.seed]) for run in runs if run.seed in full and run.comparable(full[run.seed])]
        if pairs:
            labels = np.asarray([[run.curve.labels[-1] for run in pair] for pair in pairs])
            dice = np.asarray([[run.final_dice for run in pair] for pair in pairs])
            (ours, every), (reached, highest) = labels.mean(0).tolist(), dice.mean(0).tolist()
            found.append(AgainstFull(name, ours, every, reached, highest, paired_test(dice[:, 0], dice[:, 1])))
    return found
