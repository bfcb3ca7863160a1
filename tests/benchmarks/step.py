"""What a training step costs: its parts beside the memory's floor, other ways to run it, peers, and its growth.

    python tests/benchmarks/step.py --output bundles/hippocampus_mri_svgd/docs/speed [parts] [variants] [peers] [growth]

On a CPU, one thread, in seconds of processor time, so that others on the machine weigh little; all that is compared
runs in turn, and medians are taken. ``peers`` measures pyro-ppl and blackjax where they are installed; ``growth`` draws
where matplotlib is. ``gpu.py`` runs the same on a GPU. Half an hour on one core.
"""

import argparse
import gc
import math
import platform
import sys
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import torch
from measuring import Clock, Streams, independent, keep, median, table, table_of_sizes
from peers import peers
from variants import variants
from workloads import LOSS, PAPER, RATE, SMALL, STUDY, TINY, Ours, Size, direction

from svgd_monai.committee import finite_particles, stein_kernel
from svgd_monai.committee.convolution import cpu_convolutions
from svgd_monai.committee.svgd import COLUMN_BLOCK, DEVICE_COLUMN_BLOCK


def parts(clock: Clock, repeats: int, name: str, size: Size) -> list[dict]:
    """The step's parts; one member (on a CPU at the paper's size with one item) stands for all: they run in turn."""
    items = 1 if clock.device.type == "cpu" and size == PAPER else size.batch
    ours = Ours(size._replace(batch=items), clock.device, warm=False)
    ours.particles.zero_grad()
    values, gradients = ours.particles.values, ours.particles.values.grad
    assert gradients is not None
    losses = torch.ones(size.members, device=clock.device)
    healthy = None if clock.device.type == "cpu" else losses > 0  # as the trainer's guard hands it to the step
    plain = torch.optim.Adam([torch.nn.Parameter(values.detach().clone())], lr=RATE)
    plain.param_groups[0]["params"][0].grad = gradients.clone()
    streams = Streams(size.members, values.shape[1], clock.device)

    def refill() -> None:
        gradients.fill_(1e-3)  # −φ of −φ would grow

    def kernel_and_direction() -> None:
        refill()
        ours.step(values.detach(), gradients, healthy)

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
            "finite": lambda: finite_particles(values.detach(), gradients, losses),
            "distances": lambda: stein_kernel(values.detach(), healthy=healthy),
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
    unit = streams.unit(updates)
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
    columns = ("size", "part", "seconds", "share", "floor", "ratio")
    table_of_sizes("Parts of a step", columns, output / "parts.csv", sizes, partial(parts, clock, repeats))


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
    """Step time along each axis, with the update's part and the exponent between neighbours; a plot of them."""
    columns, rows = ("axis", "value", "seconds", "update", "exponent", "exponent_update"), []
    with independent() as part:
        for axis, points in axes_of_growth(base, full).items():
            with part(axis):
                for row in along(clock, axis, points, repeats):
                    rows.append(row)
                    keep(columns, rows, output / "growth.csv")
        table("Growth of a step", columns, rows, output / "growth.csv")
        if find_spec("matplotlib"):
            draw(rows, output / "growth.png")


def along(clock: Clock, axis: str, points: list[tuple[float, Size]], repeats: int) -> Iterator[dict]:
    """A row for each point of an axis, as it is measured."""
    before = None
    for value, size in points:
        ours = Ours(size, clock.device)
        x = float(ours.particles.values.shape[1] if axis == "D" else value)
        losses = torch.ones(size.members, device=clock.device)

        def update(ours: Ours = ours, losses: torch.Tensor = losses) -> None:
            values, gradients = ours.particles.values, ours.particles.values.grad
            gradients.fill_(1e-3)
            direction(ours.step, values.detach(), gradients, losses)
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
        yield row
        before = row
        gc.collect()


def draw(rows: list[dict], path: Path) -> None:
    """One panel an axis, all scales logarithmic, with a line of slope 1; ticks where something was measured."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

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
