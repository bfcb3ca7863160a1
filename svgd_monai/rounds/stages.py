"""The stages of a round are the bundle's own configurations, evaluated with the loop's settings."""

from __future__ import annotations

import copy
import gc
import logging
import os
import pydoc
import re
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from monai.bundle import ConfigParser
from monai.utils import ensure_tuple

from svgd_monai.errors import SettingsError
from svgd_monai.files import reason
from svgd_monai.workflow import connect, enter, evaluate_steps, join, leave, note_parts, run_steps, track
from svgd_monai.workflow.overlays import check_overlays

logger = logging.getLogger(__name__)

#: What MONAI raises where a file is no mapping, or a key of it leads nowhere.
_NO_CONFIGURATION = (AttributeError, KeyError, TypeError, UserWarning, ValueError)


#: What each round sets in its stages (:mod:`svgd_monai.rounds.round`).
ROUND_KEYS = frozenset(
    {"round", "stage_dir", "datalist_file", "committee_file", "initial_committee", "model_file", "query"}
)
#: What MONAI evaluates of a configuration, in this order.
_SECTIONS = ("initialize", "run", "finalize")
#: What is for a whole process, whose own configuration has seen to it.
_OF_A_PROCESS = (join, enter, connect, leave)


def stage_files(stages: Mapping[str, str | Sequence[str]], folder: Path) -> dict[str, list[Path]]:
    """Where the files of each stage lie.

    Args:
        stages: by the stage's name a file, or several, as ``--config_file`` takes them: each changes what stands in
            those before it. A file lies in ``folder``, or is a path from the current folder.
        folder: of the bundle's configurations.

    Raises:
        SettingsError: a file is missing or no configuration, or changes what is not there.
    """
    if not isinstance(stages, Mapping) or not all(stages.values()):
        raise SettingsError(f"stages: {stages!r} must name a file, or several, for each stage.")
    found = {}
    for stage, names in stages.items():
        found[stage] = [_stage_file(stage, name, folder) for name in ensure_tuple(names)]
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("error", message="Can't merge entry")  # a + in front of what is not there
                ConfigParser.load_config_files([str(path) for path in found[stage]])
        except (OSError, UnicodeDecodeError, yaml.YAMLError, *_NO_CONFIGURATION) as error:
            listed = ", ".join(map(str, found[stage]))
            sentence = f"stages: {listed} cannot be read as the configuration of {stage} ({reason(error)})."
            raise SettingsError(sentence) from error
    return found


def _stage_file(stage: str, name: str, folder: Path) -> Path:
    for path in (folder / name, Path(name)):
        if path.is_file():
            return path
    raise SettingsError(f"stages: there is no {name} for {stage}, neither in {folder} nor in the current folder.")


