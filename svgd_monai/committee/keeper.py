"""Keeps the best committee of a training, and everything that a killed training needs to go on."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.engines import default_metric_cmp_fn
from torch.optim import Optimizer

from svgd_monai.committee.checkpoint import check_model_file, convert_committee, load_committee, save_committee
from svgd_monai.committee.handlers import EpochMetrics
from svgd_monai.committee.particles import Particles
from svgd_monai.committee.progress import PROGRESS_FILE, TrainingRecord, TrainingState, read_progress, validated
from svgd_monai.committee.trainer import CommitteeTrainer
from svgd_monai.errors import RunFolderError, SettingsError
from svgd_monai.files import write_json, write_torch
from svgd_monai.processes import everyones, is_first
from svgd_monai.temporaries import remove_temporaries

logger = logging.getLogger(__name__)

CHECKPOINTS = ("best", "last")
COMMITTEE_FILE = "committee.pt"
TRAINING_FILE = "training.json"


class CommitteeKeeper:
    """Keeps a training's best (or last) committee and resumes a training that was cut off.

    It writes ``training.pt`` (particles, optimiser, random state, position and best committee so far) after each
    epoch's validation, and within an epoch if the last writing was long ago. At the end it writes ``training.json``
    (validations, seconds, replaced particles) and then ``committee.pt``, whose presence says that the training is
    complete, and removes ``training.pt``. A training that finds a ``training.pt`` of the same ``key`` continues where
    that was written and ends with the same particles, bit for bit on a CPU.

    Args:
        folder: where the three files lie.
        network: the particles.
        optimizer: theirs.
        evaluator: its ``state.metrics[metric]`` decides the best; None, or ``checkpoint="last"``, keeps the last.
        metric: name of the validation metric; the evaluator's ``metric_cmp_fn`` says which of two values is better.
        checkpoint: ``best`` or ``last``.
        sampler: an object with ``start``, the number of steps to pass over when a training continues.
        key: plain values that a continued training must share with the one that was cut off.
        initial: a committee file to start from (warm start); None starts from the initialisation.
        seed: of torch's own stream, from which dropout draws.
        preprocessing: noted in the committee file, see :func:`~svgd_monai.committee.checkpoint.save_committee`.
        model_file: where the committee is written once more, as the plain modules of a bundle's ``models/model.pt``;
            None: nowhere.
        every: seconds after which the progress is written although there has been no validation.
        state: by name, further objects whose state a continued training must take up, such as a torch scheduler: they
            have ``state_dict`` and ``load_state_dict``, of tensors and plain values.

    Raises:
        SettingsError: ``checkpoint`` is unknown.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        network: Particles,
        optimizer: Optimizer,
        evaluator: Engine | None = None,
        metric: str = "val_dice",
        checkpoint: str = "best",
        sampler: Any = None,
        key: Mapping[str, Any] | None = None,
        initial: str | os.PathLike[str] | None = None,
        seed: int = 0,
        preprocessing: Mapping[str, Any] | None = None,
        model_file: str | os.PathLike[str] | None = None,
        every: float = 600.0,
        state: Mapping[str, Any] | None = None,
    ) -> None:
        if checkpoint not in CHECKPOINTS:
            raise SettingsError(f"checkpoint: {checkpoint!r} is not one of {', '.join(CHECKPOINTS)}.")
        self.folder = Path(folder)
        self.network = network
        self.state = TrainingState(network, optimizer, state or {})
        self.metric = metric
        self.checkpoint = checkpoint
        self.sampler = sampler
        own = {"checkpoint": checkpoint, "metric": metric, "state": sorted(self.state.others)}
        self.key = repr(sorted({**(key or {}), **own}.items()))
        self.initial = initial
        self.seed = seed
        self.preprocessing = dict(preprocessing or {})
        self.model_file = model_file
        self.every = every
        better = getattr(evaluator, "metric_cmp_fn", default_metric_cmp_fn)
        self.record = TrainingRecord(metric, better if checkpoint == "best" else None)
        self._since = 0.0
        self.validates = evaluator is not None
        self._metrics = EpochMetrics(evaluator)

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer."""
        self._metrics.attach()
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.COMPLETED, self.finish)

    def start(self, engine: CommitteeTrainer) -> None:
        """Continue a training that was cut off, or begin.

        Raises:
            SettingsError: the training has already run with these objects, their state cannot be saved, or the model
                file cannot be written.
            RunFolderError: the processes do not see the same file.
        """
        if self.record.best is not None:
            raise SettingsError("This training has already run; initialise the workflow again for another one.")
        if is_first():
            remove_temporaries(self.folder)
            if self.model_file is not None:
                check_model_file(self.model_file)
        self.state.check()
        if not engine.has_event_handler(self.keep):
            # Only now, so behind all other handlers: what they do in a step or an epoch is part of what is kept.
            engine.add_event_handler(Events.ITERATION_COMPLETED, self.save)
            engine.add_event_handler(Events.EPOCH_COMPLETED, self.keep)
        self._since = time.monotonic()
        # The first removes the file when it is done: nobody goes on before all have read it.
        found = everyones(engine.state.iteration if self._resume(engine) else None)
        if len(set(found)) > 1:
            raise RunFolderError(f"{self.folder / PROGRESS_FILE} is not the same file for all processes.")
        if found[0] is not None:
            logger.info("training continues at step %d", engine.state.iteration)
            return
        torch.manual_seed(self.seed)
        if self.initial is not None:
            load_committee(self.initial, self.network, key="initial_committee")

    def keep(self, engine: Engine) -> None:
        """Note the validation, keep the committee if it is the best so far, and write the progress."""
        self._note(engine, validated(self._metrics.take(), self.metric, self.checkpoint == "best"))
        self._write(engine, engine.state.epoch, None)

    def _note(self, engine: Engine, value: float | None) -> None:
        balance = getattr(engine.state, "balance", None)
        self.record.note(engine.state.iteration, value, balance, self.network.values.detach())

    def save(self, engine: CommitteeTrainer) -> None:
        """Write the progress within an epoch, where that is due."""
        if time.monotonic() - self._since >= self.every and not engine.ends_epoch:
            engine.guard.settle(engine.state)  # particles as the next step will find them
            self._write(engine, engine.state.epoch - 1, engine.guard.noted())

    def _write(self, engine: Engine, epochs: int, guard: Mapping[str, Any] | None) -> None:
        """Write the progress: ``epochs`` are complete, and ``guard`` is what it has noted in one that is not."""
        self._count_seconds()
        if is_first():
            write_torch(self.folder / PROGRESS_FILE, {**self._progress(engine), "epoch": epochs, "guard": guard})

    def _count_seconds(self) -> None:
        now = time.monotonic()
        self.record.seconds += now - self._since
        self._since = now

    def finish(self, engine: CommitteeTrainer) -> None:
        """Write the result; the progress has served."""
        record = self.record
        if record.best is None or (self.checkpoint == "last" and engine.state.iteration > record.best_step):
            engine.guard.settle(engine.state)  # a handler has ended the training within an epoch
            self._note(engine, None)
            self._count_seconds()
        assert record.best is not None  # of two that are not validated the newer counts
        with torch.no_grad():
            self.network.values.copy_(record.best)
        if not is_first():
            return
        if self.checkpoint == "best" and self.validates and math.isinf(record.best_metric):
            logger.warning("no validation has given a %s, so the newest committee is kept, not the best", self.metric)
        replaced = {"replaced_particles": getattr(engine.state, "replaced_particles", 0)}
        write_json(self.folder / TRAINING_FILE, {**record.as_dict(), **replaced})
        path = save_committee(self.folder / COMMITTEE_FILE, self.network, record.best, self.preprocessing)
        logger.info("the committee of step %d is in %s", record.best_step, path)
        if self.model_file is not None:
            logger.info("the same committee, for MONAI's tools, is in %s", convert_committee(path, self.model_file))
        (self.folder / PROGRESS_FILE).unlink(missing_ok=True)

    def _progress(self, engine: Engine) -> dict[str, Any]:
        return {
            **self.state.content(),
            **self.record.content(),
            "key": self.key,
            "random": torch.get_rng_state(),
            "iteration": engine.state.iteration,
            "replaced_particles": getattr(engine.state, "replaced_particles", 0),
        }

    def _resume(self, engine: CommitteeTrainer) -> bool:
        path = self.folder / PROGRESS_FILE
        try:
            saved = read_progress(path, self.key)
            if saved is not None:
                self._restore(saved, engine)
        except (RunFolderError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            # Progress is a saving of time: a training from the start ends with the same particles.
            logger.warning("%s is damaged (%s); the training begins anew", path, type(error).__name__)
            return False
        return saved is not None

    def _restore(self, saved: dict[str, Any], engine: CommitteeTrainer) -> None:
        # All is read and tried before anything changes: a damaged file leaves a training that begins anew untouched.
        values, epoch, iteration = saved["values"], saved["epoch"], saved["iteration"]
        guard, random = saved.get("guard"), saved["random"].cpu()  # no guard in files of older versions
        record = self.record.continued(saved, self.network.values.device)
        if record.best is None and guard is None:
            raise ValueError("an epoch has left no committee")
        if values.shape != self.network.values.shape:
            raise ValueError("other particles")
        if guard is not None:
            engine.guard.check(guard)
        torch.Generator().set_state(random)
        self.state.fill(saved)
        if guard is not None:
            engine.guard.go_on(guard)
        engine.state.epoch = epoch
        engine.state.iteration = iteration
        engine.state.replaced_particles = saved.get("replaced_particles", 0)  # none in files of older versions
        if self.sampler is not None:
            self.sampler.start = iteration
        self.record = record

        def continue_stream(_: Engine) -> None:
            torch.set_rng_state(random)

        def fill_again(_: Engine) -> None:
            if not torch.equal(self.network.values.detach().cpu(), saved["values"]):
                self.state.fill(saved)
                if guard is None:
                    engine.guard.begin(engine.state)
            saved.clear()  # the memory

        if epoch == engine.state.max_epochs:
            return  # no step is left
        # A handler behind this one, as MONAI's CheckpointLoader may be, fills the particles on STARTED as well.
        engine.add_event_handler(Events.EPOCH_STARTED(once=epoch + 1), fill_again)
        # Not before: a data loader draws from the stream when it starts, and here it starts once more.
        engine.add_event_handler(Events.ITERATION_STARTED(once=iteration + 1), continue_stream)
