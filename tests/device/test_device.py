"""Everything that a run computes on its device lies on that device: the same numbers as on a CPU, without a GPU."""

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command import TINY, words

BUNDLES = Path(__file__).parents[2] / "bundles"
MR, CT = (BUNDLES / name / "configs/active_learning.yaml" for name in ("hippocampus_mri_svgd", "pancreas_ct_svgd"))
COMMON = {**TINY, "num_particles": 3, "steps_per_round": 4, "validations_per_round": 2, "queries_per_round": 2}
RUNS = {
    "as it is": (MR, {"augmentation": "light"}),
    "another query": (MR, {"acquisition": "max_cover", "uncertainty_reduction": "top", "mi_content": "foreground"}),
    "an ensemble": (MR, {"committee": "ensemble", "prior_std": "flat", "member_batches": "own", "warm_start": "true"}),
    "an ensemble with a prior": (MR, {"committee": "ensemble", "member_batches": "own", "warm_start": "true"}),
    "surfaces, clipped": (MR, {"surface_distances": "true", "max_norm": 1.0, "acquisition": "power_bald"}),
    "another bundle": (CT, {"roi_size": [16, 16, 32], "spacing": [8, 8, 8]}),
}
#: Where there is no prior, Adam makes full steps of gradients that are nothing but rounding.
OVERLAYS = {
    "an ensemble": "optimizer: {_target_: torch.optim.SGD, params: '$[@network.values]', lr: 1.0}\n",
}
#: What a step may ask of the device: whether all particles are finite, which on CUDA is read when it is known.
WAITS = 1

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(shutil.which("c++") is None or shutil.which("ninja") is None, reason="needs a C++ compiler"),
]


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    return tmp_path_factory.mktemp("device")


def python(*arguments):
    """A process of its own, for torch does not forget a device."""
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, check=False,
        cwd=Path(__file__).parent, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def table(path):
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [{k: float(v or "nan") for k, v in row.items() if not k.startswith("seconds")} for row in rows]


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", RUNS)
def test_a_run_is_that_of_a_cpu(build, tmp_path, name):
    configuration, keys = RUNS[name]
    files = [configuration, configuration.parent / "phantom.yaml"]
    if name in OVERLAYS:
        files.append(tmp_path / "overlay.yaml")
        files[-1].write_text(OVERLAYS[name], encoding="utf-8")
    for device in ("cpu", "apart:0"):
        all_keys = {**COMMON, **keys, "device": device, "output_dir": tmp_path / device}
        python("apart.py", "--build", build, *words(*files, **all_keys))
    curves, queries = (
        [read(tmp_path / device) for device in ("cpu", "apart:0")]
        for read in (lambda run: table(run / "learning_curve.csv"), lambda run: (run / "ledger.json").read_text())
    )
    for cpu, apart in zip(*curves, strict=True):
        assert apart == pytest.approx(cpu, abs=1e-3, nan_ok=True)  # distances of particles are computed in another way
    assert queries[0] == queries[1]


@pytest.mark.timeout(900)
def test_a_step_hardly_waits_for_the_device(build):
    code = f"""
import sys
sys.path.insert(0, "../benchmarks")
import torch
from pathlib import Path
from apart import add_device
from workloads import TINY, Ours
waits = add_device(Path({str(build)!r}))
steps = Ours(TINY, torch.device("apart:0"))
before = waits()
for _ in range(3):
    steps()
print((waits() - before) / 3)
"""
    assert float(python("-c", code).split()[-1]) <= WAITS
