"""``report.html`` of a run in which people label: advice, learning curve, worklist with pictures, ledger.

One self-contained file, made of what lies in the run's folder and nothing else.
"""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from svgd_monai.files import read_csv, read_json, write_text
from svgd_monai.report.figures import BLUE
from svgd_monai.report.page import Block, Heading, Items, Page, Paragraph, Picture, Table, png
from svgd_monai.report.text import number, one_line
from svgd_monai.words import count

PAGE_FILE = "report.html"
_MEASURES = (("test_dice", "test", BLUE, "o"), ("val_dice", "validation, on the working grid", "#D55E00", "s"))

Record = Mapping[str, Any]


def write_run_page(folder: str | os.PathLike[str]) -> Path:
    """Write the page.

    Args:
        folder: the run's, with the ledger of a run in which people label.

    Raises:
        RunFolderError: a file of the run is damaged.
    """
    root = Path(folder)
    ledger = read_json(root / "ledger.json")
    curve = read_csv(root / "learning_curve.csv") if (root / "learning_curve.csv").is_file() else []
    page = Page(f"Labelling in {root.absolute().name}")
    rounds = _rounds(root)
    page.add(*_advice(root, len(curve)), *_curve(curve, rounds), *_worklist(root, ledger), *_ledger(ledger, rounds))
    return write_text(root / PAGE_FILE, page.html())


def progress(states: Sequence[str]) -> str:
    """How far a worklist has come.

    Args:
        states: of its cases, each ``labelled``, ``declined``, ``held out`` or ``to do``.
    """
    found = Counter(states)
    apart = f"{found['held out']} held out, " if found["held out"] else ""
    return (
        f"{count(len(states), 'case')}: {found['labelled']} labelled, {found['declined']} declined, "
        f"{apart}{found['to do']} to do."
    )


def inexact(cases: Sequence[str]) -> list[Block]:
    """A word on the names that a page cannot show as they are, where there are any: of two blanks it shows one."""
    odd = [one_line(case) for case in cases if one_line(case) != case]
    if not odd:
        return []
    return [
        Paragraph(
            "Copy these names from the column save_as of worklist.csv, because they hold blanks or characters that "
            f"cannot be shown here: {', '.join(odd)}."
        )
    ]


