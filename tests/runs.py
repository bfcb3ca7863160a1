"""Whole runs of the loop, in processes that can be killed, and what they leave."""

import csv
import importlib
import json
import multiprocessing
import os
import runpy
import signal
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import torch
from command import TINY, words

CONFIG = Path(__file__).parents[1] / "bundles/hippocampus_mri_svgd/configs/active_learning.yaml"
#: What a command imports sooner or later; the fork server imports it once.
PRELOAD = [
    "svgd_monai.rounds", "monai.bundle", "torch.utils.tensorboard", "torch._dynamo", "fire",
    "matplotlib.backends.backend_agg",
]  # fmt: skip
#: Two rounds of two queries, with everything that draws random numbers in training.
KEYS = {
    **TINY,
    "rounds": 2,
    "steps_per_round": 4,
    "validations_per_round": 2,
    "queries_per_round": 2,
    "test_cases": 3,
    "augmentation": "light",
}


def arguments(dataset, output, *overlays, **keys):
    """The words of a run of the loop."""
    return words(CONFIG, *overlays, **{**KEYS, "dataset_dir": dataset, "output_dir": output, **keys})


def command(argv, output, deadly=None, path=None):
    """In a process of its own: the real command line, killed at the n-th call of a function where one is named."""
    for stream, name in ((1, "out"), (2, "err")):  # the fork server's own streams are not those of the test
        os.dup2(os.open(output / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    if deadly is not None:
        module, owner, name, call, condition = deadly
        _kill_at(importlib.import_module(module), owner, name, call, condition)
    if path is not None:
        sys.path.insert(0, str(path))
    torch.set_num_threads(1)
    sys.argv = ["monai.bundle", *argv]
    runpy.run_module("monai.bundle", run_name="__main__", alter_sys=True)


def _kill_at(module, owner, name, call, condition):
    place = getattr(module, owner) if owner else module
    original, calls = getattr(place, name), 0

    def wrapper(*args, **kwargs):
        nonlocal calls
        if condition is None or any(condition in str(a) for a in args):
            calls += 1
            if calls == call:
                os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)

    setattr(place, name, wrapper)


class Run(NamedTuple):
    """What a command ended with."""

    code: int
    out: str
    last_line: str


def run(argv, deadly=None, path=None, timeout=300):
    """Run a command; the fork server has the imports done.

    Args:
        argv: its words.
        deadly: (module, class or None, function, n, text or None): the process is killed at the n-th call, of those
            with ``text`` in an argument where one is given.
        path: a folder to import the user's own code from.
        timeout: seconds.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder)
        process = context.Process(target=command, args=(argv, output, deadly, path))
        process.start()
        process.join(timeout)
        assert process.exitcode is not None, "the command hangs"
        error = (output / "err").read_text().strip()
        return Run(process.exitcode, (output / "out").read_text(), error.splitlines()[-1] if error else "")


def curve(folder):
    """The learning curve, times apart."""
    with (folder / "learning_curve.csv").open() as file:
        return [{k: v for k, v in row.items() if not k.startswith("seconds")} for row in csv.DictReader(file)]


def outcome(folder):
    """All of a run that must not depend on when it was stopped."""
    rounds = sorted(folder.glob("round_*"))
    trainings = [json.loads((r / "training.json").read_text()) for r in rounds]
    return {
        "curve": curve(folder),
        "validations": [(t["step"], [(v["step"], v["val_dice"]) for v in t["validations"]]) for t in trainings],
        "queries": [json.loads(p.read_text()) for r in rounds if (p := r / "queries.json").exists()],
        "scores": [(r / "scores.csv").read_text() for r in rounds],
        "cases": [(r / "cases.csv").read_text() for r in rounds],
        "ranking": (folder / "ranking.csv").read_text(),
        "ledger": json.loads((folder / "ledger.json").read_text()),
        "particles": [torch.load(r / "committee.pt", weights_only=True)["values"].numpy().tobytes() for r in rounds],
    }
