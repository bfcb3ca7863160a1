"""SVGD's own part of a step in two passes over memory, fused by ``torch.compile``, beside the package's.

    python tests/benchmarks/fused.py --output <folder> [--device cuda:0]

The package runs one operator of torch's after another, each a pass over a block of columns. Here a first pass over
X and G gives all that the kernel, the check for what is not finite and the norms of the balance need: ‖x_i − x_j‖²,
‖x_i‖² and g_i · g_j. A second one turns G into −φ where it lies. Both are unrolled over the particles, written in
plain torch and compiled, which takes a C++ compiler on a CPU and Triton on a GPU. Adam is torch's fused one in either.

``fused.csv``: seconds, the memory's floor and their ratio, taken in turn; and the greatest error of −φ, relative to its
norm, against double precision. On a GPU also the seconds for which kernels keep it busy, their ratio to the floor and
how many they are: within a step nothing waits for their launches. All particles are healthy here; the masks of others
would cost no traffic.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from measuring import Clock, Streams, busy, median, table_of_sizes
from torch import Tensor
from workloads import PRIOR_STD, RATE, SCALE, Size, command_line, direction, network

from svgd_monai.committee import PosteriorStep
from svgd_monai.committee.svgd import SteinKernel, mixing

#: Columns that are summed in single precision, before the sums of these are in double.
CHUNK = 1 << 12
COLUMNS = ("size", "part", "seconds", "floor", "ratio", "error")
GPU_COLUMNS = ("busy", "busy_ratio", "kernels")


def total(row: Tensor) -> Tensor:
    """The sum of (D,), shape (), float64."""
    whole = len(row) // CHUNK * CHUNK
    return row[:whole].view(-1, CHUNK).sum(1).double().sum() + row[whole:].sum().double()


def first_pass(particles: Sequence[Tensor], gradients: Sequence[Tensor]) -> Tensor:
    """‖x_i − x_j‖² and g_i · g_j for j < i, then ‖x_i‖² and ‖g_i‖²; float64."""
    pairs = [(i, j) for i in range(len(particles)) for j in range(i)]
    distances = [total((particles[i] - particles[j]).square()) for i, j in pairs]
    products = [total(gradients[i] * gradients[j]) for i, j in pairs]
    return torch.stack([*distances, *products, *(total(row.square()) for row in (*particles, *gradients))])


def second_pass(particles: Sequence[Tensor], gradients: Sequence[Tensor], drive: Tensor, rest: Tensor) -> None:
    """Row i of G becomes Σ_j drive_ij g_j + rest_ij z_j, with z the particles relative to the first, and that one."""
    first, members = particles[0], range(len(particles))
    relative = [first, *(row - first for row in particles[1:])]
    mixed = [sum(drive[i, j] * gradients[j] + rest[i, j] * relative[j] for j in members) for i in members]
    for row, value in zip(gradients, mixed, strict=True):
        row.copy_(value)


def symmetric(pairs: Tensor, diagonal: Tensor) -> Tensor:
    """(M, M) from its entries below the diagonal, row by row, and those on it, (M,)."""
    members = len(diagonal)
    matrix = torch.zeros(members, members, dtype=torch.float64, device=pairs.device)
    # Indices of the host's would have to be copied first, in each step.
    matrix[torch.tril_indices(members, members, offset=-1, device=pairs.device).unbind()] = pairs
    return matrix + matrix.T + torch.diag(diagonal)


class Fused:
    """Check, kernel and direction of a :class:`~svgd_monai.committee.PosteriorStep` with the kernel on."""

    def __init__(self, step: PosteriorStep) -> None:
        self.step = step
        self.first, self.second = (torch.compile(one, dynamic=False) for one in (first_pass, second_pass))

    @torch.no_grad()
    def __call__(self, particles: Tensor, gradients: Tensor, losses: Tensor) -> tuple[Tensor, Tensor]:
        """Turns gradients into −φ; which particles are finite, (M,), and the norms of the three terms, (3,)."""
        members, step = len(particles), self.step
        found = self.first(list(particles), list(gradients))
        pairs = members * (members - 1) // 2
        distances, products, norms, lengths = found.split([pairs, pairs, members, members])
        finite = torch.stack([norms, lengths, losses.double()]).isfinite().all(0)
        squared = symmetric(distances, torch.zeros_like(norms))
        h = distances.quantile(0.5) / math.log(members)  # of the median's two middle values, the mean
        among = 0.5 * (norms[:, None] + norms[None, :] - squared)
        kernel = SteinKernel(torch.exp(-squared / h), h, squared, among)
        average, push = mixing(kernel, step.repulsion)
        drive, pull = step.likelihood_scale * average, step.prior_precision * average
        rest = pull - push
        rest[:, 0] = pull.sum(1)  # the first particle itself, as the prior sees it
        self.second(list(particles), list(gradients), drive.to(particles), rest.to(particles))
        terms = ((drive, symmetric(products, lengths)), (pull, among), (push, -0.5 * squared))
        squares = torch.stack([(matrix @ inner * matrix).sum() for matrix, inner in terms])
        return finite, (squares / members).sqrt()


def error(found: Tensor, particles: Tensor, gradients: Tensor, step: PosteriorStep) -> float:
    """Greatest error of a row of −φ, relative to its norm, against the same step in double precision."""
    exact = gradients.double()
    step(particles.double(), exact)
    return float(((found - exact).norm(dim=1) / exact.norm(dim=1)).max())


def compared(clock: Clock, repeats: int, name: str, size: Size) -> list[dict]:
    """Rows of a size."""
    length = sum(parameter.numel() for parameter in network(size.features).parameters())
    generator = torch.Generator().manual_seed(0)
    common, spread, drawn = (torch.randn(rows, length, generator=generator) for rows in (1, size.members, size.members))
    particles = (common + 0.05 * spread).to(clock.device)
    start, losses = (1e-3 * drawn).to(clock.device), torch.ones(size.members, device=clock.device)
    step = PosteriorStep(likelihood_scale=SCALE, prior_std=PRIOR_STD)
    one, other = start.clone(), start.clone()
    optimizer = torch.optim.Adam([torch.nn.Parameter(particles.clone())], lr=RATE, fused=True)
    optimizer.param_groups[0]["params"][0].grad = start
    compiled, streams = Fused(step), Streams(size.members, length, clock.device)

    def usual() -> None:
        one.copy_(start)  # −φ of −φ would grow
        direction(step, particles, one, losses)

    def ours() -> None:
        other.copy_(start)
        compiled(particles, other, losses)

    @torch.no_grad()
    def first() -> None:
        compiled.first(list(particles), list(start))

    calls: dict[str, Callable[[], object]] = {
        "refill": partial(one.copy_, start),
        "usual": usual,
        "fused": ours,
        "first": first,
        "adam": optimizer.step,
    }
    found = clock.compare(streams.functions() | calls, repeats)
    unit = streams.unit(found)
    on_gpu = clock.device.type == "cuda"
    # Of each call: seconds, and on a GPU those of its kernels, and their number.
    numbers = {
        part: torch.tensor([median(found[part]), *(busy(call, clock.device) if on_gpu else ())], dtype=torch.float64)
        for part, call in calls.items()
    }
    usual_error, fused_error = (error(matrix, particles, start, step) for matrix in (one, other))
    usual_numbers, fused_numbers = (numbers[part] - numbers["refill"] for part in ("usual", "fused"))
    # Units of traffic: X and G read, −φ written; for all of SVGD's own, see step.py.
    rows = [
        ("check, kernel and direction, the package's", usual_numbers, 3, usual_error),
        ("likewise, fused", fused_numbers, 3, fused_error),
        ("(its first pass)", numbers["first"], 2, math.nan),
        ("adam", numbers["adam"], 7, math.nan),
        ("SVGD's own, the package's", usual_numbers + numbers["adam"], 8, math.nan),
        ("SVGD's own, fused", fused_numbers + numbers["adam"], 8, math.nan),
    ]
    table_rows = []
    for part, (seconds, *kernels), units, wrong in ((row[0], row[1].tolist(), *row[2:]) for row in rows):
        values = (name, part, seconds, units * unit, seconds / (units * unit), wrong)
        table_rows.append(dict(zip(COLUMNS, values, strict=True)))
        if on_gpu:
            more = (kernels[0], kernels[0] / (units * unit), int(kernels[1]))
            table_rows[-1] |= dict(zip(GPU_COLUMNS, more, strict=True))
    return table_rows


def fused(clock: Clock, sizes: dict[str, Size], repeats: int, output: Path) -> None:
    columns = COLUMNS + (GPU_COLUMNS if clock.device.type == "cuda" else ())
    table_of_sizes("SVGD's own, fused", columns, output / "fused.csv", sizes, partial(compared, clock, repeats))


def main() -> None:
    options, sizes = command_line(__doc__, device="cpu")
    fused(Clock(torch.device(options.device)), sizes, options.repeats, options.output)


if __name__ == "__main__":
    main()
