"""A worklist's folder: what a person opens in 3D Slicer or ITK-SNAP, and the table to fill in.

Per case ``<case>.nii.gz``, a link to the image or, where the system refuses links, a copy; from the second list on
``<case>_seg.nii.gz``, the pre-segmentation to correct, and ``<case>_uncertainty.nii.gz``, both in the image's own
geometry; ``<case>.png``. And ``worklist.csv``, which is written once and then belongs to the team.
"""

from __future__ import annotations

import csv
import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from svgd_monai.acquisition import UNITS, get_strategy
from svgd_monai.data.entries import Item
from svgd_monai.data.nifti import NIFTI_SUFFIXES
from svgd_monai.errors import RunFolderError
from svgd_monai.evaluation.writer import INFERENCE_FILE
from svgd_monai.files import read_csv, reason, write_bytes, write_csv, write_json
from svgd_monai.report.page import png
from svgd_monai.report.worklist_panel import greatest, worklist_panel
from svgd_monai.rounds.people.ledger import Entry, slots
from svgd_monai.rounds.people.table import WORKLIST_FILE, case_of_row, filled_in, read_worklist
from svgd_monai.rounds.stages import Stages

logger = logging.getLogger(__name__)

WORKLISTS_FOLDER = "worklist"


class Handout:
    """Writes the folders of worklists.

    Args:
        root: the run's folder.
        stages: the bundle's; ``inference`` makes the pre-segmentations.
        settings: the loop's.
        classes: name of each label value, background 0 included.
    """

    def __init__(self, root: Path, stages: Stages, settings: Mapping[str, Any], classes: Mapping[int, str]) -> None:
        self.root = root
        self.stages = stages
        self.settings = settings
        self.classes = dict(sorted(classes.items()))

    def folder(self, number: int) -> Path:
        """The folder of a worklist."""
        return self.root / WORKLISTS_FOLDER / f"round_{number:03d}"

    def tables(self, count: int) -> list[Path]:
        """The tables of the first ``count`` worklists."""
        return [self.folder(number) / WORKLIST_FILE for number in range(count)]

    def write(
        self,
        number: int,
        entries: Sequence[Entry],
        items: Mapping[str, Item],
        committee: Path | None,
        listed: Sequence[str] = (),
    ) -> list[Entry]:
        """Write what is new of a worklist.

        Args:
            number: of the worklist.
            entries: its new cases, in rank order.
            items: the image of each.
            committee: that pre-segments; None: nobody does.
            listed: the cases that it has already, in rank order.

        Returns:
            The entries with the hashes of their pre-segmentations and the structures expected in them.
        """
        folder = self.folder(number)
        self.link(number, [items[entry.case] for entry in entries])
        if committee is not None:
            entries = self._presegmented(folder, entries, items, committee)
        self._draw(folder, entries, items)
        self._write_table(folder, entries, listed)
        for entry in entries:
            for _, save_as in slots(entry):
                (self.root / save_as).parent.mkdir(parents=True, exist_ok=True)
        return list(entries)

    def link(self, number: int, items: Iterable[Item]) -> None:
        """Put images into the folder of a worklist; a link whose image has moved is made anew."""
        folder = self.folder(number)
        folder.mkdir(parents=True, exist_ok=True)
        for item in items:
            _link(Path(item["image"]), folder)

    def _draw(self, folder: Path, entries: Sequence[Entry], items: Mapping[str, Item]) -> None:
        """A picture of each case; the colours of their uncertainties end at one value."""
        names = list(self.classes.values())
        heats = {e.case: folder / f"{e.case}_uncertainty.nii.gz" for e in entries if e.presegmentation is not None}
        top = max((greatest(heat) for heat in heats.values()), default=None)
        shown = get_strategy(self.settings["acquisition"]).uncertainty_map if heats else ""
        label = f"{shown.replace('_', ' ')} ({UNITS[shown]})".removesuffix(" ()") if shown else ""
        for entry in entries:
            image, heat = items[entry.case]["image"], heats.get(entry.case)
            mask = None if heat is None else folder / f"{entry.case}_seg.nii.gz"
            picture = worklist_panel(image, mask, heat, names, label, top)
            write_bytes(folder / f"{entry.case}.png", png(picture))

    def _presegmented(
        self, folder: Path, entries: Sequence[Entry], items: Mapping[str, Item], committee: Path
    ) -> list[Entry]:
        images = [items[entry.case]["image"] for entry in entries]
        wanted = write_json(Path(self.settings["cache_dir"]) / "to_segment.json", {"images": images})
        self.stages.run(
            "inference",
            dataset_dir=str(wanted),
            output_dir=str(folder),
            committee_file=str(committee),
            uncertainty_map=get_strategy(self.settings["acquisition"]).uncertainty_map,
            classes=list(self.classes.values()),
            on_bad_case="fail",  # each is asked for
            allow_outside=True,  # the list is the run's own, the images are the team's
        )
        rows = {row["case"]: row for row in read_csv(folder / INFERENCE_FILE)}
        (folder / INFERENCE_FILE).unlink()  # its numbers stand in worklist.csv
        return [self._expecting(entry, folder, rows[entry.case]) for entry in entries]

    def _expecting(self, entry: Entry, folder: Path, row: Mapping[str, str]) -> Entry:
        digest = hashlib.sha256((folder / f"{entry.case}_seg.nii.gz").read_bytes()).hexdigest()
        volumes = {name: _number(row[f"volume_ml_{name}"]) for value, name in self.classes.items() if value > 0}
        agreed = _number(row["agreement_dice"])
        found = ", ".join(f"{name} {volume:.2f} ml" for name, volume in volumes.items() if volume)
        if not found:  # the team's own inference may give the classes other numbers, whose volumes nobody knows
            found = "no structure" if None not in volumes.values() else "structures of unknown volume"
        why = f"{entry.why}; expected: {found}"
        if agreed is not None:
            why += f" (members agree to a Dice of {agreed:.2f})"
        expected = {f"expected_ml_{name}": volume for name, volume in volumes.items()}
        terms = {**entry.terms, **expected, "agreement_dice": agreed}
        return replace(entry, presegmentation=digest, why=why, terms=terms)

    def _write_table(self, folder: Path, entries: Sequence[Entry], listed: Sequence[str]) -> None:
        """Write the table, or add to the one that is there: what people wrote into it stays.

        A kill may have left rows of cases that were to join the list and then did not; these go, unless a person has
        filled them in.
        """
        path = folder / WORKLIST_FILE
        expected = [f"expected_ml_{name}" for value, name in self.classes.items() if value > 0]
        columns = ["rank", "case", "annotator", "save_as", "image", "presegmentation", "uncertainty_map", "why",
                   "score", "uncertainty", "mutual_information", *expected, "agreement_dice", "minutes"]  # fmt: skip
        rows: list[dict[str, Any]] = []
        if path.is_file():
            try:
                rows = [{column: row.get(column, "") for column in columns} for row in read_worklist(path)]
            except (OSError, ValueError, csv.Error) as error:
                sentence = f"{path} cannot be read ({reason(error)}); mend it or move it away: cases must be added."
                raise RunFolderError(sentence) from error
        written = {row["save_as"]: row for row in rows}
        stay, new, asked = set(listed), {entry.case for entry in entries}, self.settings.get("annotators") or ()
        rows = [
            row | {"case": case}
            for row in rows
            if (case := case_of_row(row)) in stay or (case not in new and filled_in(row, asked))
        ]
        for rank, entry in enumerate(entries, start=len(listed) + 1):
            files: dict[str, Any] = {"image": next(p.name for p in _links(folder, entry.case) if p.exists())}
            if entry.presegmentation is not None:
                files["presegmentation"] = f"{entry.case}_seg.nii.gz"
                files["uncertainty_map"] = f"{entry.case}_uncertainty.nii.gz"
            terms = {key: _rounded(value) for key, value in entry.terms.items()}
            for annotator, save_as in slots(entry):
                before = written.get(save_as, {})
                by = annotator or before.get("annotator")
                row = {"rank": rank, "case": entry.case, "annotator": by, "save_as": save_as, "why": entry.why}
                rows.append(dict.fromkeys(columns) | row | files | terms | {"minutes": before.get("minutes")})
        write_csv(path, columns, rows)


def _number(text: str) -> float | None:
    return float(text) if text else None


def _rounded(value: Any) -> Any:
    """A number as people read it; the ledger has it in full."""
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _links(folder: Path, case: str) -> list[Path]:
    return [folder / f"{case}{suffix}" for suffix in NIFTI_SUFFIXES]


def _link(image: Path, folder: Path) -> None:
    target = folder / image.name
    if target.exists():
        return
    target.unlink(missing_ok=True)  # a link whose image has moved
    try:
        target.symlink_to(image.absolute())
    except (OSError, NotImplementedError) as error:
        why = getattr(error, "strerror", None) or reason(error)
        logger.info("%s cannot be linked (%s), it is copied.", image, why)
        write_bytes(target, image.read_bytes())
