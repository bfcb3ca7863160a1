"""Mutual information of images of several channels: each channel is compared with its counterpart."""

import numpy as np
import pytest
import torch
from sklearn.metrics import mutual_info_score

from svgd_monai.acquisition import PoolInformation, pairwise_mutual_information
from svgd_monai.acquisition.content import on_grid
from svgd_monai.errors import SettingsError

CASES = ["a", "b", "c"]


class Images:
    """A data set of preprocessed images."""

    def __init__(self, images):
        self.data = [{"case": case, "image": case, "fingerprint": f"hash {case}"} for case in CASES]
        self.images = images

    def __getitem__(self, index):
        return {"image": self.images[index]}


def made(seed=0):
    """(3, 2, 6, 7, 5): the first channel dark, the second bright, which is all that the images share."""
    values = torch.rand(3, 2, 6, 7, 5, generator=torch.Generator().manual_seed(seed)) * 0.4
    values[:, 1] += 0.6
    return values


def pairs(images, path, **options):
    return PoolInformation(Images(images), path, grid=None, bins=8, **options).pairs(CASES, CASES)


def reference(a, b):
    digits = [np.minimum(np.floor(image.double().numpy() * 8), 7).ravel() for image in (a, b)]
    return mutual_info_score(*digits)


def test_it_is_the_mean_over_the_channels(tmp_path):
    images = made()
    found = pairs(images, tmp_path / "pairs.npz", channels=2)
    for i, a in enumerate(images):
        for j, b in enumerate(images):
            assert float(found[i, j]) == pytest.approx((reference(a[0], b[0]) + reference(a[1], b[1])) / 2, abs=1e-12)


def test_that_all_images_are_darker_in_one_channel_is_no_information(tmp_path):
    images = made()
    shared = pairs(images, tmp_path / "pairs.npz", channels=2)[0, 1]
    assert reference(images[0], images[1]) > 0.6  # of one histogram: log 2 for knowing the channel
    assert shared < 0.1


def test_a_channel_that_is_constant_in_one_of_the_two_is_left_out(tmp_path):
    images = made()
    images[0, 0] = 0.3
    images[2, 0] = images[2, 1] = 0.3
    found = pairs(images, tmp_path / "pairs.npz", channels=2)
    assert float(found[0, 1]) == pytest.approx(reference(images[0, 1], images[1, 1]), abs=1e-12)
    assert found.isnan().tolist() == [[False, False, True], [False, False, True], [True, True, True]]


def bodies():
    """(3, 2, 16, 18, 14): in air of 0 noise, in each channel at another place."""
    images = torch.zeros(3, 2, 16, 18, 14)
    noise = 0.2 + 0.8 * torch.rand(3, 2, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    for place, (image, values) in enumerate(zip(images, noise, strict=True)):
        image[0, 1:9, 2:10, 3:11], image[1, 5 + place : 13 + place, 6:14, 3:11] = values
    return images


def test_the_channels_of_an_image_have_one_frame(tmp_path):
    """One voxel of all channels goes to one place of the grid."""
    images, grid = bodies(), (10, 10, 10)
    pool = PoolInformation(Images(images), tmp_path / "pairs.npz", grid, 8, content="foreground", channels=2)
    framed = torch.stack([on_grid(image, grid, "foreground") for image in images])
    expected = [pairwise_mutual_information(framed[:, channel], framed[:, channel], 8) for channel in range(2)]
    torch.testing.assert_close(pool.pairs(CASES, CASES), torch.stack(expected).mean(0))


def test_a_channel_with_little_in_a_large_body_is_left_out(tmp_path):
    """The body is that of all channels, and in most of it this one is empty."""
    images = bodies()
    images[:, 1] = 0
    images[:, 1, 4, 5, 6], images[:, 1, 5, 5, 6] = 0.5, 0.9  # of a lesion
    options = {"grid": (10, 10, 10), "content": "foreground"}
    both = PoolInformation(Images(images), tmp_path / "both.npz", **options, channels=2)
    first = PoolInformation(Images(images[:, :1]), tmp_path / "first.npz", **options)
    assert torch.equal(both.pairs(CASES, CASES), first.pairs(CASES, CASES))


def test_what_was_computed_is_read_back(tmp_path):
    images = made()
    first = pairs(images, tmp_path / "pairs.npz", channels=2)
    pool = PoolInformation(Images(None), tmp_path / "pairs.npz", grid=None, bins=8, channels=2)
    assert torch.equal(pool.pairs(CASES, CASES), first)


def test_other_channels_than_the_task_has_are_refused(tmp_path):
    with pytest.raises(SettingsError, match=r"^in_channels: 1, but an image of the pool has 2 channels\.$"):
        pairs(made(), tmp_path / "pairs.npz")
