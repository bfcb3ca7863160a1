"""Mutual information of one image with many others on a GPU, by several ways to count: seconds a pair.

``gpu.py information`` measures them. The floor is to read the other image's bins once, at the rate at which the device
moves memory. Against 64 others calls weigh as much as counts; against 512 they hardly do. Ways are the package's own
(``torch.bincount``, which waits for the device to ask for the least and the greatest index); additions into places
that nobody needs to ask for; and a kernel of its own, to see what the package leaves: a block of threads counts a share
of one pair in the memory that it shares, and adds what it has found to the pair's histogram.

Each way is compared with the package's before it is timed.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import torch
from measuring import Clock, Streams, independent, keep, median, table, waits
from torch import Tensor

from svgd_monai.acquisition.information import binned_mutual_information, digitise, mutual_information_of_counts

BINS = 64
CELLS = BINS * BINS
GRIDS = ((24, 32, 24), (48, 64, 48), (64, 64, 64))
#: Voxels that are counted at a time, as in the package; threads of a block, and blocks that keep a device busy.
CHUNK, THREADS, BLOCKS = 1 << 24, 512, 2048
COLUMNS = ("grid", "others", "way", "seconds_a_pair", "floor", "ratio", "waits")
KERNEL = """
extern "C" __global__ void joint_counts(const unsigned char* row, const unsigned char* columns, int* counts,
                                        int voxels) {
    __shared__ int cells[%(cells)d];
    for (int cell = threadIdx.x; cell < %(cells)d; cell += blockDim.x) cells[cell] = 0;
    __syncthreads();
    const uint4* ours = reinterpret_cast<const uint4*>(row);
    const uint4* others = reinterpret_cast<const uint4*>(columns + (size_t)blockIdx.y * voxels);
    for (int place = blockIdx.x * blockDim.x + threadIdx.x; place < voxels / 16; place += gridDim.x * blockDim.x) {
        const uint4 a = ours[place], b = others[place];
        const unsigned int left[4] = {a.x, a.y, a.z, a.w}, right[4] = {b.x, b.y, b.z, b.w};
        #pragma unroll
        for (int word = 0; word < 4; ++word)
            #pragma unroll
            for (int byte = 0; byte < 32; byte += 8)
                atomicAdd(cells + ((left[word] >> byte) & 255) * %(bins)d + ((right[word] >> byte) & 255), 1);
    }
    __syncthreads();
    int* found = counts + (size_t)blockIdx.y * %(cells)d;
    for (int cell = threadIdx.x; cell < %(cells)d; cell += blockDim.x)
        if (cells[cell]) atomicAdd(found + cell, cells[cell]);
}
"""


def by_additions(row: Tensor, columns: Sequence[Tensor]) -> Tensor:
    """Counts by additions into a buffer, (K, bins, bins)."""
    counts = torch.zeros(len(columns), CELLS, dtype=torch.int32, device=row.device)
    offset, together = row.to(torch.int32) * BINS, max(1, CHUNK // len(row))
    for start in range(0, len(columns), together):
        some = torch.stack(list(columns[start : start + together])).to(torch.int32).add_(offset)
        places = some.add_(
            torch.arange(start, start + len(some), device=row.device, dtype=torch.int32)[:, None] * CELLS
        )
        counts.view(-1).index_add_(0, places.view(-1), counts.new_ones(1).expand(places.numel()))
    return counts.view(-1, BINS, BINS)


def by_kernel(compiled: Callable[..., None], row: Tensor, columns: Sequence[Tensor]) -> Tensor:
    """Counts by :data:`KERNEL`, (K, bins, bins)."""
    counts = torch.zeros(len(columns), BINS, BINS, dtype=torch.int32, device=row.device)
    parts = max(1, min(BLOCKS // len(columns), len(row) // 16 // THREADS))
    compiled((parts, len(columns), 1), (THREADS, 1, 1), [row, torch.stack(list(columns)), counts, len(row)])
    return counts


def information(clock: Clock, repeats: int, output: Path, tiny: bool = False) -> None:
    """A row for each grid, number of others and way."""
    device, path, rows, counts = clock.device, output / "information.csv", [], {"index_add_": by_additions}
    streams = Streams(5, 5_749_443, device)
    rate = streams.rate(clock.compare(streams.functions(), repeats))
    del streams
    with independent() as part:
        if device.type == "cuda":
            with part("a kernel of its own"):  # torch's compiler of kernels is a private one
                compiled = torch.cuda._compile_kernel(KERNEL % {"cells": CELLS, "bins": BINS}, "joint_counts")
                counts["a kernel of its own"] = partial(by_kernel, compiled)
        for grid in GRIDS[:1] if tiny else GRIDS:
            for others in (4,) if tiny else (64, 512):
                place = (" x ".join(map(str, grid)), others)
                with part(f"{place[0]}, {others} others"):
                    ways = ways_of(grid, others, counts, device, part)
                    floor = math.prod(grid) / rate  # a byte a voxel
                    for way, times in clock.compare(ways, repeats).items():
                        pair = median(times) / others
                        values = (*place, way, pair, floor, pair / floor, waits(ways[way], device))
                        rows.append(dict(zip(COLUMNS, values, strict=True)))
                    keep(COLUMNS, rows, path)
        table("Mutual information", COLUMNS, rows, path)


def ways_of(
    grid: Sequence[int],
    others: int,
    counts: dict[str, Callable[..., Tensor]],
    device: torch.device,
    part: Callable[[str], AbstractContextManager[None]],
) -> dict[str, Callable[[], Tensor]]:
    """The package's way, and those that count in a way of their own and find the same."""
    images = torch.rand(1 + others, *grid, generator=torch.Generator().manual_seed(0))
    row, *columns = (digitise(image.to(device), BINS) for image in images)

    def counted(count: Callable[..., Tensor]) -> Tensor:
        return mutual_information_of_counts(count(row, columns), len(row))

    found: dict[str, Callable[[], Tensor]] = {"package": partial(binned_mutual_information, row, columns, BINS)}
    expected = found["package"]()
    for way, count in counts.items():
        with part(f"{way}, {others} others"):
            if not torch.allclose(counted(count), expected, rtol=0, atol=1e-12):
                raise ArithmeticError(f"Mutual information by {way} differs from the package's.")
            found[way] = partial(counted, count)
    return found
