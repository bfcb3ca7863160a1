"""MONAI Label's scoring method: what the committee says of every unlabelled image, kept in the datastore."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from svgd_monai.monailabel.interfaces import (
    Datastore,
    ImageNotFoundException,
    MONAILabelError,
    MONAILabelException,
    ScoringMethod,
    device_of,
)
from svgd_monai.monailabel.pool import PoolScorer
from svgd_monai.workflow import boundary

logger = logging.getLogger(__name__)


def record_key(name: str) -> str:
    """Key of an image's info under which the scoring method ``name`` keeps its record."""
    return f"svgd_monai_{name}"


class CommitteeScoring(ScoringMethod):
    """Scores the unlabelled images of a datastore with a bundle's committee.

    Each image's info gets a record: ``rank`` (1 is the one to label next), ``score``, ``uncertainty``,
    ``mutual_information``, ``foreground_ml``, ``acquisition`` (the strategy's name), ``committee`` (which committee
    said so) and ``ts`` (seconds since the epoch). A record of another strategy or committee than the present ones is
    stale. MONAI Label asks for scores after each training and each image handed out; only what is new is computed.

    Args:
        name: of the method; part of the record's key.
        scorer: of the bundle.
    """

    def __init__(self, name: str, scorer: PoolScorer) -> None:
        super().__init__(f"Committee's score of every unlabelled image: {scorer.acquisition}")
        self.name = name
        self.scorer = scorer

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Score, and write what has changed.

        Args:
            request: may name a ``device``, as MONAI Label's clients do.
            datastore: with images as NIfTI files.

        Returns:
            Number of unlabelled images, of records written, the committee, and the seconds it took.

        Raises:
            MONAILabelException: with one sentence: the committee or an image is missing or wrong.
        """
        started = time.monotonic()
        datastore.refresh()
        unlabelled = _files(datastore, datastore.get_unlabeled_images())
        labelled = _files(datastore, datastore.get_labeled_images())
        try:
            with boundary():
                scores = self.scorer(unlabelled, labelled, device_of(request))
        except SystemExit as end:  # of the program, were it a bundle's; a server goes on
            raise MONAILabelException(MONAILabelError.APP_ERROR, str(end)) from end
        datastore.refresh()  # people may have labelled meanwhile, and an update writes all that the datastore knows
        written = 0
        for score in scores:
            numbers = asdict(score)
            image = numbers.pop("image")
            record = {**numbers, "acquisition": self.scorer.acquisition}
            written += self._update(datastore, image, record)
        summary = {
            "total": len(scores),
            "written": written,
            "committee": scores[0].committee if scores else self.scorer.version(),
            "seconds": round(time.monotonic() - started, 3),
        }
        logger.info("%s: %s", self.name, summary)
        return summary

    def _update(self, datastore: Datastore, image: str, record: dict[str, Any]) -> bool:
        key = record_key(self.name)
        found = datastore.get_image_info(image).get(key)
        if isinstance(found, dict) and {k: v for k, v in found.items() if k != "ts"} == record:
            return False
        try:
            datastore.update_image_info(image, {key: {**record, "ts": int(time.time())}})
        except ImageNotFoundException:
            logger.info("image %s has left the datastore while it was scored", image)
            return False
        return True


def _files(datastore: Datastore, images: Iterable[str]) -> dict[str, str]:
    return {image: str(datastore.get_image_uri(image)) for image in images}