class Stages:
    """Runs ``train.yaml`` and its like.

    Args:
        files: by the stage's name its configuration file, or several, each of which changes those before it.
        overrides: top-level keys that every stage gets: the loop's resolved settings, and the components that overlay
            files gave. A key set once on the loop holds in every stage.
        imports: import statements that overlay files gave, added to each stage's own.
        tracking: settings of an experiment tracking, see :func:`svgd_monai.workflow.track`; empty: none.
        folder: of the bundle's own files, ``train.yaml`` and its like.

    Raises:
        SettingsError: a file that changes a stage sets what the loop sets, or a key that is misspelt or has no effect.
    """

    def __init__(
        self,
        files: Mapping[str, str | os.PathLike[str] | Sequence[str | os.PathLike[str]]],
        overrides: Mapping[str, Any],
        imports: Sequence[str] = (),
        tracking: Mapping[str, Any] | None = None,
        folder: Path | None = None,
    ) -> None:
        self.folder = folder
        self.tracking = tracking or None
        self.imports = list(imports)
        self.files = {name: [Path(path) for path in ensure_tuple(paths)] for name, paths in files.items()}
        self.overrides = dict(overrides)
        for stage, paths in self.files.items():
            self._check_reach(stage, paths[1:])
            check_overlays(paths, folder=folder)

    def _check_reach(self, stage: str, further: Sequence[Path]) -> None:
        """A file that changes a stage is no place for what the loop sets in it: the loop's value would stand."""
        for path in further:
            keys = {str(key).lstrip("+~").partition("#")[0] for key in ConfigParser.load_config_file(str(path))}
            if lost := sorted(keys & (self.overrides.keys() | ROUND_KEYS)):
                raise SettingsError(
                    f"stages#{stage}: {path} sets {', '.join(lost)}, which the loop itself sets "
                    "in its stages; a key that the loop has is set on the command line or in an overlay of the loop."
                )

    def parser(self, stage: str, **keys: Any) -> ConfigParser:
        """The configuration of a stage with the loop's settings and ``keys``, parsed but not evaluated."""
        parser = ConfigParser()
        parser.read_config([str(path) for path in self.files[stage]])
        parser["imports"] = [*parser.get("imports", []), *self.imports]
        for key, value in {**self.overrides, **keys}.items():
            # A component is copied, for parsing changes it in place; a live object, such as a writer, is shared.
            parser[key] = copy.deepcopy(value) if isinstance(value, (dict, list)) else value
        note_parts(parser)
        track(parser, self.tracking, f"round_{parser.get('round', 0):03d}_{stage}")
        parser.parse()
        return parser

    def changes(self) -> dict[str, Any]:
        """What makes a stage another one than the bundle's, as it is written: ``stages#<stage>`` -> files' contents."""
        changed = {}
        for stage, files in self.files.items():
            own = self.folder is not None and files[0].resolve() == (self.folder / f"{stage}.yaml").resolve()
            # Without a folder nobody knows whose the first one is.
            if other := files[1:] if own or self.folder is None else files:
                changed[f"stages#{stage}"] = [ConfigParser.load_config_file(str(path)) for path in other]
        return changed

    def run(self, stage: str, **keys: Any) -> float:
        """Run a stage as MONAI would run its configuration by itself.

        Returns:
            The seconds it took.

        Raises:
            SettingsError: its files do not say what to run.
        """
        began = time.monotonic()
        # Engines and their handlers refer to one another, and a stage may hold gigabytes. What was there before, every
        # imported module, need not be looked through for that.
        gc.freeze()
        try:
            self._evaluate(stage, self.parser(stage, **keys))
            gc.collect()
        finally:
            gc.unfreeze()
        seconds = time.monotonic() - began
        logger.debug("%s took %.1f s", stage, seconds)
        return seconds

    def _evaluate(self, stage: str, parser: ConfigParser) -> None:
        """Evaluate what stands under ``initialize``, ``run`` and ``finalize``; without ``run``, the steps."""
        for section in _SECTIONS:
            content = parser.get(section)
            if content is None:
                if section == "run":
                    self._steps(stage, parser)
                continue
            several = isinstance(content, list)
            for name in [f"{section}::{index}" for index in range(len(content))] if several else [section]:
                component = _component(parser[name])
                if component is run_steps:
                    self._steps(stage, parser)
                elif component not in _OF_A_PROCESS:
                    parser.get_parsed_content(name)
                    parser.ref_resolver.remove_resolved_content(name)

    def _steps(self, stage: str, parser: ConfigParser) -> None:
        if not isinstance(parser.get("steps"), list):
            listed = ", ".join(map(str, self.files[stage]))
            raise SettingsError(f"stages#{stage}: {listed} must say under run, or in a list under steps, what to run.")
        evaluate_steps(parser)


def _component(config: Any) -> Any:
    """What the ``_target_`` of a configuration names, or an expression that is its bare call; None of anything else."""
    target = config.get("_target_") if isinstance(config, dict) else None
    if isinstance(config, str) and (call := re.fullmatch(r"\$\s*([\w.]+)\(\s*\)", config.strip())):
        target = call[1]
    return pydoc.locate(target) if isinstance(target, str) else None
