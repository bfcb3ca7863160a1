"""All that ``step.py`` measures, on a GPU, with what only a GPU has: streams, graphs, waits, and a profile of one step.

    python tests/benchmarks/gpu.py --output <folder> [--device cuda:0]
    python tests/benchmarks/gpu.py --output <folder> --device cpu --tiny     # does the program run?

Tables and plots as those of ``step.py``; on top ``profile.txt`` (torch.profiler of one step), ``summary.csv``: the
device, what its memory moves, the time of a step in float32 and bfloat16, how often the host waits for the device in a
step, and the time of the paper's protocol (41 committees of 1500 steps) at that speed, training alone;
``information.csv``, mutual information a pair; ``batches.csv``, see ``batches.py``; and ``updates.csv``, see
``updates.py``. ``variants.csv`` lies in a folder for each size, so that one size is kept where another fails.
"""

import gc
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest import mock

import torch
from batches import batches
from step import all_parts, growth, looped, peers, scaled, variants
from torch.profiler import ProfilerActivity, profile
from updates import updates
from workloads import LOSS, TINY, Clock, Ours, Size, Streams, command_line, median, table

from svgd_monai.acquisition.information import binned_mutual_information, digitise

ROUNDS, STEPS = 41, 1500


def streamed(size: Size, device: torch.device, amp: bool = False) -> Callable[[], object]:
    """Each member on a stream of its own."""
    ours, current = Ours(size, device), torch.cuda.current_stream(device)
    streams = [torch.cuda.Stream(device) for _ in range(size.members)]

    def run() -> None:
        ours.particles.zero_grad()
        for member, stream in enumerate(streams):
            stream.wait_stream(current)
            with torch.cuda.stream(stream):
                with torch.autocast(device.type, torch.bfloat16, enabled=amp):
                    logits = ours.particles.member(member, ours.batch["image"])
                LOSS(logits, ours.batch["label"]).backward()
        for stream in streams:
            current.wait_stream(stream)

    return run


def weights_last(size: Size, device: torch.device) -> Callable[[], object]:
    """The members' loop in bfloat16 with image and weights in channels_last_3d: convolutions need no other order."""
    run, convolution = looped(size, device, channels_last=True, amp=True), torch.conv3d

    def laid_out(input: torch.Tensor, weight: torch.Tensor, *rest: object) -> torch.Tensor:
        return convolution(input, weight.contiguous(memory_format=torch.channels_last_3d), *rest)

    def patched() -> None:
        with mock.patch.object(torch.nn.functional, "conv3d", laid_out):
            run()

    return patched


def searched(size: Size, device: torch.device) -> Callable[[], object]:
    """The members' loop in bfloat16 with the convolutions that cuDNN has found fastest in a trial (cudnn.benchmark)."""
    run = looped(size, device, amp=True)

    def switched() -> None:
        with torch.backends.cudnn.flags(enabled=True, benchmark=True, deterministic=False, allow_tf32=True):
            run()

    return switched


def graphed(
    size: Size, device: torch.device, amp: bool = False, run: Callable[[], object] | None = None
) -> Callable[[], object]:
    """The members' loop as one CUDA graph: no launches by the host."""
    run = run or looped(size, device, amp=amp)
    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        for _ in range(3):
            run()
    torch.cuda.current_stream(device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()

    def replay(held: Callable[[], object] = run) -> None:  # what the graph reads must outlive it
        graph.replay()

    return replay


def ways(size: Size, device: torch.device) -> dict[str, Callable[[], Callable[[], object]]]:
    return {
        "loop, a stream each": partial(streamed, size, device),
        "loop, a stream each, bfloat16": partial(streamed, size, device, amp=True),
        "loop, CUDA graph": partial(graphed, size, device),
        "loop, CUDA graph, bfloat16": partial(graphed, size, device, amp=True),
        "loop, channels_last_3d, bfloat16": partial(looped, size, device, channels_last=True, amp=True),
        "loop, weights and image channels_last_3d, bfloat16": partial(weights_last, size, device),
        "loop, cudnn.benchmark, bfloat16": partial(searched, size, device),
        "loop, CUDA graph, cudnn.benchmark, bfloat16": lambda: graphed(size, device, run=searched(size, device)),
    }


def waits(run: Callable[[], object], device: torch.device) -> int:
    """How often the host waits for the device in a call, by torch's own count."""
    if device.type != "cuda":
        return 0
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            run()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in caught)


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
    rows = []
    for precision in ("float32", "bfloat16"):
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        ours = Ours(size, device, amp=precision == "bfloat16")
        seconds = median(clock.compare({"step": ours}, repeats)["step"])
        rows.append(
            {
                "device": name, "precision": precision, "gigabytes_per_second": rate / 1e9, "step": seconds,
                "waits": waits(ours, device), "peak_mib": _peak(device),
                "protocol_hours": ROUNDS * STEPS * seconds / 3600,
            }
        )  # fmt: skip
        if precision == "bfloat16":
            profiled(ours, device, output / "profile.txt")
        del ours
        gc.collect()
    columns = ("device", "precision", "gigabytes_per_second", "step", "waits", "peak_mib", "protocol_hours")
    table(f"The trainer's step, {size.members} particles, and the protocol", columns, rows, output / "summary.csv")


def information(clock: Clock, repeats: int, output: Path) -> None:
    """Mutual information of one image with 64: seconds a pair, beside reading the other image's bins once."""
    device, rows = clock.device, []
    streams = Streams(5, 5_749_443, device)
    rate = streams.rate(clock.compare(streams.functions(), repeats))
    for grid in ((24, 32, 24), (48, 64, 48), (64, 64, 64)):
        images = torch.rand(65, *grid, generator=torch.Generator().manual_seed(0)).to(device)
        row, *columns = (digitise(image, 64) for image in images)
        run = partial(binned_mutual_information, row, columns, 64)
        pair = median(clock.compare({"pairs": run}, repeats)["pairs"]) / len(columns)
        floor = row.numel() * row.element_size() / rate
        rows.append(
            {
                "grid": " x ".join(map(str, grid)), "seconds_a_pair": pair, "floor": floor, "ratio": pair / floor,
                "waits": waits(run, device),
            }
        )  # fmt: skip
    table("Mutual information", ("grid", "seconds_a_pair", "floor", "ratio", "waits"), rows, output / "information.csv")


def _peak(device: torch.device) -> float:
    return torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else float("nan")


def main() -> None:
    options, sizes = command_line(__doc__, device="cuda:0")
    device = torch.device(options.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    clock = Clock(device)
    largest = next(iter(sizes.values()))
    summary(clock, largest, options.repeats, options.output)
    information(clock, options.repeats, options.output)
    batches(clock, sizes, options.repeats, options.output)
    all_parts(clock, sizes, options.repeats, options.output)
    updates(clock, sizes, options.repeats, options.output)
    for name, size in sizes.items():
        more = ways(size, device) if device.type == "cuda" else {}
        variants(clock, {name: size}, options.repeats, options.output / name, {name: more})
    lengths = {"D = 1000": 1000} if options.tiny else {"D = 0.36 million": 360_000, "D = 5.7 million": 5_749_443}
    peers(clock, sizes, lengths, options.repeats, options.output)
    base = TINY if options.tiny else Size(5, scaled(8), (32, 32, 32), 8)
    growth(clock, base, not options.tiny, options.repeats, options.output)


if __name__ == "__main__":
    main()
