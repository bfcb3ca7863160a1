"""Scores of a pool of images by a bundle's committee: the bundle's acquisition stage, over a list of files."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from monai.bundle import ConfigParser

from svgd_monai.acquisition import PoolView, ScoreOptions, get_strategy, rank_cases, select
from svgd_monai.acquisition.handler import SCORES_FILE
from svgd_monai.data import check_cases, transform_key
from svgd_monai.data.check_cache import CHECKS_FILE
from svgd_monai.data.entries import Item, find_file
from svgd_monai.errors import CheckpointError
from svgd_monai.files import read_csv
from svgd_monai.monailabel.measures import MeasureStore
from svgd_monai.monailabel.stage import literal, query_settings, stage_parser
from svgd_monai.seeding import derive_seed

logger = logging.getLogger(__name__)

_CHUNK = 20  # images measured between two saves: what a stopped scoring repeats
_NUMBERS = ("uncertainty", "foreground_ml")


@dataclass(frozen=True)
class ImageScore:
    """What the committee says of an unlabelled image.

    Attributes:
        image: its id.
        rank: 1 for the one to label next.
        score: of the strategy; None where it is undefined (a constant image), which ranks last.
        uncertainty: of the strategy's map, reduced to a number.
        mutual_information: with the labelled images, nats; None where undefined or not used.
        foreground_ml: predicted foreground.
        committee: which committee says so, as :meth:`PoolScorer.version` tells them apart.
    """

    image: str
    rank: int
    score: float | None
    uncertainty: float
    mutual_information: float | None
    foreground_ml: float
    committee: str


class PoolScorer:
    """Scores images as a bundle's ``acquire.yaml --keep_labelled false`` does.

    What depends on the committee and one image alone, its uncertainty, is measured once and kept; the mutual
    information of a pair likewise. So a new label costs no inference. One process works in the folder, others wait.

    Args:
        bundle: the bundle's folder, with ``configs/acquire.yaml`` and ``models/model.pt``.
        folder: where checks, preprocessed volumes, measures and mutual information are kept.
        settings: values of :data:`~svgd_monai.monailabel.stage.QUERY_KEYS` in place of the bundle's, also as text;
            other keys are passed over.

    Attributes:
        acquisition: name of the strategy.
        committee_file: the bundle's ``models/model.pt``.

    Raises:
        SettingsError: a value is of the wrong type or out of range.
    """

    def __init__(
        self, bundle: str | os.PathLike[str], folder: str | os.PathLike[str], settings: Mapping[str, Any] | None = None
    ) -> None:
        self.bundle = Path(bundle).resolve()
        self.folder = Path(folder).resolve()
        self.config_file = self.bundle / "configs" / "acquire.yaml"
        self.committee_file = self.bundle / "models" / "model.pt"
        self.settings = query_settings(settings or {})
        self.acquisition = str(self._parser(None).get_parsed_content("acquisition"))

    def version(self) -> str | None:
        """Tells one committee from the next, by the time and size of its file; None where there is no file."""
        try:
            status = self.committee_file.stat()
        except OSError:
            return None
        return f"{status.st_mtime_ns}-{status.st_size}"

    def __call__(
        self, unlabelled: Mapping[str, str], labelled: Mapping[str, str], device: str | None = None
    ) -> list[ImageScore]:
        """Score.

        Args:
            unlabelled: the pool, from an image's id to its file.
            labelled: the labelled images, likewise; mutual information is measured with them.
            device: where to run; None: as the bundle says.

        Returns:
            The scores of the pool, best first.

        Raises:
            SvgdMonaiError: the committee or an image is missing or wrong; MONAI's own errors may stand around it.
        """
        if not unlabelled:
            return []
        self._present()
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / ".lock"):
            parser = self._parser(device)
            items = self._items({**labelled, **unlabelled}, parser)
            pool = [items[image] for image in sorted(unlabelled)]
            version = self._present()
            while (measures := self._measure(pool, version, parser)) is None:
                version = self._present()
            return self._scores(sorted(unlabelled), sorted(labelled), items, measures, parser, version)

    def _present(self) -> str:
        """The version of the committee that is there."""
        version = self.version()
        if version is None:
            raise CheckpointError(f"{self.committee_file} does not exist; train a committee first.")
        return version

    def _parser(self, device: str | None) -> ConfigParser:
        return stage_parser(self.config_file, self.folder, self.settings, device)

    def _items(self, images: Mapping[str, str], parser: ConfigParser) -> dict[str, Item]:
        """Items with the fingerprint of their content, each image checked."""
        items = {
            image: {"case": image, "image": find_file(f"Case {image!r}", path, "image", Path(), allow_outside=True)}
            for image, path in images.items()
        }
        channels = int(parser.get_parsed_content("in_channels"))
        facts = check_cases(items, {0: "background"}, self.folder / CHECKS_FILE, channels=channels)
        return {
            image: {**item, "fingerprint": facts[image].fingerprint(labelled=False)} for image, item in items.items()
        }

    def _measure(self, items: Sequence[Item], version: str, parser: ConfigParser) -> dict[str, dict[str, float]] | None:
        """Uncertainty and predicted foreground of every item, by fingerprint; only those not known yet are run.

        None where another committee has come meanwhile, as of a training that ended: numbers of two do not compare.
        """
        premises = {
            "committee": version,
            "configuration": hashlib.sha256(self.config_file.read_bytes()).hexdigest(),
            "map": get_strategy(self.acquisition).uncertainty_map,
            "reduction": parser.get_parsed_content("uncertainty_reduction"),
            "preprocessing": transform_key(parser.get_parsed_content("preprocessing").flatten().transforms).decode(),
        }
        store = MeasureStore(self.folder / "measures.json", premises)
        fresh = [item for item in items if item["fingerprint"] not in store.images]
        measured = self.folder / "measured"
        parser["handlers"] = [
            *(handler for handler in parser["handlers"] if handler["_target_"].endswith(".CommitteeLoader")),
            {
                "_target_": "svgd_monai.acquisition.AcquisitionHandler",
                "folder": literal(measured),
                "acquisition": premises["map"],  # the strategy that ranks by a map has the map's name
                "count": 0,
                "reduction": premises["reduction"],
            },
        ]
        for start in range(0, len(fresh), _CHUNK):
            some = fresh[start : start + _CHUNK]
            # A tuple is no part of a configuration: the name of a file that begins with $ stays a name.
            parser["dataset::data"] = tuple(some)
            parser.get_parsed_content("evaluator").run()
            if self.version() != version:
                logger.info("another committee has come, the images are measured with that one")
                return None
            rows = {
                row["case"]: {name: float(row[name]) for name in _NUMBERS} for row in read_csv(measured / SCORES_FILE)
            }
            store.keep({item["fingerprint"]: rows[item["case"]] for item in some})
            logger.info("%d of %d new images measured", start + len(some), len(fresh))
        return store.images

    def _scores(
        self,
        images: Sequence[str],
        labelled: Sequence[str],
        items: Mapping[str, Item],
        measures: Mapping[str, Mapping[str, float]],
        parser: ConfigParser,
        version: str,
    ) -> list[ImageScore]:
        strategy = get_strategy(self.acquisition)
        keys = ("mi_weight", "normalise", "normalise_over", "candidates")
        options = ScoreOptions(*(parser.get_parsed_content(key) for key in keys))
        seed, count = (parser.get_parsed_content(key) for key in ("seed", "queries_per_round"))
        information = source = None
        if strategy.uses_information:
            parser["information::dataset::data"] = tuple(items.values())
            source = parser.get_parsed_content("information")
            information = source(images, labelled)
        numbers = [measures[items[image]["fingerprint"]] for image in images]
        uncertainty, foreground = (torch.tensor([n[name] for n in numbers], dtype=torch.float64) for name in _NUMBERS)
        view = PoolView(
            cases=tuple(images),
            uncertainty=uncertainty,
            information=information,
            foreground=foreground,
            labelled=torch.zeros(len(images), dtype=torch.bool),
            # The stream of acquire.yaml in its round 0.
            rng=np.random.default_rng(derive_seed(derive_seed(seed, "acquisition", 0), "acquisition")),
            pairs=None if source is None else source.pairs,
            labelled_cases=tuple(labelled),
            entropies=getattr(source, "entropies", None),
        )
        scores, _ = select(strategy, view, options, count, keep_labelled=False)
        return [
            ImageScore(
                image=images[place],
                rank=rank,
                score=_finite(scores[place]),
                uncertainty=float(uncertainty[place]),
                mutual_information=None if information is None else _finite(information[place]),
                foreground_ml=float(foreground[place]),
                committee=version,
            )
            for rank, place in enumerate(rank_cases(scores, images), start=1)
        ]


def _finite(value: torch.Tensor) -> float | None:
    """The number for JSON, which knows no infinity."""
    return float(value) if bool(torch.isfinite(value)) else None
