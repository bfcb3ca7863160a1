"""On a CPU a prediction's convolutions are oneDNN's, and the same as torch's."""

import pytest
import torch
from monai.networks.nets import BasicUNet, SegResNet, UNet
from torch.profiler import ProfilerActivity, profile

from svgd_monai.committee import CommitteeStatistics, Particles
from svgd_monai.committee.convolution import onednn_convolutions

CPU = torch.device("cpu")
needs_onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch without oneDNN")


def operators(function):
    with profile(activities=[ProfilerActivity.CPU]) as prof, torch.no_grad():
        function()
    return {event.key for event in prof.key_averages()}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"padding": 1},
        {"padding": (2, 1, 0), "stride": (1, 2, 3)},
        {"padding": "same", "dilation": 2},
        {"stride": 2, "padding": 1, "dilation": (1, 2, 1), "bias": False},
        {"groups": 2},
        {"padding": 1, "padding_mode": "replicate"},
        {"padding": (1,)},
    ],
)
@pytest.mark.parametrize("batch", [1, 3])
def test_a_convolution_is_torchs_up_to_rounding(options, batch):
    torch.manual_seed(0)
    convolution = torch.nn.Conv3d(2, 4, 3, **options)
    x = torch.randn(batch, 2, 9, 8, 7)
    expected = convolution.double()(x.double())
    with torch.no_grad(), onednn_convolutions(CPU):
        found = convolution.float()(x)
    torch.testing.assert_close(found, expected.detach().float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 9, 8, 7), (0, 2, 9, 8, 7)])
def test_unbatched_and_empty_input_go_as_before(shape):
    convolution = torch.nn.Conv3d(2, 4, 3)
    with torch.no_grad(), onednn_convolutions(CPU):
        found = convolution(torch.ones(shape))
    assert found.shape == (*shape[:-4], 4, 7, 6, 5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions_go_as_before(dtype):
    torch.manual_seed(0)
    convolution, x = torch.nn.Conv3d(2, 4, 3).to(dtype), torch.randn(1, 2, 9, 8, 7).to(dtype)
    with torch.no_grad():
        expected = convolution(x)
        with onednn_convolutions(CPU):
            found = convolution(x)
    assert torch.equal(found, expected)


def test_gradients_pass_through():
    torch.manual_seed(0)
    convolution, x = torch.nn.Conv3d(2, 4, 3), torch.randn(1, 2, 9, 8, 7)
    convolution(x).square().sum().backward()
    expected = convolution.weight.grad.clone()
    convolution.zero_grad()
    with onednn_convolutions(CPU):
        convolution(x).square().sum().backward()
    torch.testing.assert_close(convolution.weight.grad, expected, rtol=1e-4, atol=1e-4)


@needs_onednn
@pytest.mark.parametrize(
    "network",
    [
        lambda: BasicUNet(3, 1, 3, features=(4, 4, 4, 4, 4, 4)),
        lambda: UNet(3, 1, 3, channels=(4, 8), strides=(2,), norm="instance"),
        lambda: SegResNet(init_filters=8, out_channels=3),
    ],
)
def test_a_committees_prediction_of_one_volume_takes_no_slow_path(network):
    torch.manual_seed(0)
    particles = Particles(network, 2).eval()
    x = torch.randn(1, 1, 32, 16, 16)
    plain = operators(lambda: [list(particles.members(x))])
    assert "aten::slow_conv3d_forward" in plain  # else this test would say nothing
    statistics = CommitteeStatistics(particles)
    assert not any("slow_conv3d" in name for name in operators(lambda: statistics(x)))


@needs_onednn
def test_a_switch_of_the_user_is_heeded():
    convolution, x = torch.nn.Conv3d(1, 2, 3), torch.randn(1, 1, 6, 6, 6)

    def run():
        with torch.backends.mkldnn.flags(enabled=False), onednn_convolutions(CPU):
            convolution(x)

    assert "aten::mkldnn_convolution" not in operators(run)


def test_outside_nothing_changes():
    convolution, x = torch.nn.Conv3d(1, 2, 3), torch.randn(1, 1, 6, 6, 6)
    with onednn_convolutions(CPU):
        pass
    assert "aten::slow_conv3d_forward" in operators(lambda: convolution(x))
