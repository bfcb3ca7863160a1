"""How a method's committees are trained, as far as its settings say: what a comparison of queries takes to be the same.

What a committee is (SVGD or an ensemble, its prior, its members) is what methods may differ in. How much it is trained,
on what, and with which network is not: three times the steps may gain more than any choice of queries.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from svgd_monai.history import LATER_KEYS
from svgd_monai.report.run import Run
from svgd_monai.report.text import one_line

#: Settings, and components of an overlay, that say how much a committee is trained, on what, and with which network.
#: ``warm_start`` is none of them: a run on the full data has one training, which begins anew in either way.
TRAINING = (
    "architecture", "augmentation", "batch_size", "crop", "features", "intensity", "learning_rate",
    "learning_rate_schedule", "loss", "network", "network_def", "optimizer", "pad_to", "preprocessing", "roi_size",
    "spacing", "stages#train", "steps_per_round", "train",
)  # fmt: skip


def all_settings(run: Run, known: Iterable[str] = ()) -> dict[str, str]:
    """A run's settings and its overlay's components as text; of an earlier version's run, what it worked by as well.

    Args:
        run: the run.
        known: further keys, which count as null where the run has none.
    """
    components = run.record.get("components")
    overlays: Mapping[str, Any] = components if isinstance(components, dict) else {}
    both = {**dict.fromkeys(known), **LATER_KEYS, **run.settings, **overlays}
    return {key: as_text(value) for key, value in both.items()}


def unlike_training(*runs: Run) -> list[str]:
    """The keys of :data:`TRAINING` in which runs differ."""
    every = [all_settings(run, TRAINING) for run in runs]
    return [key for key in TRAINING if len({each[key] for each in every}) > 1]


def as_text(value: Any) -> str:
    """A setting's value on one line."""
    return one_line(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
