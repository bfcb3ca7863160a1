"""The mutual information of a CT pool is that of the bodies: padding, spacing and field of view do not drive it."""

import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.transforms import ScaleIntensityRanged
from scipy import ndimage
from scipy.stats import spearmanr

from svgd_monai.acquisition import PoolInformation, pairwise_mutual_information
from svgd_monai.acquisition.content import foreground_frame, on_grid
from svgd_monai.data import VolumeDataset, make_phantom, preprocessing, read_dataset
from svgd_monai.errors import SettingsError

CASES = 12
GRID = (32, 32, 24)
PAIRS = np.triu_indices(CASES, 1)
AIR, WATER = -1000, 0  # HU


# the frame of an image


def body(shape=(20, 24, 18), low=(5, 6, 4), high=(15, 18, 14), channels=1):
    """A box of noise in air that is exactly 0."""
    image = torch.zeros(channels, *shape)
    inside = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    size = tuple(b - a for a, b in zip(low, high, strict=True))
    image[(slice(None), *inside)] = 0.2 + 0.8 * torch.rand(channels, *size, generator=torch.Generator().manual_seed(0))
    return image


def test_a_frame_holds_nine_tenths_of_the_foreground_along_each_axis():
    # The foreground of the first axis lies between the faces 4.5 and 14.5.
    expected = [(5.0, 14.0), (5.5 + 0.6, 17.5 - 0.6), (3.5 + 0.5, 13.5 - 0.5)]
    np.testing.assert_allclose(foreground_frame(body()), expected, atol=1e-6)


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("margins", [((0, 7), (3, 0), (0, 0)), ((4, 4), (9, 1), (2, 6))])
def test_padding_moves_a_frame_and_changes_nothing_on_the_grid(margins, value):
    image = body()
    padded = torch.as_tensor(np.pad(image, ((0, 0), *margins), constant_values=value))
    before, _ = np.transpose(margins)
    moved = np.array(foreground_frame(image)) + before[:, None]
    np.testing.assert_allclose(foreground_frame(padded), moved, atol=1e-6)
    torch.testing.assert_close(
        on_grid(padded, GRID, "foreground"), on_grid(image, GRID, "foreground"), atol=1e-4, rtol=0
    )
    assert not torch.allclose(on_grid(padded, GRID), on_grid(image, GRID), atol=0.05)


def test_what_lies_apart_is_not_the_body():
    image = body()
    image[:, :, 1:3] = 0.7  # a table as wide as the volume
    assert foreground_frame(image) == foreground_frame(body())


def test_any_channel_may_hold_the_foreground():
    image = torch.zeros(2, 20, 24, 18)
    image[0], image[1] = body(high=(10, 18, 14))[0], body(low=(10, 6, 4))[0]
    np.testing.assert_allclose(foreground_frame(image), foreground_frame(body()), atol=1e-6)


