"""What a command finds of a run in which people label: its cases, its ledger, its rounds."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from svgd_monai.acquisition.handler import QUERIES_FILE
from svgd_monai.data.datalist import MSDDataset
from svgd_monai.data.entries import Item
from svgd_monai.data.nifti import read_bytes
from svgd_monai.data.people import PeopleData, find_people_data
from svgd_monai.data.roles import RoundDatalist, read_datalist, write_datalist
from svgd_monai.errors import RunFolderError, SettingsError
from svgd_monai.evaluation import named_classes
from svgd_monai.files import read_json, write_json
from svgd_monai.rounds.people.advice import ADVICE_FILE
from svgd_monai.rounds.people.ledger import PeopleLedger
from svgd_monai.rounds.round import Round
from svgd_monai.rounds.run_folder import DATALIST_FILE, RunFolder, removable

logger = logging.getLogger(__name__)

#: Ends the sentence on a lost file from which everything else follows.
_PUT_BACK = "and nothing else says what it held; put it back from a backup, or begin anew in another output_dir."


def find_people(settings: Mapping[str, Any], metadata: Path) -> tuple[PeopleData, dict[int, str]]:
    """The cases and the classes of a run; no volume is read, nothing is written.

    Args:
        settings: the loop's.
        metadata: the bundle's ``metadata.json``, which names the classes where ``classes`` does not.

    Raises:
        SettingsError: a key that is needed is missing.
        DataError: a folder or a file is.
    """
    if settings["images"] is None:
        raise SettingsError("images: with oracle: people, name the folder of the images to label.")
    if settings["double_annotated"] and len(settings["annotators"] or ()) < 2:
        raise SettingsError("double_annotated: two annotators are needed; name them in annotators.")
    classes = named_classes(settings["classes"], settings["num_classes"], metadata)
    folders = (settings["images"], settings["validation"], settings["test"])
    terms = {key: settings[key] for key in ("allow_outside", "on_bad_case")}
    return find_people_data(*folders, **terms), classes


def read_people_ledger(folder: RunFolder) -> PeopleLedger:
    """The ledger as its file holds it; an empty one where the run has yet to write it.

    Raises:
        RunFolderError: the file is damaged, of another kind of run, or lost.
    """
    if folder.ledger_file.is_file():
        return PeopleLedger.from_dict(read_json(folder.ledger_file))
    if any(folder.root.glob("worklist/*")) or any(folder.root.glob(f"round_*/{DATALIST_FILE}")):
        raise RunFolderError(f"{folder.ledger_file} is gone, {_PUT_BACK}")
    return PeopleLedger()


def admit(ledger: PeopleLedger, data: PeopleData) -> None:
    """Compare the cases with those that the run knows, and take in images that are new.

    A team's pool grows, also by images that were bad and are mended; what a run knows must neither go nor change.

    Raises:
        RunFolderError: an image is gone, bad or another one, or a held-out set is not the one that it was.
    """
    for role in ("validation", "test"):
        known = ledger.held_out[role]
        found = {case: data.fingerprint(case) for case in getattr(data, role)}
        if known and found != known:
            case = sorted(case for case in {*known, *found} if known.get(case) != found.get(case))[0]
            raise RunFolderError(
                f"{role}: the set is not the one that the run was started with, they differ in the case {case}; it is "
                "fixed for a run."
            )
        ledger.held_out[role] = found
    images = {case: data.fingerprint(case) for case in data.pool}
    held_out = {**dict.fromkeys(data.validation, "validation"), **dict.fromkeys(data.test, "test")}
    for case, digest in ledger.images.items():
        if case in held_out and ledger.labels.get(case):
            raise RunFolderError(
                f"{held_out[case]}: people have labelled the case {case} for the run; it cannot be held out now."
            )
        if images.get(case, digest) != digest:
            raise RunFolderError(f"images: the image of the case {case} is no longer the one that the run knows.")
        if case in data.bad:
            raise RunFolderError(f"images: the image of the case {case}, which the run knows, is bad: {data.bad[case]}")
        if case not in images and case not in held_out:
            raise RunFolderError(f"images: the image of the case {case}, which the run knows, is gone.")
    new = sorted(set(images) - set(ledger.images))
    if new and ledger.images:
        logger.info("%d new images join the pool: %s.", len(new), ", ".join(new))
    ledger.images = dict(sorted(images.items()))


def dataset_of(root: Path, data: PeopleData, classes: Mapping[int, str], channels: int) -> MSDDataset:
    """The run as a data set whose pool has no labels: those stand in the rounds' data lists."""
    return MSDDataset(root.absolute(), "people", dict(classes), channels, data.items)


