r"""Stein variational gradient descent (Liu & Wang 2016, arXiv 1608.04471).

With X the (M, D) matrix of particles, G the (M, D) matrix of scores :math:`g_i = \nabla \log p(\theta_i | data)` and
the kernel :math:`K_{ij} = \exp(-\|x_i - x_j\|^2 / h)`, every particle ascends along

.. math::
    \phi = \big( K G + \tfrac{2}{h} (\mathrm{diag}(K 1) - K) X \big) / M.

The first term drives the particles together to high posterior, the second pushes them apart.

Numerics: the particles' common offset is many times their spread and would cancel catastrophically in single
precision, so repulsion comes from particles *relative to one of them*, and distances from the differences of pairs (on
a CPU) or from relative particles in double precision; all runs over blocks of columns, so that nothing of size (M, D)
is made beside the result; reduced precision (autocast, TF32) is off throughout.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from svgd_monai.committee.precision import full_precision

#: Columns mixed at a time on a CPU, in whose cache M of these blocks stay.
COLUMN_BLOCK = 1 << 16
#: On other devices, where a block must be worth the launch of its kernels.
DEVICE_COLUMN_BLOCK = 1 << 20
#: The bandwidth's floor, relative to the particles' mean square norm: coincident particles give no division by zero.
RELATIVE_FLOOR = 1e-12


@dataclass(frozen=True)
class SteinKernel:
    """The kernel of one step.

    Attributes:
        values: K, shape (M, M), float64, ones on the diagonal.
        bandwidth: h, shape (), float64.
        squared_distances: shape (M, M), float64.
        products: X Xᵀ, shape (M, M), float64.

    Rows and columns of particles that were left out are 0 throughout.
    """

    values: Tensor
    bandwidth: Tensor
    squared_distances: Tensor
    products: Tensor

    def count(self) -> Tensor:
        """The number of particles that take part, shape ()."""
        return self.values.diagonal().sum()

    def off_diagonal_mean(self) -> Tensor:
        """Mean of K_ij over i != j, shape (); 0 for one particle."""
        return self._mean_over_pairs(self.values)

    def mean_distance(self) -> Tensor:
        """Mean Euclidean distance over pairs, shape (); 0 for one particle."""
        return self._mean_over_pairs(self.squared_distances.sqrt())

    def _mean_over_pairs(self, matrix: Tensor) -> Tensor:
        count = self.count()
        return (matrix.sum() - matrix.diagonal().sum()) / (count * (count - 1.0)).clamp_min(1.0)


def median_bandwidth(particles: Tensor) -> Tensor:
    r"""The median heuristic: :math:`h = \mathrm{median}_{i<j} \|x_i - x_j\|^2 / \log M`.

    The true median (the mean of the two middle values for an even number of pairs) over pairs of distinct particles.
    With it :math:`\sum_j K_{ij}` is about 2, whatever the dimension. It has a positive floor, so coincident particles
    are safe.

    Args:
        particles: shape (M, D).

    Returns:
        h, shape (), float64; for M = 1, where it has no meaning, 1.

    Source: Liu & Wang 2016, section 5.
    """
    return stein_kernel(particles).bandwidth


@torch.no_grad()
def stein_kernel(
    particles: Tensor, bandwidth: float | Tensor | None = None, healthy: Tensor | None = None
) -> SteinKernel:
    """The kernel K with its distances and bandwidth.

    Args:
        particles: shape (M, D).
        bandwidth: h; None takes :func:`median_bandwidth`.
        healthy: bool (M,), the particles that take part, whatever the rows of the others hold; None: all.

    Raises:
        ValueError: the particles are no matrix, or the bandwidth is not above 0.
    """
    if particles.ndim != 2 or particles.shape[0] < 1:
        raise ValueError(f"particles must have the shape (M, D), got {tuple(particles.shape)}.")
    present = torch.ones_like(particles[:, 0], dtype=torch.bool) if healthy is None else healthy
    both = (present[:, None] & present[None, :]).double()
    squared, products = (matrix * both for matrix in _distances_and_products(particles, healthy))
    if bandwidth is None:
        bandwidth = _bandwidth(squared, products.diagonal(), present)
    elif not bandwidth > 0:
        raise ValueError(f"The bandwidth must be above 0, got {float(bandwidth):g}.")
    h = torch.as_tensor(bandwidth, dtype=torch.float64, device=particles.device)
    return SteinKernel(torch.exp(-squared / h) * both, h, squared, products)


@torch.no_grad()
def svgd_direction(
    particles: Tensor, scores: Tensor, bandwidth: float | Tensor | None = None, repulsion: float = 1.0
) -> Tensor:
    r"""The direction of steepest descent of KL(q | p) in the kernel's space: φ of this module's first equation.

    Args:
        particles: X, shape (M, D).
        scores: G, shape (M, D), gradients of the log posterior.
        bandwidth: h; None takes :func:`median_bandwidth`.
        repulsion: factor on the second term; 1 is SVGD, 0 leaves the kernel-averaged score.

    Returns:
        φ, shape (M, D), in the particles' dtype; ``particles + step * φ`` ascends.

    Raises:
        ValueError: the shapes differ or are not (M, D), or the bandwidth is not above 0.
    """
    if particles.shape != scores.shape:
        shapes = f"{tuple(particles.shape)} and {tuple(scores.shape)}"
        raise ValueError(f"particles and scores must both have the shape (M, D), got {shapes}.")
    kernel = stein_kernel(particles, bandwidth)
    phi = torch.empty_like(particles)
    drive, push = mixing(kernel, repulsion)
    for columns, block, one in relative_blocks(particles):
        phi[:, columns] = drive.to(phi) @ scores[:, columns].to(phi) + push.to(phi) @ (block - one)
    return phi


def mixing(kernel: SteinKernel, repulsion: float) -> tuple[Tensor, Tensor]:
    """The (M, M) matrices that mix scores and relative particles into φ; constants vanish under the second."""
    count = kernel.count()
    laplacian = torch.diag(kernel.values.sum(1)) - kernel.values
    return kernel.values / count, repulsion * 2.0 / kernel.bandwidth * laplacian / count


@torch.no_grad()
def relative_blocks(particles: Tensor, healthy: Tensor | None = None) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Blocks of columns of X in full precision: columns, X (M, columns), and the row (1, columns) to subtract.

    Args:
        particles: X, shape (M, D).
        healthy: bool (M,); the rows of the others are 0 in X. None: all.
    """
    size = COLUMN_BLOCK if particles.device.type == "cpu" else DEVICE_COLUMN_BLOCK
    first = first_present(particles, healthy)
    with full_precision(particles.device):
        for start in range(0, particles.shape[1], size):
            columns = slice(start, start + size)
            block = particles[:, columns]
            if healthy is not None:
                block = block.masked_fill(~healthy[:, None], 0.0)
            yield columns, block, block.index_select(0, first)


