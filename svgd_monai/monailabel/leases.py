"""Who is working on which image: no two annotators are handed the same one."""

from __future__ import annotations

import logging
import math
import os
import time
import uuid
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from svgd_monai.errors import RunFolderError
from svgd_monai.files import read_json, write_json

logger = logging.getLogger(__name__)

_FORMAT = 1
_SECONDS_TO_WAIT = 60.0

#: image -> (client, time at which the lease ends, in seconds since the epoch).
Leases = dict[str, tuple[str, float]]


class LeaseBook:
    """A file of leases that threads and processes of one or more servers share.

    Each change is made under a lock file beside it, which the kernel lets go of when its holder dies, and replaces the
    file at once and whole. An image is leased to one client at a time, and a client holds at most one image. A lease
    ends when its image is labelled or gone, or when its time is up.

    Args:
        path: the JSON file; its folder is made when missing.
        seconds: life of a lease, counted from the client's last request.
        clock: seconds since the epoch, the same for all who share the file.

    Raises:
        ValueError: a lease would end before it begins.
    """

    def __init__(
        self, path: str | os.PathLike[str], seconds: float = 24 * 3600.0, clock: Callable[[], float] = time.time
    ) -> None:
        if not (math.isfinite(seconds) and seconds > 0):
            raise ValueError(f"A lease must last a finite number of seconds above 0, got {seconds}.")
        self.path = Path(path)
        self.seconds = seconds
        self.clock = clock

    def take(self, client: str | None, ranked: Callable[[], tuple[Sequence[str], Collection[str]]]) -> str | None:
        """Lease the image that the client holds already, or else the best one that nobody holds.

        Args:
            client: who asks; None is somebody new every time.
            ranked: called while the lock is held: the images that may be handed out, best first, and all that are
                without a label.

        Returns:
            The image; None where every one is labelled or leased to another annotator.

        Raises:
            RunFolderError: another process has held the lock for a minute.
            OSError: the file cannot be written.
        """
        client = client or f"anonymous-{uuid.uuid4()}"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # A fresh object for each request: one that threads share counts how often it was taken, not by whom.
        lock = FileLock(self.path.with_name(self.path.name + ".lock"))
        try:
            lock.acquire(timeout=_SECONDS_TO_WAIT)
        except Timeout:
            raise RunFolderError(f"{lock.lock_file} has been held by another process for more than a minute.") from None
        try:
            images, unlabelled = ranked()
            return self._take(client, images, frozenset(unlabelled))
        finally:
            lock.release()

    def _take(self, client: str, images: Sequence[str], unlabelled: frozenset[str]) -> str | None:
        now = self.clock()
        found = self._read()
        leases = {image: lease for image, lease in found.items() if image in unlabelled and lease[1] > now}
        held = [image for image in images if image in leases and leases[image][0] == client]
        free = (image for image in images if image not in leases)
        image = held[0] if held else next(free, None)
        if image is not None:
            leases = {other: lease for other, lease in leases.items() if lease[0] != client}
            leases[image] = (client, now + self.seconds)
        if leases != found:
            content = {image: {"client": client, "until": until} for image, (client, until) in leases.items()}
            write_json(self.path, {"format": _FORMAT, "leases": content})
        return image

    def _read(self) -> Leases:
        if not self.path.exists():
            return {}
        try:
            content = read_json(self.path)
            if content["format"] != _FORMAT:
                raise ValueError(f"format {content['format']}")
            leases = {image: (str(v["client"]), float(v["until"])) for image, v in content["leases"].items()}
            if not all(math.isfinite(until) for _, until in leases.values()):
                raise ValueError("a lease without an end")
            return leases
        except (RunFolderError, LookupError, TypeError, ValueError, AttributeError) as error:
            # Without it nobody could work; with it gone an image may be handed out a second time.
            logger.warning("%s is damaged (%s); all leases in it are forgotten", self.path, error)
            return {}
