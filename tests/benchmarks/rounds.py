"""What share of a round is training, and what the rest is.

    python tests/benchmarks/rounds.py --folder <scratch> --output bundles/hippocampus_mri_svgd/docs/scaling
    python tests/benchmarks/rounds.py --study --folder <scratch> --output bundles/hippocampus_mri_svgd/docs/scaling

The second is a round as the project's studies have it: batches of 2, 3 validations, no surface distances.

The real loop in this process, one thread, on the MR phantom at 2 mm with the small network of the studies. Seconds are
those of the processor, so that what else the machine does plays no part. The second round is measured: what is done
once a run is behind it. It is small; what a part costs for a step or a case is multiplied with the steps and cases of a
round of MSD's hippocampus, and what is left, which depends on neither, is taken as it is.
"""

import argparse
import runpy
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from unittest import mock

import torch

sys.path[:0] = [str(Path(__file__).parents[1])]  # tests/, for command

from command import words  # noqa: E402

from svgd_monai.acquisition import AcquisitionHandler, PoolInformation  # noqa: E402
from svgd_monai.committee import CommitteeEvaluator, CommitteeTrainer  # noqa: E402
from svgd_monai.data import make_phantom  # noqa: E402
from svgd_monai.evaluation import CaseMetricsHandler  # noqa: E402
from svgd_monai.files import write_csv  # noqa: E402
from svgd_monai.report import PoolRecorder  # noqa: E402
from svgd_monai.rounds.loop import ActiveLearning  # noqa: E402
from svgd_monai.rounds.stages import Stages  # noqa: E402

CONFIG = Path(__file__).parents[2] / "bundles/hippocampus_mri_svgd/configs/active_learning.yaml"
KEYS = {
    "device": "cpu", "num_particles": 3, "features": [8, 8, 16, 32, 64, 8], "spacing": [2, 2, 2],
    "roi_size": [24, 32, 24], "rounds": 2, "initial_labelled": 8, "queries_per_round": 1, "validations_per_round": 1,
    "validation_cases": 5, "test_cases": 5, "steps_per_round": 5,
}  # fmt: skip
STUDY = {"batch_size": 2, "surface_distances": False}
CASES = 24
COLUMNS = ("part", "measured", "ms_each", "of_a_round", "seconds_of_a_round", "percent")
TRAINING = "training steps"
PARTS = {  # what is timed; the innermost counts
    TRAINING: (CommitteeTrainer, "_iteration"),
    "forward of validation, test and pool": (CommitteeEvaluator, "_iteration"),
    "measuring test and validation cases": (CaseMetricsHandler, "measure"),
    "uncertainty of pool cases": (AcquisitionHandler, "accumulate"),
    "mutual information": (PoolInformation, "pairs"),
    "pictures and histograms": (PoolRecorder, "record"),
    "reading configurations": (Stages, "parser"),
}


class Clock:
    """Seconds of each part; what a part within another takes is not the other's."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self.calls = dict.fromkeys(PARTS, 0)
        self._inside = [0.0]

    def timed(self, name, function):
        def wrapper(*arguments, **keys):
            began = time.process_time()
            self._inside.append(0.0)
            try:
                return function(*arguments, **keys)
            finally:
                whole = time.process_time() - began
                self.seconds[name] += whole - self._inside.pop()
                self._inside[-1] += whole
                self.calls[name] += 1

        return wrapper


class Enough(BaseException):
    """Ends the loop; an interrupt would be this program's exit status as well."""


def measure(dataset: Path, folder: Path, study: bool) -> tuple[float, Clock]:
    """Seconds of the second round, and of its parts."""
    whole: dict[int, float] = {}
    clock = Clock()
    run_round = ActiveLearning._run_round

    def timed_round(loop, task, number, final):
        clock.__init__()
        began = time.process_time()
        run_round(loop, task, number, final)
        whole[number] = time.process_time() - began
        if number == 1:
            raise Enough  # the third round would tell no more

    with ExitStack() as patches, suppress(Enough):
        for name, (owner, method) in PARTS.items():
            patches.enter_context(mock.patch.object(owner, method, clock.timed(name, getattr(owner, method))))
        patches.enter_context(mock.patch.object(ActiveLearning, "_run_round", timed_round))
        argv = words(CONFIG, **KEYS, **(STUDY if study else {}), dataset_dir=dataset, output_dir=folder)
        patches.enter_context(mock.patch.object(sys, "argv", ["monai.bundle", *argv]))
        runpy.run_module("monai.bundle", run_name="__main__", alter_sys=True)
    return whole[1], clock


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="scratch, empty")
    parser.add_argument(
        "--output", type=Path, required=True, help="where round_parts.csv goes, or round_parts_study.csv"
    )
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--validations", type=int, help="5, or 3 of a study")
    parser.add_argument("--study", action="store_true", help="a round of study.yaml")
    parser.add_argument("--held-out", type=int, default=50, help="validation cases, and as many test cases")
    parser.add_argument("--pool", type=int, default=160)
    options = parser.parse_args()
    torch.set_num_threads(1)
    dataset = make_phantom(options.folder / "phantom", "mr", CASES)
    whole, clock = measure(dataset, options.folder / "run", options.study)
    validations = options.validations or (3 if options.study else 5)
    measured, pool = 2 * options.held_out, options.pool
    # How often a round has each part, and how many of the small round's calls that stands for.
    times = {
        TRAINING: options.steps,
        "forward of validation, test and pool": validations * options.held_out + measured + pool,
        "measuring test and validation cases": measured,
        "uncertainty of pool cases": pool,
    }
    rows, rest = [], whole - sum(clock.seconds.values())
    for name, seconds in {**clock.seconds, "all else": rest}.items():
        count, calls = (times[name], clock.calls[name]) if name in times else (1, 1)
        if name == "mutual information":
            count, calls = pool, CASES - 2 * KEYS["validation_cases"]
        rows.append([name, calls, round(1e3 * seconds / calls, 1), count, seconds / calls * count])
    total = sum(row[-1] for row in rows)
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / f"round_parts{'_study' * options.study}.csv"
    lines = ((*columns, round(seconds, 2), round(100 * seconds / total, 1)) for *columns, seconds in rows)
    write_csv(path, COLUMNS, [dict(zip(COLUMNS, line, strict=True)) for line in lines])
    sys.stdout.write(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
