"""Post-processing of a committee's prediction."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from monai.transforms import MapTransform
from monai.utils import convert_to_dst_type

from svgd_monai.acquisition import UNCERTAINTY_NAMES, maps_from_statistics
from svgd_monai.errors import SettingsError
from svgd_monai.statistics import EXTRA_CHANNELS, STATISTICS

UNCERTAINTY = "uncertainty"


class UncertaintyMapd(MapTransform):
    """Adds ``uncertainty`` (1, X, Y, Z) from the ``statistics`` (C + 2, X, Y, Z) of a committee, and drops these.

    Args:
        name: ``entropy``, ``bald``, ``variance`` or ``jensen_shannon``.

    Raises:
        SettingsError: the name is unknown.
    """

    def __init__(self, name: str = "entropy") -> None:
        super().__init__(STATISTICS)
        if name not in UNCERTAINTY_NAMES:
            raise SettingsError(f"uncertainty_map: {name!r} is not one of {', '.join(UNCERTAINTY_NAMES)}.")
        self.name = name

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Dictionary in, dictionary out."""
        result = dict(data)
        statistics = result.pop(STATISTICS)
        values = maps_from_statistics(statistics[None], statistics.shape[0] - EXTRA_CHANNELS, self.name)
        result[UNCERTAINTY] = convert_to_dst_type(values, statistics)[0]
        return result
