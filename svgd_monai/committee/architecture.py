"""Which networks can make a committee."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from svgd_monai.errors import SettingsError
from svgd_monai.files import reason


def check_network(network: nn.Module) -> None:
    """Whether particles can hold a network.

    Raises:
        SettingsError: it has buffers or no parameters, or one of them is lazy, frozen or tied.
    """
    name = type(network).__name__
    buffers = [buffer for buffer, _ in network.named_buffers()]
    if buffers:
        remedy = "use a network without them."
        if any(buffer.rpartition(".")[2].startswith("running_") for buffer in buffers):
            remedy = "use a normalisation without running statistics, such as instance or group normalisation."
        raise SettingsError(f"architecture: {name} has buffers ({buffers[0]}), which particles cannot hold; {remedy}")
    names: dict[int, str] = {}
    for module_name, module in network.named_modules():  # each once, also where it has several names
        for own, parameter in module.named_parameters(module_name, recurse=False, remove_duplicate=False):
            if isinstance(parameter, nn.UninitializedParameter):
                raise SettingsError(f"architecture: {name} has lazy parameters ({own}); give its layers their sizes.")
            if not parameter.requires_grad:
                raise SettingsError(f"architecture: {name} has frozen parameters ({own}); a particle must train all.")
            if id(parameter) in names:
                raise SettingsError(
                    f"architecture: {name} has tied parameters ({own} is {names[id(parameter)]}), which particles "
                    "cannot hold; let each layer have its own."
                )
            names[id(parameter)] = own
    if not names:
        raise SettingsError(f"architecture: {name} has no parameters.")


def check_window(skeleton: nn.Module, window: Sequence[int], num_classes: int | None) -> None:
    """Let a network without memory work out the shapes.

    Args:
        skeleton: the network, on the meta device.
        window: (C_in, ...), the shape of its input.
        num_classes: C, the number of channels that its logits must have; None does not check.

    Raises:
        SettingsError: it cannot process the window, or does not give logits of its size.
    """
    name, sides = type(skeleton).__name__, tuple(window[1:])
    try:
        with torch.no_grad():
            logits = skeleton(torch.empty((1, *window), device="meta"))
    except (RuntimeError, ValueError) as error:  # of convolutions and of norms, which want two voxels or more
        if "meta" in str(error):  # an operation that needs values: no verdict
            return
        raise SettingsError(
            f"roi_size: {name} cannot process a window of {sides} voxels with {window[0]} channels ({reason(error)})."
        ) from error
    wanted = (1, num_classes, *sides)
    found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if num_classes is not None and found != wanted:
        sides_differ = len(found) == len(wanted) and found[:2] == wanted[:2]
        hint = "; choose a roi_size whose sides its halvings divide" if sides_differ else ""
        raise SettingsError(f"architecture: {name} must give logits of the shape {wanted}, but gives {found}{hint}.")
