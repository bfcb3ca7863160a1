"""What SVGD's own part costs a GPU within a step, where the host is ahead and no launch is waited for.

    python tests/benchmarks/updates.py --output <folder> [--device cuda:0]

``parts.csv`` times a part by itself, from its first launch to the device's last word; of small kernels that is the
launches' time. Here each part also has the time for which its kernels keep the device busy, by torch.profiler, and how
many they are; and a step of the trainer stands beside the loop of its members, in turn in one process: what it takes
longer is SVGD's own, the mean prediction and the trainer. Distances have a second way, differences in single precision
over blocks of columns (``torch.cdist``), with its error.
"""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from measuring import Clock, busy, median, table_of_sizes
from torch import Tensor
from variants import looped
from workloads import Ours, Size, command_line

from svgd_monai.committee import finite_particles, stein_kernel
from svgd_monai.committee.svgd import relative_blocks

#: Columns of a difference that are summed in single precision.
CHUNK = 1 << 12
COLUMNS = ("size", "part", "alone", "busy", "kernels", "error")


def by_differences(particles: Tensor) -> Tensor:
    """Squared distances (M + 1, M + 1), the origin among the points, from differences in single precision."""
    rows = particles.shape[0] + 1
    squared = torch.zeros(rows, rows, dtype=torch.float64, device=particles.device)
    for _, block, _ in relative_blocks(particles):
        # Zeros behind the last column add nothing to a distance; a row of them is the origin.
        points = torch.nn.functional.pad(block, (0, -block.shape[1] % CHUNK, 0, 1))
        chunks = points.unflatten(1, (-1, CHUNK)).transpose(0, 1)
        found = torch.cdist(chunks, chunks, compute_mode="donot_use_mm_for_euclid_dist")
        squared += found.double().square().sum(0)
    return squared


def error(found: Tensor, particles: Tensor) -> float:
    """Greatest relative error of the squared distances between particles, against differences in double precision."""
    exact = torch.stack([(particles - row).double().square().sum(1) for row in particles])
    apart = exact > 0
    return float(((found - exact).abs()[apart] / exact[apart]).max())


def measured(clock: Clock, repeats: int, name: str, size: Size) -> list[dict]:
    """Rows of a size."""
    amp = clock.device.type == "cuda"
    ours = Ours(size, clock.device, amp=amp)
    values, gradients = ours.particles.values.detach(), ours.particles.values.grad
    assert gradients is not None  # a trainer has run once
    losses = torch.ones(size.members, device=clock.device)
    healthy = losses > 0  # as the trainer's guard passes it on a GPU

    def refill() -> None:
        gradients.fill_(1e-3)  # −φ of −φ would grow

    def direction() -> None:
        refill()
        ours.step(values, gradients, healthy)

    calls: dict[str, Callable[[], object]] = {
        "step": ours,
        "members' loop": looped(size, clock.device, amp=amp),
        "finite": lambda: finite_particles(values, gradients, losses),
        "refill": refill,
        "kernel and direction": direction,
        "adam": ours.optimizer.step,
        "the kernel": lambda: stein_kernel(values, healthy=healthy),
        "distances, by differences": lambda: by_differences(values),
    }
    times = clock.compare(calls, repeats)
    found = {part: [median(times[part]), *busy(run, clock.device)] for part, run in calls.items()}
    before = found.pop("refill")
    found["kernel and direction"] = [a - b for a, b in zip(found["kernel and direction"], before, strict=True)]
    # Apart, as no two of a fresh network's particles are near one another.
    near = torch.cat([values[:1], values[:1] + 1e-3 * torch.randn_like(values[:1]), values[1:]])
    errors = {
        "the kernel": error(stein_kernel(near).squared_distances, near),
        "distances, by differences": error(by_differences(near)[:-1, :-1], near),
    }
    own = sum(found[part][1] for part in ("finite", "kernel and direction", "adam"))
    longer = found["step"][0] - found["members' loop"][0]
    rows = [(part, *numbers, errors.get(part, math.nan)) for part, numbers in found.items()]
    rows.append(("the step less the loop; SVGD's own", longer, own, "", math.nan))
    rows.append(("likewise, share of the step", longer / found["step"][0], own / found["step"][1], "", math.nan))
    return [dict(zip(COLUMNS, (name, *row), strict=True)) for row in rows]


def updates(clock: Clock, sizes: dict[str, Size], repeats: int, output: Path) -> None:
    """Rows for each size: alone, busy, kernels; and the relative error of distances."""
    path = output / "updates.csv"
    table_of_sizes("SVGD's own within a step", COLUMNS, path, sizes, partial(measured, clock, repeats))


def main() -> None:
    options, sizes = command_line(__doc__, device="cuda:0")
    updates(Clock(torch.device(options.device)), sizes, options.repeats, options.output)


if __name__ == "__main__":
    main()
