"""Entries of JSON data lists, which people write by hand: each fault has a sentence that names file, entry and key."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from unicodedata import category

from svgd_monai.data.nifti import case_id
from svgd_monai.errors import DataError, RunFolderError
from svgd_monai.files import read_json

Item = dict[str, str]
"""What MONAI's dictionary transforms take: ``{"case": "hippocampus_001", "image": path, "label": path}``.

Paths are absolute, and ``label`` is there only where the case has one. A case id is the image's file name without its
``.nii`` or ``.nii.gz``.
"""

#: Bytes that file systems take in a file's name.
_NAME_BYTES = 255


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises:
        DataError: the file is missing, unreadable, not JSON, or not an object.
    """
    try:
        content = read_json(path)
    except RunFolderError as error:
        raise DataError(str(error)) from error
    if not isinstance(content, dict):
        raise DataError(f"{path} is not a JSON object.")
    return content


def read_list(file: Path, content: Mapping[str, Any], key: str) -> Sequence[Any]:
    """The list under ``key``.

    Raises:
        DataError: there is none; the sentence names ``file`` and ``key``.
    """
    entries = content.get(key)
    if not isinstance(entries, list):
        raise DataError(f"{file} has no list '{key}'.")
    return entries


def read_image(where: str, entry: Any, root: Path, allow_outside: bool) -> Item:
    """The item, without a label, of an entry that is a path or an object with the key ``image``.

    Args:
        where: file, list and number of the entry, for error messages.
        entry: the entry.
        root: the folder that paths are relative to.
        allow_outside: accept a file that, with symbolic links followed, lies outside ``root``.

    Raises:
        DataError: the image is not named, a list of files, missing, outside, or not named like a NIfTI file.
    """
    name = entry.get("image") if isinstance(entry, Mapping) else entry
    if isinstance(name, list):
        raise DataError(f"{where}: 'image' is a list; the channels of an image belong in one 4D file.")
    image = find_file(where, name, "image", root, allow_outside)
    case = case_id(image)
    if case is None:
        raise DataError(f"{where}: {name!r} is not named like a NIfTI file (.nii or .nii.gz).")
    return {"case": case, "image": image}


def find_file(where: str, name: Any, key: str, root: Path, allow_outside: bool) -> str:
    """The absolute path of the file ``name``, which an entry holds under ``key``; arguments as for :func:`read_image`.

    Raises:
        DataError: the file is not named, missing, outside, or its name would break a line of a table or a message.
    """
    if not isinstance(name, str) or not name:
        raise DataError(f"{where} has no '{key}'.")
    if any(category(letter) in {"Cc", "Cs", "Zl", "Zp"} for letter in name):
        raise DataError(f"{where}: the {key}'s name {name!r} holds control characters.")
    path = root / name
    if not is_file(path):
        raise DataError(f"{where}: the {key} {path} does not exist or cannot be reached.")
    if not allow_outside and not path.resolve().is_relative_to(root.resolve()):
        raise DataError(f"{where}: the {key} {path} lies outside the folder {root}.")
    return str(path)


def with_room(items: Iterable[Item], ending: str, bad: dict[str, str] | None = None) -> list[Item]:
    """The items whose names leave room for those of the files that are made of them.

    Args:
        items: the items.
        ending: the longest that such a file has behind the case's name.
        bad: takes the sentence of each other case; None: it is an error.

    Raises:
        DataError: a name is too long; the sentence names the image.
    """
    fitting, most = [], _NAME_BYTES - len(ending)
    for item in items:
        size = len(os.fsencode(item["case"]))
        if size <= most:
            fitting.append(item)
            continue
        words = (
            f"The name of {item['image']} is too long: it has {size} bytes before its ending, of which {most} are the "
            "most, because names of other files are made of it; rename the image."
        )
        if bad is None:
            raise DataError(words)
        bad[item["case"]] = words
    return fitting


def is_file(path: Path) -> bool:
    """Whether ``path`` is a file that can be reached."""
    try:
        return path.is_file()
    except OSError:  # a name too long, a folder that may not be searched
        return False


def is_folder(path: Path) -> bool:
    """Whether ``path`` is a folder that can be reached."""
    try:
        return path.is_dir()
    except OSError:
        return False
