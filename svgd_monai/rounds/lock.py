"""One process at a time works in a run's folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from svgd_monai.errors import RunFolderError

LOCK_FILE = ".lock"
#: Begins the sentence of who finds a folder held.
BUSY = "output_dir: another process is at work in"


def is_locked(folder: str | os.PathLike[str]) -> bool:
    """Whether a process holds a run's folder right now."""
    path = Path(folder) / LOCK_FILE
    if not path.is_file():
        return False
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


@contextmanager
def run_lock(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Hold the run's folder.

    The kernel lets go of the lock when its holder ends, however it ends: a crash leaves none behind.

    Args:
        folder: the run's folder; made when missing.

    Raises:
        RunFolderError: another process holds it.
    """
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path / LOCK_FILE)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise RunFolderError(f"{BUSY} {path}.") from None
    try:
        yield
    finally:
        lock.release()
