"""From the keys of a configuration to checked items by role."""

from __future__ import annotations

import os
from collections.abc import Sequence

from svgd_monai.data.checks import check_cases, complaint
from svgd_monai.data.datalist import MSDDataset, read_classes, read_dataset
from svgd_monai.data.download import ensure_dataset
from svgd_monai.data.entries import Item
from svgd_monai.data.phantom import make_phantom
from svgd_monai.data.roles import RoundDatalist, read_datalist
from svgd_monai.data.splits import Split, held_out_sizes, resolve_split
from svgd_monai.data.task import check_task, load_task
from svgd_monai.errors import DataError


def stage_datalist(
    dataset_dir: str | os.PathLike[str],
    cache_dir: str | os.PathLike[str],
    datalist_file: str | os.PathLike[str] | None = None,
    split_file: str | os.PathLike[str] | None = None,
    seed: int = 0,
    initial_labelled: int | None = 1,
    validation_cases: int | None = None,
    test_cases: int | None = None,
    reveal_pool: bool = False,
    download: bool = False,
    num_classes: int | None = None,
    in_channels: int | None = None,
    data_lists: str | os.PathLike[str] | None = None,
    on_bad_case: str = "fail",
    allow_outside: bool = False,
) -> RoundDatalist:
    """The cases that a stage works on, checked.

    Args:
        dataset_dir: an MSD task folder.
        cache_dir: see :func:`load_task`.
        datalist_file: a round's data list, as the loop writes it; only its cases are looked at. None makes one from
            the split.
        split_file: see :func:`~svgd_monai.data.splits.resolve_split`, like the four keys that follow.
        seed: of the initial set.
        initial_labelled: its size; None: all cases but the two sets below.
        validation_cases: size of the validation set; None: a fifth of the cases, at most 50.
        test_cases: likewise, of the test set.
        reveal_pool: without a ``datalist_file``, train on the whole pool as well as on the initial set, which may then
            be smaller than ``initial_labelled``.
        download: see :func:`load_task`.
        num_classes: see :func:`load_task`.
        in_channels: likewise.
        data_lists: folder in which names of split files are looked up.
        on_bad_case: see :func:`load_task`; a case of a ``datalist_file`` may not be bad.
        allow_outside: see :func:`load_task`.

    Raises:
        DataError: anything is missing or wrong, or a case is not as the ``datalist_file`` found it; the sentence names
            it.
    """
    if datalist_file is not None:
        missing: dict[str, str] = {}
        dataset = read_dataset(ensure_dataset(dataset_dir, download), allow_outside, bad=missing)
        datalist = read_datalist(datalist_file, dataset, missing)
        listed = dict.fromkeys(item["case"] for item in datalist.items())
        task = check_task(dataset, listed, cache_dir, num_classes, in_channels, {}, skips=False)
    else:
        task = load_task(dataset_dir, cache_dir, download, num_classes, in_channels, on_bad_case, allow_outside)
        search = [] if data_lists is None else [data_lists]
        cases = {*task.dataset.items, *task.bad}
        if reveal_pool and split_file is None and initial_labelled is not None:
            left = len(cases) - sum(held_out_sizes(len(cases), validation_cases, test_cases).values())
            if left > 0:
                initial_labelled = min(initial_labelled, left)  # all are labelled, whichever came first
        sizes = (initial_labelled, validation_cases, test_cases)
        split = resolve_split(cases, split_file, seed, *sizes, search=search).without(task.bad)
        labelled = [*split.initial, *split.pool] if reveal_pool else list(split.initial)
        datalist = round_datalist(task.dataset, split, labelled)
    return datalist.changed(lambda item: _unchanged(item, task.with_fingerprint(item)))


def _unchanged(listed: Item, found: Item) -> Item:
    """The item as it was found, if a data list that knows its content agrees."""
    if listed.get("fingerprint", found["fingerprint"]) != found["fingerprint"]:
        raise DataError(
            f"Case {found['case']}: {found['image']} or its label is not the file that the run was started with; put "
            "it back, or give another output_dir."
        )
    return found


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


def revealed_labels(
    dataset_dir: str | os.PathLike[str], oracle: str = "dataset", allow_outside: bool = False
) -> dict[str, str]:
    """Label file of every case whose label the oracle reveals at once: all with ``dataset``, none with others."""
    if oracle != "dataset":
        return {}
    dataset = read_dataset(dataset_dir, allow_outside, bad={})  # bad cases are the checks' business
    return {case: item["label"] for case, item in dataset.items.items()}


def checked_images(
    items: Sequence[Item], in_channels: int | None = None, bad: dict[str, str] | None = None
) -> list[Item]:
    """The images of an inference, each read once and found to be a finite 3D volume.

    Args:
        items: of :func:`~svgd_monai.data.datalist.read_images`.
        in_channels: input channels of the network; None does not compare.
        bad: takes the sentence of each bad image, by case, which then is left out; None: it is an error.

    Raises:
        DataError: there is none, or one (with ``bad``: each) cannot be read, is not 3D, is not finite, or has other
            channels; the sentence names it.
    """
    check_cases(items, {0: "background"}, channels=in_channels, bad=bad)
    sound = [item for item in items if bad is None or item["case"] not in bad]
    if bad and not sound:
        raise complaint(bad)
    return sound


def class_names(dataset_dir: str | os.PathLike[str]) -> dict[int, str]:
    """Name of each label value, as ``dataset.json`` gives them."""
    return read_classes(dataset_dir)


def phantom_dataset(root: str | os.PathLike[str], task: str = "mr", num_cases: int = 60, seed: int = 0) -> str:
    """The folder of the embedded phantom, made when it is not there; for the ``dataset_dir`` of a configuration."""
    return str(make_phantom(root, task, num_cases, seed))


def _unlabelled(item: Item) -> Item:
    plain = {key: value for key, value in item.items() if key != "label"}
    if "fingerprint" in plain:
        plain["fingerprint"] = plain["fingerprint"].split("+")[0]
    return plain
