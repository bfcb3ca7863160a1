"""Before the first round: every volume is read and preprocessed once, and what is odd is named."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from monai.transforms import Compose
from tqdm import tqdm

from svgd_monai.acquisition import is_constant
from svgd_monai.data import (
    CaseFacts,
    Split,
    TaskData,
    VolumeDataset,
    pool_items,
    report_flags,
    round_datalist,
    signature,
    without_padding,
)
from svgd_monai.data.entries import Item

logger = logging.getLogger(__name__)


def prepare_volumes(
    task: TaskData,
    split: Split,
    preprocessing: Compose,
    cache_dir: str | os.PathLike[str],
    flags_file: str | os.PathLike[str] | None = None,
) -> list[str]:
    """Fill the cache of preprocessed volumes, and warn of images that are constant after preprocessing, or odd.

    A constant image (:func:`~svgd_monai.acquisition.is_constant`) holds no information: what it shares with any other
    is near 0, or, between padded volumes, that of the padding. What counts is the content, so padding is left out of
    the check.

    Args:
        task: the data set.
        split: the cases of the run.
        preprocessing: the stages' deterministic transforms.
        cache_dir: the stages' cache of volumes.
        flags_file: where odd cases are written, see :mod:`svgd_monai.data.flags`; None: nowhere.

    Returns:
        The constant cases.
    """
    datalist = round_datalist(task.dataset, split, split.initial)
    held_out = [*datalist.training, *datalist.validation, *datalist.test]
    items = [task.with_fingerprint(item) for item in (*held_out, *pool_items(datalist))]
    roles = {case: role for role, cases in split.as_dict().items() for case in cases}
    return prepare_items(items, preprocessing, cache_dir, flags_file, task.facts, roles)


def prepare_items(
    items: Sequence[Item],
    preprocessing: Compose,
    cache_dir: str | os.PathLike[str],
    flags_file: str | os.PathLike[str] | None = None,
    facts: Mapping[str, CaseFacts] | None = None,
    roles: Mapping[str, str] | None = None,
) -> list[str]:
    """Likewise, for items that have the hash of their content as ``fingerprint``."""
    content = without_padding(preprocessing)
    pads = len(content.transforms) < len(preprocessing.flatten().transforms)
    volumes = VolumeDataset(items, preprocessing, Path(cache_dir))
    contents = VolumeDataset(items, content, Path(cache_dir))
    constant, signatures = [], {}
    for index, item in enumerate(tqdm(items, desc="Preparing volumes", disable=None, leave=False)):
        volume = volumes.prepare(index)
        image = (contents.prepare(index) if pads else volume)["image"]
        if bool(is_constant(image).all()) and item["case"] not in constant:
            constant.append(item["case"])
            logger.warning("case %s: the image is constant after preprocessing", item["case"])
        if flags_file is not None:
            signatures[item["case"]] = signature(image)
    if flags_file is not None:
        known = {case: fact for case, fact in (facts or {}).items() if case in signatures}
        report_flags(flags_file, signatures, known, roles)
    return constant
