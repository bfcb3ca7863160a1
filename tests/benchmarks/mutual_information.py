"""Mutual information: a pair against numpy and scikit-learn, and whole pools by their size.

    python tests/benchmarks/mutual_information.py --folder <scratch> --output bundles/hippocampus_mri_svgd/docs/scaling

One thread, and seconds of its processor, so that what else the machine does plays no part. ``pairs``: each line has
the three measured one after the other on the same images, the least of several times. ``pools``: each line is a
process of its own, whose pool of generated images at 48 x 64 x 48 is compared with labelled ones through the package's
store; the images are made beforehand, so that none is in memory when it starts.
"""

import argparse
import json
import multiprocessing
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from measuring import peak_mib, table
from scipy import ndimage
from sklearn.metrics import mutual_info_score

from svgd_monai.acquisition.information import binned_mutual_information, digitise
from svgd_monai.acquisition.information_store import InformationStore

GRID = (48, 64, 48)
BINS = 64
COLUMNS = 16  # labelled images that one row is compared with, in ``pairs``
GOAL = (10_000, 500)  # pool and labelled cases, extrapolated to from the largest pool
MIB = 1 << 20


def image(number: int, grid: tuple[int, ...]) -> torch.Tensor:
    """A smooth random image with a share of air."""
    values = ndimage.gaussian_filter(np.random.default_rng(number).random(grid), 2)
    values = (values - values.min()) / (values.max() - values.min())
    values[: grid[0] // 6] = 0
    return torch.from_numpy(values.astype(np.float32))


def least(work, times: int) -> float:
    """Seconds."""
    found = []
    for _ in range(times):
        began = time.process_time()
        work()
        found.append(time.process_time() - began)
    return min(found)


def as_before(row: torch.Tensor, columns: list[torch.Tensor], bins: int) -> torch.Tensor:
    """Counts as the package had them: 64-bit indices, several pairs at a time where they are small."""
    cells, offset = bins * bins, row.to(torch.int64) * bins
    together = max(1, (1 << 17) // max(len(row), cells))
    found = []
    for start in range(0, len(columns), together):
        some = columns[start : start + together]
        joint = torch.stack([(c.to(torch.int64) + offset).add_(place * cells) for place, c in enumerate(some)])
        found.append(torch.bincount(joint.view(-1), minlength=len(some) * cells))
    return torch.cat(found)


def interleaved(row: torch.Tensor, columns: list[torch.Tensor], bins: int, parts: int = 4) -> torch.Tensor:
    """Counts by several histograms in turn, so that no addition waits for the last one to the same cell."""
    cells = bins * bins
    offset = (row.to(torch.int32) * bins + torch.arange(len(row)) % parts * cells).to(torch.int32)
    if parts * cells <= 1 << 15:
        offset = offset.to(torch.int16)
    counts = [torch.bincount(column.to(offset.dtype).add_(offset), minlength=parts * cells) for column in columns]
    return torch.cat([count.view(parts, cells).sum(0) for count in counts])


def pairs(grid: tuple[int, ...], bins: int) -> dict[str, object]:
    """One line: milliseconds a pair."""
    row, columns = image(0, grid), [image(1 + number, grid) for number in range(COLUMNS)]
    binned, others = digitise(row, bins), [digitise(column, bins) for column in columns]
    plain = [column.numpy().ravel() for column in (row, columns[0])]

    def by_numpy() -> float:
        joint = np.histogram2d(*plain, bins, [[0, 1], [0, 1]])[0] / plain[0].size
        expected = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
        inside = joint > 0
        return float((joint[inside] * np.log(joint[inside] / expected[inside])).sum())

    ours = binned_mutual_information(binned, others, bins)
    assert abs(float(ours[0]) - by_numpy()) < 1e-9
    assert abs(float(ours[0]) - mutual_info_score(binned.numpy(), others[0].numpy())) < 1e-9
    assert torch.equal(as_before(binned, others, bins), interleaved(binned, others, bins))
    milliseconds = {
        "counts_before_ms": 1e3 * least(lambda: as_before(binned, others, bins), 9) / COLUMNS,
        "counts_interleaved_ms": 1e3 * least(lambda: interleaved(binned, others, bins), 9) / COLUMNS,
        "package_ms": 1e3 * least(lambda: binned_mutual_information(binned, others, bins), 9) / COLUMNS,
        "numpy_ms": 1e3 * least(by_numpy, 9),
        "sklearn_ms": 1e3 * least(lambda: mutual_info_score(binned.numpy(), others[0].numpy()), 3),
    }
    ratios = {
        "numpy_ratio": milliseconds["numpy_ms"] / milliseconds["package_ms"],
        "sklearn_ratio": milliseconds["sklearn_ms"] / milliseconds["package_ms"],
    }
    rounded = {key: round(value, 3) for key, value in milliseconds.items()}
    return {"grid": " x ".join(map(str, grid)), "bins": bins, **rounded, **{k: round(v) for k, v in ratios.items()}}


def prepare(folder: Path, count: int) -> None:
    """Images as files, for the pools."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        path = folder / f"{number}.npy"
        if not path.exists():
            np.save(path, image(number, GRID).numpy())


def pool(folder: Path, cases: int, labelled: int, result: Path) -> None:
    """One line, in a process of its own: the first round, one with a newly labelled case, and one with nothing new."""
    torch.set_num_threads(1)
    keys = [str(number) for number in range(cases)]

    def load(key: str) -> torch.Tensor:
        return torch.from_numpy(np.load(folder / f"{key}.npy"))

    before = peak_mib()
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        path = Path(scratch) / "information.npz"
        seconds, computed = [], []
        for columns in (keys[:1], keys[:labelled], keys[: labelled + 1], keys[: labelled + 1]):
            began = time.process_time()
            store = InformationStore(path, {"bins": BINS})
            store.matrix(keys, columns, load)
            seconds.append(time.process_time() - began)
            computed.append(store.computed)
    line = {
        "pool": cases, "labelled": labelled, "first_read_s": round(seconds[0], 2), "pairs": computed[1],
        "pairs_s": round(seconds[1], 2), "pairs_per_s": round(computed[1] / seconds[1]), "new_label_pairs": computed[2],
        "new_label_s": round(seconds[2], 3), "nothing_new_pairs": computed[3], "nothing_new_s": round(seconds[3], 3),
        "memory_mib": round(peak_mib() - before),
    }  # fmt: skip
    result.write_text(json.dumps(line), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="scratch: 0.6 MB a case of the largest pool")
    parser.add_argument("--output", type=Path, required=True, help="where mutual_information_{pairs,pools}.csv go")
    parser.add_argument("--pools", type=int, nargs="*", default=[100, 400, 1600], help="none: pairs only")
    parser.add_argument("--labelled", type=int, default=50)
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.output.mkdir(parents=True, exist_ok=True)
    grids = (((24, 32, 24), 64), (GRID, 32), (GRID, 64), (GRID, 256), ((96, 96, 96), 64))
    rows = [pairs(grid, bins) for grid, bins in grids]
    table("Pairs", tuple(rows[0]), rows, options.output / "mutual_information_pairs.csv")

    if not options.pools:
        return
    images = options.folder / "images"
    prepare(images, max(options.pools))
    rows, context = [], multiprocessing.get_context("spawn")
    for cases in options.pools:
        result = options.folder / "line.json"
        process = context.Process(target=pool, args=(images, cases, options.labelled, result))
        process.start()
        process.join()
        if process.exitcode != 0:
            raise SystemExit(f"The pool of {cases} failed.")
        rows.append(json.loads(result.read_text(encoding="utf-8")))
    table("Pools", tuple(rows[0]), rows, options.output / "mutual_information_pools.csv")
    cases, labelled = GOAL
    seconds = cases * labelled / float(rows[-1]["pairs_per_s"])
    sys.stdout.write(f"extrapolated: {cases} x {labelled} pairs take {seconds / 60:.0f} minutes in one thread\n")


if __name__ == "__main__":
    main()
