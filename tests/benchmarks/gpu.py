"""All that ``step.py`` measures, on a GPU, with what only a GPU has: streams, graphs, waits, and a profile of one step.

    python tests/benchmarks/gpu.py --output <folder> [--device cuda:0] [<section> ...] [--sizes paper] [--limit <s>]
    python tests/benchmarks/gpu.py --output <folder> --device cpu --tiny     # does the program run?

Sections are summary, information, batches, parts, updates, fused, variants, compiled, peers and growth; without any,
all. Several run in a process each, so that one that breaks the device (as an address that a kernel cannot take) or
takes too long leaves the others their results; the exit status is then 1. Within a section, too, tables are written
behind each part, and an error of one part leaves the others their turn.

Tables and plots as those of ``step.py``; on top ``profile.txt`` (torch.profiler of one step), ``summary.csv``: the
device, what its memory moves, the time of a step in float32 and bfloat16, how often the host waits for the device in a
step, and the time of the paper's protocol (41 committees of 1500 steps) at that speed, training alone;
``information.csv``, see ``gpu_information.py``; ``batches.csv``, ``updates.csv`` and ``fused.csv``, see the programs of
these names. ``variants.csv`` and ``compiled.csv`` (``gpu_ways.py``) lie in a folder for each size, so that one size is
kept where another fails.
"""

import argparse
import gc
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from measuring import Clock, Streams, independent, median, table, waits
from torch.profiler import ProfilerActivity, profile
from workloads import TINY, Ours, Size, command_line

ROUNDS, STEPS = 41, 1500
SECTIONS = ("summary", "information", "batches", "parts", "updates", "fused", "variants", "compiled", "peers", "growth")


def profiled(run: Callable[[], object], device: torch.device, path: Path) -> None:
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device.type == "cuda" else [])
    with profile(activities=activities) as prof:
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    order = "self_cuda_time_total" if device.type == "cuda" else "self_cpu_time_total"
    text = prof.key_averages().table(sort_by=order, row_limit=25, max_name_column_width=60)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    sys.stdout.write(f"\nOne step, see {path}\n{text}\n")


def summary(clock: Clock, size: Size, repeats: int, output: Path) -> None:
    """Whole iterations of the trainer, and what they make of the protocol."""
    device = clock.device
    streams = Streams(5, 5_749_443, device)
    rate = streams.rate(clock.compare(streams.functions(), repeats))
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    del streams
    columns = ("device", "precision", "gigabytes_per_second", "step", "waits", "peak_mib", "protocol_hours")
    title, rows = f"The trainer's step, {size.members} particles, and the protocol", []
    with independent() as part:
        for precision in ("float32", "bfloat16"):
            with part(precision):
                if device.type == "cuda":
                    torch.cuda.reset_peak_memory_stats(device)
                ours = Ours(size, device, amp=precision == "bfloat16")
                seconds = median(clock.compare({"step": ours}, repeats)["step"])
                hours = ROUNDS * STEPS * seconds / 3600
                values = (name, precision, rate / 1e9, seconds, waits(ours, device), _peak(device), hours)
                rows.append(dict(zip(columns, values, strict=True)))
                table(title, columns, rows, output / "summary.csv")
                if precision == "bfloat16":
                    profiled(ours, device, output / "profile.txt")
                del ours
                gc.collect()


def _peak(device: torch.device) -> float:
    return torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else float("nan")


def ways_of(clock: Clock, sizes: dict[str, Size], repeats: int, output: Path, compiled: bool = False) -> None:
    """Ways to the members' gradients, those of a compiler by themselves: it takes long, and may fail."""
    from gpu_ways import compiled_ways, ways
    from variants import variants

    make = compiled_ways if compiled else ways
    for name, size in sizes.items():
        more = make(size, clock.device) if clock.device.type == "cuda" else {}
        path = output / name / ("compiled.csv" if compiled else "variants.csv")
        variants(clock, {name: size}, repeats, path, {name: more}, usual=not compiled)


def run(section: str, options: argparse.Namespace, sizes: dict[str, Size]) -> None:
    """One section; its own program is imported here, for what that one needs the others may do without."""
    device = torch.device(options.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    clock, repeats, output = Clock(device), options.repeats, options.output
    match section:
        case "summary":
            summary(clock, next(iter(sizes.values())), repeats, output)
        case "information":
            from gpu_information import information

            information(clock, repeats, output, options.tiny)
        case "batches":
            from batches import batches

            batches(clock, sizes, repeats, output)
        case "parts":
            from step import all_parts

            all_parts(clock, sizes, repeats, output)
        case "updates":
            from updates import updates

            updates(clock, sizes, repeats, output)
        case "fused":
            from fused import fused

            fused(clock, sizes, repeats, output)
        case "variants" | "compiled":
            ways_of(clock, sizes, repeats, output, compiled=section == "compiled")
        case "peers":
            from peers import peers

            peers(clock, sizes, repeats, output, options.tiny)
        case "growth":
            from step import growth, scaled

            base = TINY if options.tiny else Size(5, scaled(8), (32, 32, 32), 8)
            growth(clock, base, not options.tiny, repeats, output)


def main() -> None:
    options, sizes = command_line(__doc__, "cuda:0", SECTIONS)
    if len(options.sections) == 1:
        run(options.sections[0], options, sizes)
        return
    rest = [f"--output={options.output}", f"--device={options.device}", f"--repeats={options.repeats}"]
    rest += ["--sizes", *options.sizes]
    failed = []
    for section in options.sections:
        command = [sys.executable, __file__, section, *rest, *(["--tiny"] if options.tiny else [])]
        try:
            subprocess.run(command, check=True, timeout=options.limit)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            failed.append(f"{section}: {error}")
    if failed:
        raise SystemExit("\n".join(failed))


if __name__ == "__main__":
    main()
