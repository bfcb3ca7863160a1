"""Several processes that share one piece of work: who is who, which cases are whose, how the parts come together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sized
from itertools import zip_longest
from typing import Any, TypeVar

import torch.distributed as dist
from torch.utils.data import Sampler

T = TypeVar("T")


def processes() -> tuple[int, int]:
    """This process's rank and their number; (0, 1) without ``torch.distributed``."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def is_first() -> bool:
    """Whether this process is the one that writes files."""
    return processes()[0] == 0


class CaseShare(Sampler[int]):
    """The items of a data set that fall to this process: every n-th of n processes'.

    Where there are fewer items than processes each takes all of them, so that no process is without any: metrics wait
    for one another. :func:`gathered` then takes each once.

    Args:
        dataset: has a length.
    """

    def __init__(self, dataset: Sized) -> None:
        self.dataset = dataset

    def __iter__(self) -> Iterator[int]:
        return iter(self._share())

    def __len__(self) -> int:
        return len(self._share())

    def _share(self) -> range:
        rank, ranks = processes()
        count = len(self.dataset)
        return range(count) if count < ranks else range(rank, count, ranks)


def gathered(own: Mapping[str, T]) -> dict[str, T]:
    """What all processes have found, in the order in which one alone would have: of their :class:`CaseShare`, by case.

    Args:
        own: what this process has found, in the order of its share; plain values and tensors on the CPU.
    """
    parts = everyones(list(own.items()))
    return {pair[0]: pair[1] for row in zip_longest(*parts) for pair in row if pair is not None}


def agreed(value: T) -> T:
    """The first process's value, in all."""
    _, ranks = processes()
    if ranks == 1:
        return value
    shared: list[Any] = [value]
    dist.broadcast_object_list(shared, src=0)
    found: T = shared[0]
    return found


def everyones(value: T) -> list[T]:
    """Each process's value, by rank."""
    _, ranks = processes()
    if ranks == 1:
        return [value]
    parts: list[Any] = [None] * ranks
    dist.all_gather_object(parts, value)
    return parts
