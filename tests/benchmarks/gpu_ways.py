"""Ways to the members' gradients that only a GPU has, or that only there may pay.

``gpu.py variants compiled`` measures them.

Those that run one network in place of views of the members' rows hold a member's parameters in a memory of its own. It
is where an allocation begins, as compiled kernels and graphs need it: they assume what they saw of a tensor's place at
first, while a row of an odd number of parameters begins 4 bytes on from where the last would have to (torch does not
check what a compiled backward pass has saved, see ``static_input_idxs`` in its ``_inductor/compile_fx.py``).

Each of them, but the loop itself over an image in another order, is compared with the plain loop on the same particles
before it is timed.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.nn import functional
from variants import Run, loop_of, looped
from workloads import LOSS, Ours, Size

#: Greatest difference of a way's gradients from the loop's, relative to their norm: many layers round to 1 in 256 with
#: bfloat16, and to 1 in 2048 with the TF32 of float32's convolutions.
TOLERANCE, TOLERANCE_FLOAT32 = 0.25, 0.03


def streamed(size: Size, device: torch.device, amp: bool = False) -> Run:
    """Each member on a stream of its own."""
    ours, current = Ours(size, device, warm=False), torch.cuda.current_stream(device)
    streams = [torch.cuda.Stream(device) for _ in range(size.members)]

    def run() -> None:
        ours.particles.zero_grad()
        for member, stream in enumerate(streams):
            stream.wait_stream(current)
            with torch.cuda.stream(stream):
                with torch.autocast(device.type, torch.bfloat16, enabled=amp):
                    logits = ours.particles.member(member, ours.batch["image"])
                LOSS(logits, ours.batch["label"]).backward()
        for stream in streams:
            current.wait_stream(stream)

    return checked(ours, run, amp)


def same_loop(size: Size, device: torch.device, amp: bool = True, search: bool = False, graph: bool = False) -> Run:
    """The members' loop with the convolutions that cuDNN finds fastest in a trial (cudnn.benchmark), or as a graph."""
    ours = Ours(size, device, warm=False)
    loop = loop_of(ours, amp=amp)

    def searching() -> None:
        with torch.backends.cudnn.flags(enabled=True, benchmark=True, deterministic=False, allow_tf32=True):
            loop()

    run = searching if search else loop
    return checked(ours, captured(run, device) if graph else run, amp)