def begun(each: Round, goes_on: bool, ledger: PeopleLedger, data: PeopleData, dataset: MSDDataset) -> RoundDatalist:
    """What a round that has begun works on.

    Args:
        each: the round.
        goes_on: whether another round may follow that has not begun. When this one was the last, or had left nothing to
            label, it asks of what is unlabelled now: images have joined, cases been labelled, declines taken back.
        ledger: of the run.
        data: the cases.
        dataset: the run as a data set.
    """
    datalist = read_datalist(each.datalist_file, dataset)
    known = [item["case"] for item in datalist.unlabeled]
    was_last = each.scored(final=True) and not each.scored(final=False)
    if not goes_on or not ledger.unlabelled or known == ledger.unlabelled or (known and not was_last):
        return datalist
    datalist = replace(datalist, unlabeled=[data.pool[case] for case in ledger.unlabelled])
    (each.folder / ADVICE_FILE).unlink(missing_ok=True)  # it says that no case is left
    write_datalist(each.datalist_file, datalist, dataset)
    return datalist


def is_done(ledger: PeopleLedger, folder: RunFolder, rounds: int) -> bool:
    """Whether a finished run is still so: images and labels may have come since, and tables may have gone.

    Args:
        ledger: of the run.
        folder: the run's.
        rounds: K.
    """
    begun = len(ledger.training)
    return not (begun <= rounds and _work(ledger)) and not folder.lacks_tables(begun)


def finished(ledger: PeopleLedger) -> str:
    """What a run that is done has left, as the end of a sentence."""
    return "; a higher number of rounds continues it" if _work(ledger) else f": {nothing_left(ledger)}"


def nothing_left(ledger: PeopleLedger) -> str:
    """Why nothing is left to label."""
    labelled = len(ledger.labelled)
    return f"no case is left to label ({labelled} labelled, {len(ledger.images) - labelled} declined)"


def _work(ledger: PeopleLedger) -> bool:
    """Whether there is anything for another round."""
    return bool(ledger.unlabelled or ledger.pending)


def with_content(datalist: RoundDatalist, data: PeopleData) -> RoundDatalist:
    """The items with the hash of their files' content as ``fingerprint``.

    Raises:
        RunFolderError: an accepted label is not what it was when it was accepted.
    """
    return datalist.changed(lambda item: _with_content(item, data))


def _with_content(item: Item, data: PeopleData) -> Item:
    fingerprint = data.fingerprint(item["case"])
    if "label" in item and "+" not in fingerprint:
        label = Path(item["label"])
        digest = hashlib.sha256(read_bytes(label)).hexdigest()
        if f".{digest[:12]}." not in label.name:
            raise RunFolderError(f"{label} is not the label that was accepted; somebody has changed it.")
        fingerprint = f"{fingerprint}+{digest}"
    return {**item, "fingerprint": fingerprint}


def read_rounds(ledger: PeopleLedger, rounds: Iterable[Round], dataset: MSDDataset) -> None:
    """Take training lists, validation cases and queries of the rounds that have begun from their files into the ledger.

    Queries whose file is lost are those that the ledger knows: they have been acted upon.

    Args:
        ledger: of the run.
        rounds: in their order; the first that has not begun ends them.
        dataset: the run as a data set.

    Raises:
        RunFolderError: a round's queries are damaged, or its data list is lost.
    """
    known, begun = ledger.queries, len(ledger.training)
    ledger.training, ledger.validation, ledger.validating, ledger.queries = [], [], [], []
    for number, each in enumerate(rounds):
        if not each.datalist_file.is_file():
            if number < begun:  # anew it would work on the labels that there are by now
                raise RunFolderError(f"{each.datalist_file} is gone, {_PUT_BACK}")
            return
        take_round(ledger, read_datalist(each.datalist_file, dataset))
        if not each.queried and number < len(known):
            write_json(each.folder / QUERIES_FILE, known[number])
        if each.queried:
            with removable():
                ledger.queries.append(each.queries())


def take_round(ledger: PeopleLedger, datalist: RoundDatalist) -> None:
    """Take the data list of the round that follows those that the ledger knows into it."""
    own = ledger.held_out["validation"]
    validating = [item["case"] for item in datalist.validation]
    ledger.training.append([item["case"] for item in datalist.training])
    ledger.validation.append([case for case in validating if case not in own])
    ledger.validating.append(frozenset(validating))
    items = (*datalist.training, *datalist.validation)
    ledger.in_use = {item["case"]: Path(item["label"]).name for item in items if item["case"] not in own}
