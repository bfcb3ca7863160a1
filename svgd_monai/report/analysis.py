"""What a study says: areas, differences between methods, labels to reach the full-data Dice."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from svgd_monai.report.budget import Curve, area, labels_to_reach, measured, on_grid, reach_interval, shared_range
from svgd_monai.report.run import Run
from svgd_monai.report.significance import LEVEL, PairedTest, holm, paired_test, penalties
from svgd_monai.report.study import Study

#: Shares of the full-data Dice to reach.
SHARES = (0.90, 0.95, 0.99, 1.00)
#: The one metric that is tested: the primary outcome of a study.
AREA = "aubc"


@dataclass(frozen=True)
class Pair:
    """Two methods, compared at the seeds at which both measured the same test cases of the same data set.

    Attributes:
        a: name of a method.
        b: name of the other.
        seeds: the seeds.
        unlike: further seeds that both have, at which data or test cases differ.
        span: the label counts that their runs share; None where these are not two.
        alone: where they share a single label count, which spans no area, that.
        differences: (n,) area of a − area of b, by seed; empty where ``span`` is None.
        test: of the areas.
        p_holm: its p-value, corrected for all pairs of the study.
        penalty_a: share of the budgets at which b is better than a, of those at which all of the pair's runs were
            measured.
        penalty_b: share of the budgets at which a is better than b.
    """

    a: str
    b: str
    seeds: tuple[int, ...]
    span: tuple[float, float] | None
    differences: np.ndarray
    test: PairedTest
    p_holm: float
    penalty_a: float
    penalty_b: float
    unlike: tuple[int, ...] = ()
    alone: float | None = None

    @property
    def significant(self) -> bool:
        """Whether the areas differ at 5 %, corrected."""
        return self.p_holm < LEVEL

    def __neg__(self) -> Pair:
        """The same pair, b − a."""
        test = replace(self.test, mean=-self.test.mean, low=-self.test.high, high=-self.test.low)
        return replace(self, a=self.b, b=self.a, differences=-self.differences, test=test,
                       penalty_a=self.penalty_b, penalty_b=self.penalty_a)  # fmt: skip


@dataclass(frozen=True)
class Reach:
    """Labels that a method takes to reach a share of the full-data Dice, both at the seeds that both have.

    Where they have none in common, each is at all seeds of its own. Runs of other data or test cases are left out.

    Attributes:
        seeds: n, the method's.
        target: the Dice to reach.
        labels: unique labels, infinite where never reached.
        low: lower end of the bootstrap interval.
        high: its upper end, infinite where some draws never reach.
        last: the last count that all of the method's runs have; of what more labels would give nothing is known.
        at_the_end: reached at that count only, so that nothing shows that it stays.
        at_the_start: reached at the first count already, so that fewer may do.
        validation: validation cases, which cost labels as well; None where the runs differ or do not say.
        pool: cases of the initial set and the pool; likewise.
    """

    seeds: int
    target: float
    labels: float
    low: float
    high: float
    last: float
    at_the_end: bool
    at_the_start: bool
    validation: int | None
    pool: int | None


@dataclass
class Analysis:
    """The numbers behind the report.

    Attributes:
        study: the runs.
        span: the label counts that all methods share; None where these are not two.
        areas: (S,) for each method that queries, by seed; NaN throughout for a method of which a run has no curve.
        pairs: all pairs of methods that query, in the order of their names.
        reach: by method and share; empty without a full-data run.
    """

    study: Study
    span: tuple[float, float] | None = None
    areas: dict[str, np.ndarray] = field(default_factory=dict)
    pairs: list[Pair] = field(default_factory=list)
    reach: dict[tuple[str, float], Reach] = field(default_factory=dict)

    @property
    def by_area(self) -> list[str]:
        """The methods that query, the largest mean area first, those without one last."""
        return sorted(self.areas, key=lambda m: (math.isnan(mean(self.areas[m])), -mean(self.areas[m]), m))

    def pair(self, a: str, b: str) -> Pair:
        """The pair a − b."""
        found = self._by_names.get((a, b))
        return -self._by_names[b, a] if found is None else found

    @cached_property
    def _by_names(self) -> dict[tuple[str, str], Pair]:
        return {(pair.a, pair.b): pair for pair in self.pairs}


def analyse(study: Study) -> Analysis:
    """Compute everything that the report tells of the curves."""
    methods = study.queried
    curves = {name: [run.curve for run in runs] for name, runs in methods.items()}
    span = shared_range([c for each in curves.values() if is_curve(each) for c in each])
    analysis = Analysis(study, span)
    for name, each in curves.items():
        known = span if is_curve(each) else None
        analysis.areas[name] = np.asarray([area(c, *known) if known else math.nan for c in each])
    pairs = [_compare(a, methods[a], b, methods[b]) for a, b in itertools.combinations(methods, 2)]
    corrected = holm(np.asarray([pair.test.p_value for pair in pairs]))
    analysis.pairs = [replace(pair, p_holm=float(p)) for pair, p in zip(pairs, corrected, strict=True)]
    for name, runs in methods.items():
        ours, full = _at_same_seeds(runs, study.full_data_of(name))
        if not ours:
            continue
        grid, dice = on_grid([run.curve for run in ours])
        full_dice = np.asarray([run.final_dice for run in full])
        paired = [run.seed for run in ours] == [run.seed for run in full]
        for share in SHARES if grid.size else ():
            analysis.reach[name, share] = _reach(grid, dice, full_dice, share, ours, paired)
    return analysis


def is_curve(curves: Sequence[Curve]) -> bool:
    """Whether every one of a method's curves has the two counts that an area needs."""
    return all(len(curve.labels) > 1 for curve in curves)


