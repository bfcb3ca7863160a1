"""A bundle's acquisition stage as a server runs it: its configuration, and what the server's ``--conf`` changes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from monai.bundle import ConfigParser

from svgd_monai.errors import SettingsError
from svgd_monai.workflow import check_setting

#: Keys of a bundle's ``acquire.yaml`` that a server may set.
QUERY_KEYS = (
    "acquisition", "queries_per_round", "mi_weight", "mi_grid", "mi_content", "mi_bins", "mi_aggregation", "normalise",
    "normalise_over", "candidates", "uncertainty_reduction", "seed",
)  # fmt: skip


def query_settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """Values of :data:`QUERY_KEYS` in their types; other keys are passed over.

    Args:
        given: values, also as text.

    Raises:
        SettingsError: a value is of the wrong type or out of range.
    """
    return {name: check_setting(name, _value(name, value)) for name, value in given.items() if name in QUERY_KEYS}


def stage_parser(config_file: Path, folder: Path, settings: Mapping[str, Any], device: str | None) -> ConfigParser:
    """The stage's configuration.

    Args:
        config_file: the bundle's ``configs/acquire.yaml``.
        folder: where checks, preprocessed volumes and mutual information are kept.
        settings: of :func:`query_settings`.
        device: where to run; None: as the bundle says.

    Raises:
        SettingsError: there is no such device.
    """
    parser = ConfigParser()
    parser.read_config(str(config_file))
    parser["bundle_root"] = literal(config_file.parents[1])
    parser["cache_dir"] = literal(folder)
    for name, value in settings.items():
        parser[name] = value
    if device is not None:
        parser["device"] = check_setting("device", device)
    return parser


def literal(path: Path) -> str:
    """An expression for ``path``: in a plain text MONAI turns # into ::, and in an expression @ names a reference."""
    return "$" + repr(str(path)).replace("#", r"\x23").replace("@", r"\x40")


def _value(name: str, value: Any) -> Any:
    """A word of a command line as YAML reads it: ``[24,32,24]`` is a list."""
    try:
        return yaml.safe_load(value) if isinstance(value, str) else value
    except (yaml.YAMLError, ValueError) as error:  # the second, of a date that is none
        raise SettingsError(f"{name}: {value!r} cannot be read.") from error
