"""Independent random streams from one seed."""

from __future__ import annotations

import hashlib


def derive_seed(seed: int, *words: int | str) -> int:
    """A seed for one purpose, independent of the seeds for other purposes.

    The first 63 bits of ``SHA-256(seed / word / word ...)``, so that neither the order in which streams are used nor a
    new version of a library changes them.

    Args:
        seed: the seed of the run.
        words: what the stream is for, e.g. ``"batches", round``.

    Returns:
        An integer in [0, 2^63), fit for ``torch.manual_seed`` and ``numpy.random.default_rng``.
    """
    text = "/".join(str(word) for word in (seed, *words))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
