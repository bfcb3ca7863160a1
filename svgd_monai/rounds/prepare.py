"""Before the first round: every volume is read and preprocessed once, and what is odd is named."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.transforms import Compose
from torch import Tensor
from tqdm import tqdm

from svgd_monai.acquisition import get_strategy, is_constant
from svgd_monai.committee import check_optimizer
from svgd_monai.data import (
    CaseFacts,
    Split,
    TaskData,
    VolumeDataset,
    pool_items,
    report_flags,
    round_datalist,
    signature,
    transform_key,
    without_padding,
)
from svgd_monai.data.entries import Item
from svgd_monai.errors import SettingsError
from svgd_monai.rounds.run_folder import RunFolder
from svgd_monai.rounds.stages import Stages
from svgd_monai.workflow.targets import check_targets

logger = logging.getLogger(__name__)

#: Share of voxels outside [0, 1], the range of the joint histogram, beyond which a case is told.
BEYOND = 0.05
#: Share of voxels at an image's highest value beyond which it was clipped there, and a case is told. Robust percentiles
#: leave at most 0.7 % there in the 260 scans of Task04; in Hounsfield units, clipped for soft tissue, it is bone.
CLIPPED = 0.25


def check_parts(stages: Stages, folder: RunFolder) -> None:
    """Make a training's parts once, so that what cannot be is refused before a run begins, or anyone labels.

    Args:
        stages: the bundle's.
        folder: the run's; one that holds a training has been through it.

    Raises:
        SettingsError: an overlay would take the handlers from stages, the network does not take the window, the
            optimiser cannot move particles, a transform cannot be told from another, or a component of a stage is not
            there or takes other keywords.
    """
    if "handlers" in stages.overrides:
        raise SettingsError(
            "handlers: set on the loop, it would replace those of evaluate.yaml and acquire.yaml, which write what "
            "the loop reads; to add handlers to one stage, give that stage a file of its own (as in stages#evaluate)."
        )
    if not folder.holds_training:
        parser = stages.parser("train", num_particles=1)  # all of them are alike
        parser.get_parsed_content("network_def")
        parser.get_parsed_content("loss")
        check_optimizer(parser.get_parsed_content("optimizer"))
        transform_key(parser.get_parsed_content("preprocessing").flatten().transforms)
        _check_targets(stages)


def check_mended(stages: Stages, folder: RunFolder) -> None:
    """Look up the components of a run that goes on, once it is known to be that run.

    A file of a stage that has left nothing may have changed behind a training.

    Raises:
        SettingsError: a component of a stage is not there or takes other keywords.
    """
    if folder.holds_training:
        _check_targets(stages)


def _check_targets(stages: Stages) -> None:
    for stage in stages.files:
        check_targets(stages.parser(stage))


def compares_voxels(settings: Mapping[str, Any]) -> bool:
    """Whether the query compares volumes as they are, so that all must be of one shape; else on a grid, or not."""
    return settings["mi_grid"] is None and get_strategy(settings["acquisition"]).uses_information


def prepare_volumes(
    task: TaskData,
    split: Split,
    preprocessing: Compose,
    cache_dir: str | os.PathLike[str],
    flags_file: str | os.PathLike[str] | None = None,
    one_shape: bool = False,
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
        one_shape: the images of the pool will be compared voxel by voxel.

    Returns:
        The constant cases.

    Raises:
        SettingsError: they should be of one shape, and are not.
    """
    datalist = round_datalist(task.dataset, split, split.initial)
    held_out = [*datalist.training, *datalist.validation, *datalist.test]
    items = [task.with_fingerprint(item) for item in (*held_out, *pool_items(datalist))]
    roles = {case: role for role, cases in split.as_dict().items() for case in cases}
    compared = frozenset([*split.initial, *split.pool] if one_shape else [])
    return prepare_items(items, preprocessing, cache_dir, flags_file, task.facts, roles, compared)


def prepare_items(
    items: Sequence[Item],
    preprocessing: Compose,
    cache_dir: str | os.PathLike[str],
    flags_file: str | os.PathLike[str] | None = None,
    facts: Mapping[str, CaseFacts] | None = None,
    roles: Mapping[str, str] | None = None,
    compared: Collection[str] = (),
) -> list[str]:
    """Likewise, for items that have the hash of their content as ``fingerprint``; ``compared`` are of one shape."""
    content = without_padding(preprocessing)
    pads = len(content.transforms) < len(preprocessing.flatten().transforms)
    volumes = VolumeDataset(items, preprocessing, Path(cache_dir))
    contents = VolumeDataset(items, content, Path(cache_dir))
    seen, constant, signatures = set(), [], {}
    beyond: list[str] = []
    clipped: list[str] = []
    shapes: dict[tuple[int, ...], str] = {}
    for index, item in enumerate(tqdm(items, desc="Preparing volumes", disable=None, leave=False)):
        volume = volumes.prepare(index)
        image = (contents.prepare(index) if pads else volume)["image"]
        if item["case"] in compared:
            shapes.setdefault(tuple(volume["image"].shape[1:]), item["case"])
        if len(shapes) > 1:  # before a round is trained for it
            (first, one), (second, other) = list(shapes.items())[:2]
            raise SettingsError(
                f"mi_grid: null needs volumes of one shape, but {one} has {first} voxels and {other} {second}; give a "
                "grid."
            )
        if item["case"] in seen:  # a labelled case is prepared with its label and without
            continue
        seen.add(item["case"])
        if float(((image < 0) | (image > 1)).float().mean()) > BEYOND:
            beyond.append(item["case"])
        if bool(is_constant(image).all()):
            constant.append(item["case"])
            logger.warning("case %s: the image is constant after preprocessing", item["case"])
        elif _share_of_highest(image) > CLIPPED:
            clipped.append(item["case"])
        if flags_file is not None:
            signatures[item["case"]] = signature(image)
    _warn_of_intensities(beyond, clipped)
    if flags_file is not None:
        known = {case: fact for case, fact in (facts or {}).items() if case in signatures}
        report_flags(flags_file, signatures, known, roles)
    return constant


def _share_of_highest(image: Tensor) -> float:
    """Share of a channel's voxels that have its highest value, in the channel in which it is largest."""
    channels = image.flatten(1)
    return float((channels == channels.amax(1, keepdim=True)).float().mean(1).max())


def _warn_of_intensities(beyond: Sequence[str], clipped: Sequence[str]) -> None:
    if beyond:
        logger.warning(
            "intensity: in %d cases (%s first) more than %.0f %% of the voxels lie outside [0, 1] after preprocessing; "
            "mutual information counts them all as the lowest or the highest value.",
            len(beyond), beyond[0], 100 * BEYOND,
        )  # fmt: skip
    if clipped:
        logger.warning(
            "intensity: in %d cases (%s first) more than %.0f %% of the voxels have the highest value after "
            "preprocessing, so nothing in them can be told apart; are these scans in the units that the key intensity "
            "expects, such as Hounsfield units?",
            len(clipped), clipped[0], 100 * CLIPPED,
        )  # fmt: skip
