"""Who computes what, where several processes train one committee."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from torch import nn

from svgd_monai.errors import SettingsError


class Share(NamedTuple):
    """A part of a member's batch.

    Attributes:
        member: index of the particle.
        items: which of the batch's items.
        weight: of their loss in the member's: their share of the items.
    """

    member: int
    items: slice
    weight: float


def shares(members: int, items: int, rank: int, ranks: int) -> Iterator[Share]:
    """What one process computes of a step.

    Members are dealt out one by one. Where there are more processes than members, those of one member share the items
    of its batch.

    Args:
        members: M.
        items: of each member's batch.
        rank: of this process.
        ranks: processes in all.

    Raises:
        SettingsError: a process would have nothing to do; raised in all of them.
    """
    if ranks <= members:
        yield from (Share(member, slice(0, items), 1.0) for member in range(rank, members, ranks))
        return
    if -(-ranks // members) > items:
        raise SettingsError(
            f"num_particles: {members} particles with batches of {items} cannot be shared out over {ranks} processes."
        )
    member, position = rank % members, rank // members
    sharers = len(range(member, ranks, members))
    part = slice(items * position // sharers, items * (position + 1) // sharers)
    yield Share(member, part, (part.stop - part.start) / items)


def check_divisible(loss: Any, members: int, ranks: int) -> None:
    """Whether the loss of a batch is the mean of its items' losses, as a batch that is shared needs it.

    Args:
        loss: the loss. Of a module, and of those that it is made of, as ``DiceCELoss`` is, ``batch``, ``reduction`` and
            the ``weight`` of classes are looked at, which losses of MONAI and torch have.
        members: M.
        ranks: processes in all.

    Raises:
        SettingsError: it is not, and there are more processes than members.
    """
    parts = list(loss.modules()) if isinstance(loss, nn.Module) else [loss]
    if ranks > members and not all(_is_mean_of_items(part) for part in parts):
        raise SettingsError(
            f"loss: a loss over the whole batch cannot be shared out item by item; start at most {members} processes."
        )


def _is_mean_of_items(loss: Any) -> bool:
    # A cross entropy with weights divides by those of the voxels that the batch happens to hold.
    weighted = isinstance(loss, (nn.CrossEntropyLoss, nn.NLLLoss)) and loss.weight is not None
    summed = getattr(loss, "reduction", "mean") == "sum"
    return not (getattr(loss, "batch", False) or summed or weighted)
