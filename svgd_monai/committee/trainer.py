"""Joint training of a committee on MONAI's engine."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, cast

import torch
import torch.distributed as dist
from ignite.engine import Events
from monai.data import MetaTensor
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents
from monai.transforms import Decollated
from monai.utils.enums import CommonKeys as Keys
from torch import Tensor, nn
from torch.optim import Optimizer

from svgd_monai.committee.convolution import cpu_convolutions
from svgd_monai.committee.guard import ParticleGuard
from svgd_monai.committee.optimizer import check_optimizer
from svgd_monai.committee.particles import Particles
from svgd_monai.committee.posterior import Balance, PosteriorStep
from svgd_monai.committee.schedule import training_steps
from svgd_monai.committee.sharing import check_divisible, shares
from svgd_monai.errors import SettingsError
from svgd_monai.processes import processes

MEMBER_BATCHES = ("shared", "own")


class CommitteeTrainer(SupervisedTrainer):
    """Trains all particles on the same mini-batches; one step is one move of the whole committee.

    A :class:`monai.engines.SupervisedTrainer` to every handler: the same events in the same order,
    ``engine.state.output`` with the image, the label, the prediction (the committee's mean probability, (B, C, ...))
    and the loss (the members' mean; a tensor also where MONAI's trainer gives a number, which would have to wait for a
    GPU). On top, ``engine.state.member_losses`` is a tensor (M,), ``engine.state.balance`` the
    :class:`~svgd_monai.committee.posterior.Balance` of the step and ``engine.state.replaced_particles`` the number of
    particles that had to be replaced so far, see :class:`~svgd_monai.committee.guard.ParticleGuard`.

    The members run one after the other, each backward landing in its row of ``network.values.grad``: the memory of one
    network's activations. At ``IterationEvents.BACKWARD_COMPLETED`` the rows hold the gradients of the members' losses;
    then ``step`` turns them into −φ and the optimiser moves the particles.

    Where ``torch.distributed`` is initialised, the particles are shared out: each process runs the members that fall to
    it, on the same batch, the gradients' rows are exchanged, and every process takes the same step. Where there are
    more processes than particles, those of one particle share its batch, item by item: exact for a loss that is the
    mean over a batch's items. A network without dropout ends with the same particles as in one process, those that are
    shared up to the order of their sums.

    Args:
        device: where to run.
        max_epochs: epochs, each of ``epoch_length`` steps; a validation handler runs after each.
        train_data_loader: batches of dictionaries with ``image`` (B, C_in, ...) and ``label``.
        network: the particles.
        optimizer: over ``network.values``, element by element; without weight decay, the prior is in ``step``.
        loss_function: (logits (B, C, ...), label) -> minus the log-likelihood, e.g. ``LogDiceLoss(softmax=True)``.
        step: the posterior's step.
        max_steps: if the last epoch would go beyond this step of the training, it ends with it; earlier epochs are
            never cut short, because ``max_epochs`` says how many there are.
        member_batches: ``shared``: all members see the same batch; ``own``: the batch holds one of equal size for each
            member, one behind the other (a control for ensembles), and so does the prediction in the output.
        on_bad_particle: what becomes of a particle that is no longer finite, see
            :class:`~svgd_monai.committee.guard.ParticleGuard`: ``restore``, ``resample`` or ``stop``.
        seed: of the copies of particles.
        amp: bfloat16 autocast of network and loss (CUDA only). There is no loss scaling: it would scale the drive and
            not the repulsion.
        kwargs: further arguments of :class:`monai.engines.SupervisedTrainer`.

    Raises:
        SettingsError: the optimiser has a weight decay, mixes the particles, ascends or does not hold them,
            ``member_batches`` or ``on_bad_particle`` is unknown, or ``compile`` or ``accumulation_steps`` is set.
    """

    def __init__(
        self,
        device: str | torch.device,
        max_epochs: int,
        train_data_loader: Iterable[Any],
        network: Particles,
        optimizer: Optimizer,
        loss_function: Callable[..., Tensor],
        step: PosteriorStep,
        max_steps: int | None = None,
        member_batches: str = "shared",
        on_bad_particle: str = "restore",
        seed: int = 0,
        amp: bool = False,
        **kwargs: Any,
    ) -> None:
        if kwargs.get("compile"):
            raise SettingsError("compile: a trainer of particles runs them one by one and cannot compile them.")
        if kwargs.get("accumulation_steps", 1) > 1:
            raise SettingsError(
                "accumulation_steps: the particles move after every batch; give a larger batch_size in its place."
            )
        check_optimizer(optimizer)
        if not any(held is network.values for group in optimizer.param_groups for held in group["params"]):
            raise SettingsError("optimizer: it does not hold the particles; give it the network's parameters.")
        if member_batches not in MEMBER_BATCHES:
            raise SettingsError(f"member_batches: {member_batches!r} is not one of {', '.join(MEMBER_BATCHES)}.")
        super().__init__(
            device=device,
            max_epochs=max_epochs,
            train_data_loader=train_data_loader,
            network=network,
            optimizer=optimizer,
            loss_function=loss_function,
            amp=False,
            **kwargs,
        )
        self.step = step
        self.own_batches = member_batches == "own"
        self.bfloat16 = amp
        self.state.member_losses = None
        self.state.balance = None
        self.state.replaced_particles = 0
        self.max_steps = max_steps
        self.guard = ParticleGuard(network, optimizer, on_bad_particle, seed)
        self.add_event_handler(Events.EPOCH_STARTED, lambda engine: engine.guard.begin(engine.state))
        # Also where a handler has ended the training before its time.
        self.add_event_handler(Events.COMPLETED, lambda engine: engine.guard.settle(engine.state))
        if max_steps is not None:
            self.add_event_handler(Events.ITERATION_COMPLETED(once=max_steps), _end)

    def _iteration(self, engine: CommitteeTrainer, batchdata: dict[str, Any]) -> dict[str, Tensor]:
        if batchdata is None:
            raise ValueError("Must provide batch data for current iteration.")
        engine.guard.settle(engine.state)  # behind the loading of the batch, for which a GPU's flags leave time
        inputs, targets = engine.prepare_batch(batchdata, engine.state.device, engine.non_blocking, **engine.to_kwargs)
        # Gradients through MetaTensor's dispatch cost time and carry nothing.
        inputs, targets = (t.as_tensor() if isinstance(t, MetaTensor) else t for t in (inputs, targets))
        engine.state.output = {Keys.IMAGE: inputs, Keys.LABEL: targets}

        network: Particles = engine.network
        network.train()
        network.zero_grad()
        losses, mean = self._gradients(network, inputs, targets)
        engine.state.member_losses = losses
        engine.state.output[Keys.PRED] = mean
        engine.fire_event(IterationEvents.FORWARD_COMPLETED)
        engine.state.output[Keys.LOSS] = losses.mean()
        engine.fire_event(IterationEvents.LOSS_COMPLETED)
        engine.fire_event(IterationEvents.BACKWARD_COMPLETED)

        gradients = network.values.grad
        assert gradients is not None  # zero_grad() made it
        healthy = engine.guard.healthy(losses)
        balance: Balance = engine.step(network.values.detach(), gradients, healthy)
        engine.state.balance = balance
        engine.optimizer.step()
        engine.guard.note(healthy, balance, engine.state)
        if engine.ends_epoch:
            engine.guard.settle(engine.state)  # before anyone validates or keeps the particles
        engine.fire_event(IterationEvents.MODEL_COMPLETED)
        return cast(dict[str, Tensor], engine.state.output)

    @property
    def ends_epoch(self) -> bool:
        """Whether the newest step is the last one before a validation."""
        return self.state.iteration in (self.state.epoch * self.state.epoch_length, training_steps(self))

    def _register_decollate(self) -> None:
        """MONAI's, but for the loss: that reads it, and a GPU's host would have to wait in every step."""
        transform = Decollated(keys=None, detach=False)  # nothing here has a graph

        def decollate(engine: CommitteeTrainer) -> None:
            if isinstance(engine.state.batch, (list, dict)):
                engine.state.batch = transform(engine.state.batch)
            engine.state.output = transform(engine.state.output)

        self.add_event_handler(IterationEvents.MODEL_COMPLETED, decollate)

    def _gradients(self, network: Particles, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Every member's loss (M,), gradients left in ``network.values.grad``; and the mean probability (B, C, ...).

        Where members have batches of their own, their probabilities one behind the other in its place.
        """
        count = network.num_particles
        rank, ranks = processes()
        check_divisible(self.loss_function, count, ranks)
        if self.own_batches and len(inputs) % count:
            raise SettingsError(
                f"member_batches: own needs batches of one size for each of {count} members, got {len(inputs)} items."
            )
        losses, mean = torch.zeros(count, device=inputs.device), None
        for index, items, weight in shares(count, len(inputs) // (count if self.own_batches else 1), rank, ranks):
            seen, wanted = (t.chunk(count)[index][items] if self.own_batches else t[items] for t in (inputs, targets))
            logits, losses[index] = network.with_member(index, partial(self._descend, seen, wanted, weight))
            with torch.no_grad():
                probability = torch.softmax(logits.float(), dim=1)
                if mean is None:
                    mean = probability.new_zeros(len(inputs), *probability.shape[1:])
                if self.own_batches:
                    mean.chunk(count)[index][items] = probability
                else:
                    mean[items] += probability / count
        assert mean is not None  # every process has a particle
        if ranks > 1:
            # What other processes compute is 0 here: the sum puts rows, or a row's parts, together.
            for tensor in (network.values.grad, losses, mean):
                dist.all_reduce(tensor)
        return losses, mean

    def _descend(self, seen: Tensor, wanted: Tensor, weight: float, member: nn.Module) -> tuple[Tensor, Tensor]:
        """A member's logits (B, C, ...) and weighted loss (), without a graph; its gradient is left where it belongs.

        The loss is within autocast, as in MONAI's trainer: there it may join logits in bfloat16 with float32 weights.
        """
        with torch.autocast(seen.device.type, torch.bfloat16, enabled=self.bfloat16):
            with cpu_convolutions(seen.device):
                logits = self.inferer(seen, member)
            loss = weight * self.loss_function(logits, wanted).mean()
        loss.backward()
        return logits.detach(), loss.detach()


def _end(engine: CommitteeTrainer) -> None:
    if engine.state.iteration == training_steps(engine):
        engine.terminate_epoch()  # which still completes, with its events
