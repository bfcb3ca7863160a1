"""What a training step costs: its parts beside the memory's floor, other ways to run it, peers, and its growth.

    python tests/benchmarks/step.py --output bundles/hippocampus_mri_svgd/docs/speed [parts] [variants] [peers] [growth]

On a CPU, one thread, in seconds of processor time, so that others on the machine weigh little; all that is compared
runs in turn, and medians are taken. ``peers`` measures pyro-ppl and blackjax where they are installed. ``gpu.py`` runs
the same on a GPU. Half an hour on one core.
"""

import argparse
import copy
import gc
import math
import platform
import sys
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import torch
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter
from torch import Tensor
from torch.func import functional_call, grad_and_value, stack_module_state, vmap
from workloads import (
    LOSS,
    PAPER,
    RATE,
    SMALL,
    STUDY,
    TINY,
    Clock,
    Ours,
    Size,
    Streams,
    Textbook,
    batch_of,
    deterministic_algorithms,
    median,
    network,
    table,
    textbook_direction,
)

from svgd_monai.committee import PosteriorStep, finite_particles, stein_kernel
from svgd_monai.committee.convolution import cpu_convolutions
from svgd_monai.committee.svgd import COLUMN_BLOCK, DEVICE_COLUMN_BLOCK


def parts(clock: Clock, size: Size, name: str, repeats: int) -> list[dict]:
    """The step's parts; one member (on a CPU at the paper's size with one item) stands for all: they run in turn."""
    items = 1 if clock.device.type == "cpu" and size == PAPER else size.batch
    ours = Ours(size._replace(batch=items), clock.device, warm=False)
    ours.particles.zero_grad()
    values, gradients = ours.particles.values, ours.particles.values.grad
    assert gradients is not None
    plain, losses = torch.optim.Adam([torch.nn.Parameter(values.detach().clone())], lr=RATE), torch.ones(size.members)
    plain.param_groups[0]["params"][0].grad = gradients.clone()
    streams = Streams(size.members, values.shape[1], clock.device)

    def refill() -> None:
        gradients.fill_(1e-3)  # −φ of −φ would grow

    def kernel_and_direction() -> None:
        refill()
        ours.step(values.detach(), gradients)

    block = gradients[:, : COLUMN_BLOCK if clock.device.type == "cpu" else DEVICE_COLUMN_BLOCK].clone()
    square, mixed = torch.rand(size.members, size.members, device=clock.device), torch.empty_like(block)

    def products() -> None:
        """The direction's two products of every block, of one that lies in the cache: arithmetic, no traffic."""
        for _ in range(2 * math.ceil(values.shape[1] / block.shape[1])):
            torch.mm(square, block, out=mixed)

    updates = clock.compare(
        {
            **streams.functions(),
            "refill": refill,
            "finite": lambda: finite_particles(values.detach(), gradients, losses.to(clock.device)),
            "distances": lambda: stein_kernel(values.detach()),
            "products": products,
            "direction": kernel_and_direction,
            "adam": ours.optimizer.step,
            "adam, not fused": plain.step,
        },
        repeats,
    )

    def member() -> None:
        with cpu_convolutions(clock.device):
            logits = ours.particles.member(0, ours.batch["image"])
        LOSS(logits, ours.batch["label"]).backward()

    one = clock.compare({"member": member}, max(1, repeats // 3))["member"]  # nearly all of the time
    unit = streams.bytes / streams.rate(updates)
    seconds = {
        "members": median(one) * size.members * size.batch / items,
        "finite": median(updates["finite"]),
        "direction": median(updates["direction"]) - median(updates["refill"]),
        "adam": median(updates["adam"]),
    }
    # Units of traffic: X and G read, −φ written; X, G and two moments read, X and moments written.
    floors = {"members": float("nan"), "finite": 2 * unit, "direction": 3 * unit, "adam": 7 * unit}
    total = sum(seconds.values())
    # X, G and two moments, each read and written once.
    seconds["SVGD's own"], floors["SVGD's own"] = total - seconds["members"], 8 * unit
    # What is part of another part, or in its stead.
    for part, name_of_row, traffic in (
        ("distances", "(distances, of the direction)", 1.0),
        ("products", "(products, of the direction, from the cache)", float("nan")),
        ("adam, not fused", "(adam, not fused)", 7.0),
    ):
        seconds[name_of_row], floors[name_of_row] = median(updates[part]), traffic * unit
    return [
        {"size": name, "part": part, "seconds": s, "share": s / total, "floor": floors[part], "ratio": s / floors[part]}
        for part, s in seconds.items()
    ]


def all_parts(clock: Clock, sizes: dict[str, Size], repeats: int, output: Path) -> None:
    rows = [row for name, size in sizes.items() for row in parts(clock, size, name, repeats)]
    table("Parts of a step", ("size", "part", "seconds", "share", "floor", "ratio"), rows, output / "parts.csv")


def vmapped(size: Size, device: torch.device) -> Callable[[], object]:
    """All members' gradients at once: vmap turns convolutions with a weight each into grouped ones."""
    networks = [network(size.features).to(device) for _ in range(size.members)]
    parameters, _ = stack_module_state(networks)
    skeleton, batch = copy.deepcopy(networks[0]).to("meta"), batch_of(size, device)

    def loss(weights: dict[str, Tensor]) -> Tensor:
        return LOSS(functional_call(skeleton, weights, (batch["image"],)), batch["label"])

    gradients = vmap(grad_and_value(loss))
    return lambda: gradients(parameters)


def looped(size: Size, device: torch.device, channels_last: bool = False, amp: bool = False) -> Callable[[], object]:
    """The members' gradients as the trainer computes them."""
    return loop_of(Ours(size, device), channels_last, amp)


def loop_of(ours: Ours, channels_last: bool = False, amp: bool = False) -> Callable[[], object]:
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


def modules(
    size: Size, device: torch.device, channels_last: bool = False, compiled: bool = False
) -> Callable[[], object]:
    """M plain modules, one after the other; their weights can be laid out, and their graph compiled."""
    book = Textbook(size, device)
    if channels_last:
        book.networks = [net.to(memory_format=torch.channels_last_3d) for net in book.networks]
        book.batch["image"] = book.batch["image"].contiguous(memory_format=torch.channels_last_3d)
    if compiled:
        book.networks = [torch.compile(net) for net in book.networks]  # one graph, with weights as its inputs
    return book.gradients


def deterministic(run: Callable[[], object]) -> None:
    with deterministic_algorithms():
        run()


def variants(
    clock: Clock,
    sizes: dict[str, Size],
    repeats: int,
    path: Path,
    more: dict[str, dict[str, Callable[[], Callable[[], object]]]] | None = None,
    usual: bool = True,
) -> None:
    """Other ways to the members' gradients: those of any device (``usual``), and ``more``, by the size's name."""
    rows = []
    for name, size in sizes.items():
        ways: dict[str, Callable[[], object]] = {"loop (kept)": looped(size, clock.device)}
        attempts: dict[str, Callable[[], Callable[[], object]]] = {
            "vmap, grouped convolutions": partial(vmapped, size, clock.device),
            "loop, image channels_last_3d": partial(looped, size, clock.device, channels_last=True),
            "loop, bfloat16": partial(looped, size, clock.device, amp=True),
            "M modules": partial(modules, size, clock.device),
            "M modules, channels_last_3d": partial(modules, size, clock.device, channels_last=True),
        }
        if clock.device.type == "cpu":  # minutes of a compiler for M networks; `gpu_ways.py` compiles one
            attempts["M modules, torch.compile"] = partial(modules, size, clock.device, compiled=True)
        attempts = (attempts if usual else {}) | (more or {}).get(name, {})
        for way, make in attempts.items():
            try:
                ways[way] = make()
                ways[way]()
            except Exception as error:  # noqa: BLE001 a way that this machine cannot go is a row of the table
                ways.pop(way, None)
                reason = f"{type(error).__name__}: {str(error).splitlines()[0]}"[:80] if str(error) else repr(error)
                rows.append({"size": name, "way": way, "seconds": float("nan"), "ratio": float("nan"), "note": reason})

        if usual:
            ways["loop, deterministic algorithms"] = partial(deterministic, ways["loop (kept)"])
        times = clock.compare(ways, repeats, warm=False)  # each has run once
        base = median(times["loop (kept)"])
        for way, values in times.items():
            rows.append(
                {"size": name, "way": way, "seconds": median(values), "ratio": median(values) / base, "note": ""}
            )
        gc.collect()
    table("Ways to the members' gradients", ("size", "way", "seconds", "ratio", "note"), rows, path)


def pyro_update(particles: Tensor, optimizer: torch.optim.Optimizer) -> Callable[[], object]:
    """What pyro.infer.SVGD.step does behind the model's gradient, in its multivariate mode."""
    from pyro.infer.svgd import RBFSteinKernel

    kernels = RBFSteinKernel()

    def run() -> None:
        with torch.no_grad():
            log_kernel, kernel_grad = kernels.log_kernel_and_grad(particles)
            kernel = log_kernel.sum(-1).exp()
            drive = torch.mm(kernel, particles)  # of the unit Gaussian −log p is ‖x‖²/2
            particles.grad = (drive + torch.einsum("nm,nm...->n...", kernel, kernel_grad)) / len(particles)
            optimizer.step()

    return run


def blackjax_update(particles: Tensor) -> Callable[[], object]:
    """blackjax.svgd with optax's Adam, compiled."""
    import blackjax
    import jax
    import optax

    algorithm = blackjax.svgd(lambda x: -x, optax.adam(RATE))
    state, step = algorithm.init(jax.numpy.asarray(particles.detach().cpu().numpy())), jax.jit(algorithm.step)

    def run() -> None:
        nonlocal state
        state = jax.block_until_ready(step(state))

    return run


def own_update(start: Tensor) -> Callable[[], object]:
    """The package's: the check for what is not finite, kernel, direction and Adam."""
    values, step = _parameter(start), PosteriorStep(likelihood_scale=1.0)
    adam, losses = torch.optim.Adam([values], lr=RATE, fused=True), torch.ones(len(start), device=start.device)
    gradients = values.grad
    assert gradients is not None

    def run() -> None:
        gradients.copy_(values.detach())
        finite_particles(values.detach(), gradients, losses)
        step(values.detach(), gradients)
        adam.step()

    return run


def textbook_update(start: Tensor) -> Callable[[], object]:
    """The equation pair by pair, and an Adam for each particle."""
    rows = [_parameter(row) for row in start]
    adams = [torch.optim.Adam([row], lr=RATE) for row in rows]

    def run() -> None:
        detached = [row.detach() for row in rows]
        for row, phi in zip(rows, textbook_direction(detached, [-x for x in detached]), strict=True):
            row.grad = -phi
        for optimizer in adams:
            optimizer.step()

    return run


def _parameter(start: Tensor) -> torch.nn.Parameter:
    made = torch.nn.Parameter(start.clone())
    made.grad = torch.zeros_like(made)
    return made


def peers(clock: Clock, sizes: dict[str, Size], repeats: int, output: Path, tiny: bool) -> None:
    """A whole step against the textbook's; the update alone, under a unit Gaussian, against others' too."""
    updates = {"D = 1000": 1000} if tiny else {"D = 0.36 million": 360_000, "D = 5.7 million": 5_749_443}
    rows = []

    def add(work: str, runs: dict[str, Callable[[], object]]) -> None:
        times = {who: median(values) for who, values in clock.compare(runs, repeats).items()}
        rows.extend({"work": work, "who": who, "seconds": t, "ratio": t / times["ours"]} for who, t in times.items())

    for name, size in sizes.items():
        add(f"a step, {name}", {"ours": Ours(size, clock.device), "textbook": Textbook(size, clock.device)})
    for name, length in updates.items():
        start = torch.randn(5, length, generator=torch.Generator().manual_seed(0)).to(clock.device) * 0.1
        runs = {"ours": own_update(start), "textbook": textbook_update(start)}
        if find_spec("pyro"):
            theirs = _parameter(start)
            runs["pyro-ppl"] = pyro_update(theirs, torch.optim.Adam([theirs], lr=RATE))
        if find_spec("blackjax"):
            runs["blackjax"] = blackjax_update(start)
        add(f"the update, {name}", runs)
        del runs
        gc.collect()
    table("Peers", ("work", "who", "seconds", "ratio"), rows, output / "peers.csv")


def scaled(width: int) -> tuple[int, ...]:
    return (width, width, 2 * width, 4 * width, 8 * width, width)


def axes_of_growth(base: Size, full: bool) -> dict[str, list[tuple[float, Size]]]:
    """What grows, as (value, size); the volume in voxels."""
    widths = (4, 8, 16, 24, 32) if full else (2, 4)
    return {
        "M": [(m, base._replace(members=m)) for m in ((1, 2, 4, 8, 16) if full else (1, 2))],
        "D": [(0, base._replace(features=scaled(w))) for w in widths],
        "batch": [(b, base._replace(batch=b)) for b in ((1, 2, 4, 8) if full else (1, 2))],
        "voxels": [
            (a * b * a, base._replace(sides=(a, b, a)))
            for a, b in (((16, 32), (24, 32), (32, 32), (32, 48), (48, 48)) if full else ((16, 32), (24, 32)))
        ],
    }


def growth(clock: Clock, base: Size, full: bool, repeats: int, output: Path) -> None:
    """Step time along each axis, with the update's part and the exponent between neighbours."""
    rows = []
    for axis, points in axes_of_growth(base, full).items():
        before = None
        for value, size in points:
            ours = Ours(size, clock.device)
            x = float(ours.particles.values.shape[1] if axis == "D" else value)

            def update(ours: Ours = ours) -> None:
                values, gradients = ours.particles.values, ours.particles.values.grad
                gradients.fill_(1e-3)
                losses = torch.ones(len(values), device=values.device)
                ours.step(values.detach(), gradients)
                finite_particles(values.detach(), gradients, losses)
                ours.optimizer.step()

            update()
            times = clock.compare({"step": ours, "update": update}, repeats, warm=False)  # a trainer has run once
            row = {
                "axis": axis, "value": x, "seconds": median(times["step"]), "update": median(times["update"]),
                "exponent": float("nan"), "exponent_update": float("nan"),
            }  # fmt: skip
            if before is not None:
                ratio = torch.tensor(x / before["value"]).log()
                for key, column in (("seconds", "exponent"), ("update", "exponent_update")):
                    row[column] = float(torch.tensor(row[key] / before[key]).log() / ratio)
            rows.append(row)
            before = row
            gc.collect()
        columns = ("axis", "value", "seconds", "update", "exponent", "exponent_update")
        table(f"Growth of a step, up to {axis}", columns, rows, output / "growth.csv")
        draw(rows, output / "growth.png")


def draw(rows: list[dict], path: Path) -> None:
    """One panel an axis, all scales logarithmic, with a line of slope 1; ticks where something was measured."""
    names = {"M": "particles", "D": "parameters", "batch": "items", "voxels": "voxels"}
    axes_names = list(dict.fromkeys(row["axis"] for row in rows))
    figure = Figure(figsize=(3.2 * len(axes_names), 3.2), layout="constrained")
    panels = figure.subplots(1, len(axes_names), squeeze=False, sharey=True)[0]
    for panel, name in zip(panels, axes_names, strict=True):
        some = [row for row in rows if row["axis"] == name]
        x, y = [row["value"] for row in some], [row["seconds"] for row in some]
        panel.loglog(x, y, "o-", color="#0072B2", label="step")
        panel.loglog(x, [row["update"] for row in some], "s-", color="#D55E00", label="SVGD's own")
        panel.loglog(x, [y[0] * v / x[0] for v in x], ":", color="grey", label="linear")
        panel.set_xticks(x, minor=False)
        panel.set_xticks([], minor=True)
        panel.xaxis.set_major_formatter(EngFormatter(places=None if max(x) < 1000 else 1, sep=""))
        panel.tick_params("x", labelsize=8)
        panel.set_xlabel(names[name])
    panels[0].set_ylabel("seconds")
    panels[0].legend(fontsize=8)
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", default=["parts", "variants", "peers", "growth"])
    parser.add_argument("--output", type=Path, required=True, help="where tables and plots go")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--sizes", nargs="+", choices=["paper", "small", "study"], default=["paper", "small"],
                        help="of the parts")  # fmt: skip
    parser.add_argument("--tiny", action="store_true", help="sizes of no meaning, to try the program")
    options = parser.parse_args()
    torch.set_num_threads(1)
    clock = Clock(torch.device("cpu"))
    sys.stdout.write(f"{platform.processor() or platform.machine()}, one thread, torch {torch.__version__}\n")
    known = {"paper": PAPER, "small": SMALL, "study": STUDY}
    sizes = {"tiny": TINY} if options.tiny else {name: known[name] for name in options.sizes}
    if "parts" in options.what:
        all_parts(clock, sizes, options.repeats, options.output)
    # The paper's network at the paper's size takes minutes a step; what is compared runs on less of each.
    light = {
        "small, 2 items": SMALL._replace(batch=2),
        "paper's network, 2 members, 1 item of 32³": PAPER._replace(members=2, sides=(32, 32, 32), batch=1),
    }
    light = {"tiny": TINY} if options.tiny else light
    if "variants" in options.what:
        variants(clock, light, options.repeats, options.output / "variants.csv")
    if "peers" in options.what:
        peers(clock, light, options.repeats, options.output, options.tiny)
    if "growth" in options.what:
        base = TINY if options.tiny else Size(2, scaled(8), (16, 32, 16), 2)
        growth(clock, base, not options.tiny, options.repeats, options.output)


if __name__ == "__main__":
    main()
