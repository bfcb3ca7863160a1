"""Handlers that watch a committee: load it, log what moves it."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from ignite.engine import Engine, Events
from torch import Tensor, nn

from svgd_monai.committee.checkpoint import load_committee
from svgd_monai.committee.posterior import Balance

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

    def __call__(self, engine: Engine | None = None) -> None:
        """Load.

        Raises:
            CheckpointError: the file is missing, damaged, or does not fit.
        """
        load_committee(self.path, self.committee, self.preprocessing)


class EpochMetrics:
    """The metrics of an epoch's own validation: an evaluator keeps those of its last one, also where none followed.

    Args:
        evaluator: None, where nobody validates, has none.
    """

    def __init__(self, evaluator: Engine | None) -> None:
        self.evaluator = evaluator
        self._validated = False

    def attach(self) -> None:
        """Attach to the evaluator."""
        if self.evaluator is not None:
            self.evaluator.add_event_handler(Events.COMPLETED, self._note)

    def _note(self, _: Engine) -> None:
        self._validated = True

    def take(self) -> Mapping[str, Any]:
        """The metrics, once for each validation; empty without one."""
        validated, self._validated = self._validated, False
        return self.evaluator.state.metrics if self.evaluator is not None and validated else {}


def single_numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Metrics as numbers: of one for each class ``name_0``, ``name_1``, ...; what holds no numbers is left out."""
    found: dict[str, float] = {}
    for name, value in metrics.items():
        try:
            numbers = torch.as_tensor(value, dtype=torch.float64).flatten().tolist()
        except (RuntimeError, TypeError, ValueError):
            continue
        names = [name] if len(numbers) == 1 else [f"{name}_{position}" for position in range(len(numbers))]
        found.update(zip(names, numbers, strict=True))
    return found


#: Records of steps that stay on a GPU until they are fetched together.
BUFFER = 50


class CommitteeTracker:
    """Writes to TensorBoard what moves a committee, and a log line after each epoch.

    Per step: the loss of every particle; the root mean square norms of the drive, the prior and the repulsion in φ,
    whose ratio decides what the committee becomes; the bandwidth, the mean pairwise distance, the mean off-diagonal
    kernel value, the mean norm, the share of clipped particles, the number that the kernel no longer reaches; per
    epoch, once there are any, the number of particles that had to be replaced so far.

    Args:
        writer: a summary writer, shared with all others of a run; None only logs lines.
        offset: steps before this training, so that the rounds of a run follow one another on the axis.
        every: steps between records. On a GPU they are fetched :data:`BUFFER` at a time, for each fetch waits for it.
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
        self._records: list[tuple[int, Tensor]] = []
        self._metrics = EpochMetrics(evaluator)

    def attach(self, engine: Engine) -> None:
        """Attach to a :class:`~svgd_monai.committee.trainer.CommitteeTrainer`."""
        self._metrics.attach()
        if self.writer is not None:
            engine.add_event_handler(Events.ITERATION_COMPLETED(every=self.every), self.record)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.log)

    def record(self, engine: Engine) -> None:
        """One step's numbers."""
        numbers = torch.cat([torch.stack(list(engine.state.balance)), engine.state.member_losses.double()])
        self._records.append((self.offset + engine.state.iteration, numbers))
        if numbers.device.type == "cpu" or len(self._records) == BUFFER:
            self._write()

    def _write(self) -> None:
        if self.writer is None or not self._records:
            return
        rows = torch.stack([numbers for _, numbers in self._records]).tolist()  # one transfer for all of them
        for (step, _), row in zip(self._records, rows, strict=True):
            balance, losses = row[: len(Balance._fields)], row[len(Balance._fields) :]
            for name, value in zip(Balance._fields, balance, strict=True):
                self.writer.add_scalar(f"committee/{name}", value, step)
            for member, value in enumerate(losses):
                self.writer.add_scalar(f"loss/particle_{member}", value, step)
            self.writer.add_scalar("loss/mean", sum(losses) / len(losses), step)
        self._records.clear()

    def log(self, engine: Engine) -> None:
        """One line a person can follow."""
        self._write()
        balance = engine.state.balance
        if balance is None:  # continued behind its last step
            return
        metrics = single_numbers(self._metrics.take())
        for name, value in metrics.items():
            if self.writer is not None:
                self.writer.add_scalar(f"training/{name}", value, self.offset + engine.state.iteration)
        replaced = getattr(engine.state, "replaced_particles", 0)
        if replaced and self.writer is not None:
            self.writer.add_scalar("training/replaced_particles", replaced, self.offset + engine.state.iteration)
        logger.info(
            "%s, step %d: loss %.4f%s%s, drive : prior : repulsion %.1e : %.1e : %.1e, distance %.2f, norm %.1f",
            self.label,
            engine.state.iteration,
            float(engine.state.member_losses.mean()),
            "".join(f", {name} {value:.4f}" for name, value in metrics.items()),
            f", replaced particles {replaced}" if replaced else "",
            *(float(v) for v in (balance.drive, balance.prior, balance.repulsion, balance.distance, balance.norm)),
        )
