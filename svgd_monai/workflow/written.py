"""The top-level keys of a configuration file as they are written: of equal ones MONAI takes the last."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

import yaml

from svgd_monai.errors import SettingsError

#: Above this line of a file stand a bundle's own keys, below it what all bundles share.
MARKER = "# The wiring, the same in every bundle: change it in svgd_monai/workflow/wiring/, not here."


def levels(key: str) -> list[str]:
    """The names that lead to what a key sets: of ``+train#handlers`` they are ``train`` and ``handlers``."""
    return re.split("#|::", key.removeprefix("+"))


def yaml_keys(text: str) -> list[str]:
    """Top-level keys in their order, each as often as it stands there; none of a text that is no mapping.

    Raises:
        yaml.YAMLError: the text is not YAML.
    """
    node = yaml.compose(text, yaml.SafeLoader)
    return [str(key.value) for key, _ in node.value] if isinstance(node, yaml.MappingNode) else []


def refuse_lost(path: Path) -> None:
    """Refuse a file that sets a key and, below it, the same key anew.

    Args:
        path: a configuration file that MONAI has read.

    Raises:
        SettingsError: a top-level key stands there twice, or behind one that changes a part of it.
    """
    text = path.read_text("utf-8", "replace")
    if path.suffix.lower() == ".json":
        keys = [key for key, _ in json.loads(text, object_pairs_hook=list)]
    else:
        keys = yaml_keys(text)
    for lost in replaced(keys):
        if keys.count(lost) == 1:
            raise SettingsError(f"{path}: {part_of(lost)}.")
        remedy = "leave one of them out"
        if path.parent.name == "configs" and MARKER in text.splitlines():
            remedy = f"python -m svgd_monai.workflow.wire {path.parent.parent} takes it out of the wiring"
        raise SettingsError(f"{path} sets {lost} twice, and only the lower one would count; {remedy}.")


def replaced(keys: Iterable[str]) -> list[str]:
    """Keys of which nothing is left, since a later one of the same file sets all that they set."""
    found, seen = [], dict[str, list[str]]()
    for key in keys:
        earlier = seen.setdefault(levels(key)[0], [])
        found += [other for other in earlier if key in (levels(key)[0], other)]
        earlier.append(key)
    return found


def part_of(key: str) -> str:
    """Why a key that changes a part of another has no effect above that other."""
    return f"{key} has no effect above {levels(key)[0]}; set the whole of it, or the part in an overlay file"
