"""What the benchmarks measure with, and how they keep what they find: clocks, a GPU's waits and kernels, tables."""

import contextlib
import csv
import gc
import statistics
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile


def peak_mib() -> float:
    """Greatest resident memory of this process so far; on Linux only."""
    status = Path("/proc/self/status").read_text(encoding="ascii").split()
    return int(status[status.index("VmHWM:") + 1]) / 1024


class Clock:
    """Seconds of one call: of the processor's time on a CPU, which others may share, and of the device's on a GPU."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def __call__(self, function: Callable[[], object]) -> float:
        if self.device.type == "cpu":
            began = time.process_time()
            function()
            return time.process_time() - began
        torch.cuda.synchronize(self.device)
        began = time.perf_counter()
        function()
        torch.cuda.synchronize(self.device)
        return time.perf_counter() - began

    def compare(
        self, functions: dict[str, Callable[[], object]], repeats: int, warm: bool = True
    ) -> dict[str, list[float]]:
        """All of them in turn, ``repeats`` times, behind a warm-up if ``warm``: what slows one slows its neighbours."""
        for function in functions.values() if warm else ():
            function()
        times: dict[str, list[float]] = {name: [] for name in functions}
        for _ in range(repeats):
            for name, function in functions.items():
                times[name].append(self(function))
        return times


def median(values: list[float]) -> float:
    return statistics.median(values)


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


def busy(run: Callable[[], object], device: torch.device) -> tuple[float, int]:
    """Seconds for which the device runs a call's kernels, copies and fills, and their number; on a CPU its operators'.

    Of two calls the second counts: a process's first trace may begin behind its first kernels.
    """
    on = ProfilerActivity.CPU if device.type == "cpu" else ProfilerActivity.CUDA
    for _ in range(2):
        with profile(activities=[on]) as prof:
            run()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
        found = prof.key_averages()
    if device.type == "cpu":
        return sum(event.self_cpu_time_total for event in found) / 1e6, sum(event.count for event in found)
    # A named range of a program, as an optimiser's step, stands among the kernels that it spans.
    kernels = [event for event in found if event.device_type == DeviceType.CUDA and not event.is_user_annotation]
    return sum(event.self_device_time_total for event in kernels) / 1e6, sum(event.count for event in kernels)


class Streams:
    """How fast the device moves memory: the best of copy (2 units of traffic) and sum (3), over (M, D) matrices.

    On a GPU over larger ones: (M, D) may lie in its cache, where what follows a whole step does not, and a single copy
    of it takes hardly longer than its launch.
    """

    LARGE = 1 << 30  # bytes

    def __init__(self, members: int, size: int, device: torch.device) -> None:
        self.bytes = members * size * 4
        self._bytes = self.bytes if device.type == "cpu" else max(self.bytes, self.LARGE)
        self.matrices = [torch.ones(self._bytes // 4, device=device) for _ in range(3)]

    def functions(self) -> dict[str, Callable[[], object]]:
        a, b, c = self.matrices
        return {"copy": lambda: c.copy_(a), "sum": lambda: torch.add(a, b, out=c)}

    def rate(self, times: dict[str, list[float]]) -> float:
        """Bytes a second, from the medians of the two."""
        return max(2 * self._bytes / median(times["copy"]), 3 * self._bytes / median(times["sum"]))

    def unit(self, times: dict[str, list[float]]) -> float:
        """Seconds to read or to write an (M, D) matrix once."""
        return self.bytes / self.rate(times)


def release(device: torch.device) -> None:
    """Give back what the last measurement held: the next one may need the device's memory."""
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()  # else a function that is compiled for many shapes would run uncompiled for the last
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


@contextlib.contextmanager
def independent() -> Iterator[Callable[[str], AbstractContextManager[None]]]:
    """Gives a context for each part of a program, by its name.

    An error of one is told and leaves the others their turn; behind them it ends the program.
    """
    failed = []

    @contextlib.contextmanager
    def part(name: str) -> Iterator[None]:
        try:
            yield
        except Exception:  # noqa: BLE001 whatever it is, the others run
            traceback.print_exc()
            failed.append(name)

    yield part
    if failed:
        raise SystemExit(f"failed: {'; '.join(failed)}")


def keep(columns: Sequence[str], rows: Sequence[dict], path: Path) -> None:
    """Write rows as CSV; what has been measured so far, for the next part may end the process."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        writer.writerows({c: f"{r[c]:.5g}" if isinstance(r[c], float) else r[c] for c in columns} for r in rows)


def table(title: str, columns: Sequence[str], rows: Sequence[dict], path: Path) -> None:
    """Print, and write as CSV."""
    keep(columns, rows, path)
    sys.stdout.write(f"\n{title}\n")
    cells = [columns, *(tuple(f"{r[c]:.4g}" if isinstance(r[c], float) else str(r[c]) for c in columns) for r in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    for row in cells:
        sys.stdout.write("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) + "\n")
    sys.stdout.flush()


def table_of_sizes(
    title: str, columns: Sequence[str], path: Path, sizes: Mapping[str, Any], measure: Callable[[str, Any], list[dict]]
) -> None:
    """A table of what is measured of each size, called with its name; written behind each, see :func:`independent`."""
    rows: list[dict] = []
    with independent() as part:
        for name, size in sizes.items():
            with part(name):
                rows += measure(name, size)
                table(title, columns, rows, path)
