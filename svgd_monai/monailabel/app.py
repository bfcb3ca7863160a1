"""MONAI Label's stock app ``monaibundle``, with the committee's scores and strategy for each of our bundles.

An app's folder has a ``main.py`` and, under ``model/``, the bundles:

    from svgd_monai.monailabel.app import CommitteeApp  # noqa: F401

is all that this ``main.py`` holds. It is started as any other app of MONAI Label; ``--conf`` also takes
``lease_hours`` and the keys of :data:`svgd_monai.monailabel.stage.QUERY_KEYS`, e.g. ``--conf acquisition bald``.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from svgd_monai.errors import SettingsError
from svgd_monai.monailabel.interfaces import ScoringMethod, Strategy, app_base, stock_app
from svgd_monai.monailabel.leases import LeaseBook
from svgd_monai.monailabel.pool import PoolScorer
from svgd_monai.monailabel.scoring import CommitteeScoring
from svgd_monai.monailabel.stage import QUERY_KEYS
from svgd_monai.monailabel.strategy import CommitteeStrategy

LEASE_HOURS = 24.0

_Stock: Any = stock_app()
_Base: Any = app_base()


class CommitteeApp(_Stock, _Base):
    """The stock app, unchanged, and for each bundle with an ``acquire.yaml`` a scoring method and a strategy.

    Both have the name of the bundle. MONAI Label finds an app by a base of the name ``MONAILabelApp``, hence the
    second. What they keep lies beside the images, in ``.svgd_monai``: leases of images, preprocessed volumes, mutual
    information. For a remote datastore it lies in the app's folder.

    Args:
        app_dir: the app's folder.
        studies: the datastore: a folder, or its address.
        conf: what the server's ``--conf`` says.

    Raises:
        SettingsError: a name in ``conf`` is nearly one of ours, or the value of one of ours is wrong.
    """

    def __init__(self, app_dir: str, studies: str, conf: Mapping[str, str]) -> None:
        check_names(conf)
        super().__init__(app_dir, studies, conf)

    def init_strategies(self) -> dict[str, Strategy]:
        """The stock strategies and, for each bundle, the committee's; all of these share the leases."""
        leases = LeaseBook(self._folder() / "leases.json", 3600 * _hours(self.conf.get("lease_hours", LEASE_HOURS)))
        strategies = {n: CommitteeStrategy(n, scorer, leases) for n, scorer in self._scorers().items()}
        return {**super().init_strategies(), **strategies}

    def init_scoring_methods(self) -> dict[str, ScoringMethod]:
        """The stock scoring methods and, for each bundle, the committee's."""
        methods = {n: CommitteeScoring(n, scorer) for n, scorer in self._scorers().items()}
        return {**super().init_scoring_methods(), **methods}

    def _scorers(self) -> dict[str, PoolScorer]:
        return {
            name: PoolScorer(bundle, self._folder() / name, self.conf)
            for name, bundle in self.models.items()
            if (Path(bundle) / "configs" / "acquire.yaml").is_file()
        }

    def _folder(self) -> Path:
        if "://" in self.studies:
            return Path(self.app_dir) / ".svgd_monai" / hashlib.sha256(self.studies.encode()).hexdigest()[:16]
        return Path(self.studies) / ".svgd_monai"


def check_names(names: Iterable[str]) -> None:
    """Refuse a mistyped key of ours. Others are left alone: MONAI Label has keys of its own and lists them nowhere.

    Raises:
        SettingsError: a name is nearly that of a key.
    """
    ours = (*QUERY_KEYS, "lease_hours")
    for name in names:
        near = get_close_matches(name, ours, n=1, cutoff=0.8)
        if near and name not in ours:
            raise SettingsError(f"--conf {name}: there is no such key; did you mean {near[0]}?")


def _hours(value: Any) -> float:
    try:
        hours = float(value)
        if not (math.isfinite(hours) and hours > 0):
            raise ValueError
    except (TypeError, ValueError):
        raise SettingsError(f"lease_hours: {value!r} is not a number above 0.") from None
    return hours
