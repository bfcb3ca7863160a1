"""A study: the finished runs below a folder, grouped into methods.

Nothing but run folders is read, so runs made elsewhere can be added by copying (or linking) them in. Whatever cannot be
used becomes a sentence of :attr:`Study.notes`; it never stops the report.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from svgd_monai.errors import RunFolderError
from svgd_monai.files import reason
from svgd_monai.report.run import CURVE_FILE, FULL, RUN_FILE, Run, complaint, read_run
from svgd_monai.report.text import one_line
from svgd_monai.report.training import unlike_training

_OF_A_RUN = re.compile(r"round_\d+|tensorboard")


@dataclass
class Study:
    """Runs by method.

    Attributes:
        folder: where they were looked for.
        methods: name -> its runs, one a seed, in the order of the seeds; the methods in the order of their names.
        notes: a sentence for everything that was left out.
    """

    folder: Path
    methods: dict[str, list[Run]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def queried(self) -> dict[str, list[Run]]:
        """The methods that query, so all but those on the full data."""
        return {name: runs for name, runs in self.methods.items() if not runs[0].full}

    @property
    def overview_seeds(self) -> list[int] | None:
        """The seeds that curves of all methods are drawn from; None: all of each method.

        Some seeds are easy, so where methods have several, but not the same, it is those at which all that query were
        run.
        """
        each = [{run.seed for run in runs} for runs in self.queried.values()]
        shared = set.intersection(*each) if each else set()
        return sorted(shared) if len(shared) > 1 and any(seeds != shared for seeds in each) else None

    @property
    def full_data(self) -> list[Run]:
        """The runs on the full data: of the method ``full``, else of the full-data method with the most seeds."""
        return self._runs_of(self._foremost(self._full))

    def full_data_of(self, method: str) -> list[Run]:
        """The runs that set the full-data Dice of a method that queries: likewise, of those that are trained as it is.

        Empty where none is, see :func:`~svgd_monai.report.training.unlike_training`.
        """
        return self._runs_of(self._full_method_of(method))

    def full_data_at(self, seeds: Collection[int], methods: Iterable[str]) -> dict[str, list[Run]]:
        """What to draw beside the curves of some methods at some seeds: by name, the full data that they have.

        Its runs at these seeds, or all where it has none of them; without those that measured other data or test cases
        than all of the methods' runs.
        """
        ours = list(methods)
        runs = [run for name in ours for run in self.methods[name]]
        found = {}
        for name in dict.fromkeys(map(self._full_method_of, ours)):
            alike = [full for full in self._runs_of(name) if any(full.comparable(run) for run in runs)]
            if name is not None and alike:
                found[name] = [run for run in alike if run.seed in seeds] or alike
        return found

    def _full_method_of(self, method: str) -> str | None:
        ours = self.methods[method][0]
        return self._foremost(name for name in self._full if not unlike_training(ours, self.methods[name][0]))

    @property
    def _full(self) -> list[str]:
        return [name for name, runs in self.methods.items() if runs[0].full]

    def _foremost(self, full: Iterable[str]) -> str | None:
        return min(full, key=lambda name: (name != FULL, -len(self.methods[name]), name), default=None)

    def _runs_of(self, method: str | None) -> list[Run]:
        return [] if method is None else self.methods[method]

    @property
    def runs(self) -> list[Run]:
        """All runs, method by method."""
        return [run for runs in self.methods.values() for run in runs]


def read_study(folder: str | os.PathLike[str]) -> Study:
    """Find and read the runs of a study, however deep below ``folder``.

    Raises:
        RunFolderError: there is no such folder, or no run below it, not even a damaged one.
    """
    root = Path(folder)
    if not root.is_dir():
        raise RunFolderError(f"{root} is not a folder.")
    study = Study(root)
    found: list[Run] = []
    candidates = sorted(find_run_folders(root, study.notes))
    for candidate in candidates:
        place = one_line(candidate.relative_to(root).as_posix())
        try:
            found.append(read_run(candidate, place, study.notes))
        except (RunFolderError, RecursionError, OSError) as error:
            study.notes.append(f"Left out: {place}: {complaint(error, candidate)}.")
    if not candidates:
        raise RunFolderError(f"No run lies below {root}: no folder holds {RUN_FILE} and {CURVE_FILE}.")
    _group(study, found)
    return study


def find_run_folders(root: Path, notes: list[str]) -> Iterator[Path]:
    """Folders that hold ``run.json`` or ``learning_curve.csv``; links are followed, ``cache/`` is not entered."""
    seen: set[tuple[int, int]] = set()

    def unreadable(error: OSError) -> None:
        notes.append(f"Left out: a folder that cannot be read ({one_line(reason(error))}).")

    for place, folders, files in os.walk(root, followlinks=True, onerror=unreadable):
        status = Path(place).stat()
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        is_run = RUN_FILE in files or CURVE_FILE in files
        folders[:] = sorted(f for f in folders if f != "cache" and not (is_run and _OF_A_RUN.fullmatch(f)))
        if is_run:
            yield Path(place)


def _group(study: Study, found: Sequence[Run]) -> None:
    """Runs by method and seed; of two with both the same the first by its place is used."""
    both = {run.method for run in found if run.full} & {run.method for run in found if not run.full}
    methods: dict[str, dict[int, Run]] = {}
    for run in found:
        # Without a name of its own, a run on the full data is called after queries that it never makes.
        name = f"{run.method}/{FULL}" if run.full and run.method in both else run.method
        first = methods.setdefault(name, {}).setdefault(run.seed, run)
        if first is not run:
            study.notes.append(f"Left out: {run.place}: {first.place} is also a run of {name} with seed {run.seed}.")
    study.methods = {name: [runs[seed] for seed in sorted(runs)] for name, runs in sorted(methods.items())}
