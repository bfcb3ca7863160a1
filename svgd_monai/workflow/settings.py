"""The keys of a configuration: their types and ranges, and how a word from the command line becomes a value.

``python -m monai.bundle run --keep_labelled false`` reaches a configuration as the string ``"false"``, which is true,
and a mistyped key is silently added. So every value is checked here, by name, before any work.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from svgd_monai.acquisition import get_strategy
from svgd_monai.acquisition.cold_start import COLD_STARTS
from svgd_monai.acquisition.strategies import REDRAWS
from svgd_monai.committee.keeper import CHECKPOINTS
from svgd_monai.committee.posterior import COMMITTEES
from svgd_monai.committee.trainer import MEMBER_BATCHES
from svgd_monai.errors import SettingsError

_NULL = ("null", "none")
_BOOLEANS = {"true": True, "false": False}


@dataclass(frozen=True)
class Key:
    """What a key's value must be.

    Attributes:
        kind: ``int``, ``float``, ``bool``, ``str``, ``ints``, ``floats`` or ``names`` (lists; of names, ``a,b`` too).
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
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise SettingsError(f"device: {value} is not there, {torch.cuda.device_count()} CUDA devices are.")


def _window(sides: list[int]) -> None:
    if max(sides) < 32:
        raise SettingsError(
            f"roi_size: {sides} is too small; the network halves it four times, and instance normalisation needs two "
            "voxels at the end: one side must be 32 or more."
        )


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
    "dataset_dir": Key("str"),
    "output_dir": Key("str"),
    "download": Key("bool"),
    "seed": Key("int", low=0),
    "device": Key("str", check=_device),
    "num_particles": Key("int", low=1),
    "committee": Key("str", choices=COMMITTEES),
    "acquisition": Key("str", check=get_strategy),
    "candidates": Key("int", low=1),
    "mi_weight": Key("float", low=0),
    "mi_grid": Key("ints", null=True, low=2, length=3),
    "mi_content": Key("str", choices=("volume", "foreground")),
    "mi_bins": Key("int", low=2),
    "mi_aggregation": Key("str", choices=("mean", "max")),
    "normalise": Key("str", choices=("minmax", "zscore", "rank")),
    "normalise_over": Key("str", choices=("unlabelled", "all")),
    "uncertainty_reduction": Key("str", choices=("mean", "sum", "foreground", "top")),
    "keep_labelled": Key("bool"),
    "redraws": Key("str", choices=REDRAWS),
    "shuffle_scores": Key("bool"),
    "member_batches": Key("str", choices=MEMBER_BATCHES),
    "method": Key("str", null=True),
    "first_committees": Key("str", null=True),
    "warm_start": Key("bool"),
    "rounds": Key("int", low=0),
    "steps_per_round": Key("int", low=1),
    "validations_per_round": Key("int", low=1),
    "queries_per_round": Key("int", low=1),
    "initial_labelled": Key("int", null=True, low=1, words={"all": None}),
    "validation_cases": Key("int", null=True, low=1),
    "test_cases": Key("int", null=True, low=1),
    "split_file": Key("str", null=True),
    "batch_size": Key("int", low=1),
    "learning_rate": Key("float", above=0),
    "likelihood_scale": Key("float", above=0),
    "prior_std": Key("float", null=True, above=0, words={"flat": None}),
    "repulsion": Key("float", low=0),
    "max_norm": Key("float", null=True, above=0),
    "features": Key("ints", low=1, length=6),
    "in_channels": Key("int", low=1),
    "num_classes": Key("int", low=2),
    "spacing": Key("floats", null=True, above=0, length=3),
    "roi_size": Key("ints", low=16, length=3, check=_window),
    "pad_to": Key("ints", null=True, low=1, length=3),
    "overlap": Key("float", low=0, below=1),
    "augmentation": Key("str", choices=("none", "light")),
    "checkpoint": Key("str", choices=CHECKPOINTS),
    "committee_file": Key("str"),
    "datalist_file": Key("str", null=True),
    "stage_dir": Key("str"),
    "round": Key("int", low=0),
    "initial_committee": Key("str", null=True),
    "model_file": Key("str", null=True),
    "oracle": Key("str", choices=("dataset", "people")),
    "images": Key("str", null=True),
    "labels": Key("str", null=True),
    "validation": Key("str", null=True),
    "test": Key("str", null=True),
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
    "seeds": Key("ints", low=0, check=_seeds),
    "only": Key("names", null=True),
    "workers": Key("int", low=1),
    "threads": Key("int", null=True, low=1),
    "report": Key("bool"),
    "log_every": Key("int", low=1),
    "cache_dir": Key("str"),
}


