"""How much memory the scoring of a pool of large CT volumes takes, by working spacing and number of members.

    python tests/benchmarks/scoring_memory.py --folder <scratch> --output bundles/pancreas_ct_svgd/docs

Each line of the table is one process, the real command ``monai.bundle run acquire.yaml`` over a pool of two CT volumes
of 512 x 512 x 200 voxels of 0.8 x 0.8 x 2.5 mm. The network is as small as its kind can be and windows do not overlap,
so that a processor without a GPU is done within the hour: neither changes what is held of a whole volume.
"""

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
from matplotlib.figure import Figure
from monai.networks.nets import BasicUNet

from svgd_monai.committee import Particles, save_committee
from svgd_monai.data.phantom_ct import LABELS
from svgd_monai.files import write_csv

ACQUIRE = Path(__file__).parents[2] / "bundles/pancreas_ct_svgd/configs/acquire.yaml"
SHAPE, VOXEL = (512, 512, 200), (0.8, 0.8, 2.5)  # mm
CASES = 4  # validation, test, labelled and unlabelled; the last two are the pool
FEATURES = (2, 2, 2, 2, 2, 2)
CHANNELS = len(LABELS) + 2  # statistics of a voxel, float32
MIB = 1 << 20
COLUMNS = ("spacing_mm", "voxels", "members", "peak_mib", "statistics_mib", "bytes_per_voxel", "seconds")


def write_dataset(folder: Path) -> Path:
    """An MSD task of CT-like volumes: air, an oval body with fat at its rim, soft tissue with noise, a bright organ."""
    if (folder / "dataset.json").is_file():
        return folder
    x, y = np.meshgrid(*(np.linspace(-1, 1, side) for side in SHAPE[:2]), indexing="ij")
    entries = []
    for number in range(CASES):
        rng = np.random.default_rng(number)
        radius = np.hypot(x / rng.uniform(0.75, 0.9), y / rng.uniform(0.55, 0.7))
        image, label = np.empty(SHAPE, np.int16), np.zeros(SHAPE, np.uint8)
        for z in range(SHAPE[2]):
            plane = np.select(
                [radius < 0.9, radius < 1], [45 + 30 * np.sin(6 * x + z / 20) * np.cos(5 * y), -100], -1000
            )
            image[..., z] = plane + rng.normal(0, 12, plane.shape)
        label[200:300, 220:260, 80:110], label[240:255, 230:245, 90:96] = 1, 2
        image += np.choose(label, (0, 60, 30)).astype(np.int16)
        entry = {}
        for key, values in (("image", image), ("label", label)):
            entry[key] = f"./{key}sTr/ct_{number}.nii.gz"
            (folder / entry[key]).parent.mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(values, np.diag([-VOXEL[0], -VOXEL[1], VOXEL[2], 1.0])), folder / entry[key])
        entries.append(entry)
    labels = {str(value): name for value, name in enumerate(LABELS)}
    content = {"name": "large CT", "modality": {"0": "CT"}, "labels": labels, "training": entries, "test": []}
    (folder / "dataset.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def write_committee(path: Path, members: int) -> Path:
    network = BasicUNet(spatial_dims=3, in_channels=1, out_channels=len(LABELS), features=FEATURES)
    return save_committee(path, Particles(network, members))


def peak_of(command: list[str], log: Path) -> float:
    """Greatest resident memory of a process in MiB; what this one held when it started it counts too."""
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed, see {log}.")
    return usage.ru_maxrss / 1024  # Linux counts in KiB


def measure(folder: Path, spacing: float, members: int, idle: float) -> dict[str, float]:
    """One row: the scoring of the pool in a process of its own."""
    output = folder / f"scored_{spacing:g}mm_{members}"
    keys = {
        "dataset_dir": folder / "dataset", "output_dir": output, "cache_dir": folder / f"cache_{spacing:g}mm",
        "committee_file": write_committee(folder / f"committee_{members}.pt", members), "device": "cpu",
        "initial_labelled": 1, "validation_cases": 1, "test_cases": 1, "queries_per_round": 1,
        "num_particles": members, "features": list(FEATURES), "spacing": [spacing] * 3, "overlap": 0.0,
    }  # fmt: skip
    words = [word for key, value in keys.items() for word in (f"--{key}", str(value))]
    started = time.monotonic()
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", str(ACQUIRE), *words]
    peak = peak_of(command, folder / f"{output.name}.log")
    rows = (output / "scores.csv").read_text(encoding="utf-8").splitlines()
    if len(rows) != 3:
        raise SystemExit(f"{output}/scores.csv does not hold two cases.")
    voxels = int(np.prod([np.rint((side - 1) * size / spacing) + 1 for side, size in zip(SHAPE, VOXEL, strict=True)]))
    return {
        "spacing_mm": spacing,
        "voxels": voxels,
        "members": members,
        "peak_mib": round(peak),
        "statistics_mib": round(voxels * CHANNELS * 4 / MIB),
        "bytes_per_voxel": round((peak - idle) * MIB / voxels, 1),
        "seconds": round(time.monotonic() - started),
    }


def draw(rows: list[dict[str, float]], idle: float, path: Path) -> None:
    """Peak memory by number of members, beside what their probability maps at full size would need."""
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    for colour, spacing in zip(
        ("#0072B2", "#D55E00", "#009E73"), sorted({row["spacing_mm"] for row in rows}), strict=False
    ):
        some = [row for row in rows if row["spacing_mm"] == spacing]
        members = [row["members"] for row in some]
        axes.plot(
            members, [row["peak_mib"] / 1024 for row in some], "o-", color=colour, label=f"{spacing:g} mm, measured"
        )
        full = [(idle + row["members"] * len(LABELS) * 4 * row["voxels"] / MIB) / 1024 for row in some]
        axes.plot(members, full, ":", color=colour, label=f"{spacing:g} mm, members held at full size")
    axes.axhline(idle / 1024, color="grey", linewidth=0.8, label="the libraries alone")
    axes.set_xlabel("members of the committee")
    axes.set_ylabel("peak memory of the process, GiB")
    axes.set_ylim(bottom=0)
    axes.set_title("Scoring CT volumes of 512 x 512 x 200 voxels", fontsize=11)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="scratch: some 3 GB")
    parser.add_argument("--output", type=Path, required=True, help="where scoring_memory.csv and .png go")
    parser.add_argument("--spacings", type=float, nargs="+", default=[4.0, 1.0])
    parser.add_argument("--members", type=int, nargs="+", default=[1, 2, 5, 10])
    options = parser.parse_args()
    # In a process of its own, for the peaks of those that follow would include its arrays.
    maker = multiprocessing.get_context("spawn").Process(target=write_dataset, args=(options.folder / "dataset",))
    maker.start()
    maker.join()
    idle = peak_of(
        [sys.executable, "-c", "import monai.bundle, monai.engines, svgd_monai"], options.folder / "idle.log"
    )
    sys.stdout.write(f"the libraries alone: {idle:.0f} MiB\n" + "  ".join(COLUMNS) + "\n")
    rows = []
    for spacing in options.spacings:
        for members in options.members:
            rows.append(measure(options.folder, spacing, members, idle))
            line = "  ".join(f"{rows[-1][column]:>{len(column)}g}" for column in COLUMNS)
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()
    options.output.mkdir(parents=True, exist_ok=True)
    write_csv(options.output / "scoring_memory.csv", COLUMNS, rows)
    draw(rows, idle, options.output / "scoring_memory.png")


if __name__ == "__main__":
    main()
