"""Names of files and folders that are being written, and the removal of what killed processes leave of them.

Machines may share a folder (a study's, a cache), and process ids repeat from one to the next, in containers above all.
So a name says which machine and which process writes, and holds a token, so that no two writes ever share a file.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

TEMPORARY_SUFFIX = ".tmp"

#: Seconds after which a temporary file of another machine, whose processes cannot be seen from here, is nobody's.
ABANDONED = 24 * 3600.0

#: Bytes of a name to be that its temporary name keeps: file systems take 255, and the rest of it needs 30.
_KEPT = 200

_NAME = re.compile(rf".+\.(?P<process>\d+)\.(?P<machine>[0-9a-f]{{8}})[0-9a-f]{{8}}{re.escape(TEMPORARY_SUFFIX)}")


def temporary_path(path: Path, process: int | None = None) -> Path:
    """A new name beside ``path``, to write to before it gets that one's.

    Args:
        path: the file to be.
        process: who writes; None: this process.
    """
    process = os.getpid() if process is None else process
    name = os.fsencode(path.name)[:_KEPT].decode(errors="ignore")
    return path.with_name(f"{name}.{process}.{_machine()}{secrets.token_hex(4)}{TEMPORARY_SUFFIX}")


def remove_temporaries(folder: Path, below: str = "", folders: bool = False) -> None:
    """Remove what killed processes have half written; what living ones write stays, as all else does.

    What another machine writes stays for a day (:data:`ABANDONED`) after it was last written to. What may not be
    removed, such as another user's in a folder that all share, stays as well: it is in nobody's way.

    Args:
        folder: where; one that is not there holds nothing.
        below: a pattern of folders in it, with a slash at its end, such as ``round_*/``; "" is the folder itself.
        folders: remove folders of such names in place of files.
    """
    for path in folder.glob(f"{below}*{TEMPORARY_SUFFIX}"):
        name = _NAME.fullmatch(path.name)
        of_kind = path.is_dir() if folders else path.is_file()
        if name is not None and of_kind and _is_left(path, int(name["process"]), name["machine"]):
            if folders:
                shutil.rmtree(path, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):
                    path.unlink()


@contextlib.contextmanager
def staging_folder(target: Path) -> Iterator[Path]:
    """A folder beside ``target`` in which to prepare what is then moved there; it goes at the end, whatever happens.

    So does what killed processes have left of theirs.

    Args:
        target: what is to become; the folder that holds it is there.

    Raises:
        OSError: the file system refuses.
    """
    remove_temporaries(target.parent, folders=True)
    staging = temporary_path(target.with_name(f".{target.name}"))
    staging.mkdir()
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _is_left(path: Path, process: int, machine: str) -> bool:
    if machine == _machine() and (process == os.getpid() or not _lives(process)):
        return True
    try:
        return time.time() - path.stat().st_mtime > ABANDONED
    except FileNotFoundError:  # it has just got its name
        return False


def _machine() -> str:
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


def _lives(process: int) -> bool:
    if os.name != "posix":  # elsewhere the call below would end it
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        return True
    return True
