"""What a training leaves of itself: the file from which it goes on, and plain numbers for its record."""

from __future__ import annotations

import io
import logging
import math
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from svgd_monai.committee.handlers import single_numbers
from svgd_monai.committee.particles import Particles
from svgd_monai.committee.posterior import Balance
from svgd_monai.errors import SettingsError
from svgd_monai.files import read_torch

logger = logging.getLogger(__name__)

PROGRESS_FILE = "training.pt"
_RECORD = ("best", "best_metric", "best_step", "validations", "seconds")


class TrainingState:
    """What moves in a training: the particles, their optimiser, and whatever else has a state.

    Args:
        network: the particles.
        optimizer: theirs.
        others: by name, objects with ``state_dict`` and ``load_state_dict``.
    """

    def __init__(self, network: Particles, optimizer: Optimizer, others: Mapping[str, Any]) -> None:
        self.network = network
        self.optimizer = optimizer
        self.others = dict(others)

    def check(self) -> None:
        """Whether all of it can be saved.

        Raises:
            SettingsError: an object has no state, or one that is more than tensors and plain values.
        """
        for name, other in self.others.items():
            if not (hasattr(other, "state_dict") and hasattr(other, "load_state_dict")):
                raise SettingsError(f"state: {name} is a {type(other).__name__}, which has no state_dict to be saved.")
            file = io.BytesIO()
            try:
                torch.save(other.state_dict(), file)
                file.seek(0)
                torch.load(file, weights_only=True)
            except (AttributeError, TypeError, RuntimeError, pickle.PickleError) as error:
                raise SettingsError(
                    f"state: the state_dict of {name} holds more than tensors and plain values, so it cannot be saved."
                ) from error

    def content(self) -> dict[str, Any]:
        """All of it, to be saved."""
        return {
            "values": self.network.values.detach(),
            "optimizer": self.optimizer.state_dict(),
            "state": {name: other.state_dict() for name, other in self.others.items()},
        }

    def fill(self, content: Mapping[str, Any]) -> None:
        """Take up what :meth:`content` gave."""
        self.optimizer.load_state_dict(content["optimizer"])
        for name, other in self.others.items():
            other.load_state_dict(content["state"][name])
        with torch.no_grad():
            self.network.values.copy_(content["values"])


class TrainingRecord:
    """What a training has come to: its validations, the committee that is kept of them, and its seconds.

    Args:
        metric: name of the number by which a validation goes.
        better: whether the first of two such numbers is better than the second; None: the newest committee is kept.
    """

    def __init__(self, metric: str, better: Callable[[float, float], bool] | None) -> None:
        self.metric = metric
        self.better = better
        self.best: Tensor | None = None
        self.best_metric = -math.inf
        self.best_step = 0
        self.validations: list[dict[str, Any]] = []
        self.seconds = 0.0

    def note(self, step: int, value: float | None, balance: Balance | None, values: Tensor) -> None:
        """Note a validation, and keep the particles' values (M, D) if they are the best so far."""
        self.validations.append({"step": step, self.metric: value, "balance": plain_balance(balance)})
        # Without any number so far the newest counts; a NaN never displaces a number.
        none = math.isinf(self.best_metric)
        if self.better is None or none or (value is not None and self.better(value, self.best_metric)):
            self.best = values.clone()
            self.best_metric = -math.inf if value is None else value
            self.best_step = step

    def content(self) -> dict[str, Any]:
        """All of it, to be saved."""
        return {name: getattr(self, name) for name in _RECORD}

    def continued(self, content: Mapping[str, Any], device: torch.device) -> TrainingRecord:
        """Another one, with what :meth:`content` gave."""
        record = TrainingRecord(self.metric, self.better)
        for name in _RECORD:
            setattr(record, name, content[name])
        record.best = None if record.best is None else record.best.to(device)
        return record

    def as_dict(self) -> dict[str, Any]:
        """The part that people read, plain values."""
        kept = None if math.isinf(self.best_metric) else self.best_metric
        return {"step": self.best_step, self.metric: kept, "validations": self.validations, "seconds": self.seconds}


def read_progress(path: Path, key: str) -> dict[str, Any] | None:
    """The progress of a training that was cut off.

    Args:
        path: the file.
        key: what the training that goes on is made of.

    Returns:
        None where there is none, or it is of another training, which is said.

    Raises:
        RunFolderError: the file is damaged.
        LookupError: it lacks its key.
        TypeError: it holds something else.
    """
    if not path.is_file():
        return None
    saved = read_torch(path)  # to the CPU, where Adam keeps its count of steps
    if not isinstance(saved, dict):
        raise TypeError("no dictionary")
    if saved["key"] != key:
        logger.warning("%s was written with other settings; the training begins anew", path)
        return None
    return saved


def plain_balance(balance: Balance | None) -> dict[str, float | None] | None:
    """The numbers of a step's balance as JSON takes them; None without such a step."""
    if balance is None:
        return None
    values = {name: float(value) for name, value in balance._asdict().items()}
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def validated(metrics: Mapping[str, Any], name: str, decides: bool) -> float | None:
    """The number by which an epoch's validation goes; None where the epoch had none, or nothing to validate on.

    Args:
        metrics: of the validation; empty without one.
        name: the metric.
        decides: whether it chooses the best.

    Raises:
        SettingsError: it should, and is not measured or not a single number.
    """
    value = single_numbers(metrics).get(name)
    if decides and metrics and value is None:
        odd = "is not a single number" if name in metrics else f"is not among {', '.join(metrics)}"
        raise SettingsError(
            f"checkpoint: best needs the validation's {name}, which {odd}; give the keeper another metric, or say "
            "--checkpoint last."
        )
    return value if value is not None and math.isfinite(value) else None
