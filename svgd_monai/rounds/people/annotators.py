"""Who made the labels of a run, and how far two of them agree."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from svgd_monai.rounds.people.cost import agreement, read_label
from svgd_monai.rounds.people.ledger import PeopleLedger

logger = logging.getLogger(__name__)


def name_annotators(ledger: PeopleLedger, annotators: Mapping[str, str]) -> None:
    """Who made a label may be filled in when it has been taken.

    Args:
        ledger: of the run; changed in place.
        annotators: by case, as the worklists' tables say.
    """
    for case, name in annotators.items():
        if labels := ledger.labels.get(case):
            ledger.labels[case] = [each if each.annotator else replace(each, annotator=name) for each in labels]


def compare_annotators(root: Path, ledger: PeopleLedger, classes: Mapping[int, str]) -> None:
    """Dice of the first two annotators of a case, where two have labelled it.

    Args:
        root: the run's folder.
        ledger: of the run; changed in place.
        classes: name of each label value, background 0 included.
    """
    for case in ledger.labelled:
        pair = [label for slot, label in ledger.current(case).items() if slot][:2]
        files, names = [label.file for label in pair], [label.slot for label in pair]
        if len(pair) < 2 or ledger.agreement.get(case, {}).get("files") == files:
            continue
        first, second = (read_label(root / file) for file in files)
        dice = agreement(first, second, classes)
        found = ", ".join(f"{name} {'–' if value is None else f'{value:.3f}'}" for name, value in dice.items())
        logger.info("%s: %s agree to a Dice of %s.", case, " and ".join(names), found)
        ledger.agreement[case] = {"annotators": names, "files": files, "dice": dice}
