"""The faster of a CPU's ways to a 3D convolution."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

AXES = 3  # of a volume
NARROW = 16  # output channels up to which weights are laid out channels last, see docs/speed.md


def cpu_convolutions(device: torch.device) -> AbstractContextManager[Any]:
    """A context in which 3D convolutions on a CPU are oneDNN's, whatever the batch, and narrow ones channels last.

    By itself torch takes its own ``slow_conv3d`` where a batch holds one item with few channels times voxels, as most
    batches of a prediction do, and an order of weights in which few output channels are slow;
    ``tests/benchmarks/convolutions.py`` measures what both cost. The backward pass of a batch of one stays torch's
    choice. The sums are the same up to their order. On other devices, and where torch has no oneDNN or it is switched
    off, nothing changes.
    """
    if device.type != "cpu" or not (torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled):
        return nullcontext()
    return _CpuConvolutions()


class _CpuConvolutions(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return (_convolution if func is torch.conv3d else func)(*args, **(kwargs or {}))


def _convolution(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] | str = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor:
    """``torch.conv3d``."""
    plain = type(input) is Tensor and type(weight) in (Tensor, nn.Parameter) and input.ndim == AXES + 2
    single = input.dtype == weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    pointwise = weight.shape[2:].numel() == 1  # a matrix product, which torch does well
    if not (plain and single and input.numel()) or pointwise or isinstance(padding, str):
        return torch.conv3d(input, weight, bias, stride, padding, dilation, groups)
    if len(weight) <= NARROW:
        weight = weight.contiguous(memory_format=torch.channels_last_3d)
    return torch.mkldnn_convolution(input, weight, bias, _triple(padding), _triple(stride), _triple(dilation), groups)


def _triple(value: int | Sequence[int]) -> list[int]:
    return [value] * AXES if isinstance(value, int) else list(value) * (AXES // len(value))
