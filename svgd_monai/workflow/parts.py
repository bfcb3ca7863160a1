"""What a training is made of, as text: one that was cut off must go on with the same."""

from __future__ import annotations

import json

from monai.bundle import ConfigParser

#: The key under which a configuration that wants the text has room for it.
PARTS_KEY = "parts"
#: Components that decide what a training does, beside the keys that it names one by one.
PARTS = ("architecture", "network_def", "loss", "optimizer", "step", "intensity", "crop", "preprocessing")


def note_parts(parser: ConfigParser) -> None:
    """Write into a configuration how its parts are configured, where it has the key for it.

    Args:
        parser: not yet evaluated.
    """
    if PARTS_KEY in parser:
        found = {name: parser[name] for name in PARTS if name in parser}
        parser[PARTS_KEY] = json.dumps(found, sort_keys=True, default=repr)
