"""Copy the bundles that come with the installed package into a folder, where they can be run, read and changed.

The folder then holds ``bundles`` and ``data_lists``; a checkout of the repository has both already.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path

from svgd_monai.errors import SvgdMonaiError
from svgd_monai.temporaries import staging_folder

PARTS = ("data_lists", "bundles")  # the bundles last: where they are, what they read is there as well


class BundlesError(SvgdMonaiError):
    """The bundles are not there, or would overwrite something."""


def shipped() -> Path:
    """The folder that holds the bundles: the package's own, or the checkout that is installed in editable mode.

    Raises:
        BundlesError: there is neither.
    """
    package = Path(__file__).parent
    for folder in (package / "shipped", package.parent):
        if all((folder / part).is_dir() for part in PARTS):
            return folder
    raise BundlesError(f"The installation in {package} has no bundles; they are in the repository.")


def copy_bundles(folder: Path) -> list[Path]:
    """Copy the bundles and the data lists; where it fails, nothing of them stays.

    Args:
        folder: where to; made when missing.

    Returns:
        The bundles' folders.

    Raises:
        BundlesError: ``folder`` holds bundles or data lists already, lies among what is copied, or has no room.
        OSError: the file system refuses.
    """
    source = shipped()
    for part in PARTS:
        if folder.resolve().is_relative_to((source / part).resolve()):
            raise BundlesError(f"{folder} lies in {source / part}, which is to be copied; give another folder.")
        if os.path.lexists(folder / part):  # a link that leads nowhere, too
            raise BundlesError(f"{folder / part} is there already; give another folder, or move it away.")
    folder.mkdir(parents=True, exist_ok=True)
    with staging_folder(folder / "bundles") as staging:
        try:
            for part in PARTS:
                ignored = shutil.ignore_patterns("models", "eval", "__pycache__")
                shutil.copytree(source / part, staging / part, ignore=ignored)
        except shutil.Error as error:  # of all files that it could not copy
            failed = error.args[0]
            raise BundlesError(f"{folder}: {len(failed)} of the files cannot be copied ({failed[0][-1]}).") from error
        _move(staging, folder)
    return sorted(path for path in (folder / "bundles").iterdir() if path.is_dir())


def _move(staging: Path, folder: Path) -> None:
    """Move all parts, or none: another process may have been first."""
    moved: list[str] = []
    try:
        for part in PARTS:
            (staging / part).rename(folder / part)
            moved.append(part)
    except OSError as error:
        for part in moved:
            (folder / part).rename(staging / part)
        failed = folder / PARTS[len(moved)]
        raise BundlesError(f"{failed} cannot be made ({error.strerror}); give another folder.") from error


def main(arguments: list[str] | None = None) -> None:
    """Copy, or end with one sentence and exit status 1."""
    parser = argparse.ArgumentParser(prog="python -m svgd_monai.bundles", description=__doc__)
    parser.add_argument("folder", type=Path, help="the folder to copy to; made when missing")
    chosen = parser.parse_args(arguments)
    try:
        copied = copy_bundles(chosen.folder)
    except SvgdMonaiError as error:
        raise SystemExit(str(error)) from error
    except OSError as error:
        raise SystemExit(f"{error.filename}: {error.strerror}.") from error
    sys.stdout.write("".join(f"{path}\n" for path in copied))


if __name__ == "__main__":
    main()
