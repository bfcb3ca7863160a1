r"""From gradients of the loss to the step of the committee, in place.

The log posterior of a particle is ``likelihood_scale · (− loss) + log N(θ | 0, prior_std²)``, so its score is
:math:`g_i = - s \nabla loss_i - x_i / \sigma^2`, and the optimiser's gradient is :math:`-\phi`:

.. math::
    -\phi = \big( s\, K\, \nabla loss + K X / \sigma^2 - \tfrac{2 r}{h} (\mathrm{diag}(K 1) - K) X \big) / M
          = drive + prior - repulsion.

With the kernel off (a plain ensemble) K = M·I and r = 0: each particle descends its own log posterior.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from svgd_monai.committee.svgd import SteinKernel, first_present, mixing, relative_blocks, stein_kernel
from svgd_monai.errors import SettingsError

COMMITTEES = ("svgd", "ensemble")


class Balance(NamedTuple):
    """What moved the particles in one step; each a float64 tensor of shape (), so that a GPU need not wait.

    Attributes:
        drive: root mean square over particles of the norm of the likelihood's term of φ.
        prior: likewise, of the prior's term.
        repulsion: likewise, of the repulsive term.
        bandwidth: h.
        distance: mean pairwise distance of the particles.
        kernel: mean off-diagonal kernel value.
        norm: mean norm of a particle.
        clipped: the share of particles whose φ was clipped.
        isolated: how many particles are so far from all others that the kernel between them is 0 in single precision.
    """

    drive: Tensor
    prior: Tensor
    repulsion: Tensor
    bandwidth: Tensor
    distance: Tensor
    kernel: Tensor
    norm: Tensor
    clipped: Tensor
    isolated: Tensor


class PosteriorStep:
    """Turns the gradients of the members' losses into −φ, in place.

    Args:
        committee: ``svgd``, or ``ensemble`` for the same engine with the kernel off.
        likelihood_scale: s; 1 is the paper's mean loss, the number of labelled cases is the full posterior.
        prior_std: σ of the Gaussian prior on every parameter; None is a flat prior.
        repulsion: factor r on the repulsive term; 1 is SVGD.
        max_norm: a particle whose −φ is longer is scaled back to this length; None never clips.

    Raises:
        SettingsError: an argument is unknown or out of range.
    """

    def __init__(
        self,
        committee: str = "svgd",
        likelihood_scale: float = 1.0,
        prior_std: float | None = None,
        repulsion: float = 1.0,
        max_norm: float | None = None,
    ) -> None:
        if committee not in COMMITTEES:
            raise SettingsError(f"committee: {committee!r} is not one of {', '.join(COMMITTEES)}.")
        for name, value in (("likelihood_scale", likelihood_scale), ("prior_std", prior_std), ("max_norm", max_norm)):
            # Beyond, squares of what it is multiplied with, and of its inverse, leave single precision.
            if value is not None and not 1e-6 <= value <= 1e6:
                raise SettingsError(f"{name}: {value!r} is not between 1e-6 and 1e6.")
        if not math.isfinite(repulsion):
            raise SettingsError(f"repulsion: {repulsion!r} is not finite.")
        self.committee = committee
        self.likelihood_scale = float(likelihood_scale)
        self.prior_precision = 0.0 if prior_std is None else float(prior_std) ** -2
        self.repulsion = float(repulsion) if committee == "svgd" else 0.0
        self.max_norm = max_norm

    @torch.no_grad()
    def __call__(self, particles: Tensor, gradients: Tensor, healthy: Tensor | None = None) -> Balance:
        """Replace ``gradients`` by −φ.

        Args:
            particles: X, shape (M, D).
            gradients: on entry row i is ∇loss_i, on return row i of −φ; shape (M, D).
            healthy: bool (M,); the other particles neither move nor are seen by these, whatever their rows hold.
                None: all.

        Returns:
            The balance of the step, of the healthy particles.
        """
        kernel = stein_kernel(particles, healthy=healthy)
        if healthy is not None:
            gradients.masked_fill_(~healthy[:, None], 0.0)
        if self.committee == "svgd":
            squares = self._mix(kernel, particles, gradients, healthy)
        else:
            squares = self._descend(kernel, particles, gradients, healthy)
        clipped = self._clip(gradients)
        count = kernel.count()
        drive, prior, repulsion = (squares / count).sqrt()
        return Balance(
            drive=drive,
            prior=prior,
            repulsion=repulsion,
            bandwidth=kernel.bandwidth,
            distance=kernel.mean_distance(),
            kernel=kernel.off_diagonal_mean(),
            norm=kernel.products.diagonal().sqrt().sum() / count,
            clipped=clipped / count,
            isolated=self._isolated(kernel),
        )

    def _isolated(self, kernel: SteinKernel) -> Tensor:
        diagonal = kernel.values.diagonal()
        others = (kernel.values - torch.diag(diagonal)).amax(1)
        alone = (diagonal > 0) & (others < torch.finfo(torch.float32).tiny) & (diagonal.sum() > 1)
        return alone.sum().double() * (self.committee == "svgd")

    def _mix(self, kernel: SteinKernel, particles: Tensor, gradients: Tensor, healthy: Tensor | None) -> Tensor:
        """−φ into ``gradients``; the sums over particles of the terms' squared norms, (3,)."""
        average, push = mixing(kernel, self.repulsion)
        drive, pull = self.likelihood_scale * average, self.prior_precision * average
        # Prior and repulsion in one product, with the relative particles. The row of the particle that is subtracted
        # would be 0: it holds that particle itself, which the prior alone sees, and sees in all of them.
        first = first_present(particles, healthy)
        rest = (pull - push).index_copy_(1, first, pull.sum(1, keepdim=True)).to(particles)
        drive, driven = drive.to(particles), torch.zeros((), dtype=torch.float64, device=particles.device)
        mixed = relative = particles.new_empty(0)
        for columns, block, one in relative_blocks(particles, healthy):
            own = gradients[:, columns]
            if mixed.shape != block.shape:  # the first and the last block: others would allocate in vain
                mixed, relative = torch.empty_like(block), torch.empty_like(block)
            torch.mm(drive, own, out=mixed)
            driven += torch.linalg.vector_norm(mixed, dim=1).double().square().sum()
            torch.sub(block, one, out=relative).index_copy_(0, first, one)
            torch.addmm(mixed, rest, relative, out=own)
        # Norms of M vectors of length D that were mixed from M particles follow from these particles' products.
        differences = -0.5 * kernel.squared_distances  # x_i · x_j but for terms that vanish under `push`
        return torch.stack(
            [
                driven,
                self.prior_precision**2 * _squared_norm(average, kernel.products),
                _squared_norm(push, differences),
            ]
        )

    def _descend(self, kernel: SteinKernel, particles: Tensor, gradients: Tensor, healthy: Tensor | None) -> Tensor:
        """Likewise for members that never meet: row by row, for 0 · NaN is NaN."""
        squares = torch.zeros(3, dtype=torch.float64, device=particles.device)
        for columns, block, _ in relative_blocks(particles, healthy):
            own = gradients[:, columns]
            squares[0] += torch.linalg.vector_norm(own, dim=1, dtype=torch.float64).square().sum()
            own.mul_(self.likelihood_scale)
            if self.prior_precision > 0:
                own.add_(block, alpha=self.prior_precision)
        squares[0] *= self.likelihood_scale**2
        squares[1] = self.prior_precision**2 * kernel.products.diagonal().sum()
        return squares

    def _clip(self, gradients: Tensor) -> Tensor:
        """Clip φ, after mixing: clipping a member's gradient before would change the others' drive as well."""
        if self.max_norm is None:
            return torch.zeros((), dtype=torch.float64, device=gradients.device)
        lengths = torch.linalg.vector_norm(gradients, dim=1, dtype=torch.float64)
        factors = (self.max_norm / lengths).clamp_max(1.0)
        gradients.mul_(factors[:, None].to(gradients.dtype))
        clipped: Tensor = (factors < 1.0).double().sum()
        return clipped


def _squared_norm(mixing_matrix: Tensor, products: Tensor) -> Tensor:
    """‖A Z‖² of the Frobenius norm, from A (N, M) and Z Zᵀ (M, M)."""
    norm: Tensor = (mixing_matrix @ products * mixing_matrix).sum()
    return norm.clamp_min(0.0)
