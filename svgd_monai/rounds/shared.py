"""Stages that several processes run together: the first leads the rounds, the others follow."""

from __future__ import annotations

from typing import Any

from svgd_monai.rounds.stages import Stages
from svgd_monai.workflow.meeting import announce, announced

#: Stages whose work is shared out. Of the others, which a hook may run, the first process does all.
SHARED = ("train", "evaluate", "acquire")
#: Live objects of the first process.
_LIVE = ("summary_writer",)


class SharedStages(Stages):
    """Stages that every process of the run takes part in; in a single process no more than stages."""

    _number = 0

    def run(self, stage: str, **keys: Any) -> float:
        """Run a stage, in all processes where it is one that is shared out.

        Returns:
            The seconds it took.
        """
        if stage in SHARED:
            plain = {key: value for key, value in keys.items() if key not in _LIVE}
            announce(self._number, {"stage": stage, "keys": plain})
            self._number += 1
        return super().run(stage, **keys)


class Follower:
    """The loop of every process but the first: it decides nothing and writes nothing.

    Args:
        stages: as those of the first, without tracking.
    """

    def __init__(self, stages: Stages) -> None:
        self.stages = stages

    def run(self) -> None:
        """Run the stages that the first process runs, until it has no more."""
        number = 0
        while (command := announced(number)) is not None:
            self.stages.run(command["stage"], **command["keys"], **dict.fromkeys(_LIVE))
            number += 1
