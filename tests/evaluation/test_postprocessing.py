"""The uncertainty map of a prediction, with all that a committee's evaluator knows or with the mean alone."""

import pytest
import torch
from monai.data import MetaTensor

from svgd_monai.acquisition import UNCERTAINTY_NAMES, bald, entropy, jensen_shannon, variance
from svgd_monai.errors import SettingsError
from svgd_monai.evaluation import UncertaintyMapd
from svgd_monai.statistics import summarise

MAPS = {"entropy": entropy, "bald": bald, "variance": variance, "jensen_shannon": jensen_shannon}
AFFINE = torch.diag(torch.tensor([2.0, 3.0, 4.0, 1.0], dtype=torch.float64))


def members(number=3):
    return (2 * torch.randn(number, 1, 3, 4, 5, 6, generator=torch.Generator().manual_seed(0))).softmax(2)


def data(with_statistics=True):
    """An item as post-processing sees it."""
    statistics = MetaTensor(summarise(members())[0], affine=AFFINE)
    item = {"image": torch.zeros(1, 4, 5, 6), "pred": statistics[:3]}
    return item | ({"statistics": statistics} if with_statistics else {})


@pytest.mark.parametrize("name", UNCERTAINTY_NAMES)
def test_the_map_is_that_of_the_members(name):
    given = data()
    result = UncertaintyMapd(name)(given)
    assert set(result) == {"image", "pred", "uncertainty"}
    assert set(given) == {"image", "pred", "statistics"}
    assert result["uncertainty"].shape == (1, 4, 5, 6)
    torch.testing.assert_close(result["uncertainty"].as_tensor(), MAPS[name](members()), atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(result["uncertainty"].affine, AFFINE)


def test_entropy_follows_from_the_mean_probability_alone():
    known = UncertaintyMapd("entropy")(data())["uncertainty"]
    result = UncertaintyMapd("entropy")(data(with_statistics=False))
    assert set(result) == {"image", "pred", "uncertainty"}
    torch.testing.assert_close(result["uncertainty"].as_tensor(), known.as_tensor())
    torch.testing.assert_close(result["uncertainty"].affine, AFFINE)


def test_a_mean_that_blending_made_negative_has_a_finite_entropy():
    mean = torch.tensor([1.0 + 1e-7, -1e-7]).reshape(2, 1, 1, 1)
    assert float(UncertaintyMapd()({"pred": mean})["uncertainty"]) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", ["bald", "variance", "jensen_shannon"])
def test_what_does_not_follow_from_the_mean_alone_is_left_out(name):
    assert set(UncertaintyMapd(name)(data(with_statistics=False))) == {"image", "pred"}


def test_an_unknown_map_is_refused_by_the_name_of_its_key():
    with pytest.raises(SettingsError, match="uncertainty_map: 'doubt' is not one of entropy, bald"):
        UncertaintyMapd("doubt")
