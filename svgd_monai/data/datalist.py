"""MSD data sets and data lists: the files of each case, and the role each case plays in a round.

The items are those of :data:`svgd_monai.data.entries.Item`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from svgd_monai.data.entries import Item, find_file, is_file, is_folder, read_image, read_json_object, read_list
from svgd_monai.data.nifti import NIFTI_SUFFIXES
from svgd_monai.errors import DataError
from svgd_monai.files import write_json

ROLES = ("training", "validation", "test", "unlabeled")
IMAGE_KEYS = ("images", *ROLES, "testing")


@dataclass(frozen=True)
class MSDDataset:
    """A task of the Medical Segmentation Decathlon, or a folder in its form.

    Args:
        root: the folder that holds ``dataset.json``, absolute.
        name: the task's name.
        classes: name of each label value, background 0 included.
        channels: number of image channels, the length of ``modality``.
        items: item of each case, in the order of the case ids.
    """

    root: Path
    name: str
    classes: dict[int, str]
    channels: int
    items: dict[str, Item]


@dataclass(frozen=True)
class RoundDatalist:
    """The cases of one round by role.

    Args:
        training: labelled items with multiplicity: a case drawn twice stands twice.
        validation: items that choose the best checkpoint.
        test: items that are only measured.
        unlabeled: items of the pool whose labels nobody has revealed yet.
    """

    training: list[Item]
    validation: list[Item]
    test: list[Item]
    unlabeled: list[Item]


def read_dataset(
    dataset_dir: str | os.PathLike[str], allow_outside: bool = False, require_labels: bool = True
) -> MSDDataset:
    """Read ``dataset.json`` of an MSD task folder.

    Args:
        dataset_dir: the task folder; paths of ``dataset.json`` are relative to it.
        allow_outside: accept files that, with symbolic links followed, lie outside the folder.
        require_labels: refuse a training entry without a label; if false, such an entry's item has no ``label``.

    Raises:
        DataError: the folder, ``dataset.json``, one of its keys, or a file it names is missing or wrong.
    """
    root = Path(dataset_dir).absolute()
    if not is_folder(root):
        raise DataError(f"The data set's folder {root} does not exist or cannot be entered.")
    file = root / "dataset.json"
    if not is_file(file):
        raise DataError(f"The data set's folder {root} has no dataset.json.")
    content = read_json_object(file)
    classes = _read_classes(file, content)
    items: dict[str, Item] = {}
    for number, entry in enumerate(read_list(file, content, "training"), start=1):
        where = f"{file}, entry {number} of 'training'"
        item = read_image(where, entry, root, allow_outside)
        case = item["case"]
        label = entry.get("label") if isinstance(entry, Mapping) else None
        if label is not None or require_labels:
            item["label"] = find_file(f"{where} (case {case})", label, "label", root, allow_outside)
        if case in items:
            raise DataError(f"{where}: the case {case} is listed twice.")
        items[case] = item
    if not items:
        raise DataError(f"{file}: 'training' lists no case.")
    modality = content.get("modality")
    channels = len(modality) if isinstance(modality, (Mapping, list)) and modality else 1
    return MSDDataset(root, str(content.get("name", root.name)), classes, channels, dict(sorted(items.items())))


def read_images(path: str | os.PathLike[str], base_dir: str | os.PathLike[str] | None = None) -> list[Item]:
    """List the images of an inference, each once and without labels: items that differ in keys cannot be batched.

    Args:
        path: an MSD task folder (its training and test entries), a folder of NIfTI files (sorted, not recursive, hidden
            files left out), one NIfTI file, or a JSON data list with any of the keys :data:`IMAGE_KEYS`.
        base_dir: the folder that paths in a data list are relative to; by default the list's own.

    Raises:
        DataError: there is nothing at ``path``, no image in it, or an image that it lists is missing.
    """
    path = Path(path).absolute()
    if is_folder(path):
        file = path / "dataset.json"
        if is_file(file):
            return _read_listed(file, ("training", "test"), path, allow_outside=False)
        entries: list[Any] = sorted(
            entry.name
            for entry in path.iterdir()
            if entry.name.endswith(NIFTI_SUFFIXES) and not entry.name.startswith(".")
        )
        return _distinct(path, (read_image(str(path), entry, path, allow_outside=True) for entry in entries))
    if not is_file(path):
        raise DataError(f"There is no folder, data list or image at {path}.")
    if path.name.endswith(NIFTI_SUFFIXES):
        return [read_image(str(path), path.name, path.parent, allow_outside=True)]
    base = path.parent if base_dir is None else Path(base_dir).absolute()
    return _read_listed(path, IMAGE_KEYS, base, allow_outside=True)


def write_datalist(path: str | os.PathLike[str], datalist: RoundDatalist, dataset: MSDDataset) -> Path:
    """Write a round's data list in MSD form, without the labels of ``unlabeled``, which the oracle has not revealed.

    Paths are relative to the data set's folder (``./imagesTr/case.nii.gz``), so that the list outlives a move of
    the data set; ``monai.data.load_decathlon_datalist(path, base_dir=dataset.root)`` reads it. A file outside the
    folder keeps its absolute path.

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
            {"case": item["case"]} | {key: _relative(item[key], dataset.root) for key in keys}
            for item in getattr(datalist, role)
        ]
    return write_json(path, content)


