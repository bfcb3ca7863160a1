"""Copy the wiring that all bundles share into the configurations of a bundle.

MONAI's tools read each configuration of a bundle as one self-contained file: ``verify_net_in_out``, ``ckpt_export`` and
MONAI Label accept no other, and a ``%`` macro is looked up from the current folder. So each file of a bundle begins
with the bundle's own keys, which differ from task to task, and ends, below a marker line, with the shared wiring. Its
source is the folder ``svgd_monai/workflow/wiring``: change it there and run this command; never edit the copies.
"""

from __future__ import annotations

import argparse
import os
from importlib.resources import files
from pathlib import Path

import yaml

from svgd_monai.errors import SettingsError, SvgdMonaiError
from svgd_monai.files import reason, write_text

MARKER = "# The wiring, the same in every bundle: change it in svgd_monai/workflow/wiring/, not here."
STAGES = ("active_learning", "train", "evaluate", "acquire", "inference", "study")


def wiring(stage: str) -> str:
    """The shared part of a stage's configuration.

    Args:
        stage: one of :data:`STAGES`.
    """
    return files("svgd_monai.workflow").joinpath("wiring", f"{stage}.yaml").read_text(encoding="utf-8")


def wire(bundle: str | os.PathLike[str], check: bool = False) -> list[Path]:
    """Bring a bundle's configurations up to the package's wiring.

    Args:
        bundle: its folder; each stage's file in ``configs/`` begins with the bundle's own keys. What stands behind the
            marker is replaced.
        check: write nothing.

    Returns:
        The files that were not up to date.

    Raises:
        SettingsError: a file is missing or cannot be read, or sets a key that the wiring sets too.
        OSError: a file cannot be written.
    """
    stale = []
    for stage in STAGES:
        path = Path(bundle) / "configs" / f"{stage}.yaml"
        if stage == "study" and not path.exists():  # a bundle may do without
            continue
        try:
            found = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"{path} cannot be read ({reason(error)}).") from error
        own = found.partition(MARKER)[0].rstrip()
        _refuse_twice(path, own, stage)
        wanted = f"{own}\n\n{MARKER}\n{wiring(stage)}"
        if found != wanted:
            stale.append(path)
            if not check:
                write_text(path, wanted)
    return stale


def _refuse_twice(path: Path, own: str, stage: str) -> None:
    """YAML takes the last of two equal keys without a word: the bundle's own would be lost."""
    try:
        keys = yaml.safe_load(own) or {}
    except yaml.YAMLError as error:
        raise SettingsError(f"{path} is not YAML ({reason(error)}).") from error
    wired = yaml.safe_load(wiring(stage))
    for key in keys:
        if key in wired:
            raise SettingsError(f"{path} sets {key}, which the wiring sets too; an overlay file may replace it.")


def main(arguments: list[str] | None = None) -> None:
    """Write, or check; exit status 1 where a check finds a stale file."""
    parser = argparse.ArgumentParser(prog="python -m svgd_monai.workflow.wire", description=__doc__)
    parser.add_argument("bundle", nargs="+", help="folder of a bundle, e.g. bundles/hippocampus_mri_svgd")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is not up to date")
    chosen = parser.parse_args(arguments)
    try:
        stale = [path for bundle in chosen.bundle for path in wire(bundle, chosen.check)]
    except SvgdMonaiError as error:
        raise SystemExit(str(error)) from error
    except OSError as error:
        raise SystemExit(f"{error.filename}: {error.strerror}.") from error
    if chosen.check and stale:
        raise SystemExit(f"Not up to date: {', '.join(map(str, stale))}.")


if __name__ == "__main__":
    main()
