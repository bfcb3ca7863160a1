"""What the CPU's own way to convolutions saves: layer by layer, and for whole networks in training and prediction.

    python tests/benchmarks/convolutions.py --output bundles/hippocampus_mri_svgd/docs/speed

One thread, in seconds of processor time, torch's own way and ``cpu_convolutions`` in turn; the least of the repeats, as
whoever shares the machine only adds. Ten minutes on one core.
"""

import argparse
import contextlib
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from measuring import Clock, table
from monai.networks.nets import BasicUNet, UNet
from torch import Tensor, nn

from svgd_monai.committee.convolution import cpu_convolutions

CPU = torch.device("cpu")
LAYERS = [  # channels in and out, volume
    *((8, 8, sides) for sides in ((24, 32, 24), (48, 64, 48), (6, 8, 6))),
    (16, 8, (24, 32, 24)),
    (8, 16, (12, 16, 12)),
    (32, 16, (12, 16, 12)),
    (16, 24, (24, 32, 24)),
    (32, 32, (24, 32, 24)),
    (64, 32, (24, 32, 24)),
    (64, 64, (12, 16, 12)),
    (256, 256, (3, 4, 3)),
    (1, 8, (24, 32, 24)),
    (1, 32, (24, 32, 24)),
]
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "BasicUNet, 8 to 64 channels (the study's)": lambda: BasicUNet(3, 1, 3, features=(8, 8, 16, 32, 64, 8)),
    "UNet, 8 to 64 channels": lambda: UNet(3, 1, 3, (8, 16, 32, 64), (2, 2, 2), num_res_units=2, norm="instance"),
    "BasicUNet, 32 to 256 channels (the paper's)": lambda: BasicUNet(3, 1, 3, features=(32, 32, 64, 128, 256, 32)),
}


def train(network: nn.Module, image: Tensor, ours: bool) -> None:
    network.zero_grad()
    with cpu_convolutions(CPU) if ours else contextlib.nullcontext():
        result = network(image)
    result.square().mean().backward()


def predict(network: nn.Module, image: Tensor, ours: bool) -> None:
    with torch.no_grad(), cpu_convolutions(CPU) if ours else contextlib.nullcontext():
        network(image)


def compare(clock: Clock, network: nn.Module, image: Tensor, repeats: int) -> dict[str, float]:
    """Seconds of both ways and their ratio, for a training's passes and a prediction."""
    found = {}
    for name, run in (("train", train), ("predict", predict)):
        ways: dict[str, Callable[[], object]] = {
            way: partial(run, network, image, way == "ours") for way in ("torch", "ours")
        }
        times = {way: min(values) for way, values in clock.compare(ways, repeats).items()}
        found |= {
            f"{name}, torch": times["torch"],
            f"{name}, ours": times["ours"],
            f"{name}, ratio": times["torch"] / times["ours"],
        }
    return found


def last_only(clock: Clock, layer: nn.Conv3d, image: Tensor, repeats: int) -> float:
    """How much faster a training's passes of a layer are with its weight channels last, however wide it is."""
    other = nn.Conv3d(layer.in_channels, layer.out_channels, 3, padding=1).to(memory_format=torch.channels_last_3d)
    ways: dict[str, Callable[[], object]] = {
        "plain": partial(train, layer, image, False),
        "last": partial(train, other, image, False),
    }
    times = {way: min(values) for way, values in clock.compare(ways, repeats).items()}
    return times["plain"] / times["last"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="where the tables go")
    parser.add_argument("--repeats", type=int, default=8)
    parser.add_argument("--tiny", action="store_true", help="few sizes, to try the program")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    clock = Clock(CPU)
    sys.stdout.write(f"one thread, torch {torch.__version__}\n")
    rows = []
    for before, behind, sides in LAYERS[-1:] if options.tiny else LAYERS:
        layer, image = nn.Conv3d(before, behind, 3, padding=1), torch.randn(4, before, *sides)
        image.requires_grad_(before > 1)  # as a network's first layer takes the image
        ratio = last_only(clock, layer, image, options.repeats)
        rows.append({"channels": f"{before} to {behind}", "volume": " x ".join(map(str, sides)), "ratio": ratio})
    table("Channels last, batch of 4, training", ("channels", "volume", "ratio"), rows, options.output / "layouts.csv")
    rows = []
    for name, make in NETWORKS.items():
        for items in (1,) if options.tiny else (1, 2, 4):
            found = compare(clock, make(), torch.randn(items, 1, 24, 32, 24), options.repeats)
            rows.append({"network": name, "batch": items, **found})
    table("Networks, 24 x 32 x 24 voxels", tuple(rows[0]), rows, options.output / "convolutions.csv")


if __name__ == "__main__":
    main()
