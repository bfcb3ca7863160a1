"""The MR phantom: a bent tube in two parts, like a hippocampus in a small T1-weighted volume.

The tube has a thick head (label 1, anterior) and a thin tail (label 2, posterior), which meet where the head ends. It
is grey, with a bright rim in places, among white, grey and dark tissue and among other tubes of its own brightness:
place, shape and neighbours must be learnt, brightness alone finds the wrong things too.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from svgd_monai.data.phantom_shapes import (
    Axes,
    Case,
    Floats,
    Shape,
    Tube,
    affine_of,
    ellipsoid,
    inside,
    make_axes,
    open_grid,
    paint,
    rotation,
    size_of,
    smooth_field,
    tube,
)

LABELS = ("background", "anterior", "posterior")
MODALITY = "MRI"
DESCRIPTION = "Phantom of a hippocampus-like structure in two parts, MR"

_POINTS = 40  # along the centre line: at most 1.2 mm apart
_SMALLEST, _USUAL, _LARGEST = np.array([31, 40, 28]), np.array([36, 49, 36]), np.array([43, 58, 46])


def draw_case(rng: np.random.Generator, hard: bool) -> Case:
    """Draw one case.

    Args:
        rng: the case's own random numbers.
        hard: low contrast, much noise, a strong bias field and unusual anatomy.

    Returns:
        About (36, 49, 36) voxels of 1 mm; uint8, or whole numbers as float32 up to about 2000 or 100 000.
    """
    shape = np.clip(np.rint(rng.normal(_USUAL, [2.5, 3.5, 3.5])), _SMALLEST, _LARGEST).astype(np.int64)
    steps = np.ones(3)
    axes = make_axes(shape, steps)
    points, radii, split = _centre_line(rng, axes, hard)
    target = _roughened(rng, axes, tube(axes, points, radii))

    tissue = _background(rng, axes, points)
    _paint_target(rng, tissue, axes, target, split, hard)
    label = np.zeros(size_of(axes), dtype=np.uint8)
    label[target.box][target.distance < 0] = 2
    label[target.box][(target.distance < 0) & (target.nearest >= split)] = 1
    return Case(_scanned(rng, axes, tissue, hard), label, affine_of(axes, steps, rng.normal(0, 15, 3)))


def _centre_line(
    rng: np.random.Generator, axes: Axes, hard: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
    """The tube's points (K, 3), tail first, its radii (K,), and the index of the first point of the head.

    A parabola in the sagittal plane (bend) that also curls sideways, turned and moved as a whole. Left and right sides
    of the body mirror one another, so half of the cases curl the other way.
    """
    odd = 1.5 if hard else 1.0  # unusual anatomy: everything strays further from the mean
    t = np.linspace(-1, 1, _POINTS)
    length = axes[1].size * rng.uniform(0.60, 0.74)
    bend, curl = rng.normal(6.0, 1.8 * odd), rng.normal(4.0, 1.5 * odd) * rng.choice([-1.0, 1.0])
    line = np.stack([curl * (t**2 - 0.4), t * length / 2, bend * (t**2 - 0.4) - 0.12 * length * t], axis=1)
    line = line @ rotation(rng.normal(0, [0.12 * odd, 0.08 * odd, 0.12 * odd])).T
    room = np.array([axis.max() for axis in axes]) - 7
    line += np.clip(rng.normal(0, [2.0 * odd, 1.2 * odd, 2.0 * odd]), -8, 8)
    line += np.clip(line, -room, room).mean(0) - line.mean(0)  # back inside where a good part would leave the volume

    meeting = np.clip(rng.normal(0.54, 0.05 * odd), 0.36, 0.72)
    u = (t + 1) / 2
    head, tail = rng.normal(6.2, 0.5 * odd), rng.normal(4.4, 0.4 * odd)
    radii = tail + (head - tail) / (1 + np.exp(-(u - meeting) / 0.05))
    radii *= 0.55 + 0.45 * np.sqrt(np.clip(1 - np.abs(t) ** 6, 0, 1))
    return line, np.clip(radii, 2.4, 8.0), int(np.ceil(meeting * (_POINTS - 1)))


def _roughened(rng: np.random.Generator, axes: Axes, shape: Tube) -> Tube:
    """The shape with a surface that goes in and out by about 0.4 mm."""
    bumps = np.float32(0.4) * smooth_field(rng, inside(axes, shape.box), 4.0)
    return replace(shape, distance=shape.distance + bumps)


def _background(rng: np.random.Generator, axes: Axes, points: NDArray[np.float64]) -> Floats:
    """Everything but the target, in units of white matter's brightness."""
    white, grey, dark = rng.normal(0.88, 0.05), rng.normal(0.58, 0.05), rng.normal(0.16, 0.04)
    _, y, z = open_grid(axes)
    middle = points.mean(0)
    above = (z - middle[2]) / 9 - (y - middle[1]) / 30
    matter = smooth_field(rng, axes, 8.0) + np.float32(0.5) * np.tanh(above).astype(np.float32)
    tissue = np.asarray(grey + (white - grey) / (1 + np.exp(-3 * matter)), dtype=np.float32)
    fluid = smooth_field(rng, axes, 6.0) - np.float32(1.5) - np.float32(0.15) * np.tanh(above).astype(np.float32)
    tissue += (np.float32(dark) - tissue) * np.clip(fluid * 3, 0, 1)
    tissue += np.float32(0.03) * smooth_field(rng, axes, 3.0)
    for _ in range(rng.integers(1, 4)):
        _paint_distractor(rng, tissue, axes, points)
    for _ in range(rng.integers(2, 6)):  # vessels: a few voxels far brighter than the rest, as real scans have
        place = np.array([rng.uniform(axis.min(), axis.max()) for axis in axes])
        paint(tissue, ellipsoid(axes, place, rng.uniform(0.7, 1.6, 3)), rng.uniform(1.3, 2.6))
    return tissue


