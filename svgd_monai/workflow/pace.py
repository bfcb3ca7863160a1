"""How long it will take, said early: whoever has asked for weeks should know within a minute."""

from __future__ import annotations

import logging
import time

from ignite.engine import Engine, Events

from svgd_monai.committee.schedule import training_steps

logger = logging.getLogger(__name__)


class Pace:
    """Logs an engine's speed and what it has yet to do, early on and then every few minutes.

    The first line comes after :attr:`FIRST` seconds, or behind the first iteration where that takes longer; an engine
    that is done before says nothing.

    Args:
        label: what the lines begin with, e.g. ``Training, round 3``.
        unit: what an iteration is, e.g. ``step``.
        total: iterations; None: as many as the engine has.
        rounds: how many rounds of such a run there are to come, this one among them; the first line adds them up.
    """

    #: Seconds to the first line, and between later ones.
    FIRST, EVERY = 15.0, 600.0

    def __init__(self, label: str, unit: str = "step", total: int | None = None, rounds: int = 1) -> None:
        self.label = label
        self.unit = unit
        self.total = total
        self.rounds = rounds
        self._began = self._first = self._told = 0.0
        self._start: int | None = None

    def attach(self, engine: Engine) -> None:
        """Attach to any engine."""
        engine.add_event_handler(Events.STARTED, self.begin)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.look)

    def begin(self, engine: Engine) -> None:
        """Note the time."""
        self._began, self._told, self._start = time.monotonic(), 0.0, None

    def look(self, engine: Engine) -> None:
        """Say something where it is time to."""
        now, done = time.monotonic(), engine.state.iteration
        if self._start is None:  # a continued engine begins somewhere
            self._start, self._first = done - 1, now
        total = self.total or training_steps(engine)
        if done >= total or now - (self._told or self._began) < (self.EVERY if self._told else self.FIRST):
            return
        if self._told:
            seconds = (now - self._began) / (done - self._start)
            left = duration((total - done) * seconds)
            logger.info("%s: %s %d of %d, about %s to go.", self.label, self.unit, done, total, left)
        else:
            # The first iteration also reads files, finds kernels and fills caches.
            warm = done - self._start - 1
            seconds = (now - self._first) / warm if warm else now - self._began
            count = total - self._start
            whole = count * seconds
            all_rounds = duration(whole + (self.rounds - 1) * total * seconds)
            such = f"all {self.rounds} rounds" if self._start else f"{self.rounds} such rounds"
            more = f", and {such} {all_rounds}" if self.rounds > 1 else ""
            logger.info(
                "%s: a %s takes %s, so %d of them about %s%s.",
                self.label, self.unit, duration(seconds), count, duration(whole), more,
            )  # fmt: skip
        self._told = now


def duration(seconds: float) -> str:
    """A time as people say it: ``0.25 s``, ``45 s``, ``12 min``, ``3 h 20 min``, ``2 days 17 h``."""
    if seconds < 10:
        return f"{seconds:.2g} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(round(seconds / 3600), 24)
    return f"{days} days {hours} h" if hours and days < 10 else f"{days} days"
