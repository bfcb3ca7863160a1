"""The stages of a round are the bundle's own configurations, evaluated with the loop's settings."""

from __future__ import annotations

import copy
import gc
import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from svgd_monai.workflow import evaluate_steps, track

logger = logging.getLogger(__name__)


class Stages:
    """Runs ``train.yaml`` and its like.

    Args:
        files: configuration file of each stage, by the stage's name.
        overrides: top-level keys that every stage gets: the loop's resolved settings, and the components that overlay
            files gave. A key set once on the loop holds in every stage.
        imports: import statements that overlay files gave, added to each stage's own.
        tracking: settings of an experiment tracking, see :func:`svgd_monai.workflow.track`; empty: none.
    """

    def __init__(
        self,
        files: Mapping[str, str | os.PathLike[str]],
        overrides: Mapping[str, Any],
        imports: Sequence[str] = (),
        tracking: Mapping[str, Any] | None = None,
    ) -> None:
        self.tracking = tracking or None
        self.imports = list(imports)
        self.files = {name: Path(path) for name, path in files.items()}
        self.overrides = dict(overrides)

    def parser(self, stage: str, **keys: Any) -> ConfigParser:
        """The configuration of a stage with the loop's settings and ``keys``, parsed but not evaluated."""
        parser = ConfigParser()
        parser.read_config(self.files[stage])
        parser["imports"] = [*parser.get("imports", []), *self.imports]
        for key, value in {**self.overrides, **keys}.items():
            # A component is copied, for parsing changes it in place; a live object, such as a writer, is shared.
            parser[key] = copy.deepcopy(value) if isinstance(value, (dict, list)) else value
        track(parser, self.tracking, f"round_{parser.get('round', 0):03d}_{stage}")
        parser.parse()
        return parser

    def run(self, stage: str, **keys: Any) -> float:
        """Run a stage.

        Returns:
            The seconds it took.
        """
        began = time.monotonic()
        # Engines and their handlers refer to one another, and a stage may hold gigabytes. What was there before, every
        # imported module, need not be looked through for that.
        gc.freeze()
        try:
            evaluate_steps(self.parser(stage, **keys))
            gc.collect()
        finally:
            gc.unfreeze()
        seconds = time.monotonic() - began
        logger.debug("%s took %.1f s", stage, seconds)
        return seconds
