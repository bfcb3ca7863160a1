"""Before the first round: every volume is read and preprocessed once, and what is odd is named."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from monai.transforms import Compose
from tqdm import tqdm

from svgd_monai.data import Split, TaskData, VolumeDataset, pool_items, round_datalist

logger = logging.getLogger(__name__)


def prepare_volumes(
    task: TaskData, split: Split, preprocessing: Compose, cache_dir: str | os.PathLike[str]
) -> list[str]:
    """Fill the cache of preprocessed volumes, and warn of images that are constant after preprocessing.

    A constant image holds no information that can be shared: its mutual information is undefined.

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
    dataset = VolumeDataset(items, preprocessing, Path(cache_dir))
    constant = []
    for index, item in enumerate(tqdm(items, desc="Preparing volumes", disable=None, leave=False)):
        image = dataset[index]["image"]
        if bool(image.max() == image.min()) and item["case"] not in constant:
            constant.append(item["case"])
            logger.warning("case %s: the image is constant after preprocessing; it ranks last", item["case"])
    return constant
