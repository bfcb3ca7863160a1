"""What a pool of thousands of cases and a run of a hundred rounds cost: seconds, memory, files, threads.

    python tests/benchmarks/load.py --folder <scratch> --output bundles/hippocampus_mri_svgd/docs

Runs the real loop, one command after the other, with one layer in place of the network (tests/faults/small.yaml): what
is measured is everything but the network. ``load_pool.csv``: a row a command, for pools of 100, 1,000 and 10,000 cases;
``load_pool.png`` shows them. ``cpu_seconds`` are those of the processor, which other work does not lengthen; ``steps``
are, of all seconds, those of the two training steps and their validation. ``load_rounds.csv``: a row a round, of one
process, looked at from outside through ``/proc`` when the round's scores appear. ``--only plot`` draws anew.
"""

import argparse
import csv
import json
import os
import platform
import subprocess
import sys
import threading
import time
from pathlib import Path

import nibabel as nib
import numpy as np
from matplotlib.figure import Figure

sys.path[:0] = [str(Path(__file__).parents[1])]  # tests/, for command

from command import TINY, words  # noqa: E402

from svgd_monai.data import make_phantom  # noqa: E402
from svgd_monai.files import read_csv  # noqa: E402

CONFIG = Path(__file__).parents[2] / "bundles/hippocampus_mri_svgd/configs/active_learning.yaml"
SMALL = Path(__file__).parents[1] / "faults/small.yaml"
SIDE = 8  # voxels
KEYS = {**TINY, "queries_per_round": 10, "initial_labelled": 20, "validation_cases": 20, "test_cases": 20}
MIB = 1 << 20
POOL_COLUMNS = (
    "cases",
    "command",
    "seconds",
    "cpu_seconds",
    "of_which_start",
    "train",
    "evaluate",
    "acquire",
    "steps",
    "peak_mib",
    "folder_mib",
    "tensorboard_kib",
)
ROUND_COLUMNS = ("round", "seconds", "rss_mib", "open_files", "threads", "tensorboard_kib", "folder_kib")


