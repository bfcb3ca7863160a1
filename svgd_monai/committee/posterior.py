r"""From gradients of the loss to the step of the committee, in place.

The log posterior of a particle is ``likelihood_scale · (− loss) + log N(θ | 0, prior_std²)``, so its score is
:math:`g_i = - s \nabla loss_i - x_i / \sigma^2`, and the optimiser's gradient is :math:`-\phi`:

.. math::
    -\phi = \big( s\, K\, \nabla loss + K X / \sigma^2 - \tfrac{2 r}{h} (\mathrm{diag}(K 1) - K) X \big) / M
          = drive + prior - repulsion.

With the kernel off (a plain ensemble) K = M·I and r = 0: each particle descends its own log posterior.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from svgd_monai.committee.svgd import centred_blocks, mixing, stein_kernel
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
    """

    drive: Tensor
    prior: Tensor
    repulsion: Tensor
    bandwidth: Tensor
    distance: Tensor
    kernel: Tensor
    norm: Tensor
    clipped: Tensor


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
            if value is not None and not value > 0:
                raise SettingsError(f"{name}: {value!r} is not above 0.")
        self.committee = committee
        self.likelihood_scale = float(likelihood_scale)
        self.prior_precision = 0.0 if prior_std is None else float(prior_std) ** -2
        self.repulsion = float(repulsion) if committee == "svgd" else 0.0
        self.max_norm = max_norm

    @torch.no_grad()
    def __call__(self, particles: Tensor, gradients: Tensor) -> Balance:
        """Replace ``gradients`` by −φ.

        Args:
            particles: X, shape (M, D).
            gradients: on entry row i is ∇loss_i, on return row i of −φ; shape (M, D).

        Returns:
            The balance of the step.
        """
        count = particles.shape[0]
        kernel = stein_kernel(particles)
        average, push_mix = (matrix.to(particles.dtype) for matrix in mixing(kernel, self.repulsion))
        coupled = self.committee == "svgd"

        squares = torch.zeros(5, count, dtype=torch.float64, device=particles.device)
        for columns, centred in centred_blocks(particles):
            block = particles[:, columns]
            own = self.likelihood_scale * gradients[:, columns]
            # Members of an ensemble are never multiplied into one another: 0 · NaN is NaN.
            drive = average @ own if coupled else own
            pull = self.prior_precision * block
            prior = average @ pull if coupled else pull
            push = push_mix @ centred if coupled else torch.zeros_like(drive)
            total = drive + prior - push
            gradients[:, columns] = total
            for term, values in enumerate((drive, prior, push, total, block)):
                squares[term] += torch.linalg.vector_norm(values, dim=1, dtype=torch.float64).square()

        clipped = self._clip(gradients, squares[3].sqrt())
        root = squares.mean(1).sqrt()
        return Balance(
            drive=root[0],
            prior=root[1],
            repulsion=root[2],
            bandwidth=kernel.bandwidth,
            distance=kernel.mean_distance(),
            kernel=kernel.off_diagonal_mean(),
            norm=squares[4].sqrt().mean(),
            clipped=clipped,
        )

    def _clip(self, gradients: Tensor, lengths: Tensor) -> Tensor:
        """Clip φ, after mixing: clipping a member's gradient before would change the others' drive as well."""
        if self.max_norm is None:
            return torch.zeros((), dtype=torch.float64, device=gradients.device)
        factors = (self.max_norm / lengths.clamp_min(torch.finfo(torch.float64).tiny)).clamp_max(1.0)
        gradients.mul_(factors[:, None].to(gradients.dtype))
        return (factors < 1.0).double().mean()
