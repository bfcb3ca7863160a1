"""Pictures of a case: the slice where the committee is least sure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from torch import Tensor

#: One colour a class, background first (not drawn); from Okabe & Ito's set, told apart by the colour-blind.
CLASS_COLOURS = ("#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#CC79A7", "#D55E00", "#0072B2")


def case_panel(
    title: str,
    image: Tensor,
    probability: Tensor,
    uncertainty: Tensor,
    truth: Tensor | None = None,
    classes: Sequence[str] = (),
    unit: str = "nats",
    top: float | None = None,
    aspect: float = 1.0,
) -> Figure:
    """Image, truth, committee mean and uncertainty of one case, in the slice of :func:`uncertain_slice`.

    Args:
        title: stands above.
        image: (X, Y, Z), RAS+ like all that follow.
        probability: (C, X, Y, Z), mean of the committee.
        uncertainty: (X, Y, Z).
        truth: (X, Y, Z) class indices; None where nobody has labelled the case.
        classes: names of the C classes, for the legend.
        unit: of the uncertainty.
        top: where the colours of the uncertainty end; None: at its maximum.
        aspect: height of a voxel in Y by its width in X.

    Returns:
        A figure without a window.
    """
    # Piece by piece, for argmax gives 64-bit integers.
    predicted = torch.cat([piece.argmax(0).to(torch.uint8) for piece in probability.split(16, dim=1)])
    level = uncertain_slice(uncertainty, predicted > 0)
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    axes: list[Axes] = list(figure.subplots(1, 4))
    grey = _slice(image, level)
    count = probability.shape[0]
    for axis in axes[:3]:
        axis.imshow(grey, cmap="gray", origin="lower", vmin=0.0, vmax=1.0, aspect=aspect)
    axes[0].set_title(f"slice {level + 1} of {image.shape[2]} from below")
    if truth is None:
        axes[1].set_title("truth unknown")
    else:
        _overlay(axes[1], _slice(truth, level), count, aspect)
        axes[1].set_title("truth")
    _overlay(axes[2], _slice(predicted, level), count, aspect)
    axes[2].set_title("committee mean")
    top = max(float(uncertainty.max()), 1e-6) if top is None else top
    heat = axes[3].imshow(_slice(uncertainty, level), cmap="magma", origin="lower", vmin=0.0, vmax=top, aspect=aspect)
    axes[3].set_title(f"uncertainty ({unit})" if unit else "uncertainty")
    figure.colorbar(heat, ax=axes[3], shrink=0.8)
    for axis in axes:
        axis.set_axis_off()
    mark_sides(axes[0])
    legend = ", ".join(f"{name}: {_COLOUR_NAMES[index % 8]}" for index, name in enumerate(classes) if index > 0)
    # A case's name is no mathematics, whatever dollar signs it holds.
    figure.suptitle(f"{title}   ({legend})" if legend else title, fontsize=10, parse_math=False)
    return figure


def mark_sides(axis: Axes) -> None:
    """Say which side of an axial slice is the patient's right, and which the left."""
    outline = [withStroke(linewidth=2, foreground="black")]  # yellow alone is lost on a bright image
    for place, side, align in ((0.02, "R", "left"), (0.98, "L", "right")):
        axis.text(place, 0.5, side, transform=axis.transAxes, color="yellow", ha=align, path_effects=outline)


def uncertain_slice(uncertainty: Tensor, foreground: Tensor) -> int:
    """The axial slice of the greatest mean uncertainty, among those with predicted foreground where there are any.

    Args:
        uncertainty: (X, Y, Z).
        foreground: (X, Y, Z) bool.
    """
    means = uncertainty.float().mean((0, 1))
    inside = foreground.any(0).any(0)
    return int(torch.where(inside, means, -torch.inf).argmax()) if bool(inside.any()) else int(means.argmax())


_COLOUR_NAMES = ("black", "orange", "sky blue", "green", "yellow", "pink", "vermilion", "blue")


def _slice(volume: Tensor, level: int) -> np.ndarray:
    """Axial slice of an RAS+ volume as viewers show it: the patient's right at the left of the picture, anterior up."""
    return torch.as_tensor(volume)[..., level].detach().cpu().float().flip(0).numpy().T


def _overlay(axis: Axes, indices: np.ndarray, count: int, aspect: float) -> None:
    colours = ListedColormap([CLASS_COLOURS[index % len(CLASS_COLOURS)] for index in range(count)])
    shown = np.ma.masked_where(indices == 0, indices)
    axis.imshow(shown, cmap=colours, origin="lower", vmin=-0.5, vmax=count - 0.5, alpha=0.55, interpolation="nearest",
                aspect=aspect)  # fmt: skip
