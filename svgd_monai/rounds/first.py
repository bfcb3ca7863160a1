"""Runs that differ in what they query share the committee of their first round: it is trained once."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from svgd_monai.committee.keeper import COMMITTEE_FILE, TRAINING_FILE
from svgd_monai.errors import RunFolderError
from svgd_monai.files import check_torch, read_json, write_bytes
from svgd_monai.rounds.record import MAY_CHANGE

logger = logging.getLogger(__name__)

#: Keys that may change within a run, and yet decide what a training ends with.
_TRAINING_KEYS = frozenset({"device", "deterministic", "on_bad_particle"})
#: Keys that play no part in the training of round 0.
QUERY_KEYS = frozenset(
    {"acquisition", "candidates", "first_committees", "keep_labelled", "method", "mi_aggregation", "mi_bins",
     "mi_content", "mi_grid", "mi_weight", "normalise", "normalise_over", "queries_per_round", "redraws", "rounds",
     "shuffle_scores", "surface_distances", "uncertainty_reduction", "warm_start"}
)  # fmt: skip


class FirstCommittees:
    """A folder of committees of round 0, by everything that their training depends on.

    Args:
        folder: shared by the runs.
        record: of the run that asks, see :func:`~svgd_monai.rounds.record.run_record`.
    """

    def __init__(self, folder: str | os.PathLike[str], record: Mapping[str, Any]) -> None:
        self.folder = Path(folder) / training_key(record)

    def take(self, target: Path) -> bool:
        """Copy the committee and the record of its training into a round's folder, where they are there.

        Args:
            target: the round's folder.
        """
        if (target / COMMITTEE_FILE).is_file() or not self._sound():
            return False
        self._copy(self.folder, target)
        logger.info("Round 0: the committee is copied from %s, left by a run with the same training.", self.folder)
        return True

    def leave(self, source: Path) -> None:
        """Copy them from a round's folder, unless they are there already."""
        if not self._sound():
            self._copy(source, self.folder)

    def _sound(self) -> bool:
        """Whether they are there and can be read; a damaged one is made anew by the run that finds it."""
        if not (self.folder / COMMITTEE_FILE).is_file():
            return False
        try:
            check_torch(self.folder / COMMITTEE_FILE)
            read_json(self.folder / TRAINING_FILE)
        except RunFolderError as error:
            logger.warning("%s The committee is trained anew.", error)
            return False
        return True

    @staticmethod
    def _copy(source: Path, target: Path) -> None:
        for name in (TRAINING_FILE, COMMITTEE_FILE):  # in this order: a committee's presence says that all is there
            write_bytes(target / name, (source / name).read_bytes())


def training_key(record: Mapping[str, Any]) -> str:
    """A hash of what the training of round 0 depends on: settings, components, cases, their content, versions."""
    settings = record["settings"]
    split = record["split"]
    content = {
        "settings": {k: v for k, v in settings.items() if k in _TRAINING_KEYS or k not in QUERY_KEYS | MAY_CHANGE},
        "components": record["components"],
        "cases": [split.get("initial"), split.get("validation")],
        "dataset": record["dataset"]["fingerprint"],
        "versions": record["versions"],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:24]
