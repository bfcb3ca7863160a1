"""The tumour of the CT phantom is learnt where its absence from most windows is left out of the loss."""

import pytest
from benchmarks.absent_classes import fit, volumes

from svgd_monai.data import make_phantom

#: Networks are trained until they learn or do not, for a minute or more each.
pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    return volumes(make_phantom(tmp_path_factory.mktemp("data") / "ct", "ct", 3))


@pytest.mark.parametrize("crop", ["random", "foreground"])
def test_leaving_absent_classes_out_learns_the_tumour_where_plain_smoothing_does_not(cases, crop):
    skip, smooth = (fit(cases, loss, crop)["dice_tumour"] for loss in ("skip", "smooth"))
    assert skip > 0.4
    assert smooth < skip - 0.3


def test_of_windows_drawn_at_random_plain_smoothing_learns_no_tumour_at_all(cases):
    skip, smooth = (fit(cases, loss, "random", steps=400) for loss in ("skip", "smooth"))
    assert skip["windows_with_tumour"] == smooth["windows_with_tumour"] < 0.2
    assert smooth["dice_tumour"] == 0
    assert skip["dice_tumour"] > 0.15
