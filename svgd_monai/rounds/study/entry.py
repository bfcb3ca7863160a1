"""From the configuration of a study to its runs."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from svgd_monai.errors import SettingsError
from svgd_monai.rounds.stages import stage_files
from svgd_monai.rounds.study.cells import OF_A_CELL, study_cells
from svgd_monai.rounds.study.runner import Study
from svgd_monai.workflow import KEYS, MACHINERY, calling_workflow

#: Keys of ``study.yaml`` that are the study's own.
_STUDY = ("study", "methods", "grid", "bundle_root")
STUDY_KEYS = ("seeds", "workers", "threads", "only", "report")


def study(configuration: str) -> Study:
    """The study of the configuration that calls this.

    ``methods`` and ``grid`` say what is compared, see :func:`~svgd_monai.rounds.study.cells.study_cells`. All other
    top-level keys that a run knows, and components that overlay files have added, hold for every run.

    Args:
        configuration: file name of the runs' configuration, beside the calling one.

    Raises:
        SettingsError: what the methods or ``only`` say makes no sense.
    """
    workflow = calling_workflow().workflow
    parser = workflow.parser
    file = Path(workflow.config_root_path) / configuration
    base = ConfigParser.load_config_file(str(file))
    common: dict[str, Any] = {}
    for key, value in parser.config.items():
        if key in ("output_dir", "imports") or key in (*MACHINERY, *_STUDY, *STUDY_KEYS):
            continue
        if key in OF_A_CELL:
            raise SettingsError(f"{key}: the study itself sets this key; leave it out.")
        if key == "stages" and value == base[key]:  # overlays of runs that are done lack them
            continue
        common[key] = parser.get_parsed_content(key) if key in KEYS else copy.deepcopy(value)
    if "imports" in parser:
        common["imports"] = list(parser["imports"])
    # As they are written: a component in them is resolved in the runs, not here.
    methods, grid = (copy.deepcopy(parser.config.get(key)) for key in ("methods", "grid"))
    seeds = parser.get_parsed_content("seeds")
    cells = study_cells(methods, grid, seeds, {**base, **common}, _known_keys(base, file.parent) | common.keys())
    only = parser.get_parsed_content("only")
    if only is not None:
        unknown = sorted(set(only) - {cell.method for cell in cells})
        if unknown:
            names = ", ".join(dict.fromkeys(cell.method for cell in cells))
            raise SettingsError(f"only: {unknown[0]!r} is not a method of this study, which has {names}.")
    return Study(
        folder=parser.get_parsed_content("output_dir"),
        configuration=file,
        common={"rounds": base["rounds"], **common},
        cells=cells,
        only=only,
        workers=parser.get_parsed_content("workers"),
        threads=parser.get_parsed_content("threads"),
        report=parser.get_parsed_content("report"),
    )


def _known_keys(configuration: Mapping[str, Any], folder: Path) -> frozenset[str]:
    """Top-level keys of a run's configuration and of those, in its folder, that it runs in its rounds."""
    files = [file for stage in stage_files(configuration.get("stages", {}), folder).values() for file in stage]
    return frozenset(configuration).union(*(ConfigParser.load_config_file(str(file)) for file in files))
