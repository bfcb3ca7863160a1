"""How far the members of a committee agree on each case of the pool: the Dice to be expected where nobody measures."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events

from svgd_monai.files import read_csv, write_csv
from svgd_monai.statistics import VOTES, agreement_row

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
            row = agreement_row(output[VOTES], self.num_members, self.names)
            self.rows.append({"case": str(item["case"]), **row})

    def write(self, engine: Any) -> None:
        """Write the file; the members vote no more."""
        engine.statistics.votes = False
        columns = ["case", "agreement_dice", *(f"agreement_dice_{name}" for name in self.names)]
        write_csv(self.folder / AGREEMENT_FILE, columns, self.rows)


def read_agreement(folder: Path) -> dict[str, float]:
    """The members' Dice of each case of a round's pool, where it is defined; empty where no round has measured it.

    Args:
        folder: the round's.
    """
    path = folder / AGREEMENT_FILE
    rows = read_csv(path) if path.is_file() else []
    return {row["case"]: float(row["agreement_dice"]) for row in rows if row["agreement_dice"]}
