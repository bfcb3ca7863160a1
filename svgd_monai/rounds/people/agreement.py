"""How far the members of a committee agree on each case of the pool: the Dice to be expected where nobody measures."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events

from svgd_monai.files import read_csv, write_csv
from svgd_monai.statistics import VOTES, member_agreement

AGREEMENT_FILE = "agreement.csv"


class PoolAgreement:
    """Writes ``agreement.csv`` while the pool is scored: a row per case, the members' Dice with one another.

    Attach it before handlers that run the network themselves: the members vote only while the evaluator runs.

    Args:
        folder: where the file is written, at once and whole.
        classes: name of each label value, background 0 included.
        num_members: M, of the committee.
        enabled: false writes nothing, and nobody votes: votes take as much memory again as the probabilities.
    """

    def __init__(
        self, folder: str | os.PathLike[str], classes: Mapping[int, str], num_members: int, enabled: bool = True
    ) -> None:
        self.folder = Path(folder)
        self.names = [name for value, name in sorted(classes.items()) if value > 0]
        self.num_members = num_members
        self.enabled = enabled
        self.rows: list[dict[str, Any]] = []

    def attach(self, engine: Engine) -> None:
        """Attach to a :class:`~svgd_monai.committee.evaluator.CommitteeEvaluator` over the pool."""
        if self.enabled:
            engine.add_event_handler(Events.STARTED, self.start)
            engine.add_event_handler(Events.ITERATION_COMPLETED, self.accumulate)
            engine.add_event_handler(Events.COMPLETED, self.write)

    def start(self, engine: Any) -> None:
        """Let the members vote."""
        self.rows = []
        engine.statistics.votes = True

    def accumulate(self, engine: Engine) -> None:
        """Take in a batch."""
        for item, output in zip(engine.state.batch, engine.state.output, strict=True):
            dice = member_agreement(output[VOTES][None], self.num_members)[0, 1:].tolist()
            known = [value for value in dice if not math.isnan(value)]
            row = {"case": str(item["case"]), "agreement_dice": sum(known) / len(known) if known else None}
            per_class = zip(self.names, dice, strict=True)
            self.rows.append(row | {_column(name): None if math.isnan(value) else value for name, value in per_class})

    def write(self, engine: Any) -> None:
        """Write the file; the members vote no more."""
        engine.statistics.votes = False
        write_csv(self.folder / AGREEMENT_FILE, ["case", "agreement_dice", *map(_column, self.names)], self.rows)


def read_agreement(folder: Path) -> dict[str, float]:
    """The members' Dice of each case of a round's pool, where it is defined; empty where no round has measured it.

    Args:
        folder: the round's.
    """
    path = folder / AGREEMENT_FILE
    rows = read_csv(path) if path.is_file() else []
    return {row["case"]: float(row["agreement_dice"]) for row in rows if row["agreement_dice"]}


def _column(name: str) -> str:
    return f"agreement_dice_{name}"
