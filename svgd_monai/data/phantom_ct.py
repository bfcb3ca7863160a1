"""The CT phantom: a small abdomen with a pancreas-like organ and a little tumour, in Hounsfield units (HU).

Air, an oval body of fat and muscle, spine, ribs, liver, spleen, kidneys, stomach, bowel and the great vessels stand
where they do in people, with contrast medium in the blood. The organ (label 1) is a bent tube before the spine; the
tumour (label 2) is darker than the organ, inside it or at its edge, and small: about 1 ml, or 17 voxels of 4 mm. The
field of view is a child's, so that a case is drawn and resampled fast.
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

LABELS = ("background", "pancreas", "tumour")
MODALITY = "CT"
DESCRIPTION = "Phantom of a pancreas-like organ with a tumour, CT"

_POINTS = 44  # along the organ's centre line: at most 3 mm apart
_AIR, _FAT, _MUSCLE, _FLUID = -1000.0, -100.0, 52.0, 12.0


def draw_case(rng: np.random.Generator, hard: bool) -> Case:
    """Draw one case.

    Args:
        rng: the case's own random numbers.
        hard: a faint tumour, an organ close to its neighbours in brightness, much noise, unusual anatomy.

    Returns:
        An int16 volume of about 98 by 92 by 60 voxels of about 2 by 2 by 3.5 mm. The voxel axes point right or left and
        forwards or backwards, so the affine must be honoured.
    """
    shape = np.array([rng.integers(84, 113), rng.integers(80, 105), rng.integers(48, 73)])
    plane = rng.uniform(1.7, 2.5)
    flips = rng.choice([-1.0, 1.0], size=2, p=[0.6, 0.4])  # towards L and P, as DICOM does, or R and A
    steps = np.round(np.array([plane * flips[0], plane * flips[1], rng.uniform(2.5, 5.0)]), 2)
    axes = make_axes(shape, steps)
    half = np.abs(shape * steps)[:2] / 2 * rng.uniform([0.84, 0.74], [0.94, 0.86])  # the body's half-axes, mm
    scale = float(half[0] / 110)  # organs grow with the body

    image = _body(rng, axes, half)
    middle = np.array([-0.06 * half[0], 0.10 * half[1], rng.uniform(-0.4, 0.4) * axes[2].max()])
    _paint_neighbours(rng, image, axes, half, middle, scale)
    organ, points, radii = _organ(rng, axes, middle, scale, hard)
    tumour = _tumour(rng, axes, points, radii, scale)
    level = _paint_organ(rng, image, axes, organ, hard)
    paint(image, tumour, level - (rng.uniform(20, 25) if hard else rng.uniform(28, 40)), softness=1.0)

    label = np.zeros(size_of(axes), dtype=np.uint8)
    label[organ.box][organ.distance < 0] = 1
    label[tumour.box][tumour.distance < 0] = 2
    noise = rng.uniform(20, 28) if hard else rng.uniform(8, 14)
    image += np.float32(noise) * rng.standard_normal(image.shape, dtype=np.float32)
    stored = np.clip(np.rint(image), -1024, 3071).astype(np.int16)
    return Case(stored, label, affine_of(axes, steps, rng.uniform([-40, -200, -900], [40, -80, 300])))


def _body(rng: np.random.Generator, axes: Axes, half: NDArray[np.float64]) -> Floats:
    """Air, an oval of fat, and the muscle wall's inside, patches of fat and soft tissue: (X, Y, Z) in HU."""
    image = np.full(size_of(axes), _AIR, dtype=np.float32)
    x, y, _ = open_grid(axes)
    depth = (1 - np.sqrt((x / np.float32(half[0])) ** 2 + (y / np.float32(half[1])) ** 2)) * np.float32(half.min())
    tissue = _FAT + np.float32(8) * smooth_field(rng, axes, 15.0)
    wall = np.clip(1.5 - np.abs(depth - rng.uniform(10, 18)) / 4, 0, 1)  # a ring of muscle under the skin's fat
    tissue += (np.float32(_MUSCLE) - tissue) * wall
    loose = np.clip(smooth_field(rng, axes, 14.0) + np.float32(0.2), 0, 1) * (depth > 22)
    tissue += (np.float32(rng.uniform(20, 45)) - tissue) * loose  # mesentery
    image += (tissue - image) * np.clip(depth / 2 + np.float32(0.5), 0, 1)
    return image


