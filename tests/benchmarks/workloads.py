"""What the benchmarks of a training step have in common: committees, a peer from the equation, the command line."""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from monai.networks.nets import BasicUNet
from torch import Tensor, nn

from svgd_monai import LogDiceLoss, Particles
from svgd_monai.committee import CommitteeTrainer, PosteriorStep, finite_particles

CLASSES = 3
LOSS = LogDiceLoss(to_onehot_y=True, softmax=True)
SCALE, PRIOR_STD, RATE = 20.0, 1.0, 1e-3


class Size(NamedTuple):
    """A committee and its batch."""

    members: int
    features: tuple[int, ...]
    sides: tuple[int, int, int]
    batch: int


#: The light U-Net of the bundle at the paper's hippocampus sizes; a smaller one at 2 mm; and as few particles and items
#: of that as the project's studies train.
PAPER = Size(5, (32, 32, 64, 128, 256, 32), (64, 64, 64), 8)
SMALL = Size(5, (8, 8, 16, 32, 64, 8), (24, 32, 24), 8)
STUDY = SMALL._replace(members=3, batch=2)
TINY = Size(2, (2, 2, 2, 2, 4, 2), (16, 32, 16), 2)


def network(features: tuple[int, ...]) -> nn.Module:
    return BasicUNet(spatial_dims=3, in_channels=1, out_channels=CLASSES, features=features)


def batch_of(size: Size, device: torch.device) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = (size.batch, 1, *size.sides)
    label = torch.randint(0, CLASSES, shape, generator=generator)
    image = label + 0.5 * torch.randn(shape, generator=generator)
    return {"image": image.to(device), "label": label.to(device)}


class Ours:
    """The package's trainer, one iteration a call; ``warm`` takes the first at once."""

    def __init__(self, size: Size, device: torch.device, warm: bool = True, amp: bool = False, **options) -> None:
        self.particles = Particles(lambda: network(size.features), size.members).to(device)
        self.batch = batch_of(size, device)
        self.step = PosteriorStep(likelihood_scale=SCALE, prior_std=PRIOR_STD)
        self.optimizer = torch.optim.Adam([self.particles.values], lr=RATE, fused=True)
        self.trainer = CommitteeTrainer(
            device, 1, [self.batch], self.particles, self.optimizer, LOSS, self.step, amp=amp, **options
        )
        if warm:
            self.trainer.run()

    def __call__(self) -> None:
        self.trainer.state.batch = self.batch  # as the engine does; the last step has taken it apart, item by item
        self.trainer._iteration(self.trainer, self.batch)


class Textbook:
    """M modules, M Adams, and the equation of SVGD pair by pair, as one would write it from the paper."""

    def __init__(self, size: Size, device: torch.device) -> None:
        self.networks = [network(size.features).to(device) for _ in range(size.members)]
        self.optimizers = [torch.optim.Adam(net.parameters(), lr=RATE) for net in self.networks]
        self.batch = batch_of(size, device)

    def gradients(self) -> None:
        for net, optimizer in zip(self.networks, self.optimizers, strict=True):
            optimizer.zero_grad()
            LOSS(net(self.batch["image"]), self.batch["label"]).backward()

    def __call__(self) -> None:
        self.gradients()
        particles = [nn.utils.parameters_to_vector(net.parameters()).detach() for net in self.networks]
        scores = [
            -SCALE * torch.cat([p.grad.reshape(-1) for p in net.parameters()]) - x / PRIOR_STD**2
            for net, x in zip(self.networks, particles, strict=True)
        ]
        for net, phi in zip(self.networks, textbook_direction(particles, scores), strict=True):
            pieces = (-phi).split([p.numel() for p in net.parameters()])
            for parameter, piece in zip(net.parameters(), pieces, strict=True):
                parameter.grad = piece.view_as(parameter)
        for optimizer in self.optimizers:
            optimizer.step()


def textbook_direction(particles: list[Tensor], scores: list[Tensor]) -> list[Tensor]:
    """φ_i = mean over j of K_ij g_j + (2/h) K_ij (x_i − x_j); h is the median of the pairs' ‖x_i − x_j‖² over log M."""
    members = range(len(particles))
    squared = {(i, j): (particles[i] - particles[j]).square().sum() for i in members for j in members}
    h = torch.stack([squared[i, j] for i in members for j in members if i < j]).quantile(0.5) / math.log(len(particles))
    phi = []
    for i in members:
        total = torch.zeros_like(particles[i])
        for j in members:
            kernel = torch.exp(-squared[i, j] / h)
            total += kernel * scores[j] + 2 / h * kernel * (particles[i] - particles[j])
        phi.append(total / len(particles))
    return phi


def direction(step: PosteriorStep, particles: Tensor, gradients: Tensor, losses: Tensor) -> None:
    """Check, kernel and direction as a trainer has them: a CPU's host knows that all is well, a GPU gets the flags."""
    healthy = finite_particles(particles, gradients, losses)
    step(particles, gradients, None if particles.device.type == "cpu" else healthy)


def command_line(
    description: str | None, device: str, sections: Sequence[str] = ()
) -> tuple[argparse.Namespace, dict[str, Size]]:
    """What the programs are told (``output``, ``device``, ``repeats``, ``sizes``, ``tiny``), and the sizes that follow.

    With ``sections`` also which of them (``sections``, by default all), and the seconds that each may take (``limit``).
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="where tables and plots go")
    parser.add_argument("--device", default=device)
    parser.add_argument("--repeats", type=int, default=20)
    known = {"paper": PAPER, "small": SMALL}
    parser.add_argument("--sizes", nargs="+", choices=known, default=list(known))
    parser.add_argument("--tiny", action="store_true", help="sizes of no meaning, to try the program")
    if sections:
        parser.add_argument("sections", nargs="*", help="of " + ", ".join(sections))
        parser.add_argument("--limit", type=float, help="seconds that a section may take, where there are several")
    options = parser.parse_args()
    if sections:
        if unknown := set(options.sections) - set(sections):
            parser.error(f"unknown sections: {', '.join(sorted(unknown))}")
        options.sections = options.sections or list(sections)
    return options, {"tiny": TINY} if options.tiny else {name: known[name] for name in options.sizes}
