"""The picture of a case on a worklist: the slice to look at first."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import nibabel as nib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from svgd_monai.report.panels import CLASS_COLOURS, mark_sides, uncertain_slice

#: Percentiles of the image that are black and white.
_WINDOW = (0.5, 99.5)


@mpl.rc_context({"text.parse_math": False})  # a class's name is no mathematics
def worklist_panel(
    image: str | os.PathLike[str],
    segmentation: str | os.PathLike[str] | None = None,
    uncertainty: str | os.PathLike[str] | None = None,
    classes: Sequence[str] = (),
    label: str = "uncertainty",
    top: float | None = None,
) -> Figure:
    """The axial slice of the greatest mean uncertainty: image, the same with the contours, and the uncertainty.

    It lies as 3D Slicer and ITK-SNAP show it: the patient's right at the left, anterior up, in true proportion.

    Args:
        image: NIfTI file; of several channels the first is shown.
        segmentation: file of the pre-segmentation, on the image's grid; None shows the image's middle slice alone.
        uncertainty: file of the uncertainty map; likewise.
        classes: names of the classes, background first.
        label: what the uncertainty is, with its unit.
        top: where its colours end, so that the pictures of a list can be compared; None: at its maximum.

    Returns:
        A figure without a window.
    """
    grey, affine = _read(image)
    aspect = float(np.linalg.norm(affine[:3, 1]) / np.linalg.norm(affine[:3, 0]))
    if grey.ndim > 3:
        grey = grey[..., 0]
    low, high = np.percentile(grey, _WINDOW)
    grey = np.clip((grey - low) / max(high - low, 1e-6), 0, 1)
    if segmentation is None or uncertainty is None:
        figure = Figure(figsize=(3.4, 3.4), layout="constrained")
        _show(figure.subplots(), grey, grey.shape[2] // 2, "the middle slice", aspect)
        return figure
    (mask, _), (heat, _) = _read(segmentation), _read(uncertainty)
    level = uncertain_slice(torch.from_numpy(heat), torch.from_numpy(mask > 0))
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    axes: list[Axes] = list(figure.subplots(1, 3))
    middle = affine @ [(grey.shape[0] - 1) / 2, (grey.shape[1] - 1) / 2, level, 1]
    _show(axes[0], grey, level, f"slice {level + 1} of {grey.shape[2]} from below, S = {middle[2]:.1f} mm", aspect)
    _show(axes[1], grey, level, "pre-segmentation", aspect)
    for value, name in enumerate(classes):
        inside = np.equal(mask[..., level].T, value)
        if value > 0 and inside.any():
            colour = CLASS_COLOURS[value % len(CLASS_COLOURS)]
            axes[1].contour(inside, levels=[0.5], colors=[colour], linewidths=1.4)
            axes[1].plot([], [], color=colour, label=name.replace("_", " "))
    if axes[1].lines:
        axes[1].legend(loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=3, fontsize=8, frameon=False)
    drawn = axes[2].imshow(
        heat[..., level].T,
        cmap="magma",
        origin="lower",
        vmin=0.0,
        vmax=max(float(heat.max()) if top is None else top, 1e-6),
        aspect=aspect,
    )
    axes[2].set_title(label, fontsize=9)
    axes[2].set_axis_off()
    figure.colorbar(drawn, ax=axes[2], shrink=0.8)
    return figure


def greatest(uncertainty: str | os.PathLike[str]) -> float:
    """The greatest value of an uncertainty map's file."""
    return float(_read(uncertainty)[0].max())


def _read(path: str | os.PathLike[str]) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """The voxels of a file, their axes pointing left, anterior and superior, and their affine."""
    stored: Any = nib.load(path)
    ours = nib.orientations.ornt_transform(
        nib.orientations.io_orientation(stored.affine), nib.orientations.axcodes2ornt("LAS")
    )
    volume = stored.as_reoriented(ours)
    return np.ascontiguousarray(volume.dataobj, dtype=np.float32), volume.affine


def _show(axis: Axes, grey: NDArray[np.float32], level: int, title: str, aspect: float) -> None:
    axis.imshow(grey[..., level].T, cmap="gray", origin="lower", vmin=0.0, vmax=1.0, aspect=aspect)
    mark_sides(axis)
    axis.set_title(title, fontsize=9)
    axis.set_axis_off()
