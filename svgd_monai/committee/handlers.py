"""Handlers that watch a committee: load it, log what moves it."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from ignite.engine import Engine, Events
from torch import nn

from svgd_monai.committee.checkpoint import load_committee

logger = logging.getLogger(__name__)


class ScalarWriter(Protocol):
    """The part of ``torch.utils.tensorboard.SummaryWriter`` that is used here."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> Any:
        """Record one number."""


class CommitteeLoader:
    """Fills a committee from a committee file when an engine starts.

    When the engine runs, not when it is built: a bundle's configuration can be parsed before its weights are there.

    Args:
        path: a ``committee.pt`` or ``model.pt``.
        committee: ``Particles`` or ``CommitteeMean``.
        preprocessing: see :func:`~svgd_monai.committee.checkpoint.load_committee`.
    """

    def __init__(
        self, path: str | os.PathLike[str], committee: nn.Module, preprocessing: Mapping[str, Any] | None = None
    ) -> None:
        self.path = path
        self.preprocessing = preprocessing
        self.committee = committee

    def attach(self, engine: Engine) -> None:
        """Attach to the start of a run."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Load.

        Raises:
            CheckpointError: the file is missing, damaged, or does not fit.
        """
        load_committee(self.path, self.committee, self.preprocessing)


class CommitteeTracker:
    """Writes to TensorBoard what moves a committee, and a log line after each epoch.

    Per step: the loss of every particle; the root mean square norms of the drive, the prior and the repulsion in φ,
    whose ratio decides what the committee becomes; the bandwidth, the mean pairwise distance, the mean off-diagonal
    kernel value, the mean norm, and the share of clipped particles.

    Args:
        writer: a summary writer, shared with all others of a run; None only logs lines.
        offset: steps before this training, so that the rounds of a run follow one another on the axis.
        every: steps between records. On a GPU a record waits for the device.
        label: what the log lines begin with, e.g. ``round 3``.
        evaluator: its metrics stand in the log lines and, against the step, in TensorBoard.
    """

    def __init__(
        self,
        writer: ScalarWriter | None = None,
        offset: int = 0,
        every: int = 1,
        label: str = "training",
        evaluator: Engine | None = None,
    ) -> None:
        self.writer = writer
        self.offset = offset
        self.every = every
        self.label = label
        self.evaluator = evaluator

    def attach(self, engine: Engine) -> None:
        """Attach to a :class:`~svgd_monai.committee.trainer.CommitteeTrainer`."""
        if self.writer is not None:
            engine.add_event_handler(Events.ITERATION_COMPLETED(every=self.every), self.record)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.log)

    def record(self, engine: Engine) -> None:
        """One step's numbers."""
        assert self.writer is not None  # attached only with a writer
        step = self.offset + engine.state.iteration
        balance = engine.state.balance
        losses = engine.state.member_losses
        # One transfer from the device for all of them.
        numbers = torch.cat([torch.stack(list(balance)), losses.double()]).tolist()
        for name, value in zip(balance._fields, numbers, strict=False):
            self.writer.add_scalar(f"committee/{name}", value, step)
        for member, value in enumerate(numbers[len(balance._fields) :]):
            self.writer.add_scalar(f"loss/particle_{member}", value, step)
        self.writer.add_scalar("loss/mean", sum(numbers[len(balance._fields) :]) / len(losses), step)

    def log(self, engine: Engine) -> None:
        """One line a person can follow."""
        balance = engine.state.balance
        if balance is None:  # continued behind its last step
            return
        metrics = {} if self.evaluator is None else self.evaluator.state.metrics
        for name, value in metrics.items():
            if self.writer is not None:
                self.writer.add_scalar(f"training/{name}", float(value), self.offset + engine.state.iteration)
        logger.info(
            "%s, step %d: loss %.4f%s, drive : prior : repulsion %.1e : %.1e : %.1e, distance %.2f, norm %.1f",
            self.label,
            engine.state.iteration,
            float(engine.state.member_losses.mean()),
            "".join(f", {name} {float(value):.4f}" for name, value in metrics.items()),
            *(float(v) for v in (balance.drive, balance.prior, balance.repulsion, balance.distance, balance.norm)),
        )
