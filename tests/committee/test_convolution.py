"""On a CPU convolutions are oneDNN's, narrow ones channels last, and the same as torch's."""

import copy

import pytest
import torch
from monai.networks.nets import BasicUNet, SegResNet, UNet
from torch.profiler import ProfilerActivity, profile

from svgd_monai.committee import CommitteeStatistics, Particles
from svgd_monai.committee.convolution import cpu_convolutions

CPU = torch.device("cpu")
needs_onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch without oneDNN")


def operators(function):
    """Names of the operators that run; convolutions by 1 x 1 x 1 kernels, which are torch's choice, are left out."""
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as prof, torch.no_grad():
        function()
    events = prof.key_averages(group_by_input_shape=True)
    return {event.key for event in events if event.input_shapes[1:2] == [] or event.input_shapes[1][2:] != [1, 1, 1]}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"padding": 1},
        {"padding": (2, 1, 0), "stride": (1, 2, 3)},
        {"padding": "same", "dilation": 2, "groups": 2},
        {"padding": "valid", "stride": 2},
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
    with torch.no_grad(), cpu_convolutions(CPU):
        found = convolution.float()(x)
    torch.testing.assert_close(found, expected.detach().float(), rtol=1e-5, atol=1e-5)


def test_a_call_of_the_function_has_torchs_defaults():
    x, weight = torch.randn(2, 3, 6, 6, 6), torch.randn(4, 3, 3, 3, 3)
    with cpu_convolutions(CPU):
        found = torch.nn.functional.conv3d(x, weight)
    torch.testing.assert_close(found, torch.nn.functional.conv3d(x, weight), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 9, 8, 7), (0, 2, 9, 8, 7)])
def test_unbatched_and_empty_input_go_as_before(shape):
    convolution = torch.nn.Conv3d(2, 4, 3)
    with torch.no_grad(), cpu_convolutions(CPU):
        found = convolution(torch.ones(shape))
    assert found.shape == (*shape[:-4], 4, 7, 6, 5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions_go_as_before(dtype):
    torch.manual_seed(0)
    convolution, x = torch.nn.Conv3d(2, 4, 3).to(dtype), torch.randn(1, 2, 9, 8, 7).to(dtype)
    with torch.no_grad():
        expected = convolution(x)
        with cpu_convolutions(CPU):
            found = convolution(x)
    assert torch.equal(found, expected)


def test_autocast_goes_as_before():
    convolution, x = torch.nn.Conv3d(2, 4, 3), torch.randn(1, 2, 9, 8, 7)
    with torch.autocast("cpu", torch.bfloat16), cpu_convolutions(CPU):
        assert convolution(x).dtype == torch.bfloat16


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("channels", [(2, 4), (8, 8), (3, 24)])
def test_gradients_are_those_of_double_precision(batch, channels):
    torch.manual_seed(0)
    convolution, x = torch.nn.Conv3d(*channels, 3), torch.randn(batch, channels[0], 9, 8, 7, requires_grad=True)

    def gradients(convolution, x):
        return torch.autograd.grad(convolution(x).square().sum(), [x, *convolution.parameters()])

    expected = gradients(copy.deepcopy(convolution).double(), x.double())
    with cpu_convolutions(CPU):
        found = gradients(convolution, x)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other.float(), rtol=1e-4, atol=1e-3)


@needs_onednn
@pytest.mark.parametrize(
    ("channels", "kernel", "last"),
    [((8, 16), 3, True), ((8, 17), 3, False), ((1, 8), 3, False), ((8, 8), 1, False)],
)
def test_narrow_convolutions_run_channels_last(channels, kernel, last):
    x = torch.randn(2, channels[0], 9, 8, 7)
    with cpu_convolutions(CPU):
        found = torch.nn.Conv3d(*channels, kernel)(x)
    assert found.is_contiguous(memory_format=torch.channels_last_3d) is last


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
        with torch.backends.mkldnn.flags(enabled=False), cpu_convolutions(CPU):
            convolution(x)

    assert "aten::mkldnn_convolution" not in operators(run)


def test_outside_on_other_devices_and_without_onednn_nothing_changes(monkeypatch):
    convolution, x = torch.nn.Conv3d(1, 2, 3), torch.randn(1, 1, 6, 6, 6)

    def run():
        with cpu_convolutions(CPU):
            pass
        convolution(x)
        with cpu_convolutions(torch.device("cuda")):
            convolution(x)
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
        with cpu_convolutions(CPU):
            convolution(x)

    assert "aten::slow_conv3d_forward" in (found := operators(run))
    assert "aten::mkldnn_convolution" not in found