def reference_method(study: Study) -> str | None:
    """What the others are compared with in the text: a method that queries at random, where there is one.

    Of several, one that is called ``random`` or has no name of its own, that lets labelled cases leave the pool and so
    spends no query on them, of the committee ``svgd``.
    """

    def unlike(name: str) -> tuple[bool, bool, bool, str]:
        settings = study.methods[name][0].settings
        kept, committee = settings.get("keep_labelled") is not False, settings.get("committee")
        return settings.get("method") not in (None, "random"), kept, committee != "svgd", name

    random = [name for name, runs in study.queried.items() if runs[0].settings.get("acquisition") == "random"]
    return min(random, key=unlike, default=None)


def mean(values: np.ndarray) -> float:
    """Mean of what is known; NaN where nothing is."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else math.nan


def deviation(values: np.ndarray) -> float:
    """Standard deviation (n − 1) of what is known; NaN with fewer than two values."""
    known = values[~np.isnan(values)]
    return float(known.std(ddof=1)) if known.size > 1 else math.nan


def same_size(runs: Sequence[Run], *roles: str) -> int | None:
    """Cases of some roles together; None where the runs differ or do not say."""
    sizes = {sum(len(run.cases(role)) for role in roles) for run in runs}
    return sizes.pop() or None if len(sizes) == 1 else None


def _compare(a: str, runs_a: Sequence[Run], b: str, runs_b: Sequence[Run]) -> Pair:
    others = {run.seed: run for run in runs_b}
    alike = {run.seed: run.comparable(others[run.seed]) for run in runs_a if run.seed in others}
    seeds, unlike = (tuple(sorted(s for s, same in alike.items() if same is wanted)) for wanted in (True, False))
    curves_a, curves_b = ([run.curve for run in runs if run.seed in seeds] for runs in (runs_a, runs_b))
    span = shared_range([*curves_a, *curves_b]) if seeds else None
    if span is None:
        nothing = np.zeros(0)
        grid = on_grid([*curves_a, *curves_b])[0] if seeds else nothing
        test, alone = paired_test(nothing, nothing), float(grid[0]) if grid.size else None
        return Pair(a, b, seeds, None, nothing, test, math.nan, math.nan, math.nan, unlike, alone)
    areas_a, areas_b = (np.asarray([area(curve, *span) for curve in curves]) for curves in (curves_a, curves_b))
    grid, dice = on_grid([*curves_a, *curves_b])
    dice = dice[:, measured([*curves_a, *curves_b], grid).all(0)]  # of lines between counts nobody has a test
    wins_a, wins_b = penalties(dice[: len(seeds)], dice[len(seeds) :])
    return Pair(a, b, seeds, span, areas_a - areas_b, paired_test(areas_a, areas_b), math.nan, wins_b, wins_a, unlike)


def _at_same_seeds(runs: Sequence[Run], others: Sequence[Run]) -> tuple[Sequence[Run], Sequence[Run]]:
    """Both without the seeds that the other lacks, for some seeds are easy; all of both where they share none.

    What measured other data or test cases is left out: a seed that both have, or a run of ``others``.
    """
    by_seed = {run.seed: run for run in others}
    shared = [run for run in runs if run.seed in by_seed]
    if not shared:
        comparable = [other for other in others if all(other.comparable(run) for run in runs)]
        return (runs, comparable) if comparable else ([], [])
    seeds = {run.seed for run in shared if run.comparable(by_seed[run.seed])}
    return [run for run in runs if run.seed in seeds], [run for run in others if run.seed in seeds]


def _reach(
    grid: np.ndarray, dice: np.ndarray, full: np.ndarray, share: float, runs: Sequence[Run], paired: bool
) -> Reach:
    target = share * float(full.mean())
    labels = float(labels_to_reach(grid, dice.mean(0), target))
    low, high = reach_interval(grid, dice, full, share, paired=paired)
    sizes = same_size(runs, "validation"), same_size(runs, "initial", "pool")
    last = float(grid[-1])
    ends = bool(labels == last), bool(labels == grid[0])
    return Reach(len(runs), target, labels, low, high, last, *ends, *sizes)
