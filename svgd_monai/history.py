"""What runs of earlier versions worked by."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

#: What a run of a version without a key worked by, for each key that has joined the package since: a run may go on
#: under a later version as long as the key says the same. A key whose value here would be null needs no line.
LATER_KEYS: Mapping[str, Any] = MappingProxyType(
    {"learning_rate_schedule": "constant", "member_batches": "shared", "redraws": "score", "shuffle_scores": False,
     "deterministic": False, "on_bad_particle": "restore"}
)  # fmt: skip
