"""Score a pool while any MONAI evaluator runs over it."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from ignite.engine import Engine, Events
from torch import Tensor

from svgd_monai.acquisition.cautions import warn_certain, warn_undefined
from svgd_monai.acquisition.names import PoolNames
from svgd_monai.acquisition.outputs import items_of, statistics_of, voxel_ml
from svgd_monai.acquisition.ranking import write_ranking
from svgd_monai.acquisition.reduction import MapReduction, slabs
from svgd_monai.acquisition.score import NormaliseName, rank_cases
from svgd_monai.acquisition.strategies import get_strategy, select
from svgd_monai.acquisition.uncertainty import maps_from_statistics
from svgd_monai.acquisition.view import PoolView, ScoreOptions
from svgd_monai.errors import DataError, SettingsError
from svgd_monai.files import write_csv, write_json
from svgd_monai.processes import gathered, is_first, processes
from svgd_monai.seeding import derive_seed
from svgd_monai.statistics import EXTRA_CHANNELS, mean_probability
from svgd_monai.temporaries import remove_temporaries
from svgd_monai.words import count

logger = logging.getLogger(__name__)

SCORES_FILE = "scores.csv"
QUERIES_FILE = "queries.json"
COLUMNS = (
    "case", "uncertainty", "mutual_information", "score", "rank", "labelled", "queried", "foreground_ml",
    "disagreement",
)  # fmt: skip


class AcquisitionHandler:
    """Accumulates a score per case and writes ``scores.csv`` and ``queries.json``.

    Attach it to any MONAI evaluator over a pool. Nothing is kept of a case but its numbers: its maps are computed slab
    by slab, and the engine lets go of its batch and output before the next case is read and before the ranking. Where
    several processes share the pool, each ranks all of it, and the first writes.

    A case goes by its item's ``case``; where a data list has none, by the name of the image's file without ``.nii`` or
    ``.nii.gz``. What the evaluator must put out, see :func:`~svgd_monai.acquisition.outputs.statistics_of`.

    Args:
        folder: where the two files are written, each at once and whole.
        acquisition: name of the strategy, or the dotted path of the user's own.
        labelled: the distinct labelled case ids.
        information: (cases, labelled) -> (N,) mutual information in nats, for the strategies that use it; its method
            ``pairs``, see :class:`~svgd_monai.acquisition.pool.PoolInformation`, for those that compare cases, and
            ``entropies``, see there, where it has one.
        count: queries to make; 0 ranks the pool and writes no ``queries.json``.
        keep_labelled: whether labelled cases may be queried again.
        mi_weight: weight of the mutual information.
        normalise: ``minmax``, ``zscore`` or ``rank``.
        normalise_over: the cases that set the range: ``unlabelled`` or ``all``.
        reduction: from voxels to the case's value: ``mean``, ``sum``, ``foreground`` or ``top``.
        seed: of the random strategies.
        ranking_file: where the unlabelled cases are written in the order in which to label them; None: nowhere.
        statistics: output of the engine -> statistics of each case.
        candidates: how many of the most uncertain cases ``max_cover`` chooses from, twice the queries at the least.
        redraws: ``score`` or ``random``, see :func:`~svgd_monai.acquisition.strategies.select`.
        shuffle_scores: a control, see there.

    Raises:
        SettingsError: an unknown name, or a strategy that needs mutual information without ``information``.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        acquisition: str = "entropy_mi",
        labelled: Sequence[str] = (),
        information: Callable[[Sequence[str], Sequence[str]], Tensor] | None = None,
        count: int = 1,
        keep_labelled: bool = True,
        mi_weight: float = 1.0,
        normalise: NormaliseName = "minmax",
        normalise_over: Literal["unlabelled", "all"] = "unlabelled",
        reduction: str = "mean",
        seed: int = 0,
        ranking_file: str | os.PathLike[str] | None = None,
        statistics: Callable[[Any], Iterable[Tensor]] = statistics_of,
        candidates: int = 16,
        redraws: str = "score",
        shuffle_scores: bool = False,
    ) -> None:
        self.folder = Path(folder)
        self.strategy = get_strategy(acquisition)
        if self.strategy.uses_information and information is None:
            raise SettingsError(f"acquisition: {acquisition} needs the mutual information of the pool.")
        self.labelled = frozenset(labelled)
        self.information = information
        self.count = count
        self.keep_labelled = keep_labelled
        self.options = ScoreOptions(mi_weight, normalise, normalise_over, candidates)
        self.redraws = redraws
        self.shuffle_scores = shuffle_scores
        self.reduction = reduction
        self.seed = seed
        self.ranking_file = ranking_file
        self.statistics = statistics
        self._names = PoolNames()
        self.cases: list[str] = []
        self._uncertainty: list[float] = []
        self._foreground: list[float] = []
        self._disagreement: list[float] = []

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator."""
        engine.add_event_handler(Events.STARTED, self.reset)
        engine.add_event_handler(Events.GET_BATCH_STARTED, _let_go)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.accumulate)
        engine.add_event_handler(Events.COMPLETED, self.write)

    def reset(self, engine: Engine) -> None:
        """Forget the last run, and remove what one that was killed has left half written."""
        self._names = PoolNames()
        self.cases, self._uncertainty, self._foreground, self._disagreement = [], [], [], []
        if is_first():
            remove_temporaries(self.folder)

    def accumulate(self, engine: Engine) -> None:
        """Take in a batch.

        Raises:
            DataError: a prediction is not finite, or an item has no name, or that of another.
            SettingsError: the evaluator puts out what has no uncertainty.
        """
        for item, statistics in zip(items_of(engine.state.batch), self.statistics(engine.state.output), strict=True):
            self.cases.append(self._names.add(item))
            self._measure(torch.as_tensor(statistics), voxel_ml(item))
            if not (math.isfinite(self._uncertainty[-1]) and math.isfinite(self._disagreement[-1])):
                raise DataError(
                    f"case {self.cases[-1]}: the prediction is not finite; its image or the committee holds values "
                    "that are not."
                )

    def _measure(self, statistics: Tensor, voxel_ml: float) -> None:
        """Take the numbers of a case, (C + 2, ...), slab by slab: its maps are never there as a whole."""
        classes = statistics.shape[0] - EXTRA_CHANNELS
        voxels = statistics[0].numel()
        uncertainty, disagreement, foreground = MapReduction(self.reduction, voxels), MapReduction("mean", voxels), 0
        for slab in slabs(statistics):
            batch = slab[None]
            inside = mean_probability(batch).argmax(1) > 0
            foreground += int(inside.sum())
            uncertainty.add(maps_from_statistics(batch, classes, self.strategy.uncertainty_map), inside)
            disagreement.add(maps_from_statistics(batch, classes, "bald"))
        self._uncertainty.append(uncertainty.value())
        self._disagreement.append(disagreement.value())
        self._foreground.append(foreground * voxel_ml)

    def write(self, engine: Engine) -> None:
        """Score, rank, choose, and write both files; ``queries.json`` last, for its presence ends the stage."""
        _let_go(engine)
        self._gather()
        cases = tuple(self.cases)
        warn_certain(self._uncertainty)
        labelled = torch.tensor([case in self.labelled for case in cases], dtype=torch.bool)
        source = self.information if self.strategy.uses_information else None
        information = None
        if source is not None:
            information = source(cases, sorted(self.labelled))
            warn_undefined(cases, information)
        view = PoolView(
            cases=cases,
            uncertainty=torch.tensor(self._uncertainty, dtype=torch.float64),
            information=information,
            foreground=torch.tensor(self._foreground, dtype=torch.float64),
            labelled=labelled,
            rng=np.random.default_rng(derive_seed(self.seed, "acquisition")),
            pairs=getattr(source, "pairs", None),
            labelled_cases=tuple(sorted(self.labelled)),
            entropies=getattr(source, "entropies", None),
        )
        scores, queried = select(
            self.strategy, view, self.options, self.count, self.keep_labelled, self.redraws, self.shuffle_scores
        )
        if not is_first():
            return
        rows = self._rows(view, scores, queried)
        if self.count == 0:  # an earlier command may have queried here, by other scores
            (self.folder / QUERIES_FILE).unlink(missing_ok=True)
        if self.ranking_file is not None:
            write_ranking(self.ranking_file, [row for row in rows if not row["labelled"]])
        write_csv(self.folder / SCORES_FILE, COLUMNS, rows)
        if self.count > 0:
            write_json(self.folder / QUERIES_FILE, queried)
        new = [case for case in queried if case not in self.labelled]
        again = [case for case in queried if case in self.labelled]
        chosen = (("to label next", new), ("drawn again", again))
        said = [f"; {what}: {', '.join(named)}" for what, named in chosen if named]
        logger.info("%s scored%s", count(len(cases), "case"), "".join(said))

    def _gather(self) -> None:
        """Put together what several processes have measured, so that each has all and ranks it alike."""
        if processes()[1] > 1:
            numbers = zip(self._uncertainty, self._foreground, self._disagreement, strict=True)
            self._names.compare()
            found = gathered(dict(zip(self.cases, numbers, strict=True)))
            self.cases = list(found)
            columns = zip(*found.values(), strict=True) if found else ((), (), ())
            self._uncertainty, self._foreground, self._disagreement = (list(column) for column in columns)

    def _rows(self, view: PoolView, scores: Tensor, queried: Sequence[str]) -> list[dict[str, Any]]:
        shared = [None] * len(view.cases) if view.information is None else view.information.tolist()
        chosen = set(queried)
        return [
            {
                "case": view.cases[index],
                "uncertainty": self._uncertainty[index],
                "mutual_information": _defined(shared[index]),
                "score": float(scores[index]),
                "rank": rank,
                "labelled": bool(view.labelled[index]),
                "queried": view.cases[index] in chosen,
                "foreground_ml": self._foreground[index],
                "disagreement": self._disagreement[index],
            }
            for rank, index in enumerate(rank_cases(scores, view.cases, view.labelled.tolist()), start=1)
        ]


def _let_go(engine: Engine) -> None:
    """Drop the last case, whose statistics else would stay while the next one is read and resampled."""
    engine.state.batch = engine.state.output = None


def _defined(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value
