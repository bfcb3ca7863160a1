"""Data sets, splits, checks, preprocessing, and the embedded phantom."""

from svgd_monai.data.checks import CaseFacts, check_cases, dataset_fingerprint
from svgd_monai.data.datalist import (
    MSDDataset,
    RoundDatalist,
    read_datalist,
    read_dataset,
    read_images,
    write_datalist,
)
from svgd_monai.data.dataset import StepSampler, VolumeDataset, epoch_length, epochs
from svgd_monai.data.phantom import make_phantom
from svgd_monai.data.source import (
    TaskData,
    checked_images,
    class_names,
    labelled_cases,
    load_task,
    phantom_dataset,
    pool_items,
    revealed_labels,
    round_datalist,
    stage_datalist,
)
from svgd_monai.data.splits import Split, draw_split, read_split, resolve_split
from svgd_monai.data.transforms import (
    ToPlaind,
    augmentation,
    foreground_crop,
    preprocessing,
    to_grid,
    training_crop,
    training_preprocessing,
    without_padding,
)

__all__ = [
    "CaseFacts",
    "MSDDataset",
    "RoundDatalist",
    "Split",
    "StepSampler",
    "TaskData",
    "ToPlaind",
    "VolumeDataset",
    "augmentation",
    "check_cases",
    "checked_images",
    "class_names",
    "dataset_fingerprint",
    "draw_split",
    "epoch_length",
    "epochs",
    "foreground_crop",
    "labelled_cases",
    "load_task",
    "make_phantom",
    "phantom_dataset",
    "pool_items",
    "preprocessing",
    "read_datalist",
    "read_dataset",
    "read_images",
    "read_split",
    "resolve_split",
    "revealed_labels",
    "round_datalist",
    "stage_datalist",
    "to_grid",
    "training_crop",
    "training_preprocessing",
    "without_padding",
    "write_datalist",
]
