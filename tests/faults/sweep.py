"""Every fault, one a run: what the user sees, and what the same command does then.

    python tests/faults/sweep.py --folder <scratch> --output bundles/hippocampus_mri_svgd/docs/faults.md

Runs the real command line on a tiny phantom, some 400 times: half an hour on a quiet core. A sweep that was stopped
goes on where it stopped. As root on Linux it also fills and locks a real disk.
"""

import argparse
import errno
import json
import os
import platform
import sys
import time
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported
sys.path[:0] = [str(Path(__file__).parents[1])]  # tests/, for runs and command

import torch  # noqa: E402
import trials  # noqa: E402
from lab import Finding, Lab  # noqa: E402
from table import write_table  # noqa: E402

GROUPS = {
    "kill": partial(trials.killed, signal="SIGKILL"),
    "term": partial(trials.killed, signal="SIGTERM"),
    "full": trials.full_disk,
    "no-space": partial(trials.refused, row="no space at a write", number=errno.ENOSPC, every=3),
    "read-only": partial(trials.refused, row="read-only file system at a write", number=errno.EROFS, every=6),
    "read-only-disk": trials.read_only_disk,
    "permission": trials.permissions,
    "damaged": trials.damaged,
    "inputs": trials.inputs,
    "second": trials.second_process,
    "machine": trials.machine,
}


def known_findings(file):
    """What a sweep has found so far, by fault and place."""
    if not file.is_file():
        return {}
    found = [Finding(*json.loads(line)) for line in file.read_text().splitlines()]
    return {(finding.fault, finding.place): finding for finding in found}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--folder", type=Path, required=True, help="scratch; kept, so that a sweep can go on")
    parser.add_argument("--groups", nargs="*", default=list(GROUPS), choices=list(GROUPS))
    parser.add_argument("--every", type=int, default=1, help="only every n-th trial of each group")
    parser.add_argument("--output", type=Path, help="the Markdown table of all that was found")
    options = parser.parse_args()
    began = time.monotonic()
    lab = Lab(options.folder)
    file = lab.root / "found.jsonl"
    for group in options.groups:
        for trial in list(GROUPS[group](lab))[:: options.every]:
            if trial[:2] in known_findings(file):
                continue
            finding = trial.happen(trial.fault, trial.place)
            with file.open("a") as log:
                log.write(json.dumps(finding) + "\n")
            sys.stdout.write(" | ".join(["sound" if finding.sound else "BAD", *map(str, finding)]) + "\n")
            sys.stdout.flush()
    found = list(known_findings(file).values())
    if options.output is not None:
        versions = f"Python {platform.python_version()}, torch {torch.__version__}, {platform.system()}"
        write_table(options.output, found, versions)
    bad = sum(not finding.sound for finding in found)
    sys.stdout.write(f"{len(found)} trials, {bad} bad, {time.monotonic() - began:.0f} s\n")
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
