"""Words that every room says alike."""

from __future__ import annotations


def count(items: int, noun: str, plural: str | None = None) -> str:
    """``1 run``, ``2 runs``; ``plural`` where it is not the noun with an s."""
    return f"{items} {noun if items == 1 else plural or noun + 's'}"
