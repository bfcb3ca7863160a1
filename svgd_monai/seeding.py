"""Independent random streams from one seed, and algorithms that give the same sum every time."""

from __future__ import annotations

import hashlib
import os

import torch


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


def use_deterministic_algorithms() -> None:
    """Have torch take, for the rest of the process, algorithms that give the same bits on the same machine every time.

    On a CPU they do anyway. On CUDA some sum in the order in which their threads happen to finish; of an operation that
    has no other form torch warns by name, and goes on.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts
    torch.backends.cudnn.benchmark = False  # would choose by the clock
    torch.use_deterministic_algorithms(True, warn_only=True)
