"""Ways to the members' gradients that any device has: loops over views of the particles, ``vmap``, M modules."""

import contextlib
import copy
import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from measuring import Clock, keep, median, release, table
from torch import Tensor
from torch.func import functional_call, grad_and_value, stack_module_state, vmap
from workloads import LOSS, Ours, Size, Textbook, batch_of, network

from svgd_monai.committee.convolution import cpu_convolutions

COLUMNS = ("size", "way", "seconds", "loop", "ratio", "note")
Run = Callable[[], object]


def vmapped(size: Size, device: torch.device) -> Run:
    """All members' gradients at once: vmap turns convolutions with a weight each into grouped ones."""
    networks = [network(size.features).to(device) for _ in range(size.members)]
    parameters, _ = stack_module_state(networks)
    skeleton, batch = copy.deepcopy(networks[0]).to("meta"), batch_of(size, device)

    def loss(weights: dict[str, Tensor]) -> Tensor:
        return LOSS(functional_call(skeleton, weights, (batch["image"],)), batch["label"])

    gradients = vmap(grad_and_value(loss))
    return lambda: gradients(parameters)


def looped(size: Size, device: torch.device, channels_last: bool = False, amp: bool = False) -> Run:
    """The members' gradients as the trainer computes them."""
    return loop_of(Ours(size, device), channels_last, amp)


def loop_of(ours: Ours, channels_last: bool = False, amp: bool = False) -> Run:
    """Likewise, of particles that are there."""
    image, label = ours.batch["image"], ours.batch["label"]
    device = image.device
    if channels_last:
        # Of one channel both orders are the same memory; the network's first convolution passes the order on.
        image = image.contiguous(memory_format=torch.channels_last_3d)

    def run() -> None:
        ours.particles.zero_grad()
        for member in range(ours.particles.num_particles):
            with cpu_convolutions(device), torch.autocast(device.type, torch.bfloat16, enabled=amp):
                logits = ours.particles.member(member, image)
            LOSS(logits, label).backward()

    return run


def modules(size: Size, device: torch.device, channels_last: bool = False, compiled: bool = False) -> Run:
    """M plain modules, one after the other; their weights can be laid out, and their graph compiled."""
    book = Textbook(size, device)
    if channels_last:
        book.networks = [net.to(memory_format=torch.channels_last_3d) for net in book.networks]
        book.batch["image"] = book.batch["image"].contiguous(memory_format=torch.channels_last_3d)
    if compiled:
        book.networks = [torch.compile(net) for net in book.networks]  # one graph, with weights as its inputs
    return book.gradients


@contextlib.contextmanager
def deterministic_algorithms() -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def deterministic(run: Run) -> None:
    with deterministic_algorithms():
        run()


def variants(
    clock: Clock,
    sizes: dict[str, Size],
    repeats: int,
    path: Path,
    more: dict[str, dict[str, Callable[[], Run]]] | None = None,
    usual: bool = True,
) -> None:
    """Other ways to the members' gradients: those of any device (``usual``), and ``more``, by the size's name.

    Each in turn with the loop, and the table is written behind it: the next may end the process.
    """
    rows = []
    for name, size in sizes.items():
        loop = looped(size, clock.device)
        seconds = median(clock.compare({"loop": loop}, repeats)["loop"])
        rows.append(dict(zip(COLUMNS, (name, "loop (kept)", seconds, seconds, 1.0, ""), strict=True)))
        attempts: dict[str, Callable[[], Run]] = {
            "vmap, grouped convolutions": partial(vmapped, size, clock.device),
            "loop, image channels_last_3d": partial(looped, size, clock.device, channels_last=True),
            "loop, bfloat16": partial(looped, size, clock.device, amp=True),
            "M modules": partial(modules, size, clock.device),
            "M modules, channels_last_3d": partial(modules, size, clock.device, channels_last=True),
            "loop, deterministic algorithms": lambda loop=loop: partial(deterministic, loop),
        }
        if clock.device.type == "cpu":  # minutes of a compiler for M networks; `gpu_ways.py` compiles one
            attempts["M modules, torch.compile"] = partial(modules, size, clock.device, compiled=True)
        for way, make in ((attempts if usual else {}) | (more or {}).get(name, {})).items():
            rows.append({"size": name, "way": way, **beside(clock, loop, make, repeats)})
            keep(COLUMNS, rows, path)
            release(clock.device)
    table("Ways to the members' gradients", COLUMNS, rows, path)


def beside(clock: Clock, loop: Run, make: Callable[[], Run], repeats: int) -> dict[str, object]:
    """Seconds of a way and of the loop, in turn; NaN, and why, where this machine cannot go it."""
    try:
        times = clock.compare({"loop": loop, "way": make()}, repeats)
    except Exception as error:  # noqa: BLE001 a row of the table
        reason = f"{type(error).__name__}: {str(error).splitlines()[0]}"[:80] if str(error) else repr(error)
        return {"seconds": math.nan, "loop": math.nan, "ratio": math.nan, "note": reason}
    seconds, usual = median(times["way"]), median(times["loop"])
    return {"seconds": seconds, "loop": usual, "ratio": seconds / usual, "note": ""}
