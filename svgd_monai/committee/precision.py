"""Whole single precision, whatever a training has switched on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Autocast, TF32 and its like off: a kernel from rounded distances is a kernel of the rounding."""
    restore = _highest_matmul_precision()
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        restore()


def _highest_matmul_precision() -> Callable[[], None]:
    """Switch to whole single precision; returns what switches back."""
    backends: Any = torch.backends
    if not hasattr(backends.cuda.matmul, "fp32_precision"):  # before torch 2.9
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        return lambda: torch.set_float32_matmul_precision(before)
    # torch refuses to read the older switches once the newer are set; these follow both.
    switches = (backends.cuda.matmul, backends.mkldnn.matmul)
    found = [switch.fp32_precision for switch in switches]

    def set_all(values: list[str]) -> None:
        for switch, value in zip(switches, values, strict=True):
            switch.fp32_precision = value

    set_all(["ieee"] * len(switches))
    return lambda: set_all(found)
