"""How a value of a configuration, or a word from the command line, becomes the value of a key.

``python -m monai.bundle run --keep_labelled false`` reaches a configuration as the string ``"false"``, which is true,
and a mistyped key is silently added. So every value is checked here, by name, before any work.
"""

from __future__ import annotations

import math
import os
from typing import Any

from svgd_monai.errors import SettingsError
from svgd_monai.workflow.keys import KEYS, Key

_NULL = ("null", "none")
_BOOLEANS = {"true": True, "false": False}


def check_setting(name: str, value: Any) -> Any:
    """The value of a known key, in its type.

    Args:
        name: a key of :data:`KEYS`.
        value: from a YAML file or the command line.

    Returns:
        The value as bool, int, float, str, list or None.

    Raises:
        SettingsError: it is of the wrong type or out of range; the sentence names the key and the value.
    """
    key, word = KEYS[name], _word(value)
    if key.words is not None and word in key.words:
        return key.words[word]
    if value is None or word in _NULL:
        if key.null:
            return None
        if key.choices is None or "none" not in key.choices:
            raise SettingsError(f"{name}: null is not a value of this key.")
        value = "none"  # of these choices, which the command line cannot tell from null
    if key.kind == "names":
        return _names(name, value, key)
    if key.kind in ("ints", "floats"):
        return _list(name, value, key)
    return _scalar(name, value, key, key.kind)


def check_like(name: str, value: Any, example: Any) -> Any:
    """A command-line value for a key that only the YAML knows: it must be of the type of the YAML's own value.

    Raises:
        SettingsError: it is not.
    """
    if isinstance(example, bool):
        return _boolean(name, value)
    if isinstance(example, (int, float)):
        return _number(name, value, Key("int" if isinstance(example, int) else "float"), type(example).__name__)
    if value is None or _word(value) in _NULL:
        return None
    if isinstance(example, (list, dict)) and not isinstance(value, (type(example), str)):
        kind = type(example).__name__
        raise SettingsError(f"{name}: {value!r} is not a {kind}, but the configuration's own value is one.")
    return value


def as_word(value: Any) -> Any:
    """What the command line says for a key that is computed: ``true``, ``false``, ``null``, ``none`` are no texts."""
    word = _word(value)
    return _BOOLEANS.get(word, None if word in _NULL else value)


def _word(value: Any) -> str:
    """A text without the blanks around it and without capitals; empty for anything else."""
    return value.strip().lower() if isinstance(value, str) else ""


def _scalar(name: str, value: Any, key: Key, kind: str) -> Any:
    if kind == "bool":
        return _boolean(name, value)
    if kind in ("int", "float"):
        return _number(name, value, key, kind)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)  # a folder may be called 2024
    if not isinstance(value, str) or not value:
        raise SettingsError(f"{name}: {value!r} is not a text.")
    if key.choices is not None:
        if (word := _word(value)) not in key.choices:
            raise SettingsError(f"{name}: {value!r} is not one of {', '.join(key.choices)}.")
        return word
    if key.check is not None:
        key.check(value)
    # A shell leaves ~ alone behind --key= and in quotes, and there is none in a YAML file.
    return os.path.expanduser(value) if kind == "path" else value  # noqa: PTH111, as it is but for the ~


def _boolean(name: str, value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if (word := _word(value)) in _BOOLEANS:
        return _BOOLEANS[word]
    raise SettingsError(f"{name}: {value!r} is neither true nor false.")


def _number(name: str, value: Any, key: Key, kind: str) -> int | float:
    try:
        if isinstance(value, bool):
            raise ValueError
        number = float(value)
        if not math.isfinite(number) or (kind == "int" and number != int(number)):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        wanted = "a whole number" if kind == "int" else "a finite number"
        raise SettingsError(f"{name}: {value!r} is not {wanted}.") from None
    if key.low is not None and number < key.low:
        raise SettingsError(f"{name}: {value} is below {key.low:g}.")
    if key.above is not None and number <= key.above:
        raise SettingsError(f"{name}: {value} is not above {key.above:g}.")
    if key.below is not None and number >= key.below:
        raise SettingsError(f"{name}: {value} is not below {key.below:g}.")
    if kind == "int":
        return value if isinstance(value, int) else int(number)  # a float cannot hold every whole number
    return number


def _names(name: str, value: Any, key: Key) -> list[str]:
    """Distinct names; one alone, or several in one text with commas between them, as a shell hands them on."""
    if isinstance(value, str):
        value = value.strip().removeprefix("[").removesuffix("]").split(",")
    if not isinstance(value, (list, tuple)):
        raise SettingsError(f"{name}: {value!r} is not a list of names.")
    items = [str(item).strip() if isinstance(item, (str, int)) else "" for item in value]
    if not all(items) or not items or len(set(items)) < len(items):
        raise SettingsError(f"{name}: {value!r} is not a list of names, each once.")
    if key.check is not None:
        key.check(items)
    return items


def _list(name: str, value: Any, key: Key) -> list[Any]:
    kind = key.kind.removesuffix("s")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = [value] * (key.length or 1)
    elif isinstance(value, str) and key.length is None:
        text = value.strip()
        value = (text[1:-1] if text.startswith("[") and text.endswith("]") else text).split(",")
    if not isinstance(value, (list, tuple)) or (key.length is not None and len(value) != key.length) or not value:
        raise SettingsError(f"{name}: {value!r} is not a list of {key.length or 'some'} numbers.")
    items = [_scalar(name, item, key, kind) for item in value]
    if key.check is not None:
        key.check(items)
    return items
