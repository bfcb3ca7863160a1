"""The committee as plain modules, for inference and export."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from svgd_monai.committee.particles import fresh_network


class CommitteeMean(nn.Module):
    """Mean probability of M plain networks: p̄ = (1/M) Σ_m softmax(f_m(x)).

    It is the ``network_def`` of inference and export: :class:`~svgd_monai.committee.particles.Particles` rests on
    ``torch.func.functional_call``, which can be neither scripted nor traced.

    Args:
        networks: M modules, each (B, C_in, ...) -> logits (B, C, ...).
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        if len(networks) == 0:
            raise ValueError("a committee needs at least one network.")
        self.networks = nn.ModuleList(networks)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, ...) -> mean probability (B, C, ...), float32."""
        total = torch.zeros(1, device=x.device)
        for network in self.networks:
            total = total + torch.softmax(network(x).float(), dim=1)
        return total / len(self.networks)

    def members(self, x: Tensor) -> Iterator[Tensor]:
        """Logits of one member after the other, each (B, C, ...)."""
        for network in self.networks:
            yield network(x)


def committee_mean(network: nn.Module | Callable[[], nn.Module], num_particles: int) -> CommitteeMean:
    """A :class:`CommitteeMean` of M fresh networks, for a configuration to fill from a checkpoint.

    Args:
        network: a network, or a callable that returns one (``_mode_: callable`` in a configuration).
        num_particles: M.
    """
    fresh = (
        copy.deepcopy(network) if isinstance(network, nn.Module) else fresh_network(network)
        for _ in range(num_particles)
    )
    return CommitteeMean(list(fresh))
