"""Fetch a public MSD task when its folder is missing and the user asked for it."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tarfile
from http.client import HTTPException
from pathlib import Path

from filelock import FileLock, Timeout
from monai.apps import DecathlonDataset, download_url, extractall

from svgd_monai.data.entries import is_file, is_folder
from svgd_monai.errors import DataError
from svgd_monai.files import reason
from svgd_monai.temporaries import staging_folder

logger = logging.getLogger(__name__)

MD5 = {
    "Task04_Hippocampus": "9d24dba78a72977dbd1d2e110310f31b",
    "Task07_Pancreas": "4f7080cfca169fa8066d17ce6eb061e4",
}


def ensure_dataset(dataset_dir: str | os.PathLike[str], download: bool = False) -> Path:
    """Return ``dataset_dir``, downloaded first if it is missing and ``download`` is true.

    What is there already is returned as it is; MONAI's own data set class would ask the server even then.

    Args:
        dataset_dir: the task folder; to be downloaded, its name must be a key of :data:`MD5`.
        download: whether a missing folder may be downloaded.

    Raises:
        DataError: the folder is missing and may not or cannot be downloaded.
    """
    folder = Path(dataset_dir).absolute()
    if is_folder(folder) or is_file(folder):
        return folder
    tasks = " or ".join(MD5)
    if not download:
        raise DataError(
            f"The data set's folder {folder} does not exist; set dataset_dir to your data set's folder, or "
            f"`download: true` to fetch {tasks}."
        )
    if folder.name not in MD5:
        raise DataError(f"The data set's folder {folder} does not exist, and only {tasks} can be downloaded.")
    try:
        _download(folder)
    # MONAI lets through what urllib, tarfile and its own checks of hash and member names raise.
    except (OSError, HTTPException, RuntimeError, ValueError, EOFError, tarfile.TarError) as error:
        url = DecathlonDataset.resource[folder.name]
        raise DataError(f"The data set {folder} could not be downloaded from {url} ({reason(error)}).") from error
    return folder


def _download(folder: Path) -> None:
    """Download and extract beside ``folder``, then move into place, so that the folder is whole or absent.

    Processes that want the same folder wait, on a lock file beside it, for the one that fetches it. Each has a staging
    folder of its own all the same, for a lock does not reach every machine.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    path = folder.with_name(f".{folder.name}.lock")
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        logger.info("Another process is fetching %s; this one waits for it.", folder)
        lock.acquire()
    try:
        if not is_folder(folder):
            _fetch(folder)
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
        lock.release()


def _fetch(folder: Path) -> None:
    with staging_folder(folder) as staging:
        # The two halves of MONAI's download_and_extract, which as a whole needs `requests` to learn the file's name.
        archive = staging / f"{folder.name}.tar"
        url, md5 = DecathlonDataset.resource[folder.name], MD5[folder.name]
        download_url(url, archive, hash_val=md5, hash_type="md5", progress=sys.stderr.isatty())
        extractall(archive, staging)
        extracted = staging / folder.name
        if not (extracted / "dataset.json").is_file():
            raise FileNotFoundError(f"the archive holds no {folder.name}/dataset.json")
        try:
            extracted.rename(folder)
        except OSError:
            if not is_folder(folder):  # as of a machine that shares the disk but not its locks, and was first
                raise