def first_present(particles: Tensor, healthy: Tensor | None) -> Tensor:
    """Index (1,) of the particle that the others are relative to; on the device, for a host would have to wait."""
    if healthy is None:
        return torch.zeros(1, dtype=torch.long, device=particles.device)
    return healthy.long().argmax().reshape(1)


def _distances_and_products(particles: Tensor, healthy: Tensor | None) -> tuple[Tensor, Tensor]:
    """‖x_i − x_j‖² and x_i · x_j, each (M, M), float64. One particle more, the origin, gives the norms."""
    # pdist is quick on a CPU, where double precision is not; on a GPU the other way round.
    found = (_from_pairs if particles.device.type == "cpu" else _from_products)(particles, healthy)
    squared, norms = found[:-1, :-1], found[:-1, -1]
    return squared, 0.5 * (norms[:, None] + norms[None, :] - squared)


def _from_pairs(particles: Tensor, healthy: Tensor | None) -> Tensor:
    """(M + 1, M + 1), each pair from its differences in single precision, summed over blocks in double."""
    rows, size = particles.shape[0] + 1, min(COLUMN_BLOCK, particles.shape[1])
    stacked = torch.zeros(rows, size, dtype=torch.promote_types(particles.dtype, torch.float32))
    pairs = torch.zeros(rows * (rows - 1) // 2, dtype=torch.float64)
    for _, block, _ in relative_blocks(particles, healthy):
        some = stacked[:, : block.shape[1]]
        some[:-1] = block
        pairs += torch.pdist(some).double().square()
    squared = torch.zeros(rows, rows, dtype=torch.float64)
    squared[torch.triu_indices(rows, rows, offset=1).unbind()] = pairs
    return squared + squared.T


def _from_products(particles: Tensor, healthy: Tensor | None) -> Tensor:
    """(M + 1, M + 1), from products in double precision of the particles relative to one of them."""
    rows = particles.shape[0] + 1
    gram = torch.zeros(rows, rows, dtype=torch.float64, device=particles.device)
    for _, block, one in relative_blocks(particles, healthy):
        stacked = gram.new_zeros(rows, block.shape[1])
        stacked[:-1] = block
        stacked -= one.double()
        gram += stacked @ stacked.T
    norms = gram.diagonal()
    return (norms[:, None] + norms[None, :] - 2.0 * gram).clamp_min(0.0).fill_diagonal_(0.0)


def _bandwidth(squared_distances: Tensor, squared_norms: Tensor, present: Tensor) -> Tensor:
    """The median over pairs of particles that are present, in tensors alone."""
    count = squared_distances.shape[0]
    if count == 1:
        return torch.ones((), dtype=torch.float64, device=present.device)
    rows, columns = torch.triu_indices(count, count, offset=1, device=present.device)
    both = present[rows] & present[columns]
    pairs = torch.where(both, squared_distances[rows, columns], torch.inf).sort().values
    found = both.sum()
    middle = torch.stack([(found - 1).clamp_min(0) // 2, found // 2]).clamp_max(len(pairs) - 1)
    median = pairs.index_select(0, middle).mean()
    members = present.sum().double()
    # The absolute part keeps 2/h within single precision where all particles are zero.
    floor = RELATIVE_FLOOR * squared_norms.sum() / members + torch.finfo(torch.float32).tiny
    return torch.where(found > 0, torch.maximum(median / members.log(), floor), 1.0)
