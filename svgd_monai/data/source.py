"""From the keys of a configuration to checked items by role."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from svgd_monai.data.checks import CaseFacts, check_cases, dataset_fingerprint
from svgd_monai.data.datalist import MSDDataset, RoundDatalist, read_datalist, read_dataset, read_images
from svgd_monai.data.download import ensure_dataset
from svgd_monai.data.entries import Item
from svgd_monai.data.phantom import make_phantom
from svgd_monai.data.splits import Split, resolve_split
from svgd_monai.errors import DataError

CHECKS_FILE = "case_checks.json"


@dataclass(frozen=True)
class TaskData:
    """A data set whose every case has been checked.

    Attributes:
        dataset: its items; each has, as ``fingerprint``, the hash of its files' content.
        facts: what the check found, by case.
        fingerprint: of the whole data set, wherever it lies.
    """

    dataset: MSDDataset
    facts: dict[str, CaseFacts]
    fingerprint: str

    def with_fingerprint(self, item: Item) -> Item:
        """The item with the hash of the files that it names."""
        fact = self.facts[item["case"]]
        parts = [fact.image_sha256] + ([fact.label_sha256 or "-"] if "label" in item else [])
        return {**item, "fingerprint": "+".join(parts)}


def load_task(
    dataset_dir: str | os.PathLike[str],
    cache_dir: str | os.PathLike[str],
    download: bool = False,
    num_classes: int | None = None,
    in_channels: int | None = None,
) -> TaskData:
    """Read a data set and check every case of it; a second time looks at sizes and times of the files only.

    Args:
        dataset_dir: an MSD task folder.
        cache_dir: where the results of the checks are kept.
        download: fetch Task04_Hippocampus or Task07_Pancreas when the folder is missing.
        num_classes: classes of the network, background among them; None does not compare.
        in_channels: input channels of the network; None does not compare.

    Raises:
        DataError: the folder, its list or one of its cases is missing or wrong, or it has another number of classes or
            channels.
    """
    root = ensure_dataset(dataset_dir, download)
    dataset = read_dataset(root)
    if num_classes is not None and len(dataset.classes) != num_classes:
        raise DataError(
            f"num_classes: {num_classes} does not fit {root}, whose dataset.json has {len(dataset.classes)} labels."
        )
    if in_channels is not None and dataset.channels != in_channels:
        raise DataError(
            f"in_channels: {in_channels} does not fit {root}, whose dataset.json has {dataset.channels} modalities."
        )
    with tqdm(desc="Checking cases", total=len(dataset.items), disable=None, leave=False) as bar:
        facts = check_cases(
            dataset.items.values(),
            dataset.classes,
            Path(cache_dir) / CHECKS_FILE,
            lambda done, _: bar.update(done - bar.n),
            dataset.channels,
        )
    return TaskData(dataset, facts, dataset_fingerprint(facts))


def stage_datalist(
    dataset_dir: str | os.PathLike[str],
    cache_dir: str | os.PathLike[str],
    datalist_file: str | os.PathLike[str] | None = None,
    split_file: str | os.PathLike[str] | None = None,
    seed: int = 0,
    initial_labelled: int = 1,
    validation_cases: int | None = None,
    test_cases: int | None = None,
    reveal_pool: bool = False,
    download: bool = False,
    num_classes: int | None = None,
    in_channels: int | None = None,
    data_lists: str | os.PathLike[str] | None = None,
) -> RoundDatalist:
    """The cases that a stage works on, checked.

    Args:
        dataset_dir: an MSD task folder.
        cache_dir: see :func:`load_task`.
        datalist_file: a round's data list, as the loop writes it; None makes one from the split.
        split_file: see :func:`~svgd_monai.data.splits.resolve_split`, like the four keys that follow.
        seed: of the initial set.
        initial_labelled: its size.
        validation_cases: size of the validation set; None: a fifth of the cases, at most 50.
        test_cases: likewise, of the test set.
        reveal_pool: without a ``datalist_file``, train on the whole pool as well as on the initial set.
        download: see :func:`load_task`.
        num_classes: see :func:`load_task`.
        in_channels: likewise.
        data_lists: folder in which names of split files are looked up.

    Raises:
        DataError: anything is missing or wrong; the sentence names it.
    """
    task = load_task(dataset_dir, cache_dir, download, num_classes, in_channels)
    if datalist_file is not None:
        datalist = read_datalist(datalist_file, task.dataset)
    else:
        search = [] if data_lists is None else [data_lists]
        sizes = (initial_labelled, validation_cases, test_cases)
        split = resolve_split(task.dataset.items, split_file, seed, *sizes, search=search)
        labelled = [*split.initial, *split.pool] if reveal_pool else list(split.initial)
        datalist = round_datalist(task.dataset, split, labelled)
    return RoundDatalist(
        *(
            [task.with_fingerprint(item) for item in items]
            for items in (datalist.training, datalist.validation, datalist.test, datalist.unlabeled)
        )
    )


def round_datalist(dataset: MSDDataset, split: Split, labelled: Sequence[str]) -> RoundDatalist:
    """The data list of a round.

    Args:
        dataset: the data set.
        split: the run's split.
        labelled: case ids with multiplicity, in the order in which they were labelled or drawn again.
    """
    known = set(labelled)
    hidden = [case for case in (*split.initial, *split.pool) if case not in known]
    return RoundDatalist(
        training=[dataset.items[case] for case in labelled],
        validation=[dataset.items[case] for case in split.validation],
        test=[dataset.items[case] for case in split.test],
        unlabeled=[_unlabelled(dataset.items[case]) for case in sorted(hidden)],
    )


def pool_items(datalist: RoundDatalist, keep_labelled: bool = True) -> list[Item]:
    """The images of the pool, by case id and without labels: the unlabelled cases and, when they stay, the labelled."""
    items = {item["case"]: item for item in datalist.unlabeled}
    if keep_labelled:
        items |= {item["case"]: item for item in datalist.training}
    return [_unlabelled(item) for _, item in sorted(items.items())]


def labelled_cases(datalist: RoundDatalist) -> list[str]:
    """The distinct labelled case ids, sorted."""
    return sorted({item["case"] for item in datalist.training})


def revealed_labels(dataset_dir: str | os.PathLike[str], oracle: str = "dataset") -> dict[str, str]:
    """Label file of every case whose label the oracle reveals at once: all with ``dataset``, none with others."""
    if oracle != "dataset":
        return {}
    return {case: item["label"] for case, item in read_dataset(dataset_dir).items.items() if "label" in item}


def checked_images(path: str | os.PathLike[str], in_channels: int | None = None) -> list[Item]:
    """The images of an inference, each read once and found to be a finite 3D volume.

    Args:
        path: see :func:`~svgd_monai.data.datalist.read_images`.
        in_channels: input channels of the network; None does not compare.

    Raises:
        DataError: there is none, or one cannot be read, is not 3D, is not finite, or has other channels; the sentence
            names it.
    """
    items = read_images(path)
    check_cases(items, {0: "background"}, channels=in_channels)
    return items


def class_names(dataset_dir: str | os.PathLike[str]) -> dict[int, str]:
    """Name of each label value, as ``dataset.json`` gives them."""
    return dict(read_dataset(dataset_dir).classes)


def phantom_dataset(root: str | os.PathLike[str], task: str = "mr", num_cases: int = 60, seed: int = 0) -> str:
    """The folder of the embedded phantom, made when it is not there; for the ``dataset_dir`` of a configuration."""
    return str(make_phantom(root, task, num_cases, seed))


def _unlabelled(item: Item) -> Item:
    plain = {key: value for key, value in item.items() if key != "label"}
    if "fingerprint" in plain:
        plain["fingerprint"] = plain["fingerprint"].split("+")[0]
    return plain
