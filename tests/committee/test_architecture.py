"""What a network that cannot make a committee is refused with."""

import pytest
from monai.networks.nets import DynUNet, UNet

from svgd_monai.committee import Particles
from svgd_monai.errors import SettingsError

WINDOW = (1, 16, 16, 16)


def refusal(network, num_classes, window=WINDOW):
    with pytest.raises(SettingsError) as caught:
        Particles(network, 2, window=window, num_classes=num_classes)
    return str(caught.value)


@pytest.mark.parametrize("classes", [2, 3])
def test_deep_supervision_is_no_matter_of_the_windows_sides(classes):
    """Its second axis is that of the heads, which may be as many as the classes."""

    def network():
        shape = {"kernel_size": [3] * 4, "strides": [1, 2, 2, 2], "upsample_kernel_size": [2] * 3}
        heads = {"deep_supervision": True, "deep_supr_num": 1}
        return DynUNet(3, 1, classes, **shape, filters=[2, 2, 2, 2], **heads)

    assert refusal(network, classes) == (
        f"architecture: DynUNet must give logits of the shape (1, {classes}, 16, 16, 16), "
        f"but gives (1, 2, {classes}, 16, 16, 16)."
    )


def test_sides_that_the_halvings_do_not_divide_are_told_of():
    sentence = refusal(lambda: UNet(3, 1, 2, [2, 2], [2], norm="instance"), 2, (1, 15, 15, 15))
    assert sentence.endswith("but gives (1, 2, 16, 16, 16); choose a roi_size whose sides its halvings divide.")
