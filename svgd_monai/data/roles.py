"""The data list of a round: the role that each case plays in it.

The items are those of :data:`svgd_monai.data.entries.Item`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from svgd_monai.data.datalist import MSDDataset
from svgd_monai.data.entries import Item, find_file, read_json_object, read_list
from svgd_monai.errors import DataError
from svgd_monai.files import write_json

ROLES = ("training", "validation", "test", "unlabeled")


@dataclass(frozen=True)
class RoundDatalist:
    """The cases of one round by role.

    Args:
        training: labelled items with multiplicity: a case drawn twice occurs twice.
        validation: items that choose the best checkpoint.
        test: items that are only measured.
        unlabeled: items of the pool whose labels nobody has revealed yet.
    """

    training: list[Item]
    validation: list[Item]
    test: list[Item]
    unlabeled: list[Item]

    def items(self) -> list[Item]:
        """Those of all roles, one behind the other."""
        return [item for role in ROLES for item in getattr(self, role)]

    def changed(self, change: Callable[[Item], Item]) -> RoundDatalist:
        """The same cases in the same roles, each item as ``change`` gives it back."""
        return RoundDatalist(**{role: [change(item) for item in getattr(self, role)] for role in ROLES})


def write_datalist(path: str | os.PathLike[str], datalist: RoundDatalist, dataset: MSDDataset) -> Path:
    """Write a round's data list in MSD form, without the labels of ``unlabeled``, which the oracle has not revealed.

    Paths are relative to the data set's folder (``./imagesTr/case.nii.gz``), so that the list outlives a move of
    the data set; ``monai.data.load_decathlon_datalist(path, base_dir=dataset.root)`` reads it. A file outside the
    folder keeps its absolute path. An item's ``fingerprint`` is written where it has one.

    Raises:
        DataError: a case plays two roles, stands twice in a role other than training, or is used without its label.
        OSError: the file system refuses.
    """
    path = Path(path)
    _check_roles(path, datalist)
    labels = {str(value): name for value, name in dataset.classes.items()}
    content: dict[str, Any] = {"name": dataset.name, "labels": labels}
    for role in ROLES:
        keys = ("image",) if role == "unlabeled" else ("image", "label")
        content[role] = [
            {"case": item["case"]}
            | {key: _relative(item[key], dataset.root) for key in keys}
            | {key: item[key] for key in ("fingerprint",) if key in item}
            for item in getattr(datalist, role)
        ]
    return write_json(path, content)


def read_datalist(
    path: str | os.PathLike[str], dataset: MSDDataset, bad: Mapping[str, str] | None = None
) -> RoundDatalist:
    """Read a round's data list and resolve its case ids against ``dataset``.

    A file's own paths count only for the label of a case that the data set holds unlabelled (people handed it in).

    Args:
        path: the file.
        dataset: the data set.
        bad: the sentence of each case that it lists but that was left out.

    Raises:
        DataError: the file is damaged, names a case that the data set does not hold, or uses one in two roles.
    """
    path = Path(path)
    content = read_json_object(path)
    roles: dict[str, list[Item]] = {}
    for role in ROLES:
        roles[role] = []
        for number, entry in enumerate(read_list(path, content, role), start=1):
            where = f"{path}, entry {number} of '{role}'"
            if not isinstance(entry, Mapping) or not isinstance(case := entry.get("case"), str):
                raise DataError(f"{where} has no 'case'.")
            if bad is not None and case in bad:
                raise DataError(bad[case])
            if case not in dataset.items:
                raise DataError(f"{where}: the data set {dataset.root} has no case {case!r}.")
            item = {"case": case, "image": dataset.items[case]["image"]}
            if role != "unlabeled":
                known = dataset.items[case].get("label")
                item["label"] = known or find_file(where, entry.get("label"), "label", dataset.root, True)
            if isinstance(entry.get("fingerprint"), str):
                item["fingerprint"] = entry["fingerprint"]
            roles[role].append(item)
    datalist = RoundDatalist(**roles)
    _check_roles(path, datalist)
    return datalist


def _check_roles(path: Path, datalist: RoundDatalist) -> None:
    """Refuse a list that would train on what it measures."""
    role_of: dict[str, str] = {}
    for role in ROLES:
        for item in getattr(datalist, role):
            case = item["case"]
            if case in role_of and role != "training":  # the first role, in which alone a case may stand twice
                raise DataError(f"{path}: the case {case} stands in '{role_of[case]}' and again in '{role}'.")
            if role != "unlabeled" and "label" not in item:
                raise DataError(f"{path}: the case {case} stands in '{role}' but has no label.")
            role_of[case] = role


def _relative(path: str, root: Path) -> str:
    return f"./{Path(path).relative_to(root).as_posix()}" if Path(path).is_relative_to(root) else path
