"""Data sets, splits, checks, preprocessing, and the embedded phantom."""

from svgd_monai.data.bad_cases import BAD_CASES_FILE, read_bad_cases, write_bad_cases
from svgd_monai.data.cache_key import transform_key
from svgd_monai.data.check_cache import CaseFacts
from svgd_monai.data.checks import check_cases, dataset_fingerprint
from svgd_monai.data.datalist import MSDDataset, read_classes, read_dataset, read_images
from svgd_monai.data.dataset import Draw, StepSampler, VolumeDataset, epoch_length, epochs, fingerprints
from svgd_monai.data.flags import FLAGS_FILE, report_flags, signature
from svgd_monai.data.phantom import make_phantom
from svgd_monai.data.roles import RoundDatalist, read_datalist, write_datalist
from svgd_monai.data.source import (
    checked_images,
    class_names,
    labelled_cases,
    phantom_dataset,
    pool_items,
    revealed_labels,
    round_datalist,
    stage_datalist,
)
from svgd_monai.data.spatial import FileAffineReader, to_grid
from svgd_monai.data.splits import Split, draw_split, read_split, resolve_split
from svgd_monai.data.task import TaskData, find_cases, load_task
from svgd_monai.data.transforms import (
    ToPlaind,
    augmentation,
    foreground_crop,
    preprocessing,
    training_crop,
    training_preprocessing,
    without_padding,
)

__all__ = [
    "BAD_CASES_FILE",
    "FLAGS_FILE",
    "CaseFacts",
    "Draw",
    "FileAffineReader",
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
    "find_cases",
    "fingerprints",
    "foreground_crop",
    "labelled_cases",
    "load_task",
    "make_phantom",
    "phantom_dataset",
    "pool_items",
    "preprocessing",
    "read_bad_cases",
    "read_classes",
    "read_datalist",
    "read_dataset",
    "read_images",
    "read_split",
    "report_flags",
    "resolve_split",
    "revealed_labels",
    "round_datalist",
    "signature",
    "stage_datalist",
    "to_grid",
    "training_crop",
    "training_preprocessing",
    "transform_key",
    "without_padding",
    "write_bad_cases",
    "write_datalist",
]