def captured(run: Run, device: torch.device) -> Run:
    """A call as a CUDA graph: no launches by the host."""
    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        for _ in range(3):
            run()
    torch.cuda.current_stream(device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()

    def replay(held: Run = run) -> None:  # what the graph reads must outlive it
        graph.replay()

    return replay


def instance_norm(x: Tensor, weight: Tensor, bias: Tensor, epsilon: float) -> Tensor:
    """y = (x − mean) / sqrt(variance + ε) · weight + bias over each item's channel, in the memory order of x.

    Torch's own runs in the first order only, of which a volume in the other must be made, and made back.
    """
    exact, axes = x.float(), tuple(range(2, x.ndim))
    variance, mean = torch.var_mean(exact, axes, correction=0, keepdim=True)
    shape = (1, -1, *(1 for _ in axes))
    return ((exact - mean) * (variance + epsilon).rsqrt() * weight.view(shape) + bias.view(shape)).to(x.dtype)


def convolve_last(input: Tensor, weight: Tensor, *rest: Any) -> Tensor:
    """Weights in the order of channels last."""
    return torch.conv3d(input, weight.contiguous(memory_format=torch.channels_last_3d), *rest)


def normalise(
    input: Tensor,
    running_mean: None,
    running_var: None,
    weight: Tensor,
    bias: Tensor,
    use_input_stats: bool,
    momentum: float,
    eps: float,
    norm: Callable[..., Tensor] = instance_norm,
) -> Tensor:
    """``torch.nn.functional.instance_norm``, whose arguments these are, by another ``norm``."""
    return norm(input, weight, bias, eps)


@cache
def compiled_norm() -> Callable[..., Tensor]:
    return torch.compile(instance_norm, dynamic=False)


def normalise_compiled(
    input: Tensor, running_mean: None, running_var: None, weight: Tensor, bias: Tensor, *rest: Any
) -> Tensor:
    """:func:`normalise`, compiled: for weights in a memory of their own, see above; a member's are views of its row."""
    return normalise(input, running_mean, running_var, weight.clone(), bias.clone(), *rest, norm=compiled_norm())


def unpadded(input: Tensor, pad: list[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """No copy where there is nothing to pad."""
    return PAD(input, pad, mode, value) if any(pad) else input


PAD = functional.pad
UNPADDED = {"pad": unpadded}
#: Functions of torch.nn.functional in whose place others stand; the same objects at each call, or compilers begin anew.
LAST = {"conv3d": convolve_last, "instance_norm": normalise, "pad": unpadded}


def gradients(ours: Ours) -> Tensor:
    found = ours.particles.values.grad
    assert found is not None
    return found


def checked(ours: Ours, run: Run, amp: bool) -> Run:
    """``run``, whose gradients are those of the plain loop."""
    loop_of(ours, amp=amp)()
    wanted = gradients(ours).clone()
    gradients(ours).fill_(torch.nan)
    run()
    difference = float((gradients(ours) - wanted).norm() / wanted.norm())
    if not difference < (TOLERANCE if amp else TOLERANCE_FLOAT32):
        raise ArithmeticError(f"gradients are {difference:.2g} off")
    return run


def patched_loop(size: Size, device: torch.device, patches: dict[str, Callable[..., Tensor]], amp: bool = True) -> Run:
    """The members' loop with other functions in torch's place; the image is in the order that its convolution takes."""
    ours = Ours(size, device, warm=False)
    loop = loop_of(ours, channels_last="conv3d" in patches, amp=amp)

    def run() -> None:
        with mock.patch.multiple(functional, **patches):
            loop()

    return checked(ours, run, amp)


def in_turn(
    size: Size,
    device: torch.device,
    amp: bool = True,
    compiled: str = "",
    graph: bool = False,
    patches: dict[str, Callable[..., Tensor]] | None = None,
) -> Run:
    """One network in a memory of its own, into which each member is put in turn.

    Args:
        size: of the committee and its batch.
        device: where.
        amp: in bfloat16.
        compiled: "", "network", or "network and loss".
        graph: a CUDA graph of a single member's passes, replayed for each.
        patches: functions in torch's place; with them the image is in the order of channels last.
    """
    ours = Ours(size, device, warm=False)
    ours.particles.zero_grad()
    image, label = ours.batch["image"], ours.batch["label"]
    if patches:
        image = image.contiguous(memory_format=torch.channels_last_3d)
    values = ours.particles.values.detach()
    row, gradient = torch.empty_like(values[0]), torch.zeros_like(values[0])
    network = ours.particles.network(0)
    for name, place in ours.particles.unflatten(row).items():
        network.get_parameter(name).data = place
        network.get_parameter(name).grad = ours.particles.unflatten(gradient)[name]

    def loss() -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=amp):
            logits = forward(image)
        return LOSS(logits, label)

    forward: Callable[[Tensor], Tensor] = network
    if compiled == "network":
        forward = torch.compile(network, dynamic=False)
    passes = torch.compile(loss, dynamic=False) if compiled == "network and loss" else loss

    def one() -> None:
        gradient.zero_()
        # BasicUNet asks torch.jit.isinstance, at which a compiler would begin another graph.
        with mock.patch.multiple(functional, **(patches or UNPADDED)), mock.patch("torch.jit.isinstance", isinstance):
            passes().backward()

    row.copy_(values[0])
    one()  # compiles
    call = captured(one, device) if graph else one

    def run() -> None:
        for member, own in enumerate(gradients(ours)):
            row.copy_(values[member])
            call()
            own.copy_(gradient)

    return checked(ours, run, amp)


def ways(size: Size, device: torch.device) -> dict[str, Callable[[], Run]]:
    """What runs without a compiler."""
    plain, single = partial(patched_loop, size, device), partial(in_turn, size, device)
    return {
        "loop, a stream each": partial(streamed, size, device),
        "loop, a stream each, bfloat16": partial(streamed, size, device, amp=True),
        "loop, CUDA graph": partial(same_loop, size, device, amp=False, graph=True),
        "loop, CUDA graph, bfloat16": partial(same_loop, size, device, graph=True),
        "loop, channels_last_3d, bfloat16": partial(looped, size, device, channels_last=True, amp=True),
        "loop, weights and image channels_last_3d, bfloat16": partial(plain, {"conv3d": convolve_last}),
        "loop, cudnn.benchmark, bfloat16": partial(same_loop, size, device, search=True),
        "loop, CUDA graph, cudnn.benchmark, bfloat16": partial(same_loop, size, device, search=True, graph=True),
        "loop, nothing padded by nothing, bfloat16": partial(plain, UNPADDED),
        "loop, channels last throughout, bfloat16": partial(plain, LAST),
        "one network, CUDA graph of a member, bfloat16": partial(single, graph=True),
    }


def compiled_ways(size: Size, device: torch.device) -> dict[str, Callable[[], Run]]:
    """What a compiler makes."""
    plain, single = partial(patched_loop, size, device), partial(in_turn, size, device)
    return {
        "one network, compiled, bfloat16": partial(single, compiled="network"),
        "one network, compiled with its loss, bfloat16": partial(single, compiled="network and loss"),
        "one network, compiled, channels last throughout, bfloat16": partial(single, compiled="network", patches=LAST),
        "one network, compiled, channels last throughout, CUDA graph of a member, bfloat16": partial(
            single, compiled="network", graph=True, patches=LAST
        ),
        "loop, channels last throughout, norms compiled, bfloat16": partial(
            plain, LAST | {"instance_norm": normalise_compiled}
        ),
    }
