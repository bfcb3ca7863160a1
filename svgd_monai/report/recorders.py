"""What a run shows in TensorBoard beside the training's own curves."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from ignite.engine import Engine, Events
from matplotlib.figure import Figure
from monai.transforms import Compose
from torch.utils.tensorboard import SummaryWriter

from svgd_monai.acquisition import UNITS, get_strategy, maps_from_statistics
from svgd_monai.acquisition.handler import QUERIES_FILE, SCORES_FILE
from svgd_monai.acquisition.outputs import affine_of
from svgd_monai.acquisition.reduction import slabs
from svgd_monai.files import read_csv, read_json
from svgd_monai.report.panels import case_panel
from svgd_monai.statistics import EXTRA_CHANNELS, mean_probability

#: Panels of a round: more are not looked at.
PANELS = 4
#: A Ctrl-C that falls into the handing over of a record leaves TensorBoard's thread asleep until it next flushes, and
#: the command's end waits for it: so not for the 120 seconds that are usual.
FLUSH_SECONDS = 10


def summary_writer(log_dir: str | os.PathLike[str], **options: Any) -> SummaryWriter:
    """The TensorBoard writer of a run or a stage.

    Args:
        log_dir: the folder of its event files.
        options: further ones of torch's ``SummaryWriter``.
    """
    return SummaryWriter(str(log_dir), **{"flush_secs": FLUSH_SECONDS, **options})


class Writer(Protocol):
    """The part of ``torch.utils.tensorboard.SummaryWriter`` that is used here."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> Any:
        """Record a number."""

    def add_histogram(self, tag: str, values: Any, global_step: int) -> Any:
        """Record a distribution."""

    def add_figure(self, tag: str, figure: Any, global_step: int) -> Any:
        """Record a picture."""


class PoolRecorder:
    """After a pool has been scored: the histogram of its scores, and a picture of each queried case.

    Attach it behind the :class:`~svgd_monai.acquisition.AcquisitionHandler`, to a
    :class:`~svgd_monai.committee.CommitteeEvaluator` over ``dataset``.

    Args:
        writer: a summary writer; None, as in all but the first of several processes, records nothing.
        folder: where the acquisition handler writes.
        dataset: the pool, preprocessed.
        labels: label file of each case that the oracle reveals; a case that is not in it is shown without truth.
        transform: the preprocessing of ``{"image", "label"}``, for the truth.
        step: the round.
        acquisition: the strategy whose uncertainty map is shown.
        classes: names of the classes, background first.
    """

    def __init__(
        self,
        writer: Writer | None,
        folder: str | os.PathLike[str],
        dataset: Any,
        labels: Mapping[str, str],
        transform: Compose,
        step: int = 0,
        acquisition: str = "entropy",
        classes: Mapping[int, str] | None = None,
    ) -> None:
        self.writer = writer
        self.folder = Path(folder)
        self.dataset = dataset
        self.labels = labels
        self.transform = transform
        self.step = step
        self.uncertainty_map = get_strategy(acquisition).uncertainty_map
        self.classes = [name for _, name in sorted((classes or {}).items())]

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator."""
        if self.writer is not None:
            engine.add_event_handler(Events.COMPLETED, self.record)

    def record(self, engine: Engine) -> None:
        """Histogram and pictures of the round."""
        assert self.writer is not None  # else it is not attached
        rows = read_csv(self.folder / SCORES_FILE)
        for column in ("score", "uncertainty", "mutual_information", "disagreement"):
            values = [float(row[column]) for row in rows if row[column]]
            finite = [value for value in values if math.isfinite(value)]
            if finite:
                self.writer.add_histogram(f"pool/{column}", torch.tensor(finite), self.step)
                self.writer.add_scalar(f"pool_mean/{column}", sum(finite) / len(finite), self.step)
        if not (self.folder / QUERIES_FILE).is_file():
            return
        position = {item["case"]: index for index, item in enumerate(self.dataset.data)}
        for rank, case in enumerate(read_json(self.folder / QUERIES_FILE)[:PANELS], start=1):
            figure = self._picture(engine, case, position[case])
            self.writer.add_figure(f"queried/{rank}", figure, self.step)

    def _picture(self, engine: Any, case: str, index: int) -> Figure:
        truth = None
        if case in self.labels:  # first: resampling needs as much memory as the rest
            truth = self.transform({"image": self.dataset.data[index]["image"], "label": self.labels[case]})["label"][0]
        item = self.dataset[index]
        image = torch.as_tensor(item["image"])
        with torch.no_grad(), engine.mode(engine.network):
            statistics = engine.inferer(image[None].to(engine.state.device), engine.statistics).cpu()[0]
        classes = statistics.shape[0] - EXTRA_CHANNELS
        uncertainty = torch.cat(
            [maps_from_statistics(slab[None], classes, self.uncertainty_map)[0] for slab in slabs(statistics)]
        )
        unit = UNITS[self.uncertainty_map]
        # An entropy is measured by what it can be; what members disagree is far from that, and would be black.
        top = math.log(classes) if self.uncertainty_map == "entropy" else None
        probability = mean_probability(statistics[None])[0]
        width, height = torch.linalg.vector_norm(affine_of(item)[:3, :2], dim=0).tolist()
        return case_panel(case, image[0], probability, uncertainty, truth, self.classes, unit, top, height / width)


def dice_tag(column: str) -> str | None:
    """TensorBoard's tag of a column of the learning curve; None for one that is no Dice.

    ``val_dice`` -> ``dice_validation/mean``, ``test_dice_anterior`` -> ``dice_test/anterior``.
    """
    for prefix, group in (("val_dice", "dice_validation"), ("test_dice", "dice_test")):
        if column == prefix or column.startswith(f"{prefix}_"):
            return f"{group}/{column.removeprefix(prefix).removeprefix('_') or 'mean'}"
    return None


class RoundRecorder:
    """A hook of the loop: validation and test Dice, per class and mean, against the number of unique labels."""

    def after_round(self, run: Any, number: int) -> None:
        """Record the round that has just been measured.

        Args:
            run: the run; its ``writer`` and ``curve`` are read.
            number: the round.
        """
        row = run.curve[number]
        labels = int(row["unique_labels"])
        for column, value in row.items():
            if value is not None and (tag := dice_tag(column)):
                run.writer.add_scalar(tag, float(value), labels)
        run.writer.add_scalar("labels/unique", labels, number)
        run.writer.add_scalar("labels/training_items", int(row["training_items"]), number)
        run.writer.flush()
