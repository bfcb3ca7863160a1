"""How large the steps of a training are, over its course."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

from ignite.engine import Engine, Events
from torch.optim import Optimizer

from svgd_monai.errors import SettingsError

CONSTANT = "constant"
#: Factor on the learning rate, from the share of the training that is behind.
SCHEDULES: Mapping[str, Callable[[float], float]] = MappingProxyType(
    {CONSTANT: lambda done: 1.0, "cosine": lambda done: (1 + math.cos(math.pi * done)) / 2}
)


def training_steps(engine: Engine) -> int:
    """Steps of a training: those of its epochs, of which a trainer's ``max_steps`` may cut the last one short.

    Args:
        engine: a trainer that runs, for MONAI's knows the length of its epochs by then.
    """
    length: int = engine.state.epoch_length
    steps: int = engine.state.max_epochs * length
    limit: int | None = getattr(engine, "max_steps", None)
    return limit if limit is not None and 0 <= steps - limit < length else steps


class LearningRateSchedule:
    """Sets the learning rate of every step from the step's number alone, so that a continued training has the same.

    ``cosine``: step t of T, counted from 0, has the rate η (1 + cos(π t / T)) / 2, as in Loshchilov and Hutter 2017,
    arXiv 1608.03983, without restarts: large steps first, ever smaller ones at the end.

    ``constant`` leaves the rate to whoever else sets it, as MONAI's ``LrScheduleHandler`` with a scheduler of torch's.

    Args:
        optimizer: the particles'; its rates at this time are η.
        name: ``constant`` or ``cosine``.
        steps: T; None: the steps of the training.

    Raises:
        SettingsError: ``name`` is unknown.
    """

    def __init__(self, optimizer: Optimizer, name: str, steps: int | None = None) -> None:
        if name not in SCHEDULES:
            raise SettingsError(f"learning_rate_schedule: {name!r} is not one of {', '.join(SCHEDULES)}.")
        self.optimizer = optimizer
        self.factor = SCHEDULES[name]
        self.steps = steps
        self.name = name
        self.rates = self._rates()
        self._last: list[float] | None = None

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer."""
        if self.name != CONSTANT:
            engine.add_event_handler(Events.ITERATION_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Set the rate of the step that starts.

        Raises:
            SettingsError: somebody else has set it since the last step.
        """
        if self._last is not None and self._rates() != self._last:
            raise SettingsError(
                f"learning_rate_schedule: {self.name} sets the rate of every step, but another handler of the training "
                f"changes it too; remove that handler, or leave the rate to it with learning_rate_schedule: {CONSTANT}."
            )
        steps = training_steps(engine) if self.steps is None else self.steps
        factor = self.factor((engine.state.iteration - 1) / steps)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        self._last = self._rates()

    def _rates(self) -> list[float]:
        return [group["lr"] for group in self.optimizer.param_groups]
