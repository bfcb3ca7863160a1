"""Every key that the package itself understands: its type, its range, the words that it takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from svgd_monai.acquisition import NORMALISE_NAMES, REDUCTION_NAMES, get_strategy
from svgd_monai.acquisition.cold_start import COLD_STARTS
from svgd_monai.acquisition.content import CONTENT_NAMES
from svgd_monai.acquisition.strategies import REDRAWS
from svgd_monai.committee.guard import ON_BAD_PARTICLE
from svgd_monai.committee.keeper import CHECKPOINTS
from svgd_monai.committee.posterior import COMMITTEES
from svgd_monai.committee.schedule import SCHEDULES
from svgd_monai.committee.trainer import MEMBER_BATCHES
from svgd_monai.data.bad_cases import ON_BAD_CASE
from svgd_monai.errors import SettingsError


@dataclass(frozen=True)
class Key:
    """What a key's value must be.

    Attributes:
        kind: ``int``, ``float``, ``bool``, ``str``, ``path`` (``~`` is the home folder), ``ints``, ``floats`` or
            ``names`` (lists; of names, ``a,b`` too).
        null: whether null is a value.
        low: least value of a number, or of each in a list.
        above: the number must be above this.
        below: the number must be below this.
        length: length of a list; a single number stands for a list of equal ones.
        choices: the words allowed.
        words: words that mean a value, e.g. ``flat`` for null.
        check: raises :class:`SettingsError` on a value it refuses.
    """

    kind: str
    null: bool = False
    low: float | None = None
    above: float | None = None
    below: float | None = None
    length: int | None = None
    choices: tuple[str, ...] | None = None
    words: Mapping[str, Any] | None = None
    check: Callable[[Any], object] | None = None


def _device(value: str) -> None:
    try:
        device = torch.device(value)
    except RuntimeError as error:
        raise SettingsError(f"device: {value!r} is not a device of torch, such as cpu or cuda:0.") from error
    if device.type not in ("cpu", "cuda"):
        raise SettingsError(f"device: {value} is neither a CPU nor CUDA, and nothing else is supported.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise SettingsError(f"device: {value} does not exist; CUDA devices found: {torch.cuda.device_count()}.")


def _annotator(name: str) -> None:
    """Annotators have folders of their names."""
    if not name.isprintable() or name.startswith((".", " ")) or any(letter in name for letter in "/\\:|,"):
        raise SettingsError(
            f"annotator: {name!r} cannot be the name of a folder, choose one without / \\ : | and commas."
        )


def _annotators(names: list[str]) -> None:
    for name in names:
        try:
            _annotator(name)
        except SettingsError as error:
            raise SettingsError(f"annotators{str(error).removeprefix('annotator')}") from error


def _seeds(seeds: list[int]) -> None:
    if len(set(seeds)) < len(seeds):
        raise SettingsError(f"seeds: {seeds} holds a seed twice.")


#: Every key that the package itself understands; a bundle's configuration names those it uses.
KEYS: dict[str, Key] = {
    "dataset_dir": Key("path"),
    "output_dir": Key("path"),
    "download": Key("bool"),
    "allow_outside": Key("bool"),
    "on_bad_case": Key("str", choices=ON_BAD_CASE),
    "seed": Key("int", low=0),
    "device": Key("str", check=_device),
    "num_particles": Key("int", low=1),
    "committee": Key("str", choices=COMMITTEES),
    "acquisition": Key("str", check=get_strategy),
    "candidates": Key("int", low=1),
    "mi_weight": Key("float", low=0),
    "mi_grid": Key("ints", null=True, low=2, length=3),
    "mi_content": Key("str", choices=CONTENT_NAMES),
    "mi_bins": Key("int", low=2),
    "mi_aggregation": Key("str", choices=("mean", "max")),
    "normalise": Key("str", choices=NORMALISE_NAMES),
    "normalise_over": Key("str", choices=("unlabelled", "all")),
    "uncertainty_reduction": Key("str", choices=REDUCTION_NAMES),
    "keep_labelled": Key("bool"),
    "redraws": Key("str", choices=REDRAWS),
    "shuffle_scores": Key("bool"),
    "on_bad_particle": Key("str", choices=ON_BAD_PARTICLE),
    "member_batches": Key("str", choices=MEMBER_BATCHES),
    "method": Key("str", null=True),
    "first_committees": Key("path", null=True),
    "warm_start": Key("bool"),
    "rounds": Key("int", low=0),
    "steps_per_round": Key("int", low=1),
    "validations_per_round": Key("int", low=1),
    "val_interval": Key("int", low=1),
    "queries_per_round": Key("int", low=1),
    "initial_labelled": Key("int", null=True, low=1, words={"all": None}),
    "validation_cases": Key("int", null=True, low=1),
    "test_cases": Key("int", null=True, low=1),
    "split_file": Key("path", null=True),
    "batch_size": Key("int", low=1),
    "learning_rate": Key("float", above=0),
    "learning_rate_schedule": Key("str", choices=tuple(SCHEDULES)),
    "likelihood_scale": Key("float", above=0),
    "prior_std": Key("float", null=True, above=0, words={"flat": None}),
    "repulsion": Key("float", low=0),
    "max_norm": Key("float", null=True, above=0),
    "features": Key("ints", low=1, length=6),
    "in_channels": Key("int", low=1),
    "num_classes": Key("int", low=2, below=257),
    "spacing": Key("floats", null=True, above=0, length=3),
    "roi_size": Key("ints", low=8, length=3),
    "pad_to": Key("ints", null=True, low=1, length=3),
    "overlap": Key("float", low=0, below=1),
    "augmentation": Key("str", choices=("none", "light")),
    "checkpoint": Key("str", choices=CHECKPOINTS),
    "committee_file": Key("path"),
    "datalist_file": Key("path", null=True),
    "stage_dir": Key("path"),
    "round": Key("int", low=0),
    "initial_committee": Key("path", null=True),
    "model_file": Key("path", null=True),
    "oracle": Key("str", choices=("dataset", "people")),
    "images": Key("path", null=True),
    "labels": Key("path", null=True),
    "validation": Key("path", null=True),
    "test": Key("path", null=True),
    "classes": Key("names", null=True),
    "annotators": Key("names", null=True, check=_annotators),
    "annotator": Key("str", null=True, check=_annotator),
    "double_annotated": Key("int", low=0),
    "min_new_labels": Key("int", null=True, low=1),
    "min_validation": Key("int", low=2),
    "cold_start": Key("str", choices=COLD_STARTS),
    "stop_gain": Key("float", low=0),
    "surface_distances": Key("bool"),
    "num_workers": Key("int", low=0),
    "deterministic": Key("bool"),
    "seeds": Key("ints", low=0, check=_seeds),
    "only": Key("names", null=True),
    "workers": Key("int", low=1),
    "threads": Key("int", null=True, low=1),
    "report": Key("bool"),
    "log_every": Key("int", low=1),
    "cache_dir": Key("path"),
}