def test_an_image_without_air_is_nearly_all_foreground():
    image = torch.rand(1, 30, 30, 30, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(foreground_frame(image), [(1.0, 28.0)] * 3, atol=0.01)


def test_the_frame_of_a_speckled_image_takes_little_memory():
    """Its parts are nearly as many as its voxels: a count of each layer beside the others' would be thousands of MB."""
    image = (torch.rand(1, 256, 100, 100, generator=torch.Generator().manual_seed(0)) < 0.1).float()
    tracemalloc.start()
    foreground_frame(image)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * image.numel()


@pytest.mark.parametrize("shape", [(4, 5, 6), (1, 1, 1), (8, 8, 2)])
def test_a_constant_image_is_its_own_frame(shape):
    image = torch.full((1, *shape), 0.4)
    assert foreground_frame(image) == tuple((0.0, side - 1.0) for side in shape)
    torch.testing.assert_close(on_grid(image, (3, 3, 3), "foreground"), torch.full((1, 3, 3, 3), 0.4))


@pytest.mark.parametrize("shape", [(9, 7, 1), (9, 7, 2)])
def test_a_thin_volume_has_a_frame(shape):
    image = torch.rand(1, *shape, generator=torch.Generator().manual_seed(0))
    found = on_grid(image, (4, 4, 4), "foreground")
    assert found.isfinite().all()
    assert found.min() >= image.min()
    assert found.max() <= image.max()


def test_the_grid_of_a_frame_is_the_image_at_its_places():
    x, y, z = torch.meshgrid(torch.arange(20.0), torch.arange(24.0), torch.arange(18.0), indexing="ij")
    image = body() * 0
    inside = body() > 0
    for axis, places in enumerate((x, y, z)):
        image = torch.where(inside, places[None] + 1, 0.0)
        low, high = foreground_frame(image)[axis]
        found = on_grid(image, (5, 6, 7), "foreground")[0].movedim(axis, 0)
        expected = torch.linspace(low, high, len(found)) + 1
        torch.testing.assert_close(found[:, 2, 2], expected, atol=1e-4, rtol=0)


# a pool of CT phantoms


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    return list(read_dataset(make_phantom(tmp_path_factory.mktemp("ct") / "ct", "ct", CASES)).items.values())


@pytest.fixture(scope="module")
def information(tmp_path_factory):
    """(items, ...) -> (pairs,) mutual information and the volumes' shapes."""

    def compute(items, content, grid=GRID, pad_to=None):
        window = ScaleIntensityRanged("image", -87, 199, 0, 1, clip=True)
        images = [{"case": item["case"], "image": item["image"]} for item in items]
        dataset = VolumeDataset(images, preprocessing(window, (4.0, 4.0, 4.0), pad_to), None)
        store = tmp_path_factory.mktemp("store") / "pairs.npz"
        cases = [item["case"] for item in items]
        values = PoolInformation(dataset, store, grid, content=content).pairs(cases, cases)
        return values.numpy()[PAIRS], [tuple(dataset[place]["image"].shape[1:]) for place in range(len(items))]

    return compute


@pytest.fixture(scope="module")
def as_it_is(phantom, information):
    return {content: information(phantom, content)[0] for content in ("volume", "foreground")}


@pytest.fixture
def rewritten(phantom, tmp_path):
    """Change -> the phantom's items with (values, affine) changed in their files."""

    def write(change):
        items = []
        for place, item in enumerate(phantom):
            image = nib.load(item["image"])
            values, affine = change(place, np.asarray(image.dataobj), image.affine)
            path = tmp_path / Path(item["image"]).name
            nib.save(nib.Nifti1Image(values, affine), path)
            items.append({"case": item["case"], "image": str(path)})
        return items

    return write


def padded(value, axes=(0, 1, 2), seed=0):
    """A margin of 0 to 25 voxels, some 50 mm, at each face, different for every case."""

    def change(place, values, affine):
        margins = np.random.default_rng([seed, place]).integers(0, 26, (3, 2))
        margins[[axis for axis in range(3) if axis not in axes]] = 0
        moved = affine.copy()
        moved[:3, 3] -= affine[:3, :3] @ margins[:, 0]
        return np.pad(values, margins, constant_values=value), moved

    return change


def on_a_table(place, values, affine):
    """A wider field of view, and in it a table of 150 HU some way behind the back."""
    values, affine = padded(AIR, axes=(0,))(place, values, affine)
    behind = 15
    margins = [(0, 0), (0, behind) if affine[1, 1] < 0 else (behind, 0), (0, 0)]
    moved = affine.copy()
    moved[:3, 3] -= affine[:3, :3] @ [first for first, _ in margins]
    values = np.pad(values, margins, constant_values=AIR)
    values[:, slice(-4, -2) if affine[1, 1] < 0 else slice(2, 4)] = 150
    return values, moved


def with_voxels(spacing):
    """The same content in other voxels."""

    def change(_place, values, affine):
        factors = np.array(spacing) / np.linalg.norm(affine[:3, :3], axis=0)
        shape = np.floor((np.array(values.shape) - 1) / factors).astype(int) + 1
        resampled = ndimage.affine_transform(values.astype(np.float32), factors, output_shape=tuple(shape), order=1)
        other = affine.copy()
        other[:3, :3] = affine[:3, :3] @ np.diag(factors)
        return resampled.astype(np.int16), other

    return change


def rank_correlation(a, b):
    return float(spearmanr(a, b)[0])


@pytest.mark.parametrize(
    ("change", "at_least"),
    [
        (padded(AIR), 0.95),
        (padded(AIR, axes=(0, 1)), 0.95),
        (on_a_table, 0.95),
        (padded(WATER), 0.7),  # where it meets the air, resampling leaves a shell that is neither
    ],
    ids=["wider view", "wider view in plane", "table", "padded with zeros"],
)
def test_what_surrounds_a_body_does_not_rank_the_pairs_of_a_pool(rewritten, information, as_it_is, change, at_least):
    """Margins are random, so a ranking that they drove would not be that of the images without them."""
    items = rewritten(change)
    foreground, shapes = information(items, "foreground")
    volume, _ = information(items, "volume")
    assert len(set(shapes)) == CASES
    assert rank_correlation(foreground, as_it_is["foreground"]) > at_least
    assert rank_correlation(volume, as_it_is["volume"]) < 0.7  # why the foreground is compared


@pytest.mark.parametrize("spacing", [(3.0, 3.0, 3.0), (1.0, 1.0, 5.0)])
def test_the_voxels_of_a_file_do_not_change_the_information(rewritten, information, as_it_is, spacing):
    foreground, _ = information(rewritten(with_voxels(spacing)), "foreground")
    assert rank_correlation(foreground, as_it_is["foreground"]) > 0.95
    np.testing.assert_allclose(foreground, as_it_is["foreground"], rtol=0.15)


def padding_masks(shapes, size):
    """Where each volume lies when it is padded to ``size``."""
    masks = torch.zeros(len(shapes), *size)
    for mask, shape in zip(masks, shapes, strict=True):
        mask[tuple(slice((s - v) // 2, (s - v) // 2 + v) for s, v in zip(size, shape, strict=True))] = 1
    return masks


def test_padding_by_the_preprocessing_is_not_seen_where_the_content_is_compared(phantom, information, as_it_is):
    size = (80, 80, 88)
    _, shapes = information(phantom, "volume")
    masks = padding_masks(shapes, size)
    by_masks = pairwise_mutual_information(masks, masks).numpy()[PAIRS]
    paper, _ = information(phantom, "volume", grid=None, pad_to=size)
    foreground, _ = information(phantom, "foreground", pad_to=size)
    np.testing.assert_allclose(foreground, as_it_is["foreground"], rtol=1e-3)
    assert rank_correlation(paper, by_masks) > 0.7
    assert abs(rank_correlation(foreground, by_masks)) < 0.35


@pytest.mark.parametrize("content", ["volume", "foreground"])
def test_the_size_of_a_view_does_not_rank_the_pairs(phantom, information, as_it_is, content):
    _, shapes = information(phantom, content)
    sizes = np.log(np.array(shapes, dtype=float))
    first, second = PAIRS
    in_extent = np.abs(sizes[first] - sizes[second]).sum(1)
    in_voxels = np.abs(sizes[first].sum(1) - sizes[second].sum(1))
    assert abs(rank_correlation(as_it_is[content], in_extent)) < 0.35
    assert abs(rank_correlation(as_it_is[content], in_voxels)) < 0.35


class Images:
    """A data set of three small images."""

    data = tuple({"case": case, "image": case, "fingerprint": case} for case in "abc")

    def __getitem__(self, index):
        return {"image": body(low=(3 + index, 6, 4))}


def test_a_store_of_one_content_is_not_read_for_another(tmp_path):
    values = {}
    for content in ("volume", "foreground", "volume"):
        pool = PoolInformation(Images(), tmp_path / "pairs.npz", GRID, content=content)
        values[content] = pool.pairs(["a"], ["b", "c"])
        assert pool.store.computed == 2 + 3
    again = PoolInformation(Images(), tmp_path / "pairs.npz", GRID, content="volume")
    assert torch.equal(again.pairs(["a"], ["b", "c"]), values["volume"])
    assert again.store.computed == 0
    assert not torch.equal(values["volume"], values["foreground"])


@pytest.mark.parametrize(
    ("grid", "content", "sentence"),
    [
        (GRID, "body", "mi_content must be one of volume, foreground, got 'body'."),
        (None, "foreground", "mi_content: foreground needs a grid, and mi_grid is null."),
    ],
)
def test_a_content_that_makes_no_sense_is_refused(tmp_path, grid, content, sentence):
    with pytest.raises(SettingsError, match=f"^{sentence}$"):
        PoolInformation(Images(), tmp_path / "pairs.npz", grid, content=content)
