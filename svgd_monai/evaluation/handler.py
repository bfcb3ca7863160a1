"""Writes ``metrics.json`` and ``cases.csv`` while an evaluator runs."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Mapping
from pathlib import Path

from ignite.engine import Engine, Events
from monai.transforms import LoadImage

from svgd_monai.acquisition import get_strategy
from svgd_monai.data.datalist import read_classes
from svgd_monai.data.roles import RoundDatalist
from svgd_monai.data.spatial import FileAffineReader
from svgd_monai.evaluation.cases import CaseResult, case_rows, measure_case, summarise_results
from svgd_monai.files import write_csv, write_json
from svgd_monai.processes import gathered, is_first
from svgd_monai.statistics import STATISTICS
from svgd_monai.temporaries import remove_temporaries
from svgd_monai.words import count

logger = logging.getLogger(__name__)

METRICS_FILE = "metrics.json"
CASES_FILE = "cases.csv"
ROLES = ("validation", "test")


class CaseMetricsHandler:
    """Measures every validation and test case and writes both files when the evaluator is done.

    Args:
        folder: where; ``cases.csv`` is written first, ``metrics.json`` ends the stage.
        datalist: gives the role and the label file of each case.
        dataset_dir: the data set's folder, whose ``dataset.json`` names the classes; without ``classes`` only.
        acquisition: the strategy whose uncertainty map stands in ``cases.csv``.
        reduction: from voxels to the case's value.
        distances: whether to compute Hausdorff and surface distances, which cost the most.
        classes: name of each label value, background 0 included, where no ``dataset.json`` names them.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        datalist: RoundDatalist,
        dataset_dir: str | os.PathLike[str] = "",
        acquisition: str = "entropy",
        reduction: str = "mean",
        distances: bool = True,
        classes: Mapping[int, str] | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.labels = {item["case"]: item["label"] for role in ROLES for item in getattr(datalist, role)}
        self.roles = {item["case"]: role for role in ROLES for item in getattr(datalist, role)}
        self.classes = read_classes(dataset_dir) if classes is None else dict(classes)
        self.uncertainty_map = get_strategy(acquisition).uncertainty_map
        self.reduction = reduction
        self.distances = distances
        self.results: dict[str, CaseResult] = {}
        self._load = LoadImage(FileAffineReader, image_only=True, ensure_channel_first=True)

    def attach(self, engine: Engine) -> None:
        """Attach to a :class:`~svgd_monai.committee.evaluator.CommitteeEvaluator`."""
        engine.add_event_handler(Events.STARTED, self.reset)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.measure)
        engine.add_event_handler(Events.COMPLETED, self.write)

    def reset(self, engine: Engine) -> None:
        """Forget the last run, and remove what one that was killed has left half written."""
        self.results.clear()
        if is_first():
            remove_temporaries(self.folder)

    def measure(self, engine: Engine) -> None:
        """Measure the cases of a batch."""
        for item, output in zip(engine.state.batch, engine.state.output, strict=True):
            case = str(item["case"])
            with warnings.catch_warnings():
                # MONAI warns of every class that a prediction does not hold; the result says so.
                warnings.filterwarnings("ignore", message=".*(all 0|surface|empty).*")
                warnings.filterwarnings("ignore", category=FutureWarning, module="monai")
                self.results[case] = measure_case(
                    output[STATISTICS],
                    item["affine"],
                    item["label"],
                    self._load(self.labels[case]),
                    self.uncertainty_map,
                    self.reduction,
                    self.distances,
                )

    def write(self, engine: Engine) -> None:
        """Put together what the processes have measured, and write both files."""
        self.results = gathered(self.results)
        if not is_first():
            return
        columns, rows = case_rows(self.results, self.roles, self.classes)
        write_csv(self.folder / CASES_FILE, columns, rows)
        by_role = {role: {c: r for c, r in self.results.items() if self.roles[c] == role} for role in ROLES}
        summary = {role: summarise_results(results, self.classes) for role, results in by_role.items()}
        path = write_json(self.folder / METRICS_FILE, summary)
        measured = {role: found["dice"] for role, found in summary.items() if found["dice"] is not None}
        dice = ", ".join(f"{role} Dice {value:.4f}" for role, value in measured.items())
        cases = count(len(self.results), "case")
        logger.info("%s measured in their own geometry: %s (%s)", cases, dice, path)
