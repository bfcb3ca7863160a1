"""Keys of overlay files that no configuration knows: a misspelt one would be merged, and do nothing."""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from monai.bundle import ConfigParser
from monai.utils import ensure_tuple

from svgd_monai.errors import SettingsError
from svgd_monai.workflow.keys import KEYS
from svgd_monai.workflow.meeting import meeting

logger = logging.getLogger(__name__)

#: Likeness, of 1, from which a key that nobody knows is taken for a slip of the pen.
_ALIKE = 0.8


def check_overlays(
    files: str | Path | Sequence[str | Path] | Mapping[str, Any], stages: Mapping[str, Any] | None = None
) -> None:
    """Refuse keys that are misspelt, and warn of others that have no effect.

    A key is known that stands in a configuration beside the first file (for an overlay serves all of a bundle's), or
    that one of these, an overlay or a file of a stage refers to.

    Args:
        files: as ``--config_file`` takes them; all but the first are overlays.
        stages: files of the loop's stages, by stage.

    Raises:
        SettingsError: nobody knows a key that is like one that is known, or a key begins with a ``~``.
    """
    if isinstance(files, Mapping):  # of a program that gives the content itself
        return
    first, *overlays = map(Path, files.split(",") if isinstance(files, str) else ensure_tuple(files))
    given = [(path, key) for path in overlays for key in _keys(path)]
    for path, key in given:
        if key.startswith("~"):
            raise SettingsError(f"{path}: {key}: MONAI removes no keys; to leave a component out, set it to null.")
    sure = {*KEYS, *_keys(first)}
    unsure = [(path, key) for path, key in given if not key.startswith("_") and key not in sure]
    if not unsure:
        return
    own = sorted(path for suffix in ("yaml", "yml", "json") for path in first.parent.glob(f"*.{suffix}"))
    listed = stages.values() if isinstance(stages, Mapping) else ()  # what is none is refused when it is used
    further = [Path(name) for names in listed for name in ensure_tuple(names) if isinstance(name, str)]
    known = set(KEYS).union(*map(_keys, own))
    text = "\n".join(path.read_text("utf-8", "replace") for path in (*own, *overlays, *further) if path.is_file())
    for path, key in unsure:
        if key not in known and re.search(rf"[@%]{re.escape(key)}\b", text) is None:
            _tell(path, key, known)


def _tell(path: Path, key: str, known: Iterable[str]) -> None:
    if meant := difflib.get_close_matches(key, sorted(known), 1, _ALIKE):
        raise SettingsError(
            f"{path}: no configuration has the key {key}, and nothing refers to it; did you mean {meant[0]}?"
        )
    found = meeting()
    if found is None or found.rank == 0:
        logger.warning("%s: no configuration has the key %s, and nothing refers to it: it has no effect", path, key)


def _keys(path: Path) -> set[str]:
    """Top-level keys of a file; none of one that is no configuration, which MONAI has refused if it was asked for."""
    try:
        content = ConfigParser.load_config_file(str(path))
    except (OSError, AttributeError, TypeError, ValueError, yaml.YAMLError):  # other programs' files lie there too
        return set()
    return {re.split("#|::", str(key).removeprefix("+"))[0] for key in content} if isinstance(content, dict) else set()
