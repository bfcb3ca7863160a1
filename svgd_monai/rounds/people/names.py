"""Names of cases as people write them: which ones they may have meant."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection
from functools import cached_property


class Names:
    """The names of the cases, to be found from others that are nearly theirs.

    Args:
        cases: the case ids.
    """

    def __init__(self, cases: Collection[str]) -> None:
        self.cases = cases

    def near(self, name: str) -> list[str]:
        """The longest case that a file's name begins with, whatever the capitals: case_1 of case_1_seg, not of case_10.

        Several where they differ in capitals alone and the file begins with none of them as it is.
        """
        folded = _folded(name)
        for end in range(len(folded), 0, -1):
            if not folded[end : end + 1].isalnum() and (found := self._by_folded.get(folded[:end])):
                return [case for case in found if name.startswith(case)] or found
        return []

    def alike(self, name: str) -> list[str]:
        """The other cases that look like a name: composed letters or separate accents, one blank or two."""
        look = _look(name)
        return [case for case in self._by_folded.get(_folded(name), ()) if _look(case) == look and case != name]

    @cached_property
    def _by_folded(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for case in sorted(self.cases):
            found.setdefault(_folded(case), []).append(case)
        return found


def _look(name: str) -> str:
    """What a reader sees of a name: Unicode has two forms of an accented letter, and a page shows blanks as one."""
    return " ".join(unicodedata.normalize("NFC", name).split())


def _folded(name: str) -> str:
    """A name without its capitals, in one form."""
    return unicodedata.normalize("NFC", _look(name).casefold())