def write_cases(folder, count):
    """An MSD task of ``count`` tiny cases, each of its own: a bright box in noise."""
    if (folder / "dataset.json").is_file():
        return folder
    for kind in ("imagesTr", "labelsTr"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    entries = []
    for number in range(count):
        rng = np.random.default_rng(number)
        image = rng.integers(0, 200, (SIDE,) * 3).astype(np.int16)
        label = np.zeros(image.shape, np.uint8)
        low = rng.integers(0, SIDE - 4, 3)
        label[tuple(slice(at, at + 4) for at in low)] = 1
        label[tuple(slice(at, at + 2) for at in low)] = 2
        image += 300 * label.astype(np.int16)
        entry = {}
        for key, values in (("image", image), ("label", label)):
            entry[key] = f"./{key}sTr/case_{number:05d}.nii.gz"
            nib.save(nib.Nifti1Image(values, np.diag([3.0, 3.0, 3.0, 1.0])), folder / entry[key])
        entries.append(entry)
    labels = {"0": "background", "1": "box", "2": "corner"}
    (folder / "dataset.json").write_text(json.dumps({"name": "boxes", "labels": labels, "training": entries}))
    return folder


def command(dataset, output, **keys):
    """The loop's command line; the same output goes on."""
    places = {"dataset_dir": dataset, "output_dir": output}
    return [sys.executable, "-m", "monai.bundle", *words(CONFIG, SMALL, **{**KEYS, **places, **keys})]


def run(argv, log):
    """Run a command; its seconds by the clock and of the processor, and its peak memory in MiB."""
    began = time.monotonic()
    with log.open("w") as file:
        process = subprocess.Popen(argv, stdout=file, stderr=file, env={**os.environ, "OMP_NUM_THREADS": "1"})
        _, status, usage = os.wait4(process.pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0, log.read_text()[-2000:]
    return time.monotonic() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def measure_pool(folder, count):
    """A pool of ``count`` cases: the first command, a further round, one that goes on, one that has nothing to do."""
    dataset = write_cases(folder / f"boxes_{count}", count)
    output = folder / f"run_{count}"
    plan = [("first start, round 0", 0, None), ("goes on, round 1", 1, None),
            ("goes on behind a kill, scores again", 1, "round_001/scores.csv"), ("is finished", 1, None)]  # fmt: skip
    for name, rounds, lost in plan:
        if lost is not None:
            (output / lost).unlink()
            record = output / "run.json"
            record.write_text(record.read_text().replace('"finished": true', '"finished": false'))
        before, steps = _stage_seconds(output), _step_seconds(output)
        seconds, cpu, peak = run(command(dataset, output, rounds=rounds), folder / "log")
        stages = {key: value for key, value in _stage_seconds(output).items() if before.get(key) != value}
        spent = {
            stage: round(sum(v for (_, s), v in stages.items() if s == stage), 1)
            for stage in ("train", "evaluate", "acquire")
        }
        yield {"cases": count, "command": name, "seconds": round(seconds, 1), "cpu_seconds": round(cpu, 1),
               "of_which_start": round(seconds - sum(spent.values()), 1), **spent,
               "steps": round(_step_seconds(output) - steps, 1), "peak_mib": round(peak),
               "folder_mib": round(_size(output) / MIB, 1),
               "tensorboard_kib": round(_size(output / "tensorboard") / 1024)}  # fmt: skip


def measure_rounds(folder, count):
    """``count`` rounds of one process."""
    dataset = make_phantom(folder / "phantom", "mr", 30)
    output = folder / f"rounds_{count}"
    keys = {"rounds": count, "queries_per_round": 1, "initial_labelled": 3, "validation_cases": 2, "test_cases": 2}
    began = time.monotonic()
    with (folder / "log").open("w") as log:
        argv = command(dataset, output, **keys)
        process = subprocess.Popen(argv, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"})
        waiter = threading.Thread(target=process.wait)
        waiter.start()
        for number in range(count):
            while process.poll() is None and not (output / f"round_{number:03d}/scores.csv").is_file():
                time.sleep(0.05)
            if process.poll() is not None:
                break
            yield {"round": number, "seconds": round(time.monotonic() - began, 1), **_state(process.pid),
                   "tensorboard_kib": round(_size(output / "tensorboard") / 1024),
                   "folder_kib": round(_size(output) / 1024)}  # fmt: skip
        waiter.join()
    assert process.returncode == 0, (folder / "log").read_text()[-2000:]


def _state(pid):
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {"rss_mib": round(int(status["VmRSS"].split()[0]) / 1024), "threads": int(status["Threads"]),
            "open_files": len(list(Path(f"/proc/{pid}/fd").iterdir()))}  # fmt: skip


def _stage_seconds(output):
    found = {}
    for path in output.glob("round_*/times.json"):
        found |= {(path.parent.name, stage): value for stage, value in json.loads(path.read_text()).items()}
    return found


def _step_seconds(output):
    """Seconds of the training steps and their validations, of all rounds."""
    return sum(json.loads(path.read_text())["seconds"] for path in output.glob("round_*/training.json"))


def _size(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def draw(rows, path):
    """Seconds of the processor and peak memory of each command against the pool, and what growth in proportion is."""
    commands = list(dict.fromkeys(row["command"] for row in rows))
    figure = Figure(figsize=(9.0, 4.2), layout="constrained")
    titles = {"cpu_seconds": "processor's seconds of the command", "peak_mib": "peak memory of the command, MiB"}
    for axes, (column, title) in zip(figure.subplots(1, 2), titles.items(), strict=True):
        for colour, command in zip(("#0072B2", "#D55E00", "#009E73", "#CC79A7"), commands, strict=False):
            points = sorted((int(row["cases"]), float(row[column])) for row in rows if row["command"] == command)
            axes.loglog(*zip(*points, strict=True), "o-", color=colour, label=command)
        sizes = sorted({int(row["cases"]) for row in rows})
        largest = max(float(row[column]) for row in rows if int(row["cases"]) == sizes[-1])
        proportion = [largest * size / sizes[-1] for size in sizes]
        axes.loglog(sizes, proportion, ":", color="grey", label="in proportion to the pool")
        axes.set_ylim(bottom=min(float(row[column]) for row in rows) / 2)
        axes.set_xlabel("cases")
        axes.set_title(title, fontsize=10)
        axes.grid(which="major", alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=120)


def write(path, columns, rows):
    """Write a table row by row, so that what was measured stays when the rest fails."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow(row)
            file.flush()
            sys.stdout.write(f"{row}\n")
            sys.stdout.flush()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--folder", type=Path, required=True, help="scratch")
    parser.add_argument("--output", type=Path, required=True, help="where the tables go")
    parser.add_argument("--cases", type=int, nargs="+", default=[100, 1_000, 10_000])
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--only", choices=("pool", "rounds", "plot"))
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    sys.stdout.write(f"{platform.machine()}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}\n")
    if options.only in (None, "pool"):
        rows = (row for count in options.cases for row in measure_pool(options.folder, count))
        write(options.output / "load_pool.csv", POOL_COLUMNS, rows)
    if options.only in (None, "pool", "plot"):
        draw(read_csv(options.output / "load_pool.csv"), options.output / "load_pool.png")
    if options.only in (None, "rounds"):
        write(options.output / "load_rounds.csv", ROUND_COLUMNS, measure_rounds(options.folder, options.rounds))


if __name__ == "__main__":
    main()
