"""Steps of the package's committee beside others': a textbook's, pyro-ppl's and blackjax's."""

import gc
import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import torch
from measuring import Clock, independent, median, table
from torch import Tensor
from workloads import RATE, Ours, Size, Textbook, direction, textbook_direction

from svgd_monai.committee import PosteriorStep

COLUMNS = ("work", "who", "seconds", "ratio")


def pyro_update(start: Tensor) -> Callable[[], object]:
    """What pyro.infer.SVGD.step does behind the model's gradient, in its multivariate mode."""
    from pyro.infer.svgd import RBFSteinKernel

    kernels, particles = RBFSteinKernel(), _parameter(start)
    optimizer = torch.optim.Adam([particles], lr=RATE)

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
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # of a GPU's memory jax would take three quarters
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
        direction(step, values.detach(), gradients, losses)
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


#: What stands beside ours and the textbook's where it is installed.
OTHERS = {"pyro-ppl": ("pyro", pyro_update), "blackjax": ("blackjax", blackjax_update)}


def peers(clock: Clock, sizes: dict[str, Size], repeats: int, output: Path, tiny: bool) -> None:
    """A whole step against the textbook's; the update alone, under a unit Gaussian, against others' too."""
    updates = {"D = 1000": 1000} if tiny else {"D = 0.36 million": 360_000, "D = 5.7 million": 5_749_443}
    rows: list[dict] = []
    with independent() as part:

        def add(work: str, runs: dict[str, Callable[[], object]]) -> None:
            times = {who: median(values) for who, values in clock.compare(runs, repeats).items()}
            values = ((work, who, seconds, seconds / times["ours"]) for who, seconds in times.items())
            rows.extend(dict(zip(COLUMNS, row, strict=True)) for row in values)
            table("Peers", COLUMNS, rows, output / "peers.csv")

        for name, size in sizes.items():
            with part(f"a step, {name}"):
                add(f"a step, {name}", {"ours": Ours(size, clock.device), "textbook": Textbook(size, clock.device)})
        for name, length in updates.items():
            start = torch.randn(5, length, generator=torch.Generator().manual_seed(0)).to(clock.device) * 0.1
            runs = {"ours": own_update(start), "textbook": textbook_update(start)}
            for who, (module, make) in OTHERS.items():
                with part(f"{who}, {name}"):
                    if find_spec(module):
                        theirs = make(start)
                        theirs()  # one that fails is left out
                        runs[who] = theirs
            with part(f"the update, {name}"):
                add(f"the update, {name}", runs)
            del runs
            gc.collect()
