"""What a study sets in the environment of its runs."""

from __future__ import annotations

import os

_THREADS = "OMP_NUM_THREADS"


def run_environment(threads: int | None, workers: int) -> dict[str, str]:
    """The environment of a run's process.

    Args:
        threads: of the process. None shares out the cores that this process may use (a job scheduler may have lent a
            few of the machine's), but gives no run more than ``OMP_NUM_THREADS``, where that is set.
        workers: runs at a time.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = max(1, cores // workers)
    found = os.environ.get(_THREADS, "").split(",")[0].strip()  # the outermost level's; others are of nested regions
    most = int(found) if found.isascii() and found.isdecimal() else share
    return {**os.environ, _THREADS: str(threads or min(most, share) or 1)}
