"""How large the steps of a training are, over its course."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

from ignite.engine import Engine, Events
from torch.optim import Optimizer

from svgd_monai.errors import SettingsError

#: Factor on the learning rate, from the share of the training that is behind.
SCHEDULES: Mapping[str, Callable[[float], float]] = MappingProxyType(
    {"constant": lambda done: 1.0, "cosine": lambda done: (1 + math.cos(math.pi * done)) / 2}
)


class LearningRateSchedule:
    """Sets the learning rate of every step from the step's number alone, so that a continued training has the same.

    ``cosine``: step t of T, counted from 0, has the rate η (1 + cos(π t / T)) / 2, as in Loshchilov and Hutter 2017,
    arXiv 1608.03983, without restarts: large steps first, ever smaller ones at the end.

    Args:
        optimizer: the particles'; its rates at this time are η.
        name: ``constant`` or ``cosine``.
        steps: T.

    Raises:
        SettingsError: ``name`` is unknown.
    """

    def __init__(self, optimizer: Optimizer, name: str, steps: int) -> None:
        if name not in SCHEDULES:
            raise SettingsError(f"learning_rate_schedule: {name!r} is not one of {', '.join(SCHEDULES)}.")
        self.optimizer = optimizer
        self.factor = SCHEDULES[name]
        self.steps = steps
        self.rates = [group["lr"] for group in optimizer.param_groups]

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer."""
        engine.add_event_handler(Events.ITERATION_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Set the rate of the step that starts."""
        factor = self.factor((engine.state.iteration - 1) / self.steps)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
