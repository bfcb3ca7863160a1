"""Acquisition: voxel uncertainty, image mutual information, the score, and the strategies that query by it."""

from svgd_monai.acquisition.handler import AcquisitionHandler
from svgd_monai.acquisition.information import (
    digitise,
    image_mutual_information,
    is_constant,
    pairwise_mutual_information,
)
from svgd_monai.acquisition.information_store import InformationStore
from svgd_monai.acquisition.pool import PoolInformation, aggregate_information
from svgd_monai.acquisition.reduction import REDUCTION_NAMES, reduce_map
from svgd_monai.acquisition.registry import strategy
from svgd_monai.acquisition.score import NORMALISE_NAMES, acquisition_score, rank_cases
from svgd_monai.acquisition.strategies import STRATEGY_NAMES, get_strategy, select
from svgd_monai.acquisition.uncertainty import (
    UNCERTAINTY_NAMES,
    UNITS,
    bald,
    committee_statistics,
    entropy,
    jensen_shannon,
    maps_from_statistics,
    variance,
)
from svgd_monai.acquisition.view import (
    ImageEntropies,
    PairInformation,
    PoolView,
    Query,
    ScoreFunction,
    ScoreOptions,
    Strategy,
)

__all__ = [
    "NORMALISE_NAMES",
    "REDUCTION_NAMES",
    "STRATEGY_NAMES",
    "UNCERTAINTY_NAMES",
    "UNITS",
    "AcquisitionHandler",
    "ImageEntropies",
    "InformationStore",
    "PairInformation",
    "PoolInformation",
    "PoolView",
    "Query",
    "ScoreFunction",
    "ScoreOptions",
    "Strategy",
    "acquisition_score",
    "aggregate_information",
    "bald",
    "committee_statistics",
    "digitise",
    "entropy",
    "get_strategy",
    "image_mutual_information",
    "is_constant",
    "jensen_shannon",
    "maps_from_statistics",
    "pairwise_mutual_information",
    "rank_cases",
    "reduce_map",
    "select",
    "strategy",
    "variance",
]
