"""Scans that people label: a folder of images without labels, and the team's own fixed sets."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from svgd_monai.data.check_cache import CHECKS_FILE, CaseFacts
from svgd_monai.data.checks import check_cases
from svgd_monai.data.datalist import read_dataset, read_images
from svgd_monai.data.entries import Item, is_file, is_folder, with_room
from svgd_monai.data.nifti import NIFTI_SUFFIXES, file_hash
from svgd_monai.errors import DataError

logger = logging.getLogger(__name__)

#: What a worklist puts behind a case's name: its pre-segmentation and its uncertainty map.
WORKLIST_SUFFIXES = ("_seg", "_uncertainty")
#: The longest that a run has behind a case's name: the hash of a label that was accepted.
_ENDING = f".{'0' * 12}.nii.gz"
_FOLDERS = (("images", "labels"), ("imagesTr", "labelsTr"))


@dataclass(frozen=True)
class PeopleData:
    """The cases of a run in which people label.

    Args:
        pool: item of each image to label, without a label.
        validation: labelled items of the team's own validation set; empty where it has none.
        test: likewise, of its test set.
        facts: what the check of each case found; empty until :meth:`checked`.
        bad: what is wrong with each image of the pool that was left out; until then, those that cannot be reached or
            named.
    """

    pool: dict[str, Item]
    validation: dict[str, Item]
    test: dict[str, Item]
    facts: dict[str, CaseFacts] = field(default_factory=dict)
    bad: dict[str, str] = field(default_factory=dict)

    @property
    def items(self) -> dict[str, Item]:
        """Every item by its case id."""
        return {**self.pool, **self.validation, **self.test}

    def checked(
        self,
        classes: Mapping[int, str],
        cache_dir: str | os.PathLike[str],
        channels: int | None = None,
        on_bad_case: str = "fail",
    ) -> PeopleData:
        """The same, every case read once and found sound; a second time looks at sizes and times of the files only.

        Args:
            classes: name of each label value, background 0 included.
            cache_dir: where the results of the checks are kept.
            channels: how many every image must have; None takes any number.
            on_bad_case: ``fail``, or ``skip`` to leave bad images out of the pool. A held-out case may not be bad.

        Raises:
            DataError: a case is unsound; the sentence names it.
        """
        found: dict[str, str] = {}
        with tqdm(desc="Checking cases", total=len(self.items), disable=None, leave=False) as bar:
            facts = check_cases(
                self.items,
                classes,
                Path(cache_dir) / CHECKS_FILE,
                lambda done, _: bar.update(done - bar.n),
                channels,
                found if on_bad_case == "skip" else None,
            )
        for case in (*self.validation, *self.test):
            if case in found:
                raise DataError(f"Case {case}: {found[case]}")
        pool = {case: item for case, item in self.pool.items() if case not in found}
        bad = {**self.bad, **found}
        if not pool:
            raise _all_bad(bad)
        return PeopleData(pool, self.validation, self.test, facts, bad)

    def fingerprint(self, case: str) -> str:
        """The hash of a case's image and, of a held-out one, of its label too."""
        fact = self.facts[case]
        return fact.fingerprint(labelled=fact.label_sha256 is not None)

    def pool_items(self) -> list[Item]:
        """The items of the pool with the hash of their content as ``fingerprint``; there when the cases are checked."""
        return self._known(self.pool)

    def known_items(self) -> list[Item]:
        """Likewise, the items of all roles."""
        return self._known(self.items)

    def _known(self, items: Mapping[str, Item]) -> list[Item]:
        return [{**item, "fingerprint": self.fingerprint(case)} for case, item in items.items()]

    def roles(self) -> dict[str, str]:
        """The role of every case: ``pool``, ``validation`` or ``test``."""
        sets = {"pool": self.pool, "validation": self.validation, "test": self.test}
        return {case: role for role, cases in sets.items() for case in cases}


