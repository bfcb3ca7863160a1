"""MSD data sets and lists of images: the files of each case.

The items are those of :data:`svgd_monai.data.entries.Item`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from svgd_monai.data.entries import Item, find_file, is_file, is_folder, read_image, read_json_object, read_list
from svgd_monai.data.nifti import NIFTI_SUFFIXES, case_id
from svgd_monai.errors import DataError

#: Labels and masks are of 8 bits.
MAX_CLASSES = 256
IMAGE_KEYS = ("images", "training", "validation", "test", "unlabeled", "testing")


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


def read_dataset(
    dataset_dir: str | os.PathLike[str],
    allow_outside: bool = False,
    bad: dict[str, str] | None = None,
) -> MSDDataset:
    """Read ``dataset.json`` of an MSD task folder.

    Args:
        dataset_dir: the task folder; paths of ``dataset.json`` are relative to it.
        allow_outside: accept files that, with symbolic links followed, lie outside the folder.
        bad: takes the sentence of each case whose files are missing or outside, which then is no error but is left out;
            None: it is an error.

    Raises:
        DataError: the folder, ``dataset.json``, one of its keys, or a file it names is missing or wrong.
    """
    root, file, content = _read_task(dataset_dir)
    classes = _read_classes(file, content)
    items: dict[str, Item] = {}
    for number, entry in enumerate(read_list(file, content, "training"), start=1):
        where = f"{file}, entry {number} of 'training'"
        try:
            item = _read_case(where, entry, root, allow_outside)
        except DataError as error:
            case = _named_case(entry)
            if bad is None or case is None or case in bad:
                raise
            bad[case] = str(error)
            continue
        if item["case"] in items or (bad is not None and item["case"] in bad):
            raise DataError(f"{where}: the case {item['case']} is listed twice.")
        items[item["case"]] = item
    if not items and not bad:
        raise DataError(f"{file}: 'training' lists no case.")
    modality = content.get("modality")
    channels = len(modality) if isinstance(modality, (Mapping, list)) and modality else 1
    return MSDDataset(root, str(content.get("name", root.name)), classes, channels, dict(sorted(items.items())))


def read_classes(dataset_dir: str | os.PathLike[str]) -> dict[int, str]:
    """Name of each label value, as ``dataset.json`` of an MSD task folder has them; no other file is looked at.

    Raises:
        DataError: the folder or ``dataset.json`` is missing or wrong.
    """
    _, file, content = _read_task(dataset_dir)
    return _read_classes(file, content)


def read_images(
    path: str | os.PathLike[str],
    allow_outside: bool = False,
    bad: dict[str, str] | None = None,
) -> list[Item]:
    """List the images of an inference, each once and without labels: items that differ in keys cannot be batched.

    Args:
        path: an MSD task folder (its training and test entries), a folder of NIfTI files (sorted, not recursive, hidden
            files left out), one NIfTI file, or a JSON data list with any of the keys :data:`IMAGE_KEYS`, its paths
            relative to its folder.
        allow_outside: accept listed images that, with symbolic links followed, lie outside that folder. In a folder
            without a list, links are the user's own and may lead anywhere.
        bad: takes the sentence of each image that is missing (in a folder, a link that leads nowhere) or outside, by
            case, which then is no error but is left out; None: it is an error.

    Raises:
        DataError: there is nothing at ``path``, no image in it, or an image that it lists is missing or outside.
    """
    path = Path(path).absolute()
    if is_folder(path):
        file = path / "dataset.json"
        if is_file(file):
            return _read_listed(file, ("training", "test"), path, allow_outside, bad)
        entries: list[Any] = sorted(
            entry.name
            for entry in path.iterdir()
            if entry.name.endswith(NIFTI_SUFFIXES) and not entry.name.startswith(".")
        )
        return _distinct(path, _sound(((str(path), entry) for entry in entries), path, True, bad), bad)
    if not is_file(path):
        raise DataError(f"There is no folder, data list or image at {path}.")
    if path.name.endswith(NIFTI_SUFFIXES):
        return [read_image(str(path), path.name, path.parent, allow_outside=True)]
    return _read_listed(path, IMAGE_KEYS, path.parent, allow_outside, bad)


def _read_task(dataset_dir: str | os.PathLike[str]) -> tuple[Path, Path, dict[str, Any]]:
    """The folder, its ``dataset.json``, and what that holds."""
    root = Path(dataset_dir).absolute()
    if is_file(root):
        raise DataError(f"The data set's folder {root} is a file; give a folder that holds a dataset.json.")
    if not is_folder(root):
        raise DataError(f"The data set's folder {root} does not exist or cannot be entered.")
    file = root / "dataset.json"
    if not is_file(file):
        inside = sorted(root.glob("*/dataset.json"))  # the folder of all tasks in place of one's own
        hint = f"; {inside[0].parent} has one" if inside else ""
        raise DataError(f"The data set's folder {root} has no dataset.json that can be reached{hint}.")
    return root, file, read_json_object(file)


def _read_case(where: str, entry: Any, root: Path, allow_outside: bool) -> Item:
    item = read_image(where, entry, root, allow_outside)
    label = entry.get("label") if isinstance(entry, Mapping) else None
    return {**item, "label": find_file(f"{where} (case {item['case']})", label, "label", root, allow_outside)}


def _named_case(entry: Any) -> str | None:
    """The case id of an entry whose files need not be there; None where it names none."""
    name = entry.get("image") if isinstance(entry, Mapping) else entry
    return case_id(name) if isinstance(name, str) and name.isprintable() else None


def _read_classes(file: Path, content: Mapping[str, Any]) -> dict[int, str]:
    labels = content.get("labels")
    if not isinstance(labels, Mapping):
        raise DataError(f"{file} has no 'labels' that map values to names.")
    classes = {int(key): name for key, name in labels.items() if key.isascii() and key.isdecimal()}
    if len(labels) < 2 or sorted(classes) != list(range(len(labels))):
        raise DataError(f"{file}: 'labels' must be 0, 1, ... without gaps, not {', '.join(map(repr, labels))}.")
    if len(classes) > MAX_CLASSES:
        raise DataError(f"{file}: 'labels' has {len(classes)} classes, more than the {MAX_CLASSES} that a mask holds.")
    names = list(classes.values())
    if not all(isinstance(name, str) and name and name.isprintable() for name in names) or len({*names}) < len(names):
        raise DataError(f"{file}: 'labels' must give each value a name of its own, not {names!r}.")
    if (taken := taken_name(names)) is not None:
        raise DataError(f"{file}: a class cannot be called {taken!r}, tables have columns of that name; rename it.")
    return dict(sorted(classes.items()))


def taken_name(names: Sequence[str]) -> str | None:
    """The first name that would give a class the column, or TensorBoard's tag, of something else.

    Beside ``dice_<class>`` there are ``dice_grid``, ``dice_grid_<class>``, and the tag of the mean.
    """
    return next((name for name in names if name in ("grid", "mean") or name.startswith("grid_")), None)


def _read_listed(
    file: Path, keys: Sequence[str], root: Path, allow_outside: bool, bad: dict[str, str] | None
) -> list[Item]:
    content = read_json_object(file)
    used = [key for key in keys if key in content]
    if not used:
        raise DataError(f"{file} has none of the lists {', '.join(keys)}.")
    entries = (
        (f"{file}, entry {number} of '{key}'", entry)
        for key in used
        for number, entry in enumerate(read_list(file, content, key), start=1)
    )
    return _distinct(file, _sound(entries, root, allow_outside, bad), bad)


def _sound(
    entries: Iterable[tuple[str, Any]], root: Path, allow_outside: bool, bad: dict[str, str] | None
) -> Iterator[Item]:
    for where, entry in entries:
        try:
            yield read_image(where, entry, root, allow_outside)
        except DataError as error:
            case = _named_case(entry)
            if bad is None or case is None:
                raise
            bad.setdefault(case, str(error))


def _distinct(source: Path, items: Iterable[Item], bad: Mapping[str, str] | None = None) -> list[Item]:
    distinct: dict[str, Item] = {}
    for item in items:
        if distinct.setdefault(item["case"], item)["image"] != item["image"]:
            raise DataError(f"{source} holds two images of the case {item['case']}.")
    if bad and (twice := sorted(distinct.keys() & bad.keys())):  # a sound one, and one that is missing
        raise DataError(f"{source} holds two images of the case {twice[0]}.")
    if not distinct and not bad:
        raise DataError(f"{source} holds no NIfTI image.")
    return list(distinct.values())
