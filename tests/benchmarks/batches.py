"""What a training step waits for its batch: volumes in the host's memory and copied, or kept on the device.

    python tests/benchmarks/batches.py --output <folder> [--device cuda:0]

The bundles keep preprocessed volumes in the host's memory and draw crops and augmentations there. On a GPU, where the
volumes fit, all of it could happen on the device; this says what that would save, beside the step it would be saved of.
Seconds of one batch until it lies on the device, in turn; medians. On a CPU the host is the device.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from measuring import Clock, median, table_of_sizes
from monai.data import DataLoader
from monai.transforms import Compose
from workloads import CLASSES, PAPER, Ours, Size, command_line

from svgd_monai.data import StepSampler, VolumeDataset, training_crop, training_preprocessing

CASES = 16
COLUMNS = ("size", "augmentation", "volumes", "seconds", "of_a_step")


def loader(size: Size, augment: str, device: torch.device) -> Iterator[dict[str, Any]]:
    """Endless batches of windows from volumes that lie on ``device``, a little larger than their windows."""
    generator = torch.Generator().manual_seed(0)
    shape = (1, *(side + 4 for side in size.sides))
    items = []
    for number in range(CASES):
        label = torch.randint(0, CLASSES, shape, generator=generator, dtype=torch.uint8)
        image = label + 0.5 * torch.randn(shape, generator=generator)
        name = f"volume {number}"  # no file is there to take a fingerprint of
        items.append({"case": name, "fingerprint": name, "image": image.to(device), "label": label.to(device)})
    transform = training_preprocessing(Compose([]), training_crop(size.sides), augment)
    dataset = VolumeDataset(items, transform, cache_dir=None)
    return iter(DataLoader(dataset, batch_sampler=StepSampler(CASES, size.batch, steps=1_000_000)))


def fetch(batches: Iterator[dict[str, Any]], device: torch.device) -> None:
    for value in next(batches).values():
        value.to(device)


def batches(clock: Clock, sizes: dict[str, Size], repeats: int, output: Path) -> None:
    """One row for each size, augmentation and place of the volumes."""
    title, path = "A batch until it lies on the device", output / "batches.csv"
    table_of_sizes(title, COLUMNS, path, sizes, partial(measured, clock, repeats))


def measured(clock: Clock, repeats: int, name: str, size: Size) -> list[dict]:
    places = {"host": torch.device("cpu")} | ({} if clock.device.type == "cpu" else {"device": clock.device})
    ways: dict[str, Callable[[], object]] = {
        f"{augment}, {place}": partial(fetch, loader(size, augment, where), clock.device)
        for augment in ("none", "light")
        for place, where in places.items()
    }
    items = 1 if clock.device.type == "cpu" and size == PAPER else size.batch  # that step takes minutes there
    step = Ours(size._replace(batch=items), clock.device)
    seconds = median(clock.compare({"step": step}, 1 if clock.device.type == "cpu" else repeats)["step"])
    seconds *= size.batch / items
    found = {way: median(values) for way, values in clock.compare(ways, repeats).items()}
    return [
        dict(zip(COLUMNS, (name, *way.split(", "), batch, batch / seconds), strict=True))
        for way, batch in found.items()
    ]


def main() -> None:
    options, sizes = command_line(__doc__, device="cpu")
    if options.device == "cpu":
        torch.set_num_threads(1)
    batches(Clock(torch.device(options.device)), sizes, options.repeats, options.output)


if __name__ == "__main__":
    main()