def read_datalist(path: str | os.PathLike[str], dataset: MSDDataset) -> RoundDatalist:
    """Read a round's data list and resolve its case ids against ``dataset``.

    A file's own paths count only for the label of a case that the data set holds unlabelled (people handed it in).

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
            if case not in dataset.items:
                raise DataError(f"{where}: the data set {dataset.root} has no case {case!r}.")
            item = {"case": case, "image": dataset.items[case]["image"]}
            if role != "unlabeled":
                known = dataset.items[case].get("label")
                item["label"] = known or find_file(where, entry.get("label"), "label", dataset.root, True)
            roles[role].append(item)
    datalist = RoundDatalist(**roles)
    _check_roles(path, datalist)
    return datalist


def _read_classes(file: Path, content: Mapping[str, Any]) -> dict[int, str]:
    labels = content.get("labels")
    if not isinstance(labels, Mapping):
        raise DataError(f"{file} has no 'labels' that map values to names.")
    classes = {int(key): name for key, name in labels.items() if key.isascii() and key.isdecimal()}
    if len(labels) < 2 or sorted(classes) != list(range(len(labels))):
        raise DataError(f"{file}: 'labels' must be 0, 1, ... without gaps, not {', '.join(map(repr, labels))}.")
    names = list(classes.values())
    if not all(isinstance(name, str) and name and name.isprintable() for name in names) or len({*names}) < len(names):
        raise DataError(f"{file}: 'labels' must give each value a name of its own, not {names!r}.")
    return dict(sorted(classes.items()))


def _read_listed(file: Path, keys: Sequence[str], root: Path, allow_outside: bool) -> list[Item]:
    content = read_json_object(file)
    used = [key for key in keys if key in content]
    if not used:
        raise DataError(f"{file} has none of the lists {', '.join(keys)}.")
    entries = (
        (f"{file}, entry {number} of '{key}'", entry)
        for key in used
        for number, entry in enumerate(read_list(file, content, key), start=1)
    )
    return _distinct(file, (read_image(where, entry, root, allow_outside) for where, entry in entries))


def _distinct(source: Path, items: Iterable[Item]) -> list[Item]:
    distinct: dict[str, Item] = {}
    for item in items:
        if distinct.setdefault(item["case"], item)["image"] != item["image"]:
            raise DataError(f"{source} holds two images of the case {item['case']}.")
    if not distinct:
        raise DataError(f"{source} holds no NIfTI image.")
    return list(distinct.values())


def _check_roles(path: Path, datalist: RoundDatalist) -> None:
    """Refuse a list that would train on what it measures."""
    role_of: dict[str, str] = {}
    for role in ROLES:
        for item in getattr(datalist, role):
            case = item["case"]
            if role_of.get(case, role) != role or (case in role_of and role != "training"):
                raise DataError(f"{path}: the case {case} stands in '{role_of[case]}' and again in '{role}'.")
            if role != "unlabeled" and "label" not in item:
                raise DataError(f"{path}: the case {case} stands in '{role}' but has no label.")
            role_of[case] = role


def _relative(path: str, root: Path) -> str:
    return f"./{Path(path).relative_to(root).as_posix()}" if Path(path).is_relative_to(root) else path