def learning_figure(curve: Sequence[Mapping[str, str]], validating: Sequence[frozenset[str]]) -> Figure:
    """Test and validation Dice against the labels that people made.

    A line joins what was measured on the same cases: where the validation set has grown, it breaks.

    Args:
        curve: rows of ``learning_curve.csv``.
        validating: the validation cases of each of these rounds.
    """
    with mpl.rc_context({"text.parse_math": False, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(7.2, 3.8), layout="constrained")
        axis: Axes = figure.subplots()
        for column, name, colour, marker in _MEASURES:
            sets = validating if column == "val_dice" else [frozenset()] * len(curve)
            points = [
                (int(row["unique_labels"]), float(row[column]), cases)
                for row, cases in zip(curve, sets, strict=True)
                if row[column]
            ]
            label = name
            for cases, group in itertools.groupby(points, key=lambda point: point[2]):
                x, y, _ = zip(*group, strict=True)
                axis.plot(x, y, color=colour, marker=marker, label=label)
                label = "_"  # the legend names it once
                if cases:
                    axis.annotate(
                        f"{len(cases)}", (x[0], y[0]), xytext=(0, 6), textcoords="offset points", fontsize=8,
                        color=colour, ha="center",
                    )  # fmt: skip
        labels = [int(row["unique_labels"]) for row in curve]
        axis.set_xlim(min(labels) - 1, max(labels) + 1)
        axis.set_xlabel("labels")
        axis.set_ylabel("mean foreground Dice")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(color="#e6e9ed")
        axis.legend()
    return figure


def _advice(root: Path, rounds: int) -> list[Block]:
    files = [root / f"round_{number:03d}" / "advice.txt" for number in reversed(range(rounds))]
    newest = next((path for path in files if path.is_file()), None)
    told = "No round has been trained yet; the first one needs labels."
    return [Heading("Advice"), Paragraph(told if newest is None else newest.read_text(encoding="utf-8"))]


@dataclass(frozen=True)
class _Rounds:
    """What the data lists of the rounds that have begun say.

    Attributes:
        validating: the validation cases of each.
        since: the first that trains or validates on a label, by the name of its file.
    """

    validating: dict[int, frozenset[str]]
    since: dict[str, int]


def _rounds(root: Path) -> _Rounds:
    rounds = _Rounds({}, {})
    found = ((path.parent.name.removeprefix("round_"), path) for path in root.glob("round_*/datalist.json"))
    for round_number, file in sorted((int(digits), path) for digits, path in found if digits.isdecimal()):
        content = read_json(file)
        rounds.validating[round_number] = frozenset(str(item["case"]) for item in content["validation"])
        for item in (*content["training"], *content["validation"]):
            rounds.since.setdefault(PurePath(item["label"]).name, round_number)
    return rounds


def _curve(curve: Sequence[Mapping[str, str]], rounds: _Rounds) -> list[Block]:
    if not curve:
        return []
    blocks: list[Block] = [Heading("Learning curve")]
    measured = any(row[column] for row in curve for column, *_ in _MEASURES)
    if measured:
        picture = png(learning_figure(curve, [rounds.validating.get(int(row["round"]), frozenset()) for row in curve]))
        caption = (
            "Mean foreground Dice against labels. Small numbers: how many validation cases there are. The line breaks "
            "where the validation set grows, because Dice on different sets cannot be compared."
        )
        blocks.append(Picture("learning_curve.png", picture, caption, "learning curve"))
    else:
        blocks.append(Paragraph("Nothing has been measured: there is no test set and no validation set yet."))
    columns = ["round", "unique_labels", "training_items", "val_dice", "test_dice", "seconds_train", "seconds_score"]
    rows = [[_cell(row[column], column) for column in columns] for row in curve]
    return [*blocks, Table("One row for each trained round.", [column.replace("_", " ") for column in columns], rows)]


def _worklist(root: Path, ledger: Record) -> list[Block]:
    if not ledger["worklists"]:
        return []
    newest = len(ledger["worklists"]) - 1
    entries: list[Record] = ledger["worklists"][newest]
    rows = [
        [str(rank), entry["case"], ", ".join(entry["annotators"]), _state(ledger["cases"].get(entry["case"])),
         entry["why"]]
        for rank, entry in enumerate(entries, start=1)
    ]  # fmt: skip
    blocks: list[Block] = [
        Heading(f"Worklist {newest}"),
        Table(progress([row[3] for row in rows]), ["rank", "case", "annotators", "state", "why"], rows),
        *inexact([entry["case"] for entry in entries]),
    ]
    folder = root / "worklist" / f"round_{newest:03d}"
    for entry in entries:
        path = folder / f"{entry['case']}.png"
        if path.is_file():  # the folder is people's to tidy up
            blocks.append(Picture(path.name, path.read_bytes(), f"{entry['case']}: {entry['why']}", entry["case"]))
    return blocks


def _ledger(ledger: Record, rounds: _Rounds) -> list[Block]:
    cases: Mapping[str, Record] = ledger["cases"]
    labelled = {case: record for case, record in cases.items() if record["labelled"]}
    declined = {case: record["declined"] for case, record in cases.items() if record["declined"]}
    blocks: list[Block] = [
        Heading("Ledger"),
        Paragraph(
            f"{count(len(cases), 'image')}, {len(labelled)} labelled and {len(declined)} declined; "
            f"{count(len(ledger['refused']), 'file')} refused."
        ),
    ]
    if labelled:
        columns = ["case", "role", "since round", "annotator", "accepted (UTC)", "ml", "corrected voxels",
                   "redrawn surface voxels", "Dice with pre-segmentation", "minutes"]  # fmt: skip
        rows = [row for case, record in labelled.items() for row in _labels(case, record, rounds.since)]
        blocks.append(Table("Every label that was accepted, by case and oldest first.", columns, rows))
    agreed = [[case, *_agreement(record["agreement"])] for case, record in cases.items() if record["agreement"]]
    if agreed:
        blocks.append(Table("Cases that two have labelled, and how well they agree.", ["case", "who", "Dice"], agreed))
    if declined:
        blocks.append(Table("Declined cases.", ["case", "reason"], [[c, d["reason"]] for c, d in declined.items()]))
    if ledger["refused"]:
        blocks += [Paragraph("Refused files:"), Items([f"{r['time']}: {r['sentence']}" for r in ledger["refused"]])]
    return blocks


def _labels(case: str, record: Record, since: Mapping[str, int]) -> list[list[str]]:
    minutes, rows = dict(record["minutes"]), []
    for label in record["labels"]:
        own = f"{label['slot']}/{case}"
        took = minutes.pop(own if own in minutes else case, None)  # told once, for the oldest label that they can be of
        rows.append(
            [case, record["role"], _plain(since.get(PurePath(label["file"]).name)), _plain(label["annotator"]),
             label["time"][:16].replace("T", " "), number(sum(label["volume_ml"].values()), 2),
             _plain(label["corrected_voxels"]), _plain(label["corrected_surface_voxels"]),
             number(label["presegmentation_dice"], 3), _plain(took)]
        )  # fmt: skip
    return rows


def _agreement(found: Record) -> list[str]:
    dice = ", ".join(f"{name} {number(value, 3)}" for name, value in found["dice"].items())
    return [" and ".join(found["annotators"]), dice]


def _state(record: Record | None) -> str:
    if record is None:
        return "held out"
    if record["declined"]:
        return "declined"
    return "labelled" if record["labelled"] else "to do"


def _plain(value: object) -> str:
    return "–" if value is None else str(value)


def _cell(text: str, column: str) -> str:
    if not text:
        return "–"
    return number(float(text), 4 if "dice" in column else 1) if "." in text else text