def _paint_distractor(rng: np.random.Generator, tissue: Floats, axes: Axes, points: NDArray[np.float64]) -> None:
    """A shorter tube of the target's brightness, 11 to 19 mm beside it, where no target ever is."""
    t = np.linspace(-1, 1, 14)
    length = rng.uniform(12, 28)
    line = np.stack([rng.normal(0, 3) * t**2, t * length / 2, rng.normal(0, 4) * t**2], axis=1)
    line = line @ rotation(rng.normal(0, 0.5, 3)).T
    angle = rng.uniform(0, 2 * np.pi)
    away = rng.uniform(11, 19) * np.array([np.cos(angle), 0, np.sin(angle)]) + [0, rng.normal(0, 8), 0]
    shape = tube(axes, line + points.mean(0) + away, rng.uniform(2.5, 4.5) * (1 - 0.3 * t**2))
    paint(tissue, _rim(shape, 1.6), rng.uniform(0.75, 0.95))
    paint(tissue, shape, rng.uniform(0.38, 0.50))


def _rim(shape: Shape, thickness: float) -> Shape:
    """The shape grown by ``thickness`` mm."""
    return replace(shape, distance=shape.distance - np.float32(thickness))


def _paint_target(rng: np.random.Generator, tissue: Floats, axes: Axes, target: Tube, split: int, hard: bool) -> None:
    """The target: a bright rim in places, then grey matter, the head a little darker than the tail."""
    before = tissue[target.box].copy()
    own = inside(axes, target.box)
    rim = before + (np.float32(0.9) - before) * np.clip(0.5 + smooth_field(rng, own, 6.0), 0, 1)
    paint(tissue, _rim(target, rng.uniform(1.0, 2.2)), rim)
    head, tail = rng.normal(0.38, 0.02), rng.normal(0.46, 0.02)
    value = np.where(target.nearest >= split, head, tail).astype(np.float32)
    value += np.float32(0.04) * smooth_field(rng, own, 4.0)
    if hard:  # two thirds of the contrast to what surrounds it
        value = np.float32(0.65) * value + np.float32(0.35) * tissue[target.box]
    paint(tissue, target, value, softness=1.5)


def _scanned(rng: np.random.Generator, axes: Axes, tissue: Floats, hard: bool) -> NDArray[np.generic]:
    """What the scanner makes of the tissue: bias field, noise, contrast curve, its own units."""
    bias = np.float32(rng.uniform(0.25, 0.40) if hard else rng.uniform(0.05, 0.18)) * smooth_field(rng, axes, 30.0)
    noise = np.float32(rng.uniform(0.08, 0.11) if hard else rng.uniform(0.03, 0.07))
    clean = np.clip(tissue, 0, None) ** rng.uniform(0.8, 1.3) * np.exp(bias)
    real = clean + noise * rng.standard_normal(clean.shape, dtype=np.float32)
    imaginary = noise * rng.standard_normal(clean.shape, dtype=np.float32)
    magnitude = np.hypot(real, imaginary)  # Rician, as magnitude images are
    kind = rng.choice(3, p=[0.2, 0.6, 0.2])
    if kind == 0:
        return np.asarray(np.clip(np.rint(magnitude * rng.uniform(90, 130)), 0, 255), dtype=np.uint8)
    unit = rng.uniform(600, 1100) if kind == 1 else rng.uniform(12_000, 40_000)
    return np.asarray(np.rint(magnitude * unit), dtype=np.float32)
