"""What an inference works on: the images of a folder or a list, and the names of the classes it will write."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from svgd_monai.data import checked_images, read_images, write_bad_cases
from svgd_monai.data.datalist import taken_name
from svgd_monai.data.entries import Item, with_room
from svgd_monai.errors import DataError, RunFolderError, SettingsError
from svgd_monai.files import read_json

#: Not the name of a run's list of bad cases, which holds for the rest of the run: both may lie in one folder.
BAD_IMAGES_FILE = "inference_bad_cases.csv"
#: The longest that a result has behind a case's name.
_ENDING = "_uncertainty.nii.gz"


def inference_images(
    dataset_dir: str | os.PathLike[str],
    output_dir: str | os.PathLike[str],
    in_channels: int | None = None,
    allow_outside: bool = False,
    on_bad_case: str = "fail",
) -> list[Item]:
    """The images to segment, each read once and found sound, before any is begun.

    Args:
        dataset_dir: an MSD task folder, a folder of NIfTI files, one file, or a data list.
        output_dir: where the results will go. A folder that holds one of the images is refused: the next inference on
            it would take the results for scans.
        in_channels: input channels of the network; None does not compare.
        allow_outside: accept images of a list that lie outside its folder.
        on_bad_case: ``fail``, or ``skip``: bad images are left out, and :data:`BAD_IMAGES_FILE` in ``output_dir`` lists
            them.

    Raises:
        DataError: an image (with ``skip``: each) is missing, unsound or of too long a name, or one lies in
            ``output_dir``; the sentence names it.
    """
    bad: dict[str, str] | None = {} if on_bad_case == "skip" else None
    output = Path(output_dir).resolve()
    items = with_room(read_images(dataset_dir, allow_outside=allow_outside, bad=bad), _ENDING, bad)
    for item in items:
        if Path(item["image"]).parent.resolve() == output:
            raise DataError(
                f"output_dir: {output_dir} holds the image {item['image']}, and the next inference on that folder "
                "would take the results for images; choose another folder."
            )
    images = checked_images(items, in_channels, bad)
    write_bad_cases(Path(output_dir) / BAD_IMAGES_FILE, bad or {})
    return images


def named_classes(
    classes: Sequence[str] | None, num_classes: int, metadata_file: str | os.PathLike[str]
) -> dict[int, str]:
    """Name of each label value, background 0 included, where no ``dataset.json`` says it.

    Args:
        classes: the names, background first; None reads them from the bundle.
        num_classes: C.
        metadata_file: the bundle's ``metadata.json``, whose first output has a ``channel_def``.

    Raises:
        SettingsError: there are not C names, or two are the same.
    """
    source = "classes"
    if classes is None:
        source = f"classes: {metadata_file}"
        classes = _channel_names(metadata_file)
    if not isinstance(classes, (list, tuple)):
        raise SettingsError(f"{source}: {classes!r} is not a list of names.")
    if len(classes) != num_classes:
        raise SettingsError(
            f"{source} names {len(classes)} classes, num_classes is {num_classes}; list a name for each, background "
            "first."
        )
    if not all(isinstance(name, str) and name and name.isprintable() for name in classes):
        raise SettingsError(f"{source}: {list(classes)!r} are not all names.")
    if len(set(classes)) < len(classes):
        raise SettingsError(f"{source}: {list(classes)!r} gives two classes one name.")
    if (taken := taken_name(classes)) is not None:
        raise SettingsError(f"{source}: a class cannot be called {taken!r}, tables have columns of that name.")
    return dict(enumerate(classes))


def _channel_names(metadata_file: str | os.PathLike[str]) -> list[Any]:
    """The names under ``channel_def`` of the bundle's first output; none where the file does not say."""
    try:
        outputs = read_json(metadata_file)["network_data_format"]["outputs"]
        channels = next(iter(outputs.values()))["channel_def"]
        return [channels[str(index)] for index in range(len(channels))]
    except RunFolderError as error:
        sentence = str(error).removesuffix(".")
        raise SettingsError(f"classes: {sentence}; list a name for each, background first.") from error
    except (LookupError, TypeError, AttributeError, StopIteration):
        return []
