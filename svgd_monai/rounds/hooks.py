"""What else happens around a round."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from svgd_monai.rounds.loop import ActiveLearning


@runtime_checkable
class AfterRound(Protocol):
    """Called when a round has been trained, measured and scored, and its files are written."""

    def after_round(self, run: ActiveLearning, number: int) -> None:
        """Round ``number`` of ``run`` is complete."""


@runtime_checkable
class BeforeRound(Protocol):
    """Called before a round is trained, also when it goes on after a crash."""

    def before_round(self, run: ActiveLearning, number: int) -> None:
        """Round ``number`` of ``run`` begins."""


@runtime_checkable
class AfterRun(Protocol):
    """Called when the last round is complete."""

    def after_run(self, run: ActiveLearning) -> None:
        """All rounds of ``run`` are complete."""


Hook = AfterRound | BeforeRound | AfterRun
