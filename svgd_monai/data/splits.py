"""Who plays which role: the initial labelled set, the pool, and the validation and test sets that all seeds share.

A split is drawn by sorting case ids by a hash, not by a random stream: it depends on nothing but the ids, the seed and
the sizes, so no version of any library can change it. Initial sets of one seed are nested: 20 cases hold the 10.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from svgd_monai.data.entries import is_file, read_json_object
from svgd_monai.errors import DataError
from svgd_monai.files import write_json

SPLIT_ROLES = ("initial", "pool", "validation", "test")
HELD_OUT_LIMIT = 50

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Split:
    """Case ids by role, each sorted; no case plays two roles.

    Args:
        initial: labelled from the start.
        pool: to be queried from, not yet labelled.
        validation: chooses the best checkpoint.
        test: only measured.
    """

    initial: tuple[str, ...]
    pool: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]

    def as_dict(self) -> dict[str, list[str]]:
        """The split as JSON takes it."""
        return {role: list(cases) for role, cases in asdict(self).items()}

    def without(self, cases: Collection[str]) -> Split:
        """The split without some cases, each role that much smaller.

        Raises:
            DataError: a role other than the pool becomes empty.
        """
        roles = {role: [case for case in members if case not in cases] for role, members in self.as_dict().items()}
        for role, members in roles.items():
            if not members and role != "pool" and getattr(self, role):
                raise DataError(f"No sound case is left for the role {role}; all of its cases are bad.")
        return Split(**{role: tuple(members) for role, members in roles.items()})


def draw_split(
    cases: Iterable[str],
    seed: int,
    initial_labelled: int | None,
    validation_cases: int | None = None,
    test_cases: int | None = None,
) -> Split:
    """Draw a split; ``seed`` varies the initial set only, validation and test are the same for every seed.

    Args:
        cases: the case ids, in any order.
        seed: the seed of the initial set.
        initial_labelled: number of cases in the initial set, at least 1; None: all but the two sets below.
        validation_cases: number of validation cases; None: a fifth of the cases, at least 1, at most 50.
        test_cases: number of test cases, likewise.

    Raises:
        DataError: a size is below 1 or more than there are cases for; the sentence names the size and the numbers.
    """
    ids = sorted(cases)
    _refuse_repeated("The data set", ids)
    sizes = held_out_sizes(len(ids), validation_cases, test_cases)
    held_out = sum(sizes.values())
    if initial_labelled is None:
        initial_labelled = max(len(ids) - held_out, 1)
    for key, size in {"initial_labelled": initial_labelled, **sizes}.items():
        if size < 1:
            raise DataError(f"{key} must be at least 1, not {size}.")
    if initial_labelled > len(ids) - held_out:
        left = max(len(ids) - held_out, 0)
        raise DataError(
            f"initial_labelled is {initial_labelled}, but of {len(ids)} cases only {left} are left after "
            f"validation_cases ({sizes['validation_cases']}) and test_cases ({sizes['test_cases']})."
        )
    # The test set is taken first, so that it does not depend on the size of the validation set.
    test, rest = _take(ids, sizes["test_cases"], "held out/test")
    validation, rest = _take(rest, sizes["validation_cases"], "held out/validation")
    initial, pool = _take(rest, initial_labelled, f"{seed}/initial")
    return Split(tuple(initial), tuple(pool), tuple(validation), tuple(test))


def held_out_sizes(cases: int, validation_cases: int | None, test_cases: int | None) -> dict[str, int]:
    """Sizes of the validation and the test set of so many cases, by key; None: a fifth of them, 1 to 50."""
    fifth = min(max(cases // 5, 1), HELD_OUT_LIMIT)
    asked = {"validation_cases": validation_cases, "test_cases": test_cases}
    return {key: fifth if size is None else size for key, size in asked.items()}


def read_split(
    split_file: str | os.PathLike[str], cases: Iterable[str], seed: int, search: Sequence[str | os.PathLike[str]] = ()
) -> Split:
    """Read the split of ``seed`` from a split file.

    The file holds ``{"task", "source", "validation", "test", "seeds": {"0": {"initial", "pool"}, ...}}``, or for a
    single split, the same for every seed, ``{"initial", "pool", "validation", "test"}``.

    Args:
        split_file: a path, or a name looked up as ``<name>`` and ``<name>.json`` in the folders of ``search``.
        cases: case ids of the data set; those that the split does not name are not used.
        seed: the seed whose initial set and pool are read.
        search: folders of split files, first come first served.

    Raises:
        DataError: the file is not found or damaged, lacks a role or the seed, or names a case that is unknown or used
            twice.
    """
    file = _find_split(split_file, search)
    content = read_json_object(file)
    roles: dict[str, Any] = content
    if "seeds" in content:
        seeds = content["seeds"]
        if not isinstance(seeds, Mapping) or not isinstance(seeds.get(str(seed)), Mapping):
            names = [name if name.isdecimal() else repr(name) for name in seeds] if isinstance(seeds, Mapping) else []
            known = ", ".join(names) or "none"
            raise DataError(f"{file} has no split for seed {seed}, its seeds are: {known}.")
        roles = {**content, **seeds[str(seed)]}
    known_cases = frozenset(cases)
    for role in SPLIT_ROLES:
        _check_role(file, role, roles.get(role), known_cases)
    _refuse_repeated(str(file), [case for role in SPLIT_ROLES for case in roles[role]])
    return Split(**{role: tuple(sorted(roles[role])) for role in SPLIT_ROLES})


def resolve_split(
    cases: Iterable[str],
    split_file: str | os.PathLike[str] | None,
    seed: int,
    initial_labelled: int | None,
    validation_cases: int | None = None,
    test_cases: int | None = None,
    search: Sequence[str | os.PathLike[str]] = (),
) -> Split:
    """The split of a run: read from ``split_file``, which then decides the sizes, or drawn where that is None.

    With ``initial_labelled`` None the pool of a split file belongs to the initial set: a run on the full data.

    Raises:
        DataError: as :func:`read_split` and :func:`draw_split` say.
    """
    if split_file is None:
        return draw_split(cases, seed, initial_labelled, validation_cases, test_cases)
    split = read_split(split_file, cases, seed, search)
    if initial_labelled is None:
        split = replace(split, initial=tuple(sorted(split.initial + split.pool)), pool=())
    asked = {"initial": initial_labelled, "validation": validation_cases, "test": test_cases}
    for role, size in asked.items():
        found = len(getattr(split, role))
        if size not in (None, found):
            _logger.warning(
                "split_file %s has %d %s cases; the setting of %d is not used", split_file, found, role, size
            )
    return split


def write_splits(
    path: str | os.PathLike[str],
    task: str,
    source: str,
    cases: Iterable[str],
    seeds: Iterable[int],
    initial_labelled: int | None,
    validation_cases: int | None = None,
    test_cases: int | None = None,
) -> Path:
    """Write a split file with a split drawn for each seed; see :func:`read_split` for its form.

    Args:
        path: the file.
        task: name of the task.
        source: where the cases come from, for whoever reads the file.
        cases: the case ids.
        seeds: the seeds, at least one.
        initial_labelled: as for :func:`draw_split`, like the two sizes after it.
        validation_cases: number of validation cases.
        test_cases: number of test cases.

    Raises:
        DataError: the sizes do not fit the cases.
        OSError: the file system refuses.
    """
    ids = list(cases)
    splits = {str(seed): draw_split(ids, seed, initial_labelled, validation_cases, test_cases) for seed in seeds}
    shared = next(iter(splits.values()))
    content = {
        "task": task,
        "source": source,
        "validation": shared.validation,
        "test": shared.test,
        "seeds": {seed: {"initial": split.initial, "pool": split.pool} for seed, split in splits.items()},
    }
    return write_json(path, content)


def _take(cases: Sequence[str], size: int, purpose: str) -> tuple[list[str], list[str]]:
    """Divide ``cases`` into the ``size`` first by hash and the rest, both sorted by name."""
    by_hash = sorted(cases, key=lambda case: hashlib.sha256(f"{purpose}/{case}".encode()).digest())
    return sorted(by_hash[:size]), sorted(by_hash[size:])


def _find_split(split_file: str | os.PathLike[str], search: Sequence[str | os.PathLike[str]]) -> Path:
    name = Path(split_file)
    folders = [] if name.is_absolute() else [Path(folder) for folder in search]
    candidates = [name, *(folder / each for folder in folders for each in (name, f"{name}.json"))]
    for candidate in candidates:
        if is_file(candidate):
            return candidate
    raise DataError(f"split_file {split_file} was not found, looked for {', '.join(map(str, candidates))}.")


def _check_role(file: Path, role: str, cases: Any, known: frozenset[str]) -> None:
    if not isinstance(cases, list) or not all(isinstance(case, str) for case in cases):
        raise DataError(f"{file} has no '{role}' that is a list of case ids.")
    if not cases and role != "pool":
        raise DataError(f"{file}: '{role}' holds no case.")
    unknown = [case for case in cases if case not in known]
    if unknown:
        more = f" (nor {len(unknown) - 1} more of that list)" if len(unknown) > 1 else ""
        raise DataError(f"{file}: the case {unknown[0]!r} of '{role}' is not in the data set{more}.")


def _refuse_repeated(where: str, cases: Iterable[str]) -> None:
    seen: set[str] = set()
    for case in cases:
        if case in seen:
            raise DataError(f"{where} uses the case {case!r} twice.")
        seen.add(case)
