"""Post-processing of a committee's prediction."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from monai.transforms import MapTransform
from monai.utils import convert_to_dst_type
from monai.utils.enums import CommonKeys as Keys

from svgd_monai.acquisition import UNCERTAINTY_NAMES, entropy, maps_from_statistics
from svgd_monai.errors import SettingsError
from svgd_monai.statistics import EXTRA_CHANNELS, STATISTICS

UNCERTAINTY = "uncertainty"


class UncertaintyMapd(MapTransform):
    """Adds ``uncertainty`` (1, X, Y, Z) from the ``statistics`` (C + 2, X, Y, Z) of a committee, and drops these.

    A program that runs the bundle's network itself, as MONAI Label does, has the mean probability ``pred``
    (C, X, Y, Z) and no statistics. Entropy follows from that alone; the other maps do not, and the key is left out.

    Args:
        name: ``entropy``, ``bald``, ``variance`` or ``jensen_shannon``.

    Raises:
        SettingsError: the name is unknown.
    """

    def __init__(self, name: str = "entropy") -> None:
        super().__init__(STATISTICS, allow_missing_keys=True)
        if name not in UNCERTAINTY_NAMES:
            raise SettingsError(f"uncertainty_map: {name!r} is not one of {', '.join(UNCERTAINTY_NAMES)}.")
        self.name = name

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Dictionary in, dictionary out."""
        result = dict(data)
        statistics = result.pop(STATISTICS, None)
        if statistics is not None:
            values = maps_from_statistics(statistics[None], statistics.shape[0] - EXTRA_CHANNELS, self.name)
            result[UNCERTAINTY] = convert_to_dst_type(values, statistics)[0]
        elif self.name == "entropy":
            mean = result[Keys.PRED]
            # Blending of windows may leave a p̄ of −1e-9, whose entropy would be −∞.
            result[UNCERTAINTY] = convert_to_dst_type(entropy(mean.clamp(min=0)[None, None]), mean)[0]
        return result
