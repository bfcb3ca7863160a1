"""A particle that is no longer finite: noticed within the step, kept from the others, replaced and counted."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from ignite.engine import State
from torch import Tensor
from torch.optim import Optimizer

from svgd_monai.committee.particles import Particles
from svgd_monai.committee.posterior import Balance
from svgd_monai.errors import SettingsError, TrainingError
from svgd_monai.seeding import derive_seed

logger = logging.getLogger(__name__)

ON_BAD_PARTICLE = ("restore", "resample", "stop")
#: Length of the noise on a copied particle, as a share of the particle's own: the repulsion does the rest.
NOISE = 0.01
#: Mean distance of the particles, as a share of their mean norm, below which they are one particle in M copies.
COLLAPSED = 1e-4
#: Replacements in one training after which another would not help.
LIMIT = 20

#: What torch's optimisers call an average of gradients or the last step.
_FIRST_MOMENTS = {"exp_avg", "momentum_buffer", "grad_avg", "prev"}
_REMEDY = (
    "the learning_rate is likely too high, or an image is not scaled: "
    "lower learning_rate or set max_norm, with another output_dir"
)


@torch.no_grad()
def finite_particles(particles: Tensor, gradients: Tensor, losses: Tensor) -> Tensor:
    """Which particles have a finite loss, gradient and parameters, as bool (M,) on their device.

    A norm that overflows single precision counts as not finite: the square of such a gradient, Adam's second moment,
    would be infinite and stop the particle for ever.

    Args:
        particles: X, shape (M, D).
        gradients: shape (M, D).
        losses: shape (M,).
    """
    norms = [torch.linalg.vector_norm(matrix, dim=1) for matrix in (particles, gradients)]
    return torch.stack([*norms, losses.to(norms[0])]).isfinite().all(0)


class ParticleGuard:
    """Watches the particles of a training, and replaces those that are no longer finite.

    ``restore`` puts a particle back to its last good state, which is that of the epoch's start (the last validation);
    one that fails again in the same epoch, and any under ``resample``, becomes a copy of a healthy particle, drawn at
    random, with noise. Its first moments in the optimiser become 0, and so does what else may be below 0 there, for it
    points in a particle's own direction. All else becomes the mean of the healthy particles': with second moments of 0
    its next steps would be several times the learning rate. ``stop`` ends the training.

    On a GPU the flags of a step are read when the next one begins, or the epoch ends: the particle is kept from the
    others within the step, on the device, and the host waits for nothing that has not been computed long ago.

    Args:
        network: the particles.
        optimizer: theirs.
        policy: ``restore``, ``resample`` or ``stop``.
        seed: of the copies' noise.

    Raises:
        SettingsError: ``policy`` is unknown.
    """

    def __init__(self, network: Particles, optimizer: Optimizer, policy: str = "restore", seed: int = 0) -> None:
        if policy not in ON_BAD_PARTICLE:
            raise SettingsError(f"on_bad_particle: {policy!r} is not one of {', '.join(ON_BAD_PARTICLE)}.")
        self.network = network
        self.optimizer = optimizer
        self.policy = policy
        self.seed = seed
        self._good = network.values.detach()[:0]
        self._good_step = 0
        self._restored: set[int] = set()
        self._warned = False
        self._continued = False
        self._pending: tuple[Tensor, torch.cuda.Event | None, int] | None = None

    def begin(self, state: State) -> None:
        """Note the particles at the start of an epoch; one that is continued has noted them already."""
        if self._continued:
            self._continued = False
            return
        self._good = self.network.values.detach().clone()
        self._good_step = state.iteration
        self._restored.clear()
        self._warned = False

    def noted(self) -> dict[str, Any]:
        """What an epoch that is cut off needs to go on, as tensors and plain values."""
        return {
            "values": self._good, "step": self._good_step, "restored": sorted(self._restored), "warned": self._warned
        }  # fmt: skip

    def check(self, noted: Mapping[str, Any]) -> None:
        """Whether :meth:`go_on` can take it; nothing changes.

        Raises:
            LookupError: something is missing.
            ValueError: it is of other particles.
        """
        values, _, restored, _ = (noted[name] for name in ("values", "step", "restored", "warned"))
        if values.shape != self.network.values.shape or not set(restored) <= set(range(self.network.num_particles)):
            raise ValueError("other particles")

    def go_on(self, noted: Mapping[str, Any]) -> None:
        """Continue an epoch with what :meth:`noted` gave."""
        self._good = noted["values"].to(self.network.values.device)
        self._good_step, self._restored = noted["step"], set(noted["restored"])
        self._warned = noted["warned"]
        self._continued = True

    def healthy(self, losses: Tensor) -> Tensor | None:
        """:func:`finite_particles`; None where the host knows, without waiting, that it is all of them."""
        gradients = self.network.values.grad
        assert gradients is not None  # behind the backward
        found = finite_particles(self.network.values.detach(), gradients, losses)
        return None if found.device.type == "cpu" and bool(found.all()) else found

    def note(self, healthy: Tensor | None, balance: Balance, state: State) -> None:
        """Take down a step's flags; on a CPU, act on them."""
        count = self.network.num_particles
        found = torch.ones(count, dtype=torch.bool, device=balance.norm.device) if healthy is None else healthy
        collapsed = (balance.distance < COLLAPSED * balance.norm) & (found.sum() > 1)
        flags = torch.cat([found, torch.stack([collapsed, balance.isolated > 0])])
        if flags.device.type == "cuda":
            host = torch.empty(flags.shape, dtype=torch.bool, pin_memory=True)
            host.copy_(flags, non_blocking=True)
            event = torch.cuda.Event()
            event.record()
            self._pending = (host, event, state.iteration)
        else:
            self._pending = (flags, None, state.iteration)
            self.settle(state)

    def settle(self, state: State) -> None:
        """Act on the flags that were noted last.

        Raises:
            TrainingError: no particle is finite, too many had to be replaced, they have collapsed onto one another, or
                the policy is to stop.
        """
        if self._pending is None:
            return
        flags, event, step = self._pending
        self._pending = None
        if event is not None:
            event.synchronize()
        *healthy, collapsed, isolated = flags.tolist()
        if not all(healthy):
            self._replace([m for m, good in enumerate(healthy) if not good], step, state)
        if collapsed:
            raise TrainingError(
                f"The particles have collapsed onto one another by step {step} (their distance is below {COLLAPSED:g} "
                "of their norm): raise likelihood_scale, prior_std or repulsion, with another output_dir."
            )
        if isolated and not self._warned:
            self._warned = True
            logger.warning(
                "step %d: a particle is so far from the others that the kernel between them is 0 in single precision: "
                "they no longer move one another; lower repulsion or set prior_std.", step,
            )  # fmt: skip

    def _replace(self, bad: list[int], step: int, state: State) -> None:
        count = self.network.num_particles
        names = f"particle {bad[0]}" if len(bad) == 1 else f"particles {', '.join(map(str, bad))}"
        if len(bad) == count:
            raise TrainingError(f"No particle has a finite loss, gradient and parameters at step {step}: {_REMEDY}.")
        if self.policy == "stop":
            raise TrainingError(f"on_bad_particle: {names} of {count} stopped being finite at step {step}: {_REMEDY}.")
        state.replaced_particles += len(bad)
        if state.replaced_particles > LIMIT:
            raise TrainingError(f"More than {LIMIT} particles stopped being finite by step {step}: {_REMEDY}.")
        healthy = [m for m in range(count) if m not in bad]
        for member in bad:
            if self.policy == "restore" and member not in self._restored:
                self._restored.add(member)
                row, origin = self._good[member], f"its state of step {self._good_step}"
            else:
                row, origin = self._noisy_copy(member, healthy, step)
            self._put(member, row, healthy)
            logger.warning("step %d: particle %d is no longer finite; it goes on from %s", step, member, origin)

    @torch.no_grad()
    def _noisy_copy(self, member: int, healthy: list[int], step: int) -> tuple[Tensor, str]:
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "resample", step, member))
        source = healthy[int(torch.randint(len(healthy), (), generator=generator))]
        row = self.network.values.detach()[source]
        noise = torch.randn(row.shape, generator=generator, dtype=row.dtype).to(row.device)
        scale = NOISE * torch.linalg.vector_norm(row) / torch.linalg.vector_norm(noise)
        return row + scale * noise, f"a copy of particle {source} with noise"

    @torch.no_grad()
    def _put(self, member: int, row: Tensor, healthy: list[int]) -> None:
        self.network.values[member] = row
        for name, value in self.optimizer.state.get(self.network.values, {}).items():
            if torch.is_tensor(value) and value.shape == self.network.values.shape:
                others = value[healthy]
                directed = name in _FIRST_MOMENTS or bool((others < 0).any())
                value[member] = 0.0 if directed else others.mean(0)