def check_setting(name: str, value: Any) -> Any:
    """The value of a known key, in its type.

    Args:
        name: a key of :data:`KEYS`.
        value: from a YAML file or the command line.

    Returns:
        The value as bool, int, float, str, list or None.

    Raises:
        SettingsError: it is of the wrong type or out of range; the sentence names the key and the value.
    """
    key = KEYS[name]
    word = value.strip().lower() if isinstance(value, str) else None
    if key.words is not None and word is not None and word in key.words:
        return key.words[word]
    if value is None or word in _NULL:
        if key.null:
            return None
        if key.choices is None or "none" not in key.choices:
            raise SettingsError(f"{name}: null is not a value of this key.")
        value = "none"  # of these choices, which the command line cannot tell from null
    if key.kind == "names":
        return _names(name, value, key)
    if key.kind in ("ints", "floats"):
        return _list(name, value, key)
    return _scalar(name, value, key, key.kind)


def check_like(name: str, value: Any, example: Any) -> Any:
    """A command-line value for a key that only the YAML knows: it must be of the type of the YAML's own value.

    Raises:
        SettingsError: it is not.
    """
    if isinstance(example, bool):
        return _boolean(name, value)
    if isinstance(example, (int, float)):
        return _number(name, value, Key("int" if isinstance(example, int) else "float"), type(example).__name__)
    if value is None or (isinstance(value, str) and value.strip().lower() in _NULL):
        return None
    if isinstance(example, (list, dict)) and not isinstance(value, (type(example), str)):
        kind = type(example).__name__
        raise SettingsError(f"{name}: {value!r} is not a {kind}, as the configuration's own value is.")
    return value


def _scalar(name: str, value: Any, key: Key, kind: str) -> Any:
    if kind == "bool":
        return _boolean(name, value)
    if kind in ("int", "float"):
        return _number(name, value, key, kind)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)  # a folder may be called 2024
    if not isinstance(value, str) or not value:
        raise SettingsError(f"{name}: {value!r} is not a text.")
    if key.choices is not None:
        lowered = value.strip().lower()
        if lowered not in key.choices:
            raise SettingsError(f"{name}: {value!r} is not one of {', '.join(key.choices)}.")
        return lowered
    if key.check is not None:
        key.check(value)
    return value


def _boolean(name: str, value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in _BOOLEANS:
        return _BOOLEANS[value.strip().lower()]
    raise SettingsError(f"{name}: {value!r} is neither true nor false.")


def _number(name: str, value: Any, key: Key, kind: str) -> int | float:
    try:
        if isinstance(value, bool):
            raise ValueError
        number = float(value)
        if not math.isfinite(number) or (kind == "int" and number != int(number)):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        wanted = "a whole number" if kind == "int" else "a finite number"
        raise SettingsError(f"{name}: {value!r} is not {wanted}.") from None
    if key.low is not None and number < key.low:
        raise SettingsError(f"{name}: {value} is below {key.low:g}.")
    if key.above is not None and number <= key.above:
        raise SettingsError(f"{name}: {value} is not above {key.above:g}.")
    if key.below is not None and number >= key.below:
        raise SettingsError(f"{name}: {value} is not below {key.below:g}.")
    if kind == "int":
        return value if isinstance(value, int) else int(number)  # a float cannot hold every whole number
    return number


def _names(name: str, value: Any, key: Key) -> list[str]:
    """Distinct names; one alone, or several in one text with commas between them, as a shell hands them on."""
    if isinstance(value, str):
        value = value.strip().removeprefix("[").removesuffix("]").split(",")
    if not isinstance(value, (list, tuple)):
        raise SettingsError(f"{name}: {value!r} is not a list of names.")
    items = [str(item).strip() if isinstance(item, (str, int)) else "" for item in value]
    if not all(items) or not items or len(set(items)) < len(items):
        raise SettingsError(f"{name}: {value!r} is not a list of names, each once.")
    if key.check is not None:
        key.check(items)
    return items


def _list(name: str, value: Any, key: Key) -> list[Any]:
    kind = key.kind.removesuffix("s")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = [value] * (key.length or 1)
    elif isinstance(value, str) and key.length is None:
        text = value.strip()
        value = (text[1:-1] if text.startswith("[") and text.endswith("]") else text).split(",")
    if not isinstance(value, (list, tuple)) or (key.length is not None and len(value) != key.length) or not value:
        raise SettingsError(f"{name}: {value!r} is not a list of {key.length or 'some'} numbers.")
    items = [_scalar(name, item, key, kind) for item in value]
    if key.check is not None:
        key.check(items)
    return items
