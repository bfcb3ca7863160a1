"""Experiment tracking, ``--tracking mlflow``: MONAI's own, also through the loop.

MONAI patches the configuration that it runs: a handler behind those of trainer, validator and evaluator, and the keys
of :func:`tracking_keys`. The loop's configuration has no engine, so the loop patches each stage's in turn, and every
stage of a round becomes a run of its own, named after the round.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from monai.bundle import ConfigParser, ConfigWorkflow
from monai.bundle.utils import DEFAULT_EXP_MGMT_SETTINGS

from svgd_monai.errors import SettingsError

Tracking = str | Mapping[str, Any] | None
_EXECUTED = "save_execute_config"  # the key under which MONAI notes the file of the executed configuration


def tracking_settings(tracking: Tracking) -> dict[str, Any]:
    """MONAI's settings of a tracking, empty without one.

    Args:
        tracking: what the user gave: ``mlflow``, the file of such settings, or the settings themselves.
    """
    if tracking is None:
        return {}
    known = isinstance(tracking, str) and tracking in DEFAULT_EXP_MGMT_SETTINGS
    found = DEFAULT_EXP_MGMT_SETTINGS[str(tracking)] if known else ConfigParser.load_config_files(tracking)
    return copy.deepcopy(dict(found))


def tracking_keys(tracking: Tracking) -> set[str]:
    """The top-level keys that MONAI adds to a tracked configuration, and that the command line may set."""
    settings = tracking_settings(tracking)
    return set(settings.get("configs", {})) - set(settings.get("handlers_id", {}))


def tracking_of(parser: ConfigParser, tracking: Tracking) -> dict[str, Any]:
    """The settings of a tracking with the values that the user gave its keys, empty without one.

    Args:
        parser: the configuration that MONAI has patched.
        tracking: as the user gave it.
    """
    settings = tracking_settings(tracking)
    for key in tracking_keys(tracking) - {_EXECUTED}:
        settings["configs"][key] = copy.deepcopy(parser[key])
    return settings


def track(parser: ConfigParser, tracking: Tracking, run_name: str) -> None:
    """Patch a stage's configuration as ``monai.bundle run --tracking`` patches the one that it runs.

    Args:
        parser: the stage's configuration, not yet evaluated.
        tracking: as the user gave it; None does nothing.
        run_name: of the stage's run; a ``run_name`` of the user's stands before it.
    """
    settings = tracking_settings(tracking)
    if not settings:
        return
    prefix = settings["configs"].get("run_name")
    parser["run_name"] = run_name if prefix is None else f"{prefix}_{run_name}"
    parser[_EXECUTED] = False  # run.json and the round's files say what was run
    ConfigWorkflow.patch_bundle_tracking(parser=parser, settings=settings)


def check_tracking(parser: ConfigParser, tracking: Tracking) -> None:
    """Refuse a tracking whose package is missing, before any work; mend MONAI's path of the executed configuration.

    Args:
        parser: a configuration that MONAI may have patched.
        tracking: as the user gave it.

    Raises:
        SettingsError: MLflow is wanted and not installed.
    """
    settings = tracking_settings(tracking)
    if "MLFlowHandler" in repr(settings) and find_spec("mlflow") is None:
        raise SettingsError("tracking: mlflow is not installed; `pip install mlflow` brings it.")
    # MONAI appends an expression to output_dir, which on the command line is no expression but a plain path.
    executed = parser.get(_EXECUTED)
    if isinstance(executed, str) and not executed.startswith("$") and executed.endswith("'"):
        parser[_EXECUTED] = executed.replace(" + '", "").removesuffix("'")
