"""A data set whose every case has been checked."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from tqdm import tqdm

from svgd_monai.data.bad_cases import ON_BAD_CASE
from svgd_monai.data.check_cache import CHECKS_FILE, CaseFacts
from svgd_monai.data.checks import check_cases, dataset_fingerprint
from svgd_monai.data.datalist import MSDDataset, read_dataset
from svgd_monai.data.download import ensure_dataset
from svgd_monai.data.entries import Item
from svgd_monai.data.roles import RoundDatalist
from svgd_monai.errors import DataError, SettingsError


@dataclass(frozen=True)
class TaskData:
    """A data set whose every case has been checked.

    Attributes:
        dataset: its items; each has, as ``fingerprint``, the hash of its files' content.
        facts: what the check found, by case.
        fingerprint: of the whole data set, wherever it lies.
        bad: what is wrong with each case that was left out.
    """

    dataset: MSDDataset
    facts: dict[str, CaseFacts]
    fingerprint: str
    bad: dict[str, str] = field(default_factory=dict)

    def with_fingerprint(self, item: Item) -> Item:
        """The item with the hash of the files that it names."""
        return {**item, "fingerprint": self.facts[item["case"]].fingerprint("label" in item)}

    def with_fingerprints(self, datalist: RoundDatalist) -> RoundDatalist:
        """Likewise, of every item of a round, so that its stages notice a file that changes on the way."""
        return datalist.changed(self.with_fingerprint)


def load_task(
    dataset_dir: str | os.PathLike[str],
    cache_dir: str | os.PathLike[str],
    download: bool = False,
    num_classes: int | None = None,
    in_channels: int | None = None,
    on_bad_case: str = "fail",
    allow_outside: bool = False,
    leave_out: Mapping[str, str] | None = None,
) -> TaskData:
    """Read a data set and check every case of it; a repeated call only compares the files' sizes and times.

    Args:
        dataset_dir: an MSD task folder.
        cache_dir: where the results of the checks are kept.
        download: fetch Task04_Hippocampus or Task07_Pancreas when the folder is missing.
        num_classes: classes of the network, background among them; None does not compare.
        in_channels: input channels of the network; None does not compare.
        on_bad_case: ``fail``, or ``skip`` to leave bad cases out.
        allow_outside: accept files that lie outside the folder.
        leave_out: cases that a run has left out when it started, with what was wrong; they are not looked at again, and
            no other case may be bad.

    Raises:
        DataError: the folder, its list or one of its cases is missing or wrong, or it has another number of classes or
            channels.
        SettingsError: ``on_bad_case`` is unknown.
    """
    skips = on_bad_case == "skip" and leave_out is None
    dataset, bad = find_cases(dataset_dir, download, on_bad_case, allow_outside, leave_out)
    cases = [case for case in dataset.items if case not in bad]
    return check_task(dataset, cases, cache_dir, num_classes, in_channels, bad, skips)


def find_cases(
    dataset_dir: str | os.PathLike[str],
    download: bool = False,
    on_bad_case: str = "fail",
    allow_outside: bool = False,
    leave_out: Mapping[str, str] | None = None,
) -> tuple[MSDDataset, dict[str, str]]:
    """Read the list of a data set; no volume is read. Arguments as for :func:`load_task`.

    Returns:
        The cases whose files are there, and what is wrong with those that are left out already.

    Raises:
        SettingsError: ``on_bad_case`` is unknown.
        DataError: as :func:`load_task` says.
    """
    if on_bad_case not in ON_BAD_CASE:
        raise SettingsError(f"on_bad_case: {on_bad_case!r} is not one of {', '.join(ON_BAD_CASE)}.")
    missing: dict[str, str] = {}
    dataset = read_dataset(ensure_dataset(dataset_dir, download), allow_outside, bad=missing)
    bad = dict(leave_out or {})
    for case, words in missing.items():
        if case not in bad and (on_bad_case == "fail" or leave_out is not None):
            raise DataError(words)
        bad.setdefault(case, words)
    return dataset, bad


def check_task(
    dataset: MSDDataset,
    cases: Collection[str],
    cache_dir: str | os.PathLike[str],
    num_classes: int | None,
    in_channels: int | None,
    bad: dict[str, str],
    skips: bool,
) -> TaskData:
    """Check some cases of a data set; arguments as for :func:`load_task`.

    Args:
        dataset: the data set.
        cases: those to check; the result holds no others.
        cache_dir: where the results of the checks are kept.
        num_classes: classes of the network.
        in_channels: input channels of the network.
        bad: what is left out already.
        skips: whether a bad case joins ``bad``; else it is an error.

    Raises:
        DataError: as :func:`load_task` says.
    """
    root = dataset.root
    if num_classes is not None and len(dataset.classes) != num_classes:
        raise DataError(
            f"num_classes: {num_classes} does not fit {root}, whose dataset.json has {len(dataset.classes)} labels."
        )
    if in_channels is not None and dataset.channels != in_channels:
        raise DataError(
            f"in_channels: {in_channels} does not fit {root}, whose dataset.json has {dataset.channels} modalities."
        )
    with tqdm(desc="Checking cases", total=len(cases), disable=None, leave=False) as bar:
        facts = check_cases(
            [dataset.items[case] for case in cases],
            dataset.classes,
            Path(cache_dir) / CHECKS_FILE,
            lambda done, _: bar.update(done - bar.n),
            dataset.channels,
            bad if skips else None,
        )
    sound = replace(dataset, items={case: dataset.items[case] for case in cases if case in facts})
    return TaskData(sound, facts, dataset_fingerprint(facts), bad)
