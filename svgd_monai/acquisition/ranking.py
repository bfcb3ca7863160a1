"""``ranking.csv``: the order in which to label."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from svgd_monai.files import write_csv

RANKING_COLUMNS = ("rank", "case", "score", "uncertainty", "mutual_information", "foreground_ml")


def write_ranking(path: str | os.PathLike[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the order in which to label.

    Args:
        path: of the CSV.
        rows: of ``scores.csv``, those of the unlabelled cases in their order.

    Raises:
        OSError: the file system refuses.
    """
    ranked = [{**{key: row[key] for key in RANKING_COLUMNS}, "rank": rank} for rank, row in enumerate(rows, start=1)]
    write_csv(path, RANKING_COLUMNS, ranked)
