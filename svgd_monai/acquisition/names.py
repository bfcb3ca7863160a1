"""By which name a pool knows a case, also where the items of a data list have none."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from svgd_monai.data.nifti import case_id
from svgd_monai.errors import DataError
from svgd_monai.processes import everyones


def case_of(item: Mapping[str, Any]) -> str:
    """The item's ``case``, or else the name of its image's file without ``.nii`` or ``.nii.gz``.

    Args:
        item: ``image`` is a path, or an image whose ``meta`` has the path as ``filename_or_obj``.

    Raises:
        DataError: the item has neither.
    """
    if "case" in item:
        return str(item["case"])
    path = _file(item)
    if not path:
        raise DataError(
            "case: an item of the pool has neither that key nor an image whose meta names its file (filename_or_obj); "
            "give each item of the data list a case."
        )
    return case_id(path) or Path(path).name


class PoolNames:
    """The cases of a pool as they come, none twice."""

    def __init__(self) -> None:
        self._files: dict[str, str] = {}

    def add(self, item: Mapping[str, Any]) -> str:
        """The item's case, see :func:`case_of`.

        Raises:
            DataError: it has no name, or one that another item has.
        """
        case, path = case_of(item), _file(item)
        if case in self._files:
            raise _twice(case, self._files[case], path)
        self._files[case] = path
        return case

    def compare(self) -> None:
        """Whether all processes mean the same file by a name: each may have measured what another one has.

        Raises:
            DataError: they do not; in all of them.
        """
        known: dict[str, str] = {}
        for files in everyones(self._files):
            for case, path in files.items():
                if known.setdefault(case, path) != path:
                    raise _twice(case, known[case], path)


def _file(item: Mapping[str, Any]) -> str:
    """The path of the item's image; empty where it is not known."""
    image = item.get("image")
    if isinstance(image, (str, os.PathLike)):
        return str(image)
    return str((getattr(image, "meta", None) or {}).get("filename_or_obj", ""))


def _twice(case: str, one: str, other: str) -> DataError:
    files = f" ({one} and {other})" if one != other else ""
    return DataError(f"case {case}: two items of the pool have this name{files}; give each a case of its own.")
