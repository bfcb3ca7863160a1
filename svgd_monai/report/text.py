"""Texts from elsewhere (names of methods, paths, settings) made fit for a line, a figure or a cell."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any


def one_line(text: object) -> str:
    """``text`` on one line: what cannot be printed (line ends, controls, lone surrogates) and runs of blanks as one."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())


def shorten(text: str, length: int = 34) -> str:
    """At most ``length`` characters, the middle left out: names that begin alike often differ at their end."""
    if len(text) <= length:
        return text
    head = (length - 1) // 2
    return f"{text[:head]}…{text[head + 1 - length :]}"


def csv_cell(value: Any) -> Any:
    """A value for :func:`svgd_monai.files.write_csv`: a text in one line, nothing where there is no number."""
    if isinstance(value, str):
        return one_line(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def number(value: float | None, digits: int = 4, sign: bool = False) -> str:
    """A number as people read it, with a true minus; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:{'+' if sign else ''}.{digits}f}".replace("-", "−")


def p_text(value: float | None) -> str:
    """A p-value: four digits, or that it is below the last of them."""
    if value is None or math.isnan(value):
        return "–"
    return "< 0.0001" if value < 0.0001 else f"{value:.4f}"


def listed(items: Sequence[object], most: int = 4) -> str:
    """The first few items, and how many there are more."""
    named = ", ".join(shorten(str(item), 60) for item in items[:most])
    return f"{named} and {len(items) - most} more" if len(items) > most else named


def percent(share: float | None) -> str:
    """A share in whole percent; a dash where there is none."""
    return "–" if share is None or math.isnan(share) else f"{100 * share:.0f} %"


def interval(low: float, high: float) -> str:
    """Both ends of an interval, with their signs; a dash where there is none."""
    return "–" if math.isnan(low) else f"{number(low, sign=True)} to {number(high, sign=True)}"


def label_count(value: float) -> str:
    """A number of labels; ∞ where it is never reached."""
    return "∞" if math.isinf(value) else f"{value:g}"


def span(values: Iterable[int]) -> str:
    """``3``, or ``3 to 5``: the least and the greatest."""
    known = sorted(set(values))
    return str(known[0]) if len(known) == 1 else f"{known[0]} to {known[-1]}"
