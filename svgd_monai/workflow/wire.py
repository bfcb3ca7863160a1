"""Copy the wiring that all bundles share into the configurations of a bundle.

MONAI's tools read each configuration of a bundle as one self-contained file: ``verify_net_in_out``, ``ckpt_export`` and
MONAI Label accept no other, and a ``%`` macro is looked up from the current folder. So each file of a bundle begins
with the bundle's own keys, which differ from task to task, and ends, below a marker line, with the shared wiring, less
the keys that stand above the line. Its source is the folder ``svgd_monai/workflow/wiring``: change it there and run
this command; never edit the copies. What they held that the package does not know is shown when it is replaced.
"""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from svgd_monai.errors import SettingsError, SvgdMonaiError
from svgd_monai.files import reason, write_text
from svgd_monai.workflow.written import MARKER, levels, part_of, replaced, yaml_keys

STAGES = ("active_learning", "train", "evaluate", "acquire", "inference", "study")


def wiring(stage: str, own: Collection[str] = ()) -> str:
    """The shared part of a stage's configuration.

    Args:
        stage: one of :data:`STAGES`.
        own: top-level keys that the bundle sets itself, to be left out.
    """
    text = files("svgd_monai.workflow").joinpath("wiring", f"{stage}.yaml").read_text(encoding="utf-8")
    return "".join(block for key, block in _blocks(text) if key not in own) if own else text


@dataclass(frozen=True)
class Stale:
    """A file whose wiring is not the package's.

    Attributes:
        path: it.
        found: its content.
        wanted: what it should be.
        lost: top-level keys below its line that the package does not have, or has otherwise.
    """

    path: Path
    found: str
    wanted: str
    lost: list[str]

    def __str__(self) -> str:
        return f"{self.path} ({', '.join(self.lost)})" if self.lost else str(self.path)

    def difference(self) -> str:
        """Lines that go and that come."""
        lines = difflib.unified_diff(self.found.splitlines(), self.wanted.splitlines(), "before", "now", lineterm="")
        return "\n".join(lines)


def stale_files(bundle: str | os.PathLike[str]) -> list[Stale]:
    """The configurations of a bundle that are not up to date.

    Raises:
        SettingsError: see :func:`wire`.
    """
    found = []
    for stage in STAGES:
        path = Path(bundle) / "configs" / f"{stage}.yaml"
        if stage == "study" and not path.exists():  # a bundle may do without
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"{path} cannot be read ({reason(error)}).") from error
        head, line, rest = text.partition(MARKER)
        head = head.rstrip()
        own = _own_keys(path, head)
        if not line and (twice := [key for key in own if key in yaml_keys(wiring(stage))]):
            raise SettingsError(
                f"{path} sets {twice[0]}, which the wiring sets too, and has no line {MARKER!r} below the bundle's own "
                "keys; put it there."
            )
        wanted = f"{head}\n\n{MARKER}\n{wiring(stage, own)}"
        if text != wanted:
            known = yaml.safe_load(wiring(stage))
            lost = [key for key, block in _blocks(rest) if key and _differs(block, known)]
            found.append(Stale(path, text, wanted, lost))
    return found


def _differs(block: str, known: Mapping[str, Any]) -> bool:
    """Whether a key's value is not the package's; its comments may be."""
    try:
        content = yaml.safe_load(block)
    except yaml.YAMLError:  # such as a reference to an anchor
        return True
    return not (isinstance(content, dict) and content.items() <= known.items())


def wire(bundle: str | os.PathLike[str], check: bool = False) -> list[Path]:
    """Bring a bundle's configurations up to the package's wiring.

    Args:
        bundle: its folder; each stage's file in ``configs/`` begins with the bundle's own keys. What stands behind the
            marker is replaced by the wiring without those.
        check: write nothing.

    Returns:
        The files that were not up to date.

    Raises:
        SettingsError: a file is missing or cannot be read, or a key above its marker would have no effect. Nothing is
            written.
        OSError: a file cannot be written.
    """
    stale = stale_files(bundle)
    if not check:
        for file in stale:
            write_text(file.path, file.wanted)
    return [file.path for file in stale]


def _own_keys(path: Path, head: str) -> list[str]:
    try:
        keys = yaml_keys(head)
    except yaml.YAMLError as error:
        raise SettingsError(f"{path} is not YAML ({reason(error)}).") from error
    if twice := [key for key in keys if keys.count(key) > 1]:
        raise SettingsError(f"{path} sets {twice[0]} twice above the line of the wiring; leave one of them out.")
    whole = [key for key in keys if levels(key) == [key]]
    if parts := [key for key in keys if key in replaced(keys) or levels(key)[0] not in whole]:
        raise SettingsError(f"{path}: {part_of(parts[0])}.")
    return whole


def _blocks(text: str) -> list[tuple[str | None, str]]:
    """A wiring in pieces: top-level keys with their values, and, without a key, blank lines and comments in between."""
    found: list[tuple[str | None, str]] = [(None, "")]
    between = ""
    for line in text.splitlines(keepends=True):
        if not line.strip() or line.startswith("#"):
            between += line
            continue
        if line[0] in " -":  # the value goes on
            key, block = found.pop()
            found.append((key, f"{block}{between}{line}"))
        else:
            found += [(None, between), (line.partition(":")[0].strip("\"' "), line)]
        between = ""
    return [*found, (None, between)]


def main(arguments: list[str] | None = None) -> None:
    """Write, and show what is replaced; or check, with exit status 1 where a file is stale."""
    parser = argparse.ArgumentParser(prog="python -m svgd_monai.workflow.wire", description=__doc__)
    parser.add_argument("bundle", nargs="+", help="folder of a bundle, e.g. bundles/hippocampus_mri_svgd")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is not up to date")
    chosen = parser.parse_args(arguments)
    try:
        stale = [file for bundle in chosen.bundle for file in stale_files(bundle)]
        for file in [] if chosen.check else stale:
            write_text(file.path, file.wanted)
            if file.lost:
                keys = ", ".join(file.lost)
                told = f"{file.path}: replaced below the line: {keys}. Put what is your own above it."
                sys.stdout.write(f"{told}\n{file.difference()}\n")
    except SvgdMonaiError as error:
        raise SystemExit(str(error)) from error
    except OSError as error:
        raise SystemExit(f"{error.filename}: {error.strerror}.") from error
    if chosen.check and stale:
        raise SystemExit(f"Not up to date: {', '.join(map(str, stale))}.")


if __name__ == "__main__":
    main()
