"""Active learning for 3D medical segmentation: a Stein variational committee tells which scan to label next."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

__version__ = "0.2.0"

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

_ROOMS = ("acquisition", "committee", "data", "evaluation", "report", "workflow")


def __getattr__(name: str) -> Any:
    """Import a room, or what it lends to the top level, when it is first asked for: MONAI takes seconds to import."""
    if name in _ROOMS:
        return import_module(f"svgd_monai.{name}")
    if name in __all__:
        home = {
            "CommitteeMean": "committee", "LogDiceLoss": "committee", "Particles": "committee",
            "median_bandwidth": "committee", "svgd_direction": "committee", "derive_seed": "seeding",
        }.get(name, "acquisition")  # fmt: skip
        return getattr(import_module(f"svgd_monai.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
