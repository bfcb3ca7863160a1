"""Before the first round: every volume is read and preprocessed once, and what is odd is named."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from monai.transforms import Compose
from torch import Tensor
from tqdm import tqdm

from svgd_monai.data import Split, TaskData, VolumeDataset, pool_items, round_datalist, without_padding

logger = logging.getLogger(__name__)


#: Share of the voxels at either end that does not count: a few stray voxels make no image of a constant.
TAIL = 0.005


def is_flat(image: Tensor) -> bool:
    """Whether all voxels but 0.5 % at either end have one value.

    Under a clip of 0 to 2048, 33 of the 260 volumes of MSD's Task04 keep fewer than 0.1 % of their voxels below the
    upper end: constant, but for those.

    Args:
        image: any shape.
    """
    values = image.flatten().float()
    low = values.kthvalue(1 + int(TAIL * values.numel())).values
    high = values.kthvalue(values.numel() - int(TAIL * values.numel())).values
    return bool(low == high)


def prepare_volumes(
    task: TaskData, split: Split, preprocessing: Compose, cache_dir: str | os.PathLike[str]
) -> list[str]:
    """Fill the cache of preprocessed volumes, and warn of images that are constant after preprocessing.

    A constant image (:func:`is_flat`) holds no information: what it shares with any other is 0, or, between padded
    volumes, that of the padding. What counts is the content, so padding is left out of the check.

    Args:
        task: the data set.
        split: the cases of the run.
        preprocessing: the stages' deterministic transforms.
        cache_dir: the stages' cache of volumes.

    Returns:
        The constant cases.
    """
    datalist = round_datalist(task.dataset, split, split.initial)
    held_out = [*datalist.training, *datalist.validation, *datalist.test]
    items = [task.with_fingerprint(item) for item in (*held_out, *pool_items(datalist))]
    content = without_padding(preprocessing)
    pads = len(content.transforms) < len(preprocessing.flatten().transforms)
    volumes = VolumeDataset(items, preprocessing, Path(cache_dir))
    contents = VolumeDataset(items, content, Path(cache_dir))
    constant = []
    for index, item in enumerate(tqdm(items, desc="Preparing volumes", disable=None, leave=False)):
        volume = volumes.prepare(index)
        image = (contents.prepare(index) if pads else volume)["image"]
        if is_flat(image) and item["case"] not in constant:
            constant.append(item["case"])
            logger.warning("case %s: the image is constant after preprocessing", item["case"])
    return constant
