"""Who is labelled since when, and how often each case has been drawn: cost and weight kept apart."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from svgd_monai.acquisition.handler import QUERIES_FILE
from svgd_monai.data import Split
from svgd_monai.errors import RunFolderError


@dataclass
class Ledger:
    """The state of a run's labels after some rounds; a function of the split and the queries alone.

    A case that is drawn for the first time costs a label. Drawn again, it costs none and gains weight in training: it
    stands in the training list as often as it was drawn.

    Attributes:
        split: the run's split.
        queries: the chosen cases of each round, best first.
    """

    split: Split
    queries: list[list[str]] = field(default_factory=list)

    @property
    def training(self) -> list[str]:
        """The labelled cases with multiplicity: the initial set, then every draw in its order."""
        return [*self.split.initial, *(case for chosen in self.queries for case in chosen)]

    @property
    def labelled(self) -> list[str]:
        """The distinct labelled cases, sorted."""
        return sorted(set(self.training))

    @property
    def unlabelled(self) -> list[str]:
        """The cases of the pool without a label, sorted."""
        return sorted(set(self.split.pool) - set(self.training))

    def before(self, number: int) -> Ledger:
        """The ledger as the training of round ``number`` finds it: without that round's queries and all later ones."""
        return Ledger(self.split, self.queries[:number])

    def record(self, queries: Sequence[str], source: str | os.PathLike[str] = QUERIES_FILE) -> None:
        """Take in the queries of the next round.

        Args:
            queries: the chosen cases, best first.
            source: the file that holds them.

        Raises:
            RunFolderError: a case is not in the pool, or stands twice in one round; the sentence names the file.
        """
        number = len(self.queries)
        pool = {*self.split.initial, *self.split.pool}
        for case in queries:
            if case not in pool:
                raise RunFolderError(
                    f"{source}: round {number} queried the case {case}, which is not in the run's pool."
                )
        if len(set(queries)) != len(queries):
            raise RunFolderError(f"{source}: round {number} queried a case twice.")
        self.queries.append(list(queries))

    def as_dict(self) -> dict[str, Any]:
        """The ledger as plain values: a record per case and per round."""
        first: dict[str, int | None] = dict.fromkeys(self.split.initial, None)
        drawn: dict[str, int] = dict.fromkeys(self.split.initial, 1)
        rounds = []
        for number, chosen in enumerate(self.queries):
            new = [case for case in chosen if case not in first]
            for case in chosen:
                first.setdefault(case, number)
                drawn[case] = drawn.get(case, 0) + 1
            rounds.append({"round": number, "queries": chosen, "new_labels": new, "unique_labels": len(first),
                           "training_items": sum(drawn.values())})  # fmt: skip
        cases = {
            case: {"role": role, "labelled_in_round": first.get(case), "labelled": case in first,
                   "times_drawn": drawn.get(case, 0)}
            for role, members in self.split.as_dict().items()
            for case in members
        }  # fmt: skip
        return {"cases": cases, "rounds": rounds}

    @classmethod
    def from_dict(
        cls, split: Split, content: Mapping[str, Any], source: str | os.PathLike[str] = "ledger.json"
    ) -> Ledger:
        """Rebuild a ledger.

        Args:
            split: the run's split.
            content: what :meth:`as_dict` gave.
            source: the file that holds it.

        Raises:
            RunFolderError: the content is not a ledger, or not of this split; the sentence names the file.
        """
        try:
            queries = [list(record["queries"]) for record in content["rounds"]]
        except (KeyError, TypeError) as error:
            raise RunFolderError(f"{source} is not a ledger.") from error
        ledger = cls(split)
        for chosen in queries:
            ledger.record(chosen, source)
        return ledger
