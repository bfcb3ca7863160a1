"""What of an image is compared with others: its content on a common grid, and not the nothing that lies around it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate

ContentName = Literal["volume", "foreground"]
CONTENT_NAMES: tuple[str, ...] = get_args(ContentName)

#: Share of the foreground that lies before the frame along each axis, and behind it. The outermost voxels of a body
#: come and go with the phase of the voxel grid; a frame to the very ends would jump with them by whole voxels.
OUTSIDE = 0.05


def on_grid(image: Tensor, grid: Sequence[int], content: str = "volume") -> Tensor:
    """Resample an image to a common grid, by trilinear interpolation.

    Args:
        image: (C, X, Y, Z), preprocessed.
        grid: (X', Y', Z').
        content: what the grid spans: the ``volume``, or the frame of its ``foreground``, see :func:`foreground_frame`.

    Returns:
        (C, X', Y', Z') float32.
    """
    values = image.float()
    if content == "volume":
        return interpolate(values[None], tuple(grid), mode="trilinear", align_corners=True)[0]
    axes = []
    for (low, high), side, points in zip(foreground_frame(image), image.shape[1:], grid, strict=True):
        last = max(side - 1, 1)
        axes.append(torch.linspace(2 * low / last - 1, 2 * high / last - 1, points, device=values.device))
    # The last dimension of grid_sample's coordinates is in the order z, y, x.
    places = torch.stack(torch.meshgrid(*axes, indexing="ij")[::-1], dim=-1)
    return grid_sample(values[None], places[None], mode="bilinear", padding_mode="border", align_corners=True)[0]


def foreground_frame(image: Tensor) -> tuple[tuple[float, float], ...]:
    """Where the body is: padding, air and what lies apart in the air, as the table of a CT does, are left out.

    Layers of one value at the volume's faces are taken off, whatever that value is. In what is left the foreground is
    the largest connected part (of face neighbours) above the image's lowest intensity, and along each axis the frame
    reaches from the place with :data:`OUTSIDE` of the foreground before it to that with as much behind it.

    So two scans of one body in fields of view of different sizes have the same frame, and their organs meet on a common
    grid, where those of the volumes would not. What a frame cannot even out is how long a part of the body each scan
    shows. An image whose lowest intensity is rare, as in a window within the body, is nearly all foreground.

    Args:
        image: (C, X, Y, Z), preprocessed, so that air is of one value. Of several channels any may hold the foreground.

    Returns:
        (low, high) in voxels along each axis, between 0 and the last; the whole volume where the image is constant.
    """
    found = _foreground(image)
    if found is None:
        return tuple((0.0, float(side - 1)) for side in image.shape[1:])
    foreground, box = found
    frame = []
    for axis, outer in enumerate(box):
        layers = foreground.sum(axis=tuple(other for other in range(3) if other != axis))
        # A voxel's share lies between its two faces, half a voxel before and behind its centre.
        share = np.concatenate([[0.0], np.cumsum(layers) / layers.sum()])
        faces = outer.start - 0.5 + np.arange(len(share))
        low, high = np.interp((OUTSIDE, 1 - OUTSIDE), share, faces).clip(0, image.shape[axis + 1] - 1)
        frame.append((float(low), float(high)))
    return tuple(frame)


def foreground_values(image: Tensor) -> Tensor:
    """The voxels of the foreground, see :func:`foreground_frame`.

    Args:
        image: (C, X, Y, Z), preprocessed.

    Returns:
        (C, V), all voxels where the image is constant and has no foreground.
    """
    found = _foreground(image)
    if found is None:
        return image.flatten(1)
    foreground, box = found
    return image[(slice(None), *box)][:, torch.as_tensor(foreground, device=image.device)]


def _foreground(image: Tensor) -> tuple[NDArray[np.bool_], tuple[slice, ...]] | None:
    """The mask of the foreground, and the box of the volume that it lies in; None where the image is constant."""
    values = image.detach().cpu().numpy()
    box = _without_constant_layers(values)
    inner = values[(slice(None), *box)]
    labels, count = ndimage.label((inner > values.min(axis=(1, 2, 3), keepdims=True)).any(axis=0))
    if count == 0:
        return None
    sizes = np.zeros(count + 1, dtype=np.int64)
    for layer in labels:  # a count over the whole would first copy it to 64-bit integers
        sizes += np.bincount(layer.ravel(), minlength=count + 1)
    return labels == 1 + int(np.argmax(sizes[1:])), box


def _without_constant_layers(values: NDArray[Any]) -> tuple[slice, ...]:
    """The box that is left when layers of one value a channel are taken off the faces, until there is none."""
    box = [slice(0, side) for side in values.shape[1:]]
    changed = True
    while changed:  # a layer of air crosses the padding of other axes, and is constant when that is gone
        changed = False
        for axis in range(3):
            inner = values[(slice(None), *box)]
            others = tuple(other for other in range(1, 4) if other != axis + 1)
            varied = np.flatnonzero((inner.min(axis=others) != inner.max(axis=others)).any(axis=0))
            if varied.size == 0:
                return tuple(box)
            start = box[axis].start
            smaller = slice(start + int(varied[0]), start + int(varied[-1]) + 1)
            changed |= smaller != box[axis]
            box[axis] = smaller
    return tuple(box)
