"""Numbers of images that outlive a process, as long as what they were measured with stands."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from svgd_monai.errors import RunFolderError
from svgd_monai.files import read_json, write_json

logger = logging.getLogger(__name__)


class MeasureStore:
    """Numbers by the fingerprint of an image's content, in a JSON file that is replaced at once and whole.

    It is a cache: losing it costs time and no result. A file of other premises, or a damaged one, starts anew.

    Args:
        path: the file; made at the first save.
        premises: what the numbers depend on beside the image, plain values of JSON.

    Attributes:
        images: fingerprint -> name -> number.
    """

    def __init__(self, path: str | os.PathLike[str], premises: Mapping[str, Any]) -> None:
        self.path = Path(path)
        self.premises = dict(premises)
        self.images: dict[str, dict[str, float]] = self._read() if self.path.exists() else {}

    def keep(self, numbers: Mapping[str, dict[str, float]]) -> None:
        """Add numbers and write the file.

        Raises:
            OSError: it cannot be written.
        """
        self.images.update(numbers)
        write_json(self.path, {"premises": self.premises, "images": self.images})

    def _read(self) -> dict[str, dict[str, float]]:
        try:
            content = read_json(self.path)
            if content["premises"] != self.premises:
                return {}
            return {
                image: {name: float(number) for name, number in numbers.items()}
                for image, numbers in content["images"].items()
            }
        except (RunFolderError, LookupError, TypeError, ValueError, AttributeError) as error:
            logger.warning("%s is damaged (%s); its images are measured again", self.path, error)
            return {}
