"""The cells of a study: a method with a seed is a run."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from svgd_monai.errors import SettingsError
from svgd_monai.workflow import KEYS, check_setting

#: What a study sets for each run.
OF_A_CELL = ("seed", "method", "output_dir", "cache_dir", "first_committees", "oracle")


@dataclass(frozen=True)
class Cell:
    """A run of a study.

    Attributes:
        method: what reports call it.
        seed: its seed.
        keys: the keys that set its method apart, ``method`` among them where the name does not follow from them.
        place: its folder within the study's.
    """

    method: str
    seed: int
    keys: Mapping[str, Any] = field(hash=False)
    place: Path

    @property
    def name(self) -> str:
        """What people call it."""
        return f"{self.method}, seed {self.seed}"


def study_cells(
    methods: Mapping[str, Mapping[str, Any] | None] | None,
    grid: Mapping[str, Sequence[Any]] | None,
    seeds: Sequence[int],
    common: Mapping[str, Any],
    known: frozenset[str],
) -> list[Cell]:
    """Every cell, seed by seed, so that a study that is stopped early has whole seeds to compare.

    Args:
        methods: name -> the keys that set it apart from the study's own.
        grid: key -> its values; every combination is a method, named ``committee/acquisition`` as reports do, with the
            values of further keys behind it.
        seeds: the seeds, each once.
        common: keys of all runs, for the names of the grid's methods.
        known: keys that a run's configurations know besides :data:`svgd_monai.workflow.KEYS`.

    Raises:
        SettingsError: there is no method, two have the same name, or one sets a key that is unknown or the study's own.
    """
    named = {str(name): dict(keys or {}) for name, keys in _mapping("methods", methods).items()}
    if len(named) < len(_mapping("methods", methods)):
        raise SettingsError(f"methods: two of {', '.join(map(repr, methods or ()))} are the same name.")
    for name, keys in named.items():
        named[name] = {**_checked(f"methods: {name}", keys, known), "method": name}
    for name, keys in _combinations(grid, common, known):
        if name in named:
            raise SettingsError(f"grid: {name} is a method of that name already.")
        named[name] = keys
    if not named:
        raise SettingsError("methods: the study has none, and its grid is empty.")
    places: dict[str, str] = {}
    for name in named:
        place = re.sub(r"[^\w.-]+", "_", name).strip("._") or "method"
        if place.lower() in (other.lower() for other in places.values()):
            raise SettingsError(f"methods: {name} would share its folder {place} with another method; rename it.")
        places[name] = place
    return [
        Cell(name, seed, keys, Path("runs") / places[name] / f"seed_{seed}")
        for seed in seeds
        for name, keys in named.items()
    ]


def _combinations(
    grid: Mapping[str, Sequence[Any]] | None, common: Mapping[str, Any], known: frozenset[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    grid = _mapping("grid", grid)
    for key, values in grid.items():
        if not isinstance(values, (list, tuple)) or not values:
            raise SettingsError(f"grid: {key} must be a list of values, not {values!r}.")
    for values in itertools.product(*grid.values()) if grid else ():
        written = dict(zip(grid, values, strict=True))
        keys = _checked("grid", written, known)
        parts = {"committee": "svgd", "acquisition": "entropy_mi", **common, **keys}
        name = f"{parts['committee']}/{parts['acquisition']}"
        rest = {key: written[key] for key in keys if key not in ("committee", "acquisition", "keep_labelled")}
        if rest and len(grid.get("keep_labelled", ())) > 1:
            rest["keep_labelled"] = written["keep_labelled"]
        if rest:  # the name no longer follows from the settings
            name = " ".join([name, *(f"{key}={value}" for key, value in rest.items())])
            keys["method"] = name
        if keys.get("keep_labelled") is False and not rest:
            name = f"{name}/delete"
        yield name, keys


def _mapping(key: str, value: Any) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise SettingsError(f"{key}: {value!r} is not a mapping.")
    return value


def _checked(where: str, keys: Mapping[str, Any], known: frozenset[str]) -> dict[str, Any]:
    checked = {}
    for key, value in keys.items():
        if key in OF_A_CELL:
            raise SettingsError(f"{where}: the study itself sets {key}; leave it out.")
        if key not in KEYS and key not in known:
            raise SettingsError(f"{where}: {key} is not a key of a run.")
        try:
            checked[key] = check_setting(key, value) if key in KEYS else value
        except SettingsError as error:
            raise SettingsError(f"{where}: {error}") from error
    return checked
