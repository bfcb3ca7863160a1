"""Scoring a pool: against MONAI's EnsembleEvaluator, by batch size, and in how much memory by pool and members.

    python tests/benchmarks/scoring.py --output bundles/hippocampus_mri_svgd/docs/scaling

One thread, and seconds of its processor, so that what else the machine does plays no part. Peer and batches are
measured one after the other on the same networks and volumes, the least of several times; memory in a process a line,
over volumes of 64 x 64 x 64 that are made as they are read.
"""

import argparse
import json
import multiprocessing
import tempfile
import time
from pathlib import Path

import torch
from measuring import peak_mib, table
from monai.data import DataLoader, Dataset
from monai.engines import EnsembleEvaluator
from monai.inferers import SimpleInferer
from monai.networks.nets import BasicUNet

from svgd_monai import Particles
from svgd_monai.acquisition import AcquisitionHandler
from svgd_monai.committee import CommitteeEvaluator
from svgd_monai.files import read_csv

FEATURES = (8, 8, 16, 32, 64, 8)
#: The windows of the studies at 2 mm and 1 mm, to which the inferer pads smaller volumes; and one for the memory.
WINDOWS, LARGE = ((24, 32, 24), (48, 64, 48)), (64, 64, 64)
CLASSES = 3


class Volumes(Dataset):
    """Volumes of random numbers, made when they are read."""

    def __init__(self, count: int, shape: tuple[int, ...]) -> None:
        super().__init__(list(range(count)))
        self.shape = shape

    def __getitem__(self, index: int) -> dict[str, object]:
        generator = torch.Generator().manual_seed(index)
        return {"case": f"{index:05}", "image": torch.rand(1, *self.shape, generator=generator)}


def network() -> BasicUNet:
    return BasicUNet(3, 1, CLASSES, FEATURES)


def handler(folder: str) -> AcquisitionHandler:
    return AcquisitionHandler(folder, "bald", labelled=[], count=0)


def score(particles: Particles, volumes: Volumes, batch: int, folder: str) -> float:
    """Seconds of the package's evaluator."""
    loader = DataLoader(volumes, batch_size=batch)
    evaluator = CommitteeEvaluator("cpu", loader, particles, inferer=SimpleInferer(), val_handlers=[handler(folder)])
    began = time.process_time()
    evaluator.run()
    return time.process_time() - began


def score_by_peer(particles: Particles, volumes: Volumes, folder: str) -> float:
    """Seconds of MONAI's, whose output the same handler takes in."""
    networks = [particles.network(index) for index in range(particles.num_particles)]
    evaluator = EnsembleEvaluator(
        "cpu", DataLoader(volumes, batch_size=1), networks, [f"pred_{n}" for n in range(len(networks))],
        inferer=SimpleInferer(), val_handlers=[handler(folder)],
    )  # fmt: skip
    began = time.process_time()
    evaluator.run()
    return time.process_time() - began


def uncertainties(folder: str) -> torch.Tensor:
    rows = sorted(read_csv(Path(folder, "scores.csv")), key=lambda row: row["case"])
    return torch.tensor([float(row["uncertainty"]) for row in rows])


def speed(window: tuple[int, ...], members: int, cases: int, times: int) -> list[dict[str, object]]:
    """A line for the peer and one for each batch size: milliseconds a case."""
    particles, volumes = Particles(network(), members, 0), Volumes(cases, window)
    with tempfile.TemporaryDirectory() as ours, tempfile.TemporaryDirectory() as theirs:
        work = {"EnsembleEvaluator, batch 1": lambda: score_by_peer(particles, volumes, theirs)}
        work |= {
            f"CommitteeEvaluator, batch {batch}": lambda batch=batch: score(particles, volumes, batch, ours)
            for batch in (1, 2, 4, 8)
        }
        found = {name: [] for name in work}
        for _ in range(times):  # in turn, so that a slow minute falls on all
            for name, run in work.items():
                found[name].append(run())
        torch.testing.assert_close(uncertainties(ours), uncertainties(theirs), rtol=1e-4, atol=1e-6)
    first = min(found["EnsembleEvaluator, batch 1"])
    return [
        {"window": " x ".join(map(str, window)), "members": members, "evaluator": name,
         "ms_per_case": round(1e3 * min(seconds) / cases, 2), "relative": round(min(seconds) / first, 2)}
        for name, seconds in found.items()
    ]  # fmt: skip


def memory(members: int, cases: int, result: Path) -> None:
    """One line, in a process of its own: what the scoring adds to what the libraries hold."""
    torch.set_num_threads(1)
    particles = Particles(BasicUNet(3, 1, CLASSES, (2, 2, 2, 2, 2, 2)), members, 0)
    before = peak_mib()
    with tempfile.TemporaryDirectory() as folder:
        score(particles, Volumes(cases, LARGE), 1, folder)
    line = {"members": members, "pool": cases, "memory_mib": round(peak_mib() - before)}
    result.write_text(json.dumps(line), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="where scoring_{speed,pools}.csv go")
    parser.add_argument("--cases", type=int, default=8, help="of the comparison with the peer")
    parser.add_argument("--times", type=int, default=2)
    parser.add_argument("--pools", type=int, nargs="+", default=[4, 24])
    parser.add_argument("--members", type=int, nargs="+", default=[1, 5, 10])
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.output.mkdir(parents=True, exist_ok=True)
    sizes = [(window, members) for window in WINDOWS for members in (1, 5)]
    rows = [row for window, members in sizes for row in speed(window, members, options.cases, options.times)]
    table("Speed", tuple(rows[0]), rows, options.output / "scoring_speed.csv")

    rows, context = [], multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder, "line.json")
        for members in options.members:
            for cases in options.pools:
                process = context.Process(target=memory, args=(members, cases, result))
                process.start()
                process.join()
                if process.exitcode != 0:
                    raise SystemExit(f"The scoring of {cases} cases by {members} members failed.")
                rows.append(json.loads(result.read_text(encoding="utf-8")))
    table("Memory", tuple(rows[0]), rows, options.output / "scoring_pools.csv")


if __name__ == "__main__":
    main()
