r"""Does a strategy find a kind of scan that is rare in the pool, and does that pay? A study that ought to show a gain.

    python tests/benchmarks/rare_kind.py make --kind upside_down --dataset_dir Task04_Hippocampus --output <folder>
    python -m monai.bundle run --config_file bundles/hippocampus_mri_svgd/configs/study.yaml --dataset_dir <folder> \
        --output_dir <study> --seeds 1,2,3,4,7 --only entropy_mi,random,shuffled_scores,entropy,full --threads 1
    python tests/benchmarks/rare_kind.py table --dataset_dir <folder> --study <study> --output <table.csv>

``make`` copies an MSD task and makes one case in ten rare: ``upside_down`` stores its image and label upside down, as
after an error in an export; ``inverted`` turns its image's intensities round between its least and its greatest, and
leaves the label. No header says so. ``rare.json`` lists these cases; a fixed draw picks them, the same for either kind.
``table`` has a row for each round of each finished run: how many of the labels are rare ones, and the test Dice of rare
and of usual cases. A plot of both lies beside it: means over seeds are thick, that of the full data is dashed.
"""

import argparse
import csv
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import nibabel as nib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from svgd_monai.data.datalist import read_dataset
from svgd_monai.files import read_csv, read_json, write_csv, write_json
from svgd_monai.report.study import read_study

RARE_FILE = "rare.json"
ONE_IN = 10
COLUMNS = (
    "method", "seed", "round", "unique_labels", "rare_labels", "test_dice", "test_dice_usual", "test_dice_rare",
)  # fmt: skip


def upside_down(voxels: np.ndarray) -> np.ndarray:
    """The volume reversed along its third axis, from feet to head."""
    return voxels[:, :, ::-1]


def inverted(voxels: np.ndarray) -> np.ndarray:
    """Bright for dark within the volume's own range, as MR of another weighting might look."""
    return (float(voxels.min()) + float(voxels.max()) - voxels.astype(float)).astype(voxels.dtype)


#: What makes a case rare, and which of its volumes it changes.
KINDS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], tuple[str, ...]]] = {
    "upside_down": (upside_down, ("image", "label")),
    "inverted": (inverted, ("image",)),
}


def make(dataset_dir: Path, output: Path, kind: str) -> None:
    """Write the task with its rare kind; the folder must not be there."""
    change, keys = KINDS[kind]
    items = read_dataset(dataset_dir).items
    cases = sorted(items)
    rare = np.random.default_rng(0).permutation(cases)[: len(cases) // ONE_IN].tolist()
    shutil.copytree(dataset_dir, output)
    for case in rare:
        for key in keys:
            path = output / Path(items[case][key]).relative_to(dataset_dir.absolute())
            volume = nib.load(path)
            nib.save(nib.Nifti1Image(change(np.asarray(volume.dataobj)), volume.affine, volume.header), path)
    write_json(output / RARE_FILE, sorted(rare))


def table(dataset_dir: Path, study: Path, output: Path) -> None:
    """Write a row per round, and print the last one of every run."""
    rare = set(read_json(dataset_dir / RARE_FILE))
    rows = []
    for method, runs in read_study(study).methods.items():
        for run in runs:
            labelled = set(run.cases("initial"))
            for number, labels in enumerate(run.table["unique_labels"]):
                folder = study / run.place / f"round_{number:03d}"
                dice = {r["case"]: float(r["dice"]) for r in read_csv(folder / "cases.csv") if r["role"] == "test"}
                means = [np.mean([d for case, d in dice.items() if (case in rare) == kind]) for kind in (False, True)]
                row = (method, run.seed, number, int(labels), len(labelled & rare), np.mean([*dice.values()]), *means)
                rows.append(dict(zip(COLUMNS, row, strict=True)))
                queries = folder / "queries.json"
                labelled |= set(read_json(queries) if queries.is_file() else ())
            csv.DictWriter(sys.stdout, COLUMNS).writerow(rows[-1])
    write_csv(output, COLUMNS, rows)
    plot(rows).savefig(output.with_suffix(".png"), dpi=110)


@mpl.rc_context({"axes.spines.top": False, "axes.spines.right": False, "figure.constrained_layout.use": True})
def plot(rows: list[dict]) -> Figure:
    """Test Dice of rare and of usual cases against unique labels."""
    figure = Figure(figsize=(10.6, 3.8))
    axes = figure.subplots(1, 2)
    methods = sorted({row["method"] for row in rows}, key=lambda name: (name == "full", name))
    for colour, method in enumerate(methods):
        seeds = sorted({row["seed"] for row in rows if row["method"] == method})
        runs = [[row for row in rows if (row["method"], row["seed"]) == (method, seed)] for seed in seeds]
        for axis, kind in zip(axes, ("rare", "usual"), strict=True):
            lines = np.array([[[row["unique_labels"], row[f"test_dice_{kind}"]] for row in run] for run in runs])
            label = f"{method} ({len(seeds)})"
            if method == "full":  # one training, with every label
                axis.axhline(lines[:, 0, 1].mean(), color="0.4", ls="--", label=label)
                continue
            for line in lines:
                axis.plot(*line.T, color=f"C{colour}", lw=0.7, alpha=0.6)
            axis.plot(*lines.mean(0).T, color=f"C{colour}", lw=2.4, marker="o", ms=4, label=label)
    for axis, kind in zip(axes, ("rare", "usual"), strict=True):
        axis.set(xlabel="unique labels", ylabel="test Dice", title=f"{kind} cases")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(
        *axes[0].get_legend_handles_labels(), title="method (n seeds)", frameon=False, loc="outside right upper"
    )
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("make", "table"))
    parser.add_argument("--dataset_dir", type=Path, required=True)
    parser.add_argument("--study", type=Path)
    parser.add_argument("--kind", choices=sorted(KINDS), default="upside_down")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    if arguments.what == "make":
        make(arguments.dataset_dir, arguments.output, arguments.kind)
    elif arguments.study is None:
        parser.error("table: give --study, the study's folder.")
    else:
        table(arguments.dataset_dir, arguments.study, arguments.output)


if __name__ == "__main__":
    main()
