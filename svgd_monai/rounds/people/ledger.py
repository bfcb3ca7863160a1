"""What people have been asked for and what they gave: the state of a run in which people label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from itertools import chain
from pathlib import PurePath
from typing import Any

from svgd_monai.errors import RunFolderError


@dataclass(frozen=True)
class Label:
    """A label that was accepted.

    Attributes:
        slot: the annotator's folder below ``labels/`` that it came from, empty for ``labels/`` itself.
        annotator: who made it, None where nobody says so.
        file: the accepted copy, relative to the run's folder; its name holds its hash.
        sha256: hash of the file.
        time: when it was accepted, ISO 8601, UTC.
        source: the file that a person saved.
        volume_ml: of each foreground class.
        corrected_voxels: voxels of another class than in the pre-segmentation; None without one.
        corrected_surface_voxels: voxels of the label's surface that are not on the pre-segmentation's.
        presegmentation_dice: mean foreground Dice of the two.
    """

    slot: str
    annotator: str | None
    file: str
    sha256: str
    time: str
    source: str
    volume_ml: dict[str, float]
    corrected_voxels: int | None = None
    corrected_surface_voxels: int | None = None
    presegmentation_dice: float | None = None


@dataclass(frozen=True)
class Entry:
    """A case of a worklist.

    Attributes:
        case: the case.
        annotators: who labels it, none where the team has named nobody; two label it independently.
        why: why it was chosen.
        presegmentation: hash of the pre-segmentation's file; None where there is none.
        terms: the numbers behind the choice, by the columns of ``worklist.csv``.
    """

    case: str
    annotators: tuple[str, ...] = ()
    why: str = ""
    presegmentation: str | None = None
    terms: dict[str, Any] = field(default_factory=dict)


@dataclass
class PeopleLedger:
    """The state after some rounds; ``ledger.json`` holds it, but for what the rounds' data lists say.

    Attributes:
        images: hash of each image of the pool; cases may join, none may change.
        held_out: hash of each case of the team's own sets, by ``validation`` and ``test``.
        labels: every label accepted of a case, oldest first.
        declined: by case, ``{"reason", "time"}``.
        worklists: the cases of each worklist, in rank order.
        queries: the chosen cases of each round, best first.
        training: the training list of each round that has begun, with multiplicity.
        validation: the people's validation cases of each round that has begun.
        validating: all of its validation cases, the team's own set among them where it had one by then.
        refused: ``{"file", "sha256", "time", "sentence"}`` of each file refused.
        minutes: that a case took, by case, or by annotator/case.
        agreement: by case that two have labelled, ``{"annotators", "files", "dice": {class: Dice}}``.
        in_use: name of the label file of each of the people's cases that the newest round trains or validates on.
    """

    images: dict[str, str] = field(default_factory=dict)
    held_out: dict[str, dict[str, str]] = field(default_factory=lambda: {"validation": {}, "test": {}})
    labels: dict[str, list[Label]] = field(default_factory=dict)
    declined: dict[str, dict[str, str]] = field(default_factory=dict)
    worklists: list[list[Entry]] = field(default_factory=list)
    queries: list[list[str]] = field(default_factory=list)
    training: list[list[str]] = field(default_factory=list)
    validation: list[list[str]] = field(default_factory=list)
    validating: list[frozenset[str]] = field(default_factory=list)
    refused: list[dict[str, str]] = field(default_factory=list)
    minutes: dict[str, float] = field(default_factory=dict)
    agreement: dict[str, dict[str, Any]] = field(default_factory=dict)
    in_use: dict[str, str] = field(default_factory=dict)

    @property
    def labelled(self) -> list[str]:
        """The cases with a label, sorted."""
        return sorted(case for case, labels in self.labels.items() if labels)

    @property
    def kept_validation(self) -> list[str]:
        """The people's validation cases so far: once one, always one."""
        return self.validation[-1] if self.validation else []

    @property
    def fresh(self) -> list[str]:
        """The labelled cases that no round has used."""
        used = self._used(len(self.training) - 1)
        return [case for case in self.labelled if case not in used]

    @property
    def pending(self) -> list[str]:
        """The labelled cases whose label the newest round does not use: new ones, and those that have another now."""
        labelled = {case: PurePath(self.label(case).file).name for case in self.labelled}
        return [case for case, file in labelled.items() if self.in_use.get(case) != file]

    @property
    def unlabelled(self) -> list[str]:
        """The cases that may be put on a worklist: without a label and not declined, sorted."""
        return sorted(set(self.images) - set(self.labelled) - set(self.declined))

    def outstanding(self, number: int) -> list[str]:
        """The cases of a worklist that have neither come back nor been declined, in rank order."""
        known = [entry.case for entry in self.worklists[number] if entry.case in self.images]
        return [case for case in known if not self.labels.get(case) and case not in self.declined]

    def entry(self, case: str) -> Entry | None:
        """The newest worklist's entry of a case."""
        found = [entry for entries in self.worklists for entry in entries if entry.case == case]
        return found[-1] if found else None

    def current(self, case: str) -> dict[str, Label]:
        """The newest label of each slot of a case, the one that trains first."""
        newest = {label.slot: label for label in self.labels.get(case, [])}
        entry = self.entry(case) if len(newest) > 1 else None  # of one there is no order to tell
        asked = [] if entry is None else list(entry.annotators)
        order = ["", *asked, *sorted(newest)]
        return {slot: newest[slot] for slot in dict.fromkeys(order) if slot in newest}

    def label(self, case: str) -> Label:
        """The label of a case that trains: that of ``labels/`` itself, else of the annotator who was asked first."""
        return next(iter(self.current(case).values()))

    def unique_labels(self, number: int) -> int:
        """How many cases people have labelled for a round, those of validation among them."""
        return len(self._used(number))

    def agreement_with_presegmentation(self, number: int) -> list[float | None]:
        """Dice with its pre-segmentation of each label that is new in a round; None where it cannot be compared."""
        return [self.label(case).presegmentation_dice for case in self._new(number)]

    def _used(self, number: int) -> set[str]:
        """The cases that a round trains or validates on, none for -1: once among them, a case stays."""
        return {*self.training[number], *self.validation[number]} if number >= 0 else set()

    def _new(self, number: int) -> list[str]:
        return sorted(self._used(number) - self._used(number - 1))

    def as_dict(self) -> dict[str, Any]:
        """The ledger as plain values: a record per case, per round and per worklist."""
        rounds = [
            {"round": number, "new_labels": self._new(number), "unique_labels": self.unique_labels(number),
             "training_items": len(training), "validation": self.validation[number],
             "queries": self.queries[number] if number < len(self.queries) else None}
            for number, training in enumerate(self.training)
        ]  # fmt: skip
        return {
            "oracle": "people",
            "cases": self._records(),
            "held_out": self.held_out,
            "rounds": rounds,
            "worklists": [[asdict(entry) for entry in entries] for entries in self.worklists],
            "refused": self.refused,
        }

    def _records(self) -> dict[str, dict[str, Any]]:
        """A record per case; each round is looked through once, however many the cases."""
        first: dict[str, int] = {}
        for number, used in enumerate(zip(self.training, self.validation, strict=True)):
            first.update((case, number) for case in chain(*used) if case not in first)
        drawn = Counter(case for chosen in self.queries for case in set(chosen))
        minutes: dict[str, dict[str, float]] = {}
        for key, value in self.minutes.items():
            minutes.setdefault(key.rpartition("/")[2], {})[key] = value
        validating = set(self.kept_validation)
        return {
            case: {
                "image_sha256": self.images[case],
                "role": "validation" if case in validating else "pool",
                "labelled": bool(self.labels.get(case)),
                "labelled_in_round": first.get(case),
                "times_drawn": drawn[case],
                "declined": self.declined.get(case),
                "labels": [asdict(label) for label in self.labels.get(case, [])],
                "minutes": minutes.get(case, {}),
                "agreement": self.agreement.get(case),
            }
            for case in sorted(self.images)
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> PeopleLedger:
        """Rebuild a ledger, but for what the rounds' own files say; ``training`` has an empty list for each round.

        Raises:
            RunFolderError: the content is no such ledger.
        """
        try:
            ledger = cls(
                images={case: record["image_sha256"] for case, record in content["cases"].items()},
                held_out={role: dict(content["held_out"][role]) for role in ("validation", "test")},
                worklists=[
                    [Entry(**{**entry, "annotators": tuple(entry["annotators"])}) for entry in entries]
                    for entries in content["worklists"]
                ],
                queries=[list(record["queries"]) for record in content["rounds"] if record["queries"] is not None],
                training=[[] for _ in content["rounds"]],
                refused=[dict(record) for record in content["refused"]],
            )
            for case, record in content["cases"].items():
                ledger.labels[case] = [Label(**label) for label in record["labels"]]
                ledger.minutes.update(record["minutes"])
                if record["declined"] is not None:
                    ledger.declined[case] = dict(record["declined"])
                if record["agreement"] is not None:
                    ledger.agreement[case] = dict(record["agreement"])
        except (KeyError, TypeError, AttributeError) as error:
            raise RunFolderError("ledger.json is not the ledger of a run in which people label.") from error
        return ledger


def slots(entry: Entry) -> list[tuple[str | None, str]]:
    """Who labels a case, and where that label belongs, relative to the run's folder."""
    name = f"{entry.case}.nii.gz"
    if len(entry.annotators) > 1:
        return [(annotator, f"labels/{annotator}/{name}") for annotator in entry.annotators]
    return [(entry.annotators[0] if entry.annotators else None, f"labels/{name}")]


def now() -> str:
    """The time, as the ledger notes it."""
    return datetime.now(UTC).isoformat(timespec="seconds")
