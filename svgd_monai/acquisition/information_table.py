"""Values of pairs of images in memory, found by the images' keys."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from svgd_monai.acquisition.information_file import STRIDE, Codes, Values


class PairTable:
    """A value for each of some unordered pairs of keys; a pair of a key with itself is one too.

    Args:
        keys: distinct, in the order of their positions.
        codes: of the pairs that have a value, ascending, see :data:`~.information_file.STRIDE`.
        values: in the order of the codes.
    """

    def __init__(self, keys: Iterable[str] = (), codes: Codes | None = None, values: Values | None = None) -> None:
        self._positions = {key: position for position, key in enumerate(keys)}
        self.codes = np.empty(0, np.int64) if codes is None else codes
        self.values = np.empty(0, np.float64) if values is None else values
        self._fresh: dict[int, float] = {}

    @property
    def keys(self) -> list[str]:
        """All keys that were ever asked for, in the order of their positions."""
        return list(self._positions)

    def pairs(self, rows: Sequence[str], columns: Sequence[str]) -> Codes:
        """(N, K) codes of all pairs of N keys with K keys."""
        row, column = self._of(rows)[:, None], self._of(columns)[None]
        return np.minimum(row, column) * STRIDE + np.maximum(row, column)

    def own(self, keys: Sequence[str]) -> Codes:
        """(N,) codes of N keys' pairs with themselves."""
        return self._of(keys) * (STRIDE + 1)

    def lacks(self, codes: Codes) -> NDArray[np.bool_]:
        """Which of some codes have no value yet; those that were noted and not settled lack it."""
        # The two places of a code that is missing are one. np.isin would sort or hash all codes, many times as slow.
        missing: NDArray[np.bool_] = np.searchsorted(self.codes, codes) == np.searchsorted(self.codes, codes, "right")
        return missing

    def find(self, codes: Codes) -> Values:
        """Values of codes, all of which have one."""
        return self.values[np.searchsorted(self.codes, codes)]

    def knows(self, key: str) -> bool:
        """Whether a key's pair with itself has a value, settled or not."""
        code = self._positions[key] * (STRIDE + 1)
        return code in self._fresh or code in self.codes[np.searchsorted(self.codes, code) :][:1]

    def note(self, first: str, second: str, value: float) -> None:
        """Note the value of a pair that has none yet."""
        low, high = sorted((self._positions[first], self._positions[second]))
        self._fresh[low * STRIDE + high] = value

    def settle(self) -> int:
        """Put what was noted among the values; returns how many those are."""
        count = len(self._fresh)
        if count > 0:
            self.join(
                [(np.fromiter(self._fresh, np.int64, count), np.fromiter(self._fresh.values(), np.float64, count))]
            )
            self._fresh.clear()
        return count

    def join(self, parts: Sequence[tuple[Codes, Values]]) -> None:
        """Add values of codes under the same positions; those that are here stay."""
        codes = np.concatenate([self.codes, *(codes for codes, _ in parts)])
        values = np.concatenate([self.values, *(values for _, values in parts)])
        self.codes, first = np.unique(codes, return_index=True)
        self.values = values[first]

    def _of(self, keys: Sequence[str]) -> Codes:
        """(N,) positions; a key that is new gets the next."""
        return np.array([self._positions.setdefault(key, len(self._positions)) for key in keys], np.int64)