def _paint_neighbours(
    rng: np.random.Generator,
    image: Floats,
    axes: Axes,
    half: NDArray[np.float64],
    middle: NDArray[np.float64],
    scale: float,
) -> None:
    """Everything that is not the organ. Places are fractions of the body's half-axes; R, A and S are positive."""

    def place(right: float, front: float, up: float) -> NDArray[np.float64]:
        jitter = rng.normal(0, 0.02, 2)
        flat = (np.array([right, front]) + jitter) * half
        return np.array([*flat, middle[2] + scale * (up + rng.normal(0, 4))])

    def organ(where: NDArray[np.float64], radii: tuple[float, float, float], value: float) -> None:
        sizes = np.array(radii) * scale * rng.uniform(0.88, 1.12, 3)
        paint(image, ellipsoid(axes, where, sizes), value, softness=2.5)

    blood = rng.uniform(130, 190)
    organ(place(0.54, 0.10, 35), (42, 46, 48), rng.uniform(88, 118))  # liver
    organ(place(-0.66, -0.28, 30), (22, 26, 34), rng.uniform(98, 128))  # spleen
    for side in (1, -1):
        organ(place(0.42 * side, -0.46, -18), (17, 17, 34), rng.uniform(140, 190))  # kidneys
    stomach = place(-0.40, 0.42, 26)
    organ(stomach, (30, 20, 26), rng.uniform(10, 50))
    organ(stomach + scale * np.array([0, 9, 4]), (16, 7, 14), -900)  # gas rises to the front
    for _ in range(rng.integers(5, 9)):  # bowel, as bright as the organ or filled with gas
        where = place(rng.uniform(-0.6, 0.6), rng.uniform(0.1, 0.6), rng.uniform(-70, -28))
        organ(where, (14, 12, 12), -850 if rng.random() < 0.25 else rng.uniform(35, 95))
    rise = np.linspace(axes[2].min(), axes[2].max(), 30)
    for right, front, width, value in ((-0.06, -0.25, 8, blood), (0.12, -0.24, 9, 0.85 * blood)):  # aorta, vena cava
        line = np.stack([right * half[0] + 2 * np.sin(rise / 40), np.full(30, front * half[1]), rise], axis=1)
        paint(image, tube(axes, line, np.full(30, width * scale)), value, softness=2.0)
    line = np.stack([np.zeros(30), np.full(30, -0.52 * half[1]), rise], axis=1)
    bone = rng.uniform(250, 420)
    paint(image, tube(axes, line, np.full(30, 17 * scale)), bone + 200, softness=3.0)  # vertebrae: a hard shell
    paint(image, tube(axes, line, np.full(30, 14 * scale)), bone - 80, softness=3.0)
    for up in np.arange(axes[2].min(), axes[2].max(), 24.0):  # ribs
        for side in (1, -1):
            where = np.array([0.86 * side * half[0], rng.normal(-0.1, 0.1) * half[1], up])
            paint(image, ellipsoid(axes, where, np.array([4.0, 14.0, 5.0])), 500, softness=3.0)


def _organ(
    rng: np.random.Generator, axes: Axes, middle: NDArray[np.float64], scale: float, hard: bool
) -> tuple[Tube, NDArray[np.float64], NDArray[np.float64]]:
    """The organ, its centre line (K, 3) from the head at the right to the tail at the left, and its radii (K,).

    It arches forwards over the spine, and the tail rises. Head, body and tail have their own thickness.
    """
    odd = 1.6 if hard else 1.0  # unusual anatomy
    t = np.linspace(-1, 1, _POINTS)
    length = rng.uniform(88, 112) * scale
    arch, lift, sag = rng.normal(20, 5 * odd), rng.normal(16, 6 * odd), rng.normal(6, 4 * odd)
    line = np.stack(
        [-t * length / 2, scale * arch * (0.5 - t**2), scale * (lift * t - sag * np.cos(np.pi * t))], axis=1
    )
    line = line @ rotation(rng.normal(0, 0.10 * odd, 3)).T
    line += middle + np.clip(rng.normal(0, 4 * odd, 3), -12, 12) * scale
    thick = rng.uniform(8.5, 11.5) * scale
    radii = thick * (
        1 + 0.28 * np.exp(-(((t + 0.85) / 0.35) ** 2)) - 0.18 * np.exp(-(((t + 0.25) / 0.25) ** 2)) - 0.12 * t
    )
    shape = tube(axes, line, radii)
    lobes = np.float32(1.2) * smooth_field(rng, inside(axes, shape.box), 9.0)
    return replace(shape, distance=shape.distance + lobes), line, radii


def _tumour(
    rng: np.random.Generator, axes: Axes, points: NDArray[np.float64], radii: NDArray[np.float64], scale: float
) -> Shape:
    """A small ellipsoid whose centre lies within the organ, up to nearly its edge: about 1 ml."""
    index = int(rng.integers(2, _POINTS - 2))
    direction = rng.normal(0, 1, 3)
    away = rng.uniform(0, 0.75) * radii[index] * direction / np.linalg.norm(direction)
    sizes = rng.uniform(6.0, 9.5) * scale * rng.uniform(0.85, 1.15, 3)
    return ellipsoid(axes, points[index] + away, np.clip(sizes, 4.5, None))  # never lost on a 4 mm grid


def _paint_organ(rng: np.random.Generator, image: Floats, axes: Axes, organ: Shape, hard: bool) -> float:
    """Paint the organ, with lobules of fat and fine vessels, and return its own brightness in HU."""
    level = rng.uniform(62, 76) if hard else rng.uniform(76, 108)
    own = inside(axes, organ.box)
    value = level + np.float32(7) * smooth_field(rng, own, 8.0)
    value -= np.float32(rng.uniform(10, 40)) * np.clip(smooth_field(rng, own, 6.0) - 1, 0, 1)  # fat between the lobules
    value += np.float32(50) * np.clip(smooth_field(rng, own, 5.0) - 1.7, 0, 1)  # vessels
    paint(image, organ, value, softness=2.5)
    return float(level)
