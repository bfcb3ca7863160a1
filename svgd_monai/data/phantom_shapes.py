"""What the phantoms are drawn with: smooth random fields, tubes and ellipsoids on a grid in millimetres.

A volume is described by its three *axes*: 1-D arrays with the coordinate in mm of every voxel along R, A and S, rising
or falling (a falling axis is a flipped one), so that shapes are drawn in anatomy and never in voxels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Axes = tuple[Floats, Floats, Floats]
Box = tuple[slice, slice, slice]

_AWAY = 8.0  # mm around a shape in which its distance is worth computing


@dataclass(frozen=True)
class Case:
    """One drawn case.

    Attributes:
        image: (X, Y, Z), in the type it is stored in.
        label: (X, Y, Z) uint8, 0 background.
        affine: (4, 4), voxel index to RAS millimetres.
    """

    image: NDArray[np.generic]
    label: NDArray[np.uint8]
    affine: NDArray[np.float64]


@dataclass(frozen=True)
class Shape:
    """A body in a volume.

    Attributes:
        box: the part of the volume in which the body lies.
        distance: mm to its surface for each voxel of the box, negative inside.
    """

    box: Box
    distance: Floats


@dataclass(frozen=True)
class Tube(Shape):
    """A tube, which also knows for each voxel of the box the index of the nearest point of its centre line."""

    nearest: NDArray[np.intp]


def make_axes(shape: NDArray[np.int64], steps: NDArray[np.float64]) -> Axes:
    """The axes of a volume centred on 0; ``steps`` is the signed voxel size of each axis in mm."""
    x, y, z = (
        ((np.arange(size) - (size - 1) / 2) * step).astype(np.float32) for size, step in zip(shape, steps, strict=True)
    )
    return x, y, z


def affine_of(axes: Axes, steps: NDArray[np.float64], centre: NDArray[np.float64]) -> NDArray[np.float64]:
    """The (4, 4) affine that puts the middle of the volume at ``centre`` (RAS, mm)."""
    affine = np.diag([*steps, 1.0])
    affine[:3, 3] = centre + [float(axis[0]) for axis in axes]
    return affine


def size_of(axes: Axes) -> tuple[int, int, int]:
    """The number of voxels along each axis."""
    x, y, z = axes
    return x.size, y.size, z.size


def inside(axes: Axes, box: Box) -> Axes:
    """The axes of the part of the volume that ``box`` cuts out."""
    x, y, z = (axis[part] for axis, part in zip(axes, box, strict=True))
    return x, y, z


def open_grid(axes: Axes) -> Axes:
    """The axes as (X, 1, 1), (1, Y, 1) and (1, 1, Z), to be broadcast."""
    x, y, z = axes
    return x[:, None, None], y[None, :, None], z[None, None, :]


def smooth_field(rng: np.random.Generator, axes: Axes, scale: float) -> Floats:
    """A random field of mean 0 and variance about 1 that varies over ``scale`` mm.

    Independent normal numbers at knots ``scale`` mm apart are joined by cubic B-splines. The squares of the spline's
    weights sum to 151/315 on average along an axis, which is divided out.
    """
    weights = [_spline_weights(axis, scale) for axis in axes]
    knots = rng.standard_normal([weight.shape[1] for weight in weights], dtype=np.float32)
    field = np.einsum("xi,yj,zk,ijk->xyz", *weights, knots, optimize=["einsum_path", (0, 3), (0, 2), (0, 1)])
    return np.asarray(field / (151 / 315) ** 1.5, dtype=np.float32)


def _spline_weights(axis: Floats, scale: float) -> Floats:
    """(N, knots) weights of the cubic B-splines at each coordinate of ``axis``."""
    position = (axis - axis.min()) / scale
    knots = np.arange(int(np.ceil(position.max())) + 3) - 1
    t = np.abs(position[:, None] - knots[None, :])
    inner = 2 / 3 - t**2 + t**3 / 2
    outer = np.clip(2 - t, 0, None) ** 3 / 6
    return np.asarray(np.where(t < 1, inner, outer), dtype=np.float32)


def tube(axes: Axes, points: NDArray[np.float64], radii: NDArray[np.float64]) -> Tube:
    """A bent tube: the union of balls of ``radii`` (K,) mm about the ``points`` (K, 3) of a centre line."""
    reach = radii.max() + _AWAY
    box = _box_around(axes, points.min(0) - reach, points.max(0) + reach)
    x, y, z = open_grid(inside(axes, box))
    best = np.full((x.size, y.size, z.size), np.inf, dtype=np.float32)
    nearest = np.zeros(best.shape, dtype=np.intp)
    for index, ((px, py, pz), radius) in enumerate(zip(points.astype(np.float32), radii, strict=True)):
        distance = np.sqrt((x - px) ** 2 + (y - py) ** 2 + (z - pz) ** 2) - np.float32(radius)
        closer = distance < best
        np.copyto(best, distance, where=closer)
        np.copyto(nearest, index, where=closer)
    return Tube(box, best, nearest)


def ellipsoid(axes: Axes, centre: NDArray[np.float64], radii: NDArray[np.float64]) -> Shape:
    """An ellipsoid with half-axes ``radii`` (3,) mm along R, A and S; the distance is right to first order."""
    box = _box_around(axes, centre - radii - _AWAY, centre + radii + _AWAY)
    grid = open_grid(inside(axes, box))
    x, y, z = (
        (part - np.float32(middle)) / np.float32(radius)
        for part, middle, radius in zip(grid, centre, radii, strict=True)
    )
    distance = (np.sqrt(x**2 + y**2 + z**2) - 1) * np.float32(radii.min())
    return Shape(box, np.asarray(distance, dtype=np.float32))


def paint(image: Floats, shape: Shape, value: float | Floats, softness: float = 1.0) -> None:
    """Put ``value`` (a number, or an array over the shape's box) where the shape is.

    The edge is a ramp of ``softness`` mm, which is what the partial volumes of a real scan look like.
    """
    view = image[shape.box]
    view += (np.asarray(value, dtype=np.float32) - view) * np.clip(0.5 - shape.distance / softness, 0, 1)


def rotation(angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """The (3, 3) matrix that turns by ``angles`` (3,) radians about R, then A, then S."""
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        first, second = [other for other in range(3) if other != axis]
        turn = np.eye(3)
        turn[first, first] = turn[second, second] = np.cos(angle)
        turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    return matrix


def _box_around(axes: Axes, low: NDArray[np.float64], high: NDArray[np.float64]) -> Box:
    x, y, z = (_span(axis, a, b) for axis, a, b in zip(axes, low, high, strict=True))
    return x, y, z


def _span(axis: Floats, low: float, high: float) -> slice:
    indices = np.flatnonzero((axis >= low) & (axis <= high))
    return slice(int(indices[0]), int(indices[-1]) + 1) if indices.size else slice(0, 0)
