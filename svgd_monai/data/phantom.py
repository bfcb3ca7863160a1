"""The embedded phantoms: small data sets in Medical Segmentation Decathlon form that need no download.

They let the whole product run anywhere: real NIfTI files, anatomy and contrast that vary from case to case, and room
to learn, so that more labels mean more accuracy. ``"mr"`` resembles Task04 (:mod:`svgd_monai.data.phantom_mr`) and
``"ct"`` Task07 (:mod:`svgd_monai.data.phantom_ct`). The same arguments give the same bytes.
"""

from __future__ import annotations

import contextlib
import gzip
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import nibabel as nib
import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from svgd_monai.data import phantom_ct, phantom_mr
from svgd_monai.errors import DataError, RunFolderError, SettingsError
from svgd_monai.files import read_json, reason, write_bytes, write_json
from svgd_monai.temporaries import staging_folder

GENERATOR_VERSION = 1  # raised by every change that changes bytes

_TASKS: dict[str, ModuleType] = {"mr": phantom_mr, "ct": phantom_ct}
_RECORD = "phantom.json"
_BLOCK = 5  # one hard case in every so many
_CASE_STREAM, _HARD_STREAM = 0, 1  # keep the random numbers of different uses apart


def make_phantom(root: str | os.PathLike[str], task: str = "mr", num_cases: int = 60, seed: int = 0) -> Path:
    """Write a phantom data set, unless it is there already.

    The folder holds ``dataset.json``, ``imagesTr/`` and ``labelsTr/`` as a Decathlon task does, and ``phantom.json``:
    what made it, and which cases are hard (a fifth). Case k is the same whatever ``num_cases`` is. The set appears
    under its name all at once, when every file is on the disk. Processes that ask for the same folder at the same time
    wait for one another on a lock file beside it.

    Args:
        root: the folder to make; missing, empty, or already this very phantom.
        task: ``"mr"`` (a hippocampus-like structure in two parts) or ``"ct"`` (a pancreas-like organ with a tumour).
        num_cases: the number of labelled cases.
        seed: picks one of the many phantoms of a task.

    Returns:
        ``root``.

    Raises:
        SettingsError: ``task`` is unknown, or ``num_cases`` or ``seed`` is out of range.
        DataError: the folder holds something else, or cannot be written.
    """
    record = _record(task, num_cases, seed)
    root = Path(root)
    try:
        if not _is_made(root, record):
            target = root.resolve()
            target.parent.mkdir(parents=True, exist_ok=True)
            lock = target.with_name(f".{target.name}.lock")
            with FileLock(lock):
                if not _is_made(root, record):  # another process may have made it meanwhile
                    _build(target, record)
                with contextlib.suppress(OSError):  # whoever still waits on it will find the phantom made
                    lock.unlink()
    except OSError as error:
        raise DataError(f"{root}: the phantom cannot be written ({reason(error)}).") from error
    return root


def _record(task: str, num_cases: int, seed: int) -> dict[str, Any]:
    """What ``phantom.json`` says, which identifies a phantom."""
    if task not in _TASKS:
        raise SettingsError(f"task: the phantom is one of {', '.join(_TASKS)}, not {task!r}.")
    if num_cases < 1:
        raise SettingsError(f"num_cases: a phantom needs at least one case, not {num_cases}.")
    if seed < 0:
        raise SettingsError(f"seed: must not be negative, not {seed}.")
    return {
        "generator_version": GENERATOR_VERSION,
        "task": task,
        "num_cases": num_cases,
        "seed": seed,
        "hard_cases": [_case_id(task, index) for index in range(num_cases) if _is_hard(seed, index)],
    }


def _is_hard(seed: int, index: int) -> bool:
    """One case in every block of five is hard, at a random place, so that a fifth of any phantom is."""
    block, place = divmod(index, _BLOCK)
    return place == int(np.random.default_rng([seed, block, _HARD_STREAM]).integers(_BLOCK))


def _case_id(task: str, index: int) -> str:
    return f"phantom_{task}_{index + 1:03d}"


