"""MONAI Label's active-learning strategy: the best next image, for several annotators at once."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from svgd_monai.monailabel.interfaces import Datastore, Strategy
from svgd_monai.monailabel.leases import LeaseBook
from svgd_monai.monailabel.pool import PoolScorer
from svgd_monai.monailabel.scoring import record_key

logger = logging.getLogger(__name__)


class CommitteeStrategy(Strategy):
    """Hands out the unlabelled image of the best score that no other annotator holds.

    An annotator who asks again gets the leased image again, until it is labelled. Annotators are told apart by the
    ``client_id`` of their requests; a request without one always gets another image. Where no image has a score, images
    go out in the order of their names, as MONAI Label's strategy ``first`` has it, with a line in the log; images
    without a score come behind those with one. Scores of an earlier committee, or of another acquisition strategy than
    the present one (``--conf acquisition``), count until there are new ones, behind these.

    Args:
        name: of the scoring method whose records decide.
        scorer: of the bundle; says which committee and which acquisition strategy are the present ones.
        leases: shared by all strategies on a datastore.
    """

    def __init__(self, name: str, scorer: PoolScorer, leases: LeaseBook) -> None:
        super().__init__(f"Best image for the committee that nobody else is labelling: {scorer.acquisition}")
        self.name = name
        self.scorer = scorer
        self.leases = leases

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any] | None:
        """Choose.

        Args:
            request: with the ``client_id`` of who asks; ``label_tag`` and ``labels`` are the datastore's filters.
            datastore: the images.

        Returns:
            ``id`` of the image, with its ``rank`` and ``score`` where known; None, as of MONAI Label's own strategies,
            where every image is labelled or leased to another annotator.
        """

        def ranked() -> tuple[Sequence[str], Collection[str]]:
            datastore.refresh()  # another process may have saved a label
            images = datastore.get_unlabeled_images(request.get("label_tag"), request.get("labels"))
            return self._ranked(images, datastore), datastore.get_unlabeled_images()

        client = request.get("client_id")
        image = self.leases.take(None if client is None else str(client), ranked)
        if image is None:
            logger.info("%s: nothing left for %s", self.name, client)
            return None
        record = self._record(image, datastore)
        logger.info("%s: %s to %s, rank %s", self.name, image, client, record.get("rank"))
        return {"id": image, **{key: record[key] for key in ("rank", "score") if key in record}}

    def _ranked(self, images: Sequence[str], datastore: Datastore) -> list[str]:
        """Images best first: those with a score of the present kind, then those with an earlier one, then the rest."""
        records = {image: self._record(image, datastore) for image in images}
        present = {"committee": self.scorer.version(), "acquisition": self.scorer.acquisition}
        scored = [image for image in images if records[image]]
        stale = [image for image in scored if any(records[image].get(key) != present[key] for key in present)]
        if images and not scored:
            logger.warning(
                "%s: no image has a score yet, they go out in the order of their names; run the scoring method %s",
                self.name,
                self.name,
            )
        elif stale:
            logger.info(
                "%s: %d of %d scores are of an earlier committee or another strategy",
                self.name,
                len(stale),
                len(scored),
            )
        behind = dict.fromkeys(stale, 1) | {image: 2 for image in images if not records[image]}
        return sorted(images, key=lambda image: (behind.get(image, 0), records[image].get("rank", 0), image))

    def _record(self, image: str, datastore: Datastore) -> dict[str, Any]:
        """The scoring method's record; empty where there is none."""
        record = datastore.get_image_info(image).get(record_key(self.name))
        return record if isinstance(record, dict) and isinstance(record.get("rank"), int) else {}
