"""Does a network learn the tumour when most windows hold none? By the loss's treatment of absent classes, and the crop.

    python tests/benchmarks/absent_classes.py [--seeds 2] [--output absent_classes.csv]

Three cases of the CT phantom at 4 mm, whose tumours are of some 18 voxels, in windows of 16³ voxels, of which few hold
any. A U-Net fits them, and the table gives the Dice of pancreas and tumour on these same cases: what is asked is
whether the gradient reaches the tumour at all, not whether another patient's tumour is found.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from monai.inferers import sliding_window_inference
from monai.networks.nets import UNet
from monai.transforms import ScaleIntensityRanged

from svgd_monai import LogDiceLoss, Particles
from svgd_monai.committee import PosteriorStep
from svgd_monai.data import foreground_crop, make_phantom, preprocessing, read_dataset, training_crop
from svgd_monai.evaluation.cases import dice_per_class
from svgd_monai.files import write_csv

LOSSES = {
    "skip": {},  # the default: absent classes are left out of an item's mean
    "smooth": {"absent": "smooth"},  # the plain smoothed Dice
    "batch": {"batch": True},  # Dice over the batch
}
WINDOW = (16, 16, 16)
CROPS = {"random": training_crop(WINDOW), "foreground": foreground_crop(WINDOW, 3)}
COLUMNS = ("loss", "crop", "seed", "steps", "windows_with_tumour", "dice_pancreas", "dice_tumour")


def network() -> UNet:
    """A U-Net without normalisation, so that windows of air and of organs keep their brightness."""
    return UNet(3, 1, 3, (16, 32, 64), (2, 2), num_res_units=0, act="LEAKYRELU", norm=None)


def volumes(folder: Path) -> list[dict]:
    """Three cases, preprocessed as the bundle does."""
    intensity = ScaleIntensityRanged("image", -87, 199, 0, 1, clip=True)
    transform = preprocessing(intensity, (4.0, 4.0, 4.0))
    return [transform(dict(item)) for item in list(read_dataset(folder).items.values())[:3]]


def fit(cases: list[dict], loss: str, crop: str, seed: int = 0, steps: int = 800) -> dict:
    """One row of the table."""
    particles = Particles(network, 1, seed)
    optimiser = torch.optim.Adam([particles.values], lr=5e-3)
    step, objective = PosteriorStep("svgd"), LogDiceLoss(to_onehot_y=True, softmax=True, **LOSSES[loss])
    rng, window, held = np.random.RandomState(seed), CROPS[crop], 0
    for _ in range(steps):
        batch = []
        for _ in range(8):
            window.set_random_state(seed=rng.randint(1 << 31))
            batch.append(window(dict(cases[rng.randint(len(cases))])))
        image, label = (torch.stack([torch.as_tensor(item[key]) for item in batch]) for key in ("image", "label"))
        held += sum(bool((item["label"] == 2).any()) for item in batch)
        particles.zero_grad()
        objective(particles.member(0, image), label).backward()
        step(particles.values.detach(), particles.values.grad)
        optimiser.step()
    dice = np.mean([_dice(particles, case) for case in cases], axis=0)
    values = (loss, crop, seed, steps, round(held / (8 * steps), 3), round(dice[0], 3), round(dice[1], 3))
    return dict(zip(COLUMNS, values, strict=True))


@torch.no_grad()
def _dice(particles: Particles, case: dict) -> list[float]:
    def predictor(x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(particles(x)[0], 1)

    found = sliding_window_inference(case["image"][None], WINDOW, 8, predictor, overlap=0.25, mode="gaussian")
    return dice_per_class(found.argmax(1)[0], case["label"][0], 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--output", type=Path, help="a CSV of the table")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        cases = volumes(make_phantom(Path(folder) / "ct", "ct", 3))
    sys.stdout.write("  ".join(COLUMNS) + "\n")
    for seed in range(options.seeds):
        for crop in CROPS:
            for loss in LOSSES:
                rows.append(fit(cases, loss, crop, seed, options.steps))
                sys.stdout.write("  ".join(f"{rows[-1][name]!s:>{len(name)}}" for name in COLUMNS) + "\n")
                sys.stdout.flush()
    if options.output is not None:
        write_csv(options.output, COLUMNS, rows)


if __name__ == "__main__":
    main()