def _is_made(root: Path, record: dict[str, Any]) -> bool:
    """Whether ``root`` holds this phantom; False when it is missing or empty.

    Raises:
        DataError: ``root`` holds anything else.
    """
    if not root.exists():
        return False
    if not root.is_dir():
        raise DataError(f"{root} is a file; a phantom needs a folder of its own.")
    if not any(root.iterdir()):
        return False
    if not (root / _RECORD).is_file():
        raise DataError(f"{root} holds other files; a phantom needs a new or empty folder.")
    try:
        found = read_json(root / _RECORD)
    except RunFolderError as error:
        raise DataError(str(error)) from error
    if found != record:
        raise DataError(
            f"{root} holds another phantom ({_described(found)}) than the one asked for ({_described(record)}); "
            "choose another folder or delete it."
        )
    lost = [path for path in _files(record) if not (root / path).is_file()]
    if lost:
        raise DataError(f"{root} has lost {len(lost)} of its files ({lost[0]}, for one); delete it to make it again.")
    return True


def _described(record: Any) -> str:
    keys = ("task", "num_cases", "seed", "generator_version")
    return ", ".join(f"{key} {record.get(key)}" for key in keys) if isinstance(record, dict) else "unreadable"


def _files(record: dict[str, Any]) -> list[str]:
    cases = [_case_id(record["task"], index) for index in range(record["num_cases"])]
    return ["dataset.json", *(f"{folder}/{case}.nii.gz" for folder in ("imagesTr", "labelsTr") for case in cases)]


def _build(target: Path, record: dict[str, Any]) -> None:
    """Write everything beside ``target``, then give it its name as the last act. The caller holds the lock."""
    with staging_folder(target) as folder:
        _write(folder, record)
        if target.exists():
            target.rmdir()  # it is empty; not every system renames over an empty folder
        folder.rename(target)


def _write(folder: Path, record: dict[str, Any]) -> None:
    task, seed = record["task"], record["seed"]
    hard = set(record["hard_cases"])
    cases = [_case_id(task, index) for index in range(record["num_cases"])]
    for index, case in enumerate(cases):
        # The task's number keeps a later task from sharing its random numbers with an earlier one.
        rng = np.random.default_rng([seed, index, _CASE_STREAM, list(_TASKS).index(task)])
        drawn = _TASKS[task].draw_case(rng, case in hard)
        write_bytes(folder / "imagesTr" / f"{case}.nii.gz", _nifti(drawn.image, drawn.affine))
        write_bytes(folder / "labelsTr" / f"{case}.nii.gz", _nifti(drawn.label, drawn.affine))
    write_json(folder / "dataset.json", _dataset(task, cases))
    write_json(folder / _RECORD, record)


def _nifti(volume: NDArray[np.generic], affine: NDArray[np.float64]) -> bytes:
    """A ``.nii.gz`` file without the time that ``nibabel.save`` would write into it; two calls give the same bytes."""
    image = nib.Nifti1Image(volume, affine)
    image.header.set_xyzt_units("mm")
    image.set_qform(affine, code="scanner")
    image.set_sform(affine, code="scanner")
    return gzip.compress(image.to_bytes(), compresslevel=1, mtime=0)


def _dataset(task: str, cases: list[str]) -> dict[str, Any]:
    """The content of ``dataset.json``, field by field as the Decathlon writes it."""
    module = _TASKS[task]
    return {
        "name": f"Phantom {task.upper()}",
        "description": module.DESCRIPTION,
        "reference": "svgd_monai.data.phantom.make_phantom: drawn by a program, no patient",
        "licence": "Apache-2.0",
        "release": f"{GENERATOR_VERSION}.0",
        "tensorImageSize": "3D",
        "modality": {"0": module.MODALITY},
        "labels": {str(value): name for value, name in enumerate(module.LABELS)},
        "numTraining": len(cases),
        "numTest": 0,
        "training": [{"image": f"./imagesTr/{case}.nii.gz", "label": f"./labelsTr/{case}.nii.gz"} for case in cases],
        "test": [],
    }
