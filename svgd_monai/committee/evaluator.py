"""Prediction of a committee on MONAI's engine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, cast

import torch
from monai.engines import SupervisedEvaluator
from monai.engines.utils import IterationEvents
from monai.utils.enums import CommonKeys as Keys
from torch import Tensor, nn

from svgd_monai.committee.convolution import cpu_convolutions
from svgd_monai.statistics import STATISTICS, VOTES, mean_probability, split_votes, summarise


class Committee(Protocol):
    """What a committee offers to its engines: ``Particles`` and ``CommitteeMean`` both do."""

    def members(self, x: Tensor) -> Iterator[Tensor]:
        """Logits of one member after the other, each (B, C, ...)."""


class CommitteeStatistics(nn.Module):
    """A committee as a network with C + 2 output channels, see :mod:`svgd_monai.statistics`.

    As an ordinary module it passes through MONAI's sliding-window inferers, which blend its channels over windows.

    Args:
        committee: a module with ``members(x)``.
        amp: bfloat16 autocast of the members' forward (CUDA only); the statistics are float32.
        votes: add the members' votes, C channels more.
    """

    def __init__(self, committee: nn.Module, amp: bool = False, votes: bool = False) -> None:
        super().__init__()
        self.committee = committee
        self.amp = amp
        self.votes = votes

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, ...) -> (B, C + 2, ...), or (B, 2 C + 2, ...) with votes."""
        with cpu_convolutions(x.device):
            return summarise(self._probabilities(x), self.votes)

    def _probabilities(self, x: Tensor) -> Iterator[Tensor]:
        members = cast(Committee, self.committee).members(x)
        while True:
            with torch.autocast(x.device.type, torch.bfloat16, enabled=self.amp):
                logits = next(members, None)
            if logits is None:
                return
            yield torch.softmax(logits.float(), dim=1)


class CommitteeEvaluator(SupervisedEvaluator):
    """A :class:`monai.engines.SupervisedEvaluator` whose prediction is the committee's mean probability (B, C, ...).

    ``engine.state.output`` holds, beside image, label and prediction, the committee's ``statistics`` (B, C + 2, ...),
    from which the acquisition handlers compute uncertainty, and, with ``votes``, its ``votes`` (B, C, ...), from which
    :func:`~svgd_monai.statistics.member_agreement` follows.

    Args:
        device: where to run.
        val_data_loader: batches of dictionaries with ``image`` and, where known, ``label``.
        network: ``Particles`` or ``CommitteeMean``.
        amp: bfloat16 autocast (CUDA only).
        votes: whether to count the members' votes.
        kwargs: further arguments of :class:`monai.engines.SupervisedEvaluator`.
    """

    def __init__(
        self,
        device: str | torch.device,
        val_data_loader: Any,
        network: nn.Module,
        amp: bool = False,
        votes: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(device=device, val_data_loader=val_data_loader, network=network, amp=False, **kwargs)
        self.statistics = CommitteeStatistics(network, amp, votes)

    def _iteration(self, engine: CommitteeEvaluator, batchdata: dict[str, Any]) -> dict[str, Any]:
        if batchdata is None:
            raise ValueError("Must provide batch data for current iteration.")
        batch = engine.prepare_batch(batchdata, engine.state.device, engine.non_blocking, **engine.to_kwargs)
        inputs, targets = batch[0], batch[1]
        engine.state.output = {Keys.IMAGE: inputs, Keys.LABEL: targets}
        with engine.mode(engine.network):
            statistics = engine.inferer(inputs, engine.statistics)
        if engine.statistics.votes:
            statistics, engine.state.output[VOTES] = split_votes(statistics)
        engine.state.output[Keys.PRED] = mean_probability(statistics)
        engine.state.output[STATISTICS] = statistics
        engine.fire_event(IterationEvents.FORWARD_COMPLETED)
        engine.fire_event(IterationEvents.MODEL_COMPLETED)
        return cast(dict[str, Any], engine.state.output)
