"""The committee in MONAI Label: a scoring method, a strategy for several annotators, and the app that offers both.

Nothing else in the package imports this room. Without MONAI Label, asking for a name that needs it raises one sentence.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from svgd_monai.monailabel.app import CommitteeApp
    from svgd_monai.monailabel.leases import LeaseBook
    from svgd_monai.monailabel.pool import PoolScorer
    from svgd_monai.monailabel.scoring import CommitteeScoring
    from svgd_monai.monailabel.strategy import CommitteeStrategy

__all__ = ["CommitteeApp", "CommitteeScoring", "CommitteeStrategy", "LeaseBook", "PoolScorer"]

_MODULES = {
    "CommitteeApp": "app",
    "CommitteeScoring": "scoring",
    "CommitteeStrategy": "strategy",
    "LeaseBook": "leases",
    "PoolScorer": "pool",
}


def __getattr__(name: str) -> Any:
    """Import on demand: the pool's scores and the leases need no MONAI Label, the app all of it."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
