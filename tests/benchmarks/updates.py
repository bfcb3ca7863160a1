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
from pathlib import Path

import torch
from step import looped
from torch import Tensor
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from workloads import Clock, Ours, Size, command_line, median, table

from svgd_monai.committee import PosteriorStep, finite_particles, stein_kernel
from svgd_monai.committee.svgd import relative_blocks

#: Columns of a difference that are summed in single precision.
CHUNK = 1 << 12
COLUMNS = ("size", "part", "alone", "busy", "kernels", "error")


def busy(run: Callable[[], object], device: torch.device) -> tuple[float, int]:
    """Seconds for which the device runs a call's kernels, and their number; on a CPU its operators'."""
    on = ProfilerActivity.CPU if device.type == "cpu" else ProfilerActivity.CUDA
    with profile(activities=[on]) as prof:
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    found = prof.key_averages()
    if device.type == "cpu":
        return sum(event.self_cpu_time_total for event in found) / 1e6, sum(event.count for event in found)
    kernels = [event for event in found if event.device_type == DeviceType.CUDA]
    return sum(event.self_device_time_total for event in kernels) / 1e6, sum(event.count for event in kernels)


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


def updates(clock: Clock, sizes: dict[str, Size], repeats: int, output: Path) -> None:
    """Rows for each size: alone, busy, kernels; and the relative error of distances."""
    rows = []
    for name, size in sizes.items():
        amp = clock.device.type == "cuda"
        ours = Ours(size, clock.device, amp=amp)
        values, gradients = ours.particles.values.detach(), ours.particles.values.grad
        assert gradients is not None  # a trainer has run once
        losses = torch.ones(size.members, device=clock.device)

        def direction(run: PosteriorStep = ours.step, x: Tensor = values, g: Tensor = gradients) -> None:
            g.fill_(1e-3)  # −φ of −φ would grow
            run(x, g, torch.ones(len(x), dtype=torch.bool, device=x.device))  # as the guard passes it on a GPU

        calls: dict[str, Callable[[], object]] = {
            "step": ours,
            "members' loop": looped(size, clock.device, amp=amp),
            "finite": lambda v=values, g=gradients, x=losses: finite_particles(v, g, x),
            "kernel and direction": direction,
            "adam": ours.optimizer.step,
            "the kernel": lambda v=values: stein_kernel(v),
            "distances, by differences": lambda v=values: by_differences(v),
        }
        times = clock.compare(calls, repeats)
        # Apart, as no two of a fresh network's particles are near one another.
        near = torch.cat([values[:1], values[:1] + 1e-3 * torch.randn_like(values[:1]), values[1:]])
        errors = {
            "the kernel": error(stein_kernel(near).squared_distances, near),
            "distances, by differences": error(by_differences(near)[:-1, :-1], near),
        }
        alone = {part: median(values) for part, values in times.items()}
        work = {part: busy(run, clock.device) for part, run in calls.items()}
        own = sum(work[part][0] for part in ("finite", "kernel and direction", "adam"))
        longer = alone["step"] - alone["members' loop"]
        found = [(part, alone[part], *work[part], errors.get(part, math.nan)) for part in calls]
        found.append(("the step less the loop; SVGD's own", longer, own, "", math.nan))
        found.append(("likewise, share of the step", longer / alone["step"], own / work["step"][0], "", math.nan))
        rows += [dict(zip(COLUMNS, (name, *row), strict=True)) for row in found]
    table("SVGD's own within a step", COLUMNS, rows, output / "updates.csv")


def main() -> None:
    options, sizes = command_line(__doc__, device="cuda:0")
    updates(Clock(torch.device(options.device)), sizes, options.repeats, options.output)


if __name__ == "__main__":
    main()
