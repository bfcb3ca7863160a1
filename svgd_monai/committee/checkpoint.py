"""Committee files: tensors and plain values only, so that ``torch.load(..., weights_only=True)`` reads them.

Two forms. A run's ``committee.pt`` holds the matrix of particles and its layout; a bundle's ``models/model.pt`` is the
state dictionary of :class:`~svgd_monai.committee.mean.CommitteeMean`, which every MONAI tool understands.
:func:`load_committee` reads both into both.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from svgd_monai.committee.mean import CommitteeMean
from svgd_monai.committee.particles import Particles
from svgd_monai.errors import CheckpointError, RunFolderError, SettingsError
from svgd_monai.files import read_torch, write_torch

FORMAT = 1
_PREFIX = "networks."
_NAME = re.compile(r"networks\.\d+\..+")


def save_committee(
    path: str | os.PathLike[str],
    particles: Particles,
    values: Tensor | None = None,
    preprocessing: Mapping[str, Any] | None = None,
) -> Path:
    """Write a ``committee.pt`` atomically.

    Args:
        path: the file.
        particles: gives the layout, and the values where none are given.
        values: (M, D), e.g. those of the best validation.
        preprocessing: plain values, such as the spacing, that whoever uses the committee must share.
    """
    # A clone, for torch would write all the memory that a view is part of.
    chosen = particles.values if values is None else values
    matrix = chosen.detach().cpu().clone(memory_format=torch.contiguous_format)
    layout = [[name, list(shape)] for name, shape in particles.layout]
    return write_torch(
        path, {"format": FORMAT, "values": matrix, "layout": layout, "preprocessing": dict(preprocessing or {})}
    )


def load_committee(
    path: str | os.PathLike[str],
    committee: nn.Module,
    preprocessing: Mapping[str, Any] | None = None,
    key: str = "committee_file",
) -> None:
    """Fill a committee from a committee file of either form.

    Args:
        path: a ``committee.pt`` or a ``model.pt``.
        committee: ``Particles`` or ``CommitteeMean`` of the same architecture and number of members.
        preprocessing: what the volumes go through here; compared with what a ``committee.pt`` was trained on.
        key: of the configuration that names the file.

    Raises:
        CheckpointError: the committee was trained on other preprocessing, or the file is missing, damaged, of another
            architecture or number of particles, or not finite.
    """
    content = _read(path, key)
    state = _state_dict(content, path)
    _same_preprocessing(content.get("preprocessing"), preprocessing, path)
    if isinstance(committee, Particles):
        with torch.no_grad():
            committee.values.copy_(_matrix(state, committee, path))
    elif isinstance(committee, CommitteeMean):
        count = len({name.split(".")[1] for name in state})
        _same_count(count, len(committee.networks), path)
        # Each parameter once: a network such as DynUNet has a second name for some in its state dictionary.
        own = {name: tuple(value.shape) for name, value in committee.named_parameters()}
        again = committee.state_dict().keys() - own.keys()
        _same_layout([(n, tuple(v.shape)) for n, v in state.items() if n not in again], list(own.items()), path)
        committee.load_state_dict(state, strict=False)
    else:
        raise TypeError(f"a committee is Particles or CommitteeMean, got {type(committee).__name__}.")


def convert_committee(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> Path:
    """Turn a run's ``committee.pt`` into a bundle's ``models/model.pt``.

    Raises:
        CheckpointError: as in :func:`load_committee`.
    """
    return write_torch(target, _state_dict(_read(source), source))


def check_model_file(file: str | os.PathLike[str]) -> None:
    """Whether the folder of a file can be written to: before a training of hours, not behind it.

    Raises:
        SettingsError: it cannot.
    """
    folder = next(parent for parent in Path(file).absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise SettingsError(f"model_file: {folder} cannot be written to; name another file, or say --model_file none.")


def _read(path: str | os.PathLike[str], key: str = "committee_file") -> Any:
    if not Path(path).is_file():
        raise CheckpointError(f"{key}: {path} does not exist; train a committee first.")
    try:
        return read_torch(path)
    except RunFolderError as error:
        raise CheckpointError(f"{path} is not a committee file or is damaged.") from error


def _state_dict(content: Any, path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Either form as ``networks.<member>.<parameter>`` -> tensor."""
    if not isinstance(content, dict) or not content:
        raise CheckpointError(f"{path} is not a committee file.")
    if "values" in content and "layout" in content:
        if content.get("format") != FORMAT:
            raise CheckpointError(f"{path} has the format {content.get('format')}, this version reads {FORMAT}.")
        state = _unflatten(content["values"], content["layout"], path)
    else:
        state = content
    if not all(isinstance(name, str) and _NAME.fullmatch(name) and torch.is_tensor(v) for name, v in state.items()):
        raise CheckpointError(f"{path} is not a committee file.")
    broken = [name for name, value in state.items() if not bool(torch.isfinite(value).all())]
    if broken:
        raise CheckpointError(f"{path} holds values that are not finite ({broken[0]}).")
    return state


def _unflatten(values: Any, layout: Any, path: str | os.PathLike[str]) -> dict[str, Tensor]:
    try:
        sizes = [int(torch.Size(shape).numel()) for _, shape in layout]
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is not a committee file.") from error
    if not torch.is_tensor(values) or values.ndim != 2 or values.shape[1] != sum(sizes):
        raise CheckpointError(f"{path} is damaged: its particles do not fit the layout that it states.")
    return {
        f"{_PREFIX}{member}.{name}": piece.reshape(shape).clone()
        for member, row in enumerate(values)
        for (name, shape), piece in zip(layout, row.split(sizes), strict=True)
    }


def _matrix(state: dict[str, Tensor], particles: Particles, path: str | os.PathLike[str]) -> Tensor:
    members = sorted({int(name.split(".")[1]) for name in state})
    _same_count(len(members), particles.num_particles, path)
    rows = []
    for member in members:
        prefix = f"{_PREFIX}{member}."
        found = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        _same_layout([(n, tuple(v.shape)) for n, v in found.items()], particles.layout, path)
        rows.append(torch.cat([found[name].reshape(-1) for name, _ in particles.layout]))
    return torch.stack(rows)


def _same_preprocessing(found: Any, expected: Mapping[str, Any] | None, path: str | os.PathLike[str]) -> None:
    """Weights do not tell what they were trained on, and a committee on another grid predicts nothing in silence."""
    trained = found if isinstance(found, dict) else {}
    for key, value in (expected or {}).items():
        if key in trained and trained[key] != value:
            raise CheckpointError(f"{key}: {path} was trained with {trained[key]!r}, the configuration says {value!r}.")


def _same_count(found: int, expected: int, path: str | os.PathLike[str]) -> None:
    if found != expected:
        raise CheckpointError(f"num_particles: {path} holds {found} particles, the configuration says {expected}.")


def _same_layout(found: list[Any], expected: list[Any], path: str | os.PathLike[str]) -> None:
    if dict(found) != dict(expected):
        differing = sorted(str(name) for name in dict(set(found) ^ set(expected)))
        raise CheckpointError(
            f"{path} holds another network than the configuration builds: {len(differing)} parameters differ, "
            f"{differing[0]} among them; check features, the data set's classes and the overlay."
        )
