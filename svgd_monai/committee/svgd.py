r"""Stein variational gradient descent (Liu & Wang 2016, arXiv 1608.04471).

With X the (M, D) matrix of particles, G the (M, D) matrix of scores :math:`g_i = \nabla \log p(\theta_i | data)` and
the kernel :math:`K_{ij} = \exp(-\|x_i - x_j\|^2 / h)`, every particle ascends along

.. math::
    \phi = \big( K G + \tfrac{2}{h} (\mathrm{diag}(K 1) - K) X \big) / M.

The first term drives the particles together to high posterior, the second pushes them apart.

Numerics: distances come from *centred* particles (their common offset is many times their spread and would cancel
catastrophically in single precision) and are summed in double precision; the mixing runs over blocks of columns, so
that nothing of size (M, D) is made beside the result; reduced precision (autocast, TF32) is off throughout.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

#: Columns mixed at a time: M of these blocks stay in a CPU's cache and fill a GPU.
COLUMN_BLOCK = 1 << 18
#: The bandwidth's floor, relative to the particles' mean square norm: coincident particles give no division by zero.
RELATIVE_FLOOR = 1e-12


@dataclass(frozen=True)
class SteinKernel:
    """The kernel of one step.

    Attributes:
        values: K, shape (M, M), float64, ones on the diagonal.
        bandwidth: h, shape (), float64.
        squared_distances: shape (M, M), float64.
    """

    values: Tensor
    bandwidth: Tensor
    squared_distances: Tensor

    def off_diagonal_mean(self) -> Tensor:
        """Mean of K_ij over i != j, shape (); 0 for one particle."""
        return _off_diagonal_mean(self.values)

    def mean_distance(self) -> Tensor:
        """Mean Euclidean distance over pairs, shape (); 0 for one particle."""
        return _off_diagonal_mean(self.squared_distances.sqrt())


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
    return _bandwidth(_squared_distances(particles), particles)


def stein_kernel(particles: Tensor, bandwidth: float | Tensor | None = None) -> SteinKernel:
    """The kernel K with its distances and bandwidth.

    Args:
        particles: shape (M, D).
        bandwidth: h; None takes :func:`median_bandwidth`.
    """
    squared = _squared_distances(particles)
    if bandwidth is None:
        h = _bandwidth(squared, particles)
    else:
        h = torch.as_tensor(bandwidth, dtype=torch.float64, device=particles.device)
    return SteinKernel(torch.exp(-squared / h), h, squared)


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
        ValueError: the shapes differ or are not (M, D).
    """
    _check_shapes(particles, scores)
    kernel = stein_kernel(particles, bandwidth)
    phi = torch.empty_like(particles)
    drive, push = mixing(kernel, repulsion)
    for columns, centred in centred_blocks(particles):
        phi[:, columns] = drive.to(phi) @ scores[:, columns].to(phi) + push.to(phi) @ centred
    return phi


def mixing(kernel: SteinKernel, repulsion: float) -> tuple[Tensor, Tensor]:
    """The (M, M) matrices that mix scores and centred particles into φ; constants vanish under the second."""
    count = kernel.values.shape[0]
    laplacian = torch.diag(kernel.values.sum(1)) - kernel.values
    return kernel.values / count, repulsion * 2.0 / kernel.bandwidth * laplacian / count


@torch.no_grad()
def centred_blocks(particles: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Blocks of columns of X minus the particles' mean, as (columns, (M, columns) tensor), in full precision."""
    with full_precision(particles.device):
        for start in range(0, particles.shape[1], COLUMN_BLOCK):
            columns = slice(start, start + COLUMN_BLOCK)
            block = particles[:, columns]
            yield columns, block - block.mean(0, keepdim=True)


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Autocast, TF32 and its like off: a kernel from rounded distances is a kernel of the rounding."""
    restore = _highest_matmul_precision()
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        restore()


def _highest_matmul_precision() -> Callable[[], None]:
    """Switch to whole single precision; returns what switches back."""
    backends: Any = torch.backends
    if not hasattr(backends.cuda.matmul, "fp32_precision"):  # before torch 2.9
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        return lambda: torch.set_float32_matmul_precision(before)
    # torch refuses to read the older switches once the newer are set; these follow both.
    switches = (backends.cuda.matmul, backends.mkldnn.matmul)
    found = [switch.fp32_precision for switch in switches]

    def set_all(values: list[str]) -> None:
        for switch, value in zip(switches, values, strict=True):
            switch.fp32_precision = value

    set_all(["ieee"] * len(switches))
    return lambda: set_all(found)


def _squared_distances(particles: Tensor) -> Tensor:
    if particles.ndim != 2 or particles.shape[0] < 1:
        raise ValueError(f"particles must have the shape (M, D), got {tuple(particles.shape)}.")
    count = particles.shape[0]
    gram = torch.zeros(count, count, dtype=torch.float64, device=particles.device)
    for _, centred in centred_blocks(particles):
        block = centred.double()
        gram += block @ block.T
    norms = gram.diagonal()
    squared = (norms[:, None] + norms[None, :] - 2.0 * gram).clamp_min(0.0)
    return squared.fill_diagonal_(0.0)


def _bandwidth(squared_distances: Tensor, particles: Tensor) -> Tensor:
    count = squared_distances.shape[0]
    if count == 1:
        return torch.ones((), dtype=torch.float64, device=particles.device)
    rows, columns = torch.triu_indices(count, count, offset=1, device=particles.device)
    pairs = squared_distances[rows, columns].sort().values
    median = (pairs[(len(pairs) - 1) // 2] + pairs[len(pairs) // 2]) / 2.0
    scale = torch.linalg.vector_norm(particles.detach(), dtype=torch.float64).pow(2) / count
    # The absolute part keeps 2/h within single precision where all particles are zero.
    floor = RELATIVE_FLOOR * scale + torch.finfo(torch.float32).tiny
    return torch.maximum(median / math.log(count), floor)


def _off_diagonal_mean(matrix: Tensor) -> Tensor:
    count = matrix.shape[0]
    if count == 1:
        return torch.zeros((), dtype=matrix.dtype, device=matrix.device)
    return (matrix.sum() - matrix.diagonal().sum()) / (count * (count - 1))


def _check_shapes(particles: Tensor, scores: Tensor) -> None:
    if particles.ndim != 2 or particles.shape != scores.shape:
        raise ValueError(
            f"particles and scores must both have the shape (M, D), got {tuple(particles.shape)} "
            f"and {tuple(scores.shape)}."
        )