def find_people_data(
    images: str | os.PathLike[str],
    validation: str | os.PathLike[str] | None = None,
    test: str | os.PathLike[str] | None = None,
    allow_outside: bool = False,
    on_bad_case: str = "fail",
) -> PeopleData:
    """List the cases; no volume is read.

    A case that lies in ``images`` and in a held-out set too belongs to the latter, when both are the same file.

    Args:
        images: a folder of NIfTI images, or what else :func:`~svgd_monai.data.datalist.read_images` takes.
        validation: see :func:`read_labelled_folder`; None: the team has no validation set of its own.
        test: likewise.
        allow_outside: accept files that a list names outside its folder.
        on_bad_case: ``fail``, or ``skip`` to leave images out that are missing or have too long a name.

    Raises:
        DataError: a folder or an image is missing, an image has too long a name or that of another's pre-segmentation,
            or two sets disagree about a case; the sentence begins with the key.
    """
    bad: dict[str, str] | None = {} if on_bad_case == "skip" else None
    with _beginning_with("images"):
        pool = {item["case"]: item for item in read_images(images, allow_outside=allow_outside, bad=bad)}
    held = {
        key: {} if path is None else read_labelled_folder(path, key, allow_outside)
        for key, path in (("validation", validation), ("test", test))
    }
    for case in held["validation"]:
        if case in held["test"]:
            raise DataError(f"test: the case {case} is in the validation set too.")
    for key, items in held.items():
        for case in sorted(set(items) & set(pool)):
            ours, theirs = Path(pool[case]["image"]), Path(items[case]["image"])
            if file_hash(ours) != file_hash(theirs):
                raise DataError(f"{key}: the case {case} differs from the image {ours} of the same name; rename one.")
            logger.info("The case %s is in the %s set and leaves the pool.", case, key)
            del pool[case]
    with _beginning_with("images"):
        pool = {item["case"]: item for item in with_room(pool.values(), _ENDING, bad)}
    left_out = {case: words for case, words in (bad or {}).items() if not any(case in each for each in held.values())}
    if not pool and left_out:
        raise _all_bad(left_out)
    if not pool:
        raise DataError(f"images: {images} holds no image beside those of the held-out sets.")
    for case in pool:
        for name in (f"{case}{suffix}" for suffix in WORKLIST_SUFFIXES):
            if name in pool:
                raise DataError(
                    f"images: {pool[name]['image']} has the name of a file that a worklist puts beside {case}; "
                    "rename it if it is an image to label, and move it elsewhere if it is not."
                )
    return PeopleData(dict(sorted(pool.items())), held["validation"], held["test"], bad=left_out)


def read_labelled_folder(path: str | os.PathLike[str], key: str, allow_outside: bool = False) -> dict[str, Item]:
    """The labelled cases of a folder: in MSD form, or with ``images/`` and ``labels/`` (``imagesTr/``, ``labelsTr/``).

    Args:
        path: the folder.
        key: the configuration's key, for error messages.
        allow_outside: accept files that ``dataset.json`` names outside the folder.

    Raises:
        DataError: the folder has neither form, an image has no label of the same name, or a file is missing or wrong;
            the sentence begins with the key.
    """
    root = Path(path).absolute()
    with _beginning_with(key):
        if is_file(root / "dataset.json"):
            return read_dataset(root, allow_outside).items
        for images, labels in _FOLDERS:
            if is_folder(root / images) and is_folder(root / labels):
                return {item["case"]: _paired(item, root / labels) for item in read_images(root / images)}
        raise DataError(f"{root} has neither a dataset.json nor the folders images and labels.")


def _all_bad(bad: Mapping[str, str]) -> DataError:
    return DataError(f"images: every image is bad; the first one: {next(iter(bad.values()))}")


@contextmanager
def _beginning_with(key: str) -> Iterator[None]:
    """Put a configuration's key before the sentence of an error."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{key}: {error}") from error


def _paired(item: Item, labels: Path) -> Item:
    found = [labels / f"{item['case']}{suffix}" for suffix in NIFTI_SUFFIXES]
    for path in found:
        if is_file(path):
            return {**item, "label": str(path)}
    raise DataError(f"the case {item['case']} has no label {found[0]}.")
