"""Active learning for 3D medical segmentation: a Stein variational committee tells which scan to label next."""

from svgd_monai import acquisition, committee, data, evaluation, report, workflow
from svgd_monai.acquisition import (
    acquisition_score,
    bald,
    entropy,
    image_mutual_information,
    jensen_shannon,
    pairwise_mutual_information,
    variance,
)
from svgd_monai.committee import CommitteeMean, LogDiceLoss, Particles, median_bandwidth, svgd_direction
from svgd_monai.seeding import derive_seed

__version__ = "0.1.0"

__all__ = [
    "CommitteeMean",
    "LogDiceLoss",
    "Particles",
    "__version__",
    "acquisition",
    "acquisition_score",
    "bald",
    "committee",
    "data",
    "derive_seed",
    "entropy",
    "evaluation",
    "image_mutual_information",
    "jensen_shannon",
    "median_bandwidth",
    "pairwise_mutual_information",
    "report",
    "svgd_direction",
    "variance",
    "workflow",
]
