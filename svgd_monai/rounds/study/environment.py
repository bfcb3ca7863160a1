"""What a study sets in the environment of its runs."""

from __future__ import annotations

import os

_THREADS = "OMP_NUM_THREADS"


def run_environment(threads: int | None, workers: int) -> dict[str, str]:
    """The environment of a run's process.

    Args:
        threads: of the process. None leaves them to ``OMP_NUM_THREADS`` where that is set, or else shares out the cores
            that this process may use; a job scheduler may have lent a few of the machine's.
        workers: runs at a time.
    """
    if threads is None and _THREADS in os.environ:
        return dict(os.environ)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {**os.environ, _THREADS: str(threads or max(1, cores // workers))}
