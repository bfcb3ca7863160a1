"""A case's number is the same whole or piece by piece."""

import math

import numpy as np
import pytest
import torch

from svgd_monai.acquisition import reduce_map
from svgd_monai.acquisition.reduction import REDUCTION_NAMES, MapReduction, slabs


def volume(seed=0, shape=(9, 5, 7), dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator).to(dtype), torch.rand(shape, generator=generator) > 0.8


def reference(values, inside, how, top_fraction=0.05):
    flat, inside = values.double().numpy().ravel(), inside.numpy().ravel()
    if how == "foreground":
        return flat[inside].mean() if inside.any() else flat.mean()
    if how == "top":
        return np.sort(flat)[-max(1, round(top_fraction * flat.size)) :].mean()
    return flat.sum() if how == "sum" else flat.mean()


@pytest.mark.parametrize("voxels", [1, 40, 100, 10**6])
@pytest.mark.parametrize("how", REDUCTION_NAMES)
def test_the_pieces_give_the_number_of_the_whole(how, voxels):
    values, inside = volume()
    reduction = MapReduction(how, values.numel())
    for piece, foreground in zip(slabs(values[None], voxels), slabs(inside[None], voxels), strict=True):
        reduction.add(piece[0], foreground[0])
    assert reduction.value() == pytest.approx(reference(values, inside, how), rel=1e-6)
    assert float(reduce_map(values[None], inside[None], how)) == pytest.approx(reduction.value(), rel=1e-6)


@pytest.mark.parametrize("fraction", [1e-9, 0.01, 0.3, 1.0])
@pytest.mark.parametrize("order", ["rising", "falling", "random", "equal"])
def test_the_highest_voxels_are_found_in_any_order(order, fraction):
    values = torch.linspace(0, 1, 200)
    values = {
        "rising": values,
        "falling": values.flip(0),
        "random": values[torch.randperm(200, generator=torch.Generator().manual_seed(0))],
        "equal": torch.full((200,), 0.25),
    }[order]
    reduction = MapReduction("top", 200, fraction)
    for piece in values.split(17):
        reduction.add(piece)
    assert reduction.value() == pytest.approx(reference(values, values > 2, "top", fraction), rel=1e-6)


def test_all_voxels_stand_for_a_foreground_that_no_piece_holds():
    values, _ = volume()
    reduction = MapReduction("foreground", values.numel())
    for piece in values.split(2):
        reduction.add(piece, torch.zeros_like(piece, dtype=torch.bool))
    assert reduction.value() == pytest.approx(float(values.mean()))


def test_a_sum_over_many_voxels_is_exact():
    reduction = MapReduction("mean", 40_000_000)
    for _ in range(4):
        reduction.add(torch.full((10_000_000,), 0.1, dtype=torch.float16))
    assert reduction.value() == pytest.approx(float(torch.tensor(0.1, dtype=torch.float16)), rel=1e-12)


@pytest.mark.parametrize("shape", [(3, 9, 5, 7), (3, 9, 5), (1, 1, 1, 1), (5, 4, 1, 1)])
@pytest.mark.parametrize("voxels", [1, 36, 10**6])
def test_slabs_are_the_volume_as_views_and_no_larger_than_asked(shape, voxels):
    whole = torch.rand(shape)
    pieces = list(slabs(whole, voxels))
    assert torch.equal(torch.cat(pieces, 1), whole)
    assert all(piece.untyped_storage().data_ptr() == whole.untyped_storage().data_ptr() for piece in pieces)
    assert all(piece[0].numel() <= max(voxels, whole[0, 0].numel()) for piece in pieces)


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="'median'; known are mean, sum, foreground, top"):
        MapReduction("median", 3)
    with pytest.raises(ValueError, match="at least one voxel"):
        MapReduction("mean", 0)
    for fraction in (0, 1.5, math.nan):
        with pytest.raises(ValueError, match="top_fraction"):
            MapReduction("top", 3, fraction)
    with pytest.raises(ValueError, match="needs a predicted foreground"):
        MapReduction("foreground", 3).add(torch.rand(3))
    with pytest.raises(ValueError, match="need as many foregrounds"):
        reduce_map(torch.rand(2, 3), torch.ones(1, 3, dtype=torch.bool), "foreground")
