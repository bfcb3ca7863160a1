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
from svgd_monai.workflow.written import levels, refuse_lost

logger = logging.getLogger(__name__)

#: Likeness, of 1, from which a key that nobody knows is taken for a slip of the pen.
_ALIKE = 0.8


def check_overlays(
    files: str | Path | Sequence[str | Path] | Mapping[str, Any],
    stages: Mapping[str, Any] | None = None,
    folder: Path | None = None,
) -> None:
    """Refuse keys that are misspelt or set twice, and warn of others that have no effect.

    A key is known that stands in a configuration of the bundle (for an overlay serves them all), or that one of these,
    an overlay or a file of a stage refers to. So is an entry of a mapping whose entries are referred to one by one,
    such as ``train#inferer``.

    Args:
        files: as ``--config_file`` takes them; all but the first are overlays.
        stages: files of the loop's stages, by stage.
        folder: of the bundle's configurations; None: the first file's.

    Raises:
        SettingsError: nobody knows a key that is like one that is known, a file sets a key twice, or a key begins with
            a ``~``.
    """
    if isinstance(files, Mapping):  # of a program that gives the content itself
        return
    several = isinstance(files, str) and not Path(files).is_file()
    first, *overlays = map(Path, str(files).split(",") if several else ensure_tuple(files))
    for path in (first, *overlays):
        refuse_lost(path)
    given = [(path, levels(key)) for path in overlays for key in _content(path)]
    for path, names in given:
        if names[0].startswith("~"):
            raise SettingsError(f"{path}: {names[0]}: MONAI removes no keys; to leave a component out, set it to null.")
    sure = {*KEYS, *_known([first])}
    unsure = [(path, names) for path, names in given if not names[0].startswith("_") and not {*_ways(names)} <= sure]
    if not unsure:
        return
    folder = first.parent if folder is None else folder
    own = sorted(path for suffix in ("yaml", "yml", "json") for path in folder.glob(f"*.{suffix}"))
    listed = stages.values() if isinstance(stages, Mapping) else ()  # what is none is refused when it is used
    further = [Path(name) for names in listed for name in ensure_tuple(names) if isinstance(name, str)]
    known = sure | _known(own)
    files_read = dict.fromkeys((first, *own, *overlays, *further))
    text = "\n".join(path.read_text("utf-8", "replace") for path in files_read if path.is_file())
    for path, names in unsure:
        for key in _ways(names):
            if key not in known and not _is_referred_to(key, text):
                _tell(path, key, known)
                break
            if not _has_entries(key, text):
                break


def _ways(names: Sequence[str]) -> list[str]:
    """A top-level key and its entry that a key leads to; what lies deeper is a component's."""
    return ["#".join(names[:depth]) for depth in (1, 2)[: len(names)]]


def _is_referred_to(key: str, text: str) -> bool:
    *above, name = key.split("#")
    way = r"[\w#:]*(#|::)" if above else ""  # relative references begin with a #
    return re.search(rf"[@%]{way}{re.escape(name)}\b", text) is not None


def _has_entries(key: str, text: str) -> bool:
    """Whether nothing refers to the whole of a top-level key, but something to a part of it."""
    parts, whole = (rf"[@%]{re.escape(key)}{end}" for end in ("(#|::)", r"(?![\w#:])"))
    return re.search(parts, text) is not None and re.search(whole, text) is None


def _tell(path: Path, key: str, known: Iterable[str]) -> None:
    *above, name = key.split("#")
    beside = {other.split("#")[-1] for other in known if other.split("#")[:-1] == above}
    if meant := difflib.get_close_matches(name, sorted(beside), 1, _ALIKE):
        raise SettingsError(
            f"{path}: no configuration has the key {key}, and nothing refers to it; did you mean "
            f"{'#'.join([*above, meant[0]])}?"
        )
    found = meeting()
    if found is None or found.rank == 0:
        logger.warning("%s: no configuration has the key %s, and nothing refers to it: it has no effect", path, key)


def _known(paths: Iterable[Path]) -> set[str]:
    """Top-level keys of files, and the entries of those that are mappings and no components."""
    known = set()
    for path in paths:
        for key, value in _content(path).items():
            known.update(_ways(levels(key)))
            if isinstance(value, dict) and "_target_" not in value:
                known.update(f"{levels(key)[0]}#{entry}" for entry in value)
    return known


def _content(path: Path) -> dict[str, Any]:
    """Of a file; empty for one that is no configuration, which MONAI has refused if it was asked for."""
    try:
        content = ConfigParser.load_config_file(str(path))
    except (OSError, AttributeError, TypeError, ValueError, yaml.YAMLError):  # other programs' files lie there too
        return {}
    return {str(key): value for key, value in content.items()} if isinstance(content, dict) else {}
