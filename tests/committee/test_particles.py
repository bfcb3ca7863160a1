"""A committee as one parameter equals as many plain networks, and survives what is done to modules."""

import copy
import pickle
from functools import partial

import pytest
import torch
from ignite.engine import Engine
from monai.handlers import CheckpointLoader
from monai.networks.nets import BasicUNet
from torch import nn

from svgd_monai.committee import CommitteeMean, Particles
from svgd_monai.errors import SettingsError


class Small(nn.Module):
    """A 2D network with a normalisation, a dropout and two parameters of one shape."""

    def __init__(self, dropout=0.0):
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.InstanceNorm2d(4, affine=True)
        self.dropout = nn.Dropout(dropout)
        self.second = nn.Conv2d(4, 2, 1)

    def forward(self, x):
        return self.second(self.dropout(torch.relu(self.norm(self.first(x)))))


class Scaled(nn.Module):
    """A network with a parameter that nothing resets."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.scale = nn.Parameter(torch.randn(3))

    def forward(self, x):
        return self.layer(x) * self.scale[0]


def image(seed=0, batch=2):
    return torch.randn(batch, 1, 6, 5, generator=torch.Generator().manual_seed(seed))


def flat(network):
    return torch.cat([p.detach().reshape(-1) for p in network.parameters()])


@pytest.mark.parametrize("source", [Small(), Small], ids=["network", "callable"])
def test_a_member_depends_on_its_number_and_the_seed_but_not_on_the_number_of_members(source):
    two, five = Particles(source, 2, seed=3), Particles(source, 5, seed=3)
    assert torch.equal(two.values, five.values[:2])
    assert len({tuple(row) for row in five.values.tolist()}) == 5
    assert not torch.equal(two.values, Particles(source, 2, seed=4).values)


def test_the_given_networks_own_weights_do_not_matter():
    template, other = Small(), Small()
    with torch.no_grad():
        other.first.weight.fill_(7)
    assert torch.equal(Particles(template, 2, seed=1).values, Particles(other, 2, seed=1).values)
    assert (other.first.weight == 7).all()  # and stay as they are


def test_members_are_initialised_as_torch_initialises_a_fresh_network():
    from_callable, from_network = Particles(Small, 3, seed=5), Particles(Small(), 3, seed=5)
    torch.testing.assert_close(from_network.values, from_callable.values, rtol=0, atol=0)


def test_construction_leaves_the_global_random_stream_alone():
    torch.manual_seed(11)
    expected = torch.rand(3)
    for source in (Small(), Small):
        torch.manual_seed(11)
        Particles(source, 3, seed=0)
        assert torch.equal(torch.rand(3), expected)


def test_forward_equals_the_plain_networks():
    particles = Particles(Small(), 3)
    logits = particles(image())
    assert logits.shape == (3, 2, 2, 6, 5)
    for index, expected in enumerate(logits):
        network = particles.network(index)
        assert isinstance(network, Small)
        assert torch.equal(flat(network), particles.values[index])
        torch.testing.assert_close(network(image()), expected)


def test_a_monai_network_serves_as_it_is():
    def make():
        return BasicUNet(spatial_dims=2, in_channels=1, out_channels=3, features=(2, 2, 2, 2, 2, 2))

    particles = Particles(make, 2)
    x = torch.randn(1, 1, 32, 32)
    logits = particles(x)
    assert logits.shape == (2, 1, 3, 32, 32)
    torch.testing.assert_close(particles.network(1)(x), logits[1])


def test_an_exported_network_is_a_copy():
    particles = Particles(Small(), 2)
    before = particles.values.detach().clone()
    with torch.no_grad():
        particles.network(0).first.weight.zero_()
    assert torch.equal(particles.values, before)


def test_forward_is_differentiable_in_the_values():
    particles = Particles(Small(), 2)
    weight = torch.randn(2, 2, 2, 6, 5)
    (particles(image()) * weight).sum().backward()
    for index in range(2):
        network = particles.network(index)
        (network(image()) * weight[index]).sum().backward()
        expected = torch.cat([p.grad.reshape(-1) for p in network.parameters()])
        torch.testing.assert_close(particles.values.grad[index], expected)


def test_a_members_gradient_lands_in_place_in_its_own_row():
    particles = Particles(Small(), 3)
    particles(image()).square().sum().backward()
    expected = particles.values.grad.clone()
    particles.values.grad = None
    particles.zero_grad()
    memory = particles.values.grad.data_ptr()
    particles.member(1, image()).square().sum().backward()
    assert particles.values.grad.data_ptr() == memory
    torch.testing.assert_close(particles.values.grad[1], expected[1])
    assert particles.values.grad[[0, 2]].abs().max() == 0
    particles.member(1, image()).square().sum().backward()  # gradients add up, as anywhere in torch
    torch.testing.assert_close(particles.values.grad[1], 2 * expected[1])


def test_a_member_follows_an_optimisers_step_in_place():
    particles = Particles(Small(), 2)
    optimizer = torch.optim.SGD([particles.values], lr=0.1)
    particles.zero_grad()
    particles.member(0, image()).square().sum().backward()
    optimizer.step()
    torch.testing.assert_close(particles.member(0, image()), particles.network(0)(image()))


def test_zero_grad_keeps_the_memory_unless_told_otherwise():
    particles = Particles(Small(), 2)
    particles.zero_grad()
    particles.values.grad.fill_(3)
    memory = particles.values.grad.data_ptr()
    particles.zero_grad()
    assert particles.values.grad.data_ptr() == memory
    assert particles.values.grad.abs().max() == 0
    particles.zero_grad(set_to_none=True)
    assert particles.values.grad is None


def test_a_member_without_a_place_for_its_gradient_says_what_to_do():
    with pytest.raises(RuntimeError, match=r"zero_grad\(\)"):
        Particles(Small(), 2).member(0, image())


def test_members_come_one_after_the_other():
    particles = Particles(Small(), 3)
    members = particles.members(image())
    torch.testing.assert_close(next(members), particles(image())[0])
    assert len(list(members)) == 2


def refusal(*arguments):
    with pytest.raises(SettingsError) as caught:
        Particles(*arguments)
    sentence = str(caught.value)
    assert sentence.endswith(".")
    assert len(sentence.splitlines()) == 1
    return sentence


def test_a_network_with_buffers_of_another_kind_is_told_of_no_norm():
    network = nn.Linear(2, 2)
    network.register_buffer("relative_position_index", torch.arange(4))
    with pytest.raises(SettingsError, match=r"\(relative_position_index\), .* hold; use a network without them\."):
        Particles(lambda: network, 2)


def test_a_network_with_buffers_is_refused():
    sentence = refusal(nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)), 2)
    assert "buffers (1.running_mean)" in sentence


def frozen():
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Conv2d(2, 2, 1))
    network[1].weight.requires_grad_(False)
    return network


def tied():
    network = nn.Sequential(nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1))
    network[1].weight = network[0].weight
    return network


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (frozen, "frozen parameters (1.weight)"),
        (tied, "tied parameters (1.weight is 0.weight)"),
        (lambda: nn.Sequential(nn.LazyConv2d(2, 1)), "lazy parameters (0.weight)"),
    ],
    ids=["frozen", "tied", "lazy"],
)
def test_parameters_that_particles_cannot_hold_are_refused(make, words):
    assert words in refusal(make, 2)


def test_a_layer_with_two_names_is_taken():
    layer = nn.Conv2d(2, 2, 1)
    assert len(Particles(lambda: nn.Sequential(layer, nn.ReLU(), layer), 2).layout) == 2


def test_a_network_without_parameters_is_refused():
    assert "no parameters" in refusal(nn.ReLU(), 2)


def test_a_parameter_that_nothing_initialises_is_refused_but_a_callable_is_taken():
    assert "(scale)" in refusal(Scaled(), 2)
    particles = Particles(Scaled, 2)
    assert not torch.equal(particles.unflatten(particles.values[0])["scale"], torch.zeros(3))
    assert not torch.equal(particles.values[0], particles.values[1])


def test_arguments_that_do_not_fit_are_a_setting_and_an_error_within_is_the_architectures_own():
    def wrong_within():
        return nn.Conv2d(3)

    with pytest.raises(SettingsError, match=r"^architecture: .*'depth'"):
        Particles(partial(Small, depth=3), 2)
    with pytest.raises(TypeError, match="Conv2d"):
        Particles(wrong_within, 2)


@pytest.mark.parametrize("count", [0, -1])
def test_a_committee_of_nobody_is_refused(count):
    assert "num_particles" in refusal(Small(), count)


def test_the_state_is_the_values_and_nothing_else():
    particles = Particles(Small(), 2)
    assert list(particles.state_dict()) == ["values"]
    assert [name for name, _ in particles.named_parameters()] == ["values"]
    assert particles.num_particles == 2
    assert particles.layout == [(name, tuple(p.shape)) for name, p in Small().named_parameters()]


def assert_works(particles, dtype=torch.float32):
    """Forward, members and gradients all come from the values that the module holds now."""
    x = image().to(dtype)
    with torch.no_grad():
        particles.values.mul_(1.5)
    logits = particles(x)
    assert logits.dtype == dtype
    network = particles.network(0)
    assert torch.equal(flat(network), particles.values.detach()[0])
    torch.testing.assert_close(network(x), logits[0])
    particles.zero_grad()
    particles.member(1, x).sum().backward()
    assert particles.values.grad[1].abs().max() > 0
    assert particles.values.grad[0].abs().max() == 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_change_of_type_is_survived(dtype):
    assert_works(Particles(Small(), 2).to(dtype), dtype)


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda p: pickle.loads(pickle.dumps(p))], ids=["deepcopy", "pickle"])
def test_a_copy_is_independent_and_works(clone):
    particles = Particles(Small(), 2)
    before = particles.values.detach().clone()
    copied = clone(particles)
    assert torch.equal(copied.values, before)
    assert_works(copied)
    assert torch.equal(particles.values, before)


@pytest.mark.parametrize("assign", [True, False])
def test_a_state_can_be_loaded(assign):
    source, particles = Particles(Small(), 2, seed=1), Particles(Small(), 2, seed=2)
    state = copy.deepcopy(source.state_dict())
    particles.load_state_dict(state, assign=assign)
    torch.testing.assert_close(particles(image()), source(image()))
    assert_works(particles)


def test_the_state_of_plain_networks_can_be_loaded():
    source = Particles(Small, 3, seed=1)
    plain = CommitteeMean([source.network(member) for member in range(3)])
    target = Particles(Small, 3, seed=2)
    target.load_state_dict(plain.state_dict())
    torch.testing.assert_close(target.values, source.values, rtol=0, atol=0)
    assert target.values.requires_grad


def test_a_state_of_nothing_lacks_the_values():
    assert Particles(Small, 2).load_state_dict({}, strict=False).missing_keys == ["values"]
    with pytest.raises(RuntimeError, match=r"Missing key.*values"):
        Particles(Small, 2).load_state_dict({})


def test_monais_own_loader_of_checkpoints_takes_the_bundles_weights(tmp_path):
    source = Particles(Small, 2, seed=1)
    torch.save(CommitteeMean([source.network(0), source.network(1)]).state_dict(), tmp_path / "model.pt")
    target = Particles(Small, 2, seed=2)
    loader = CheckpointLoader(str(tmp_path / "model.pt"), {"model": target}, strict=False)
    engine = Engine(lambda *_: None)
    loader.attach(engine)
    engine.run([0])
    torch.testing.assert_close(target.values, source.values, rtol=0, atol=0)


@pytest.mark.parametrize(("members", "kind"), [(2, Small), (3, Scaled)])
def test_the_state_of_other_networks_is_refused_even_where_a_loader_is_not_strict(members, kind):
    other = CommitteeMean([kind() for _ in range(members)])
    with pytest.raises(RuntimeError, match="not that of 3 networks"):
        Particles(Small, 3).load_state_dict(other.state_dict(), strict=False)


def test_a_move_to_a_device_is_survived():
    assert_works(Particles(Small(), 2).to("cpu"))
    assert Particles(Small(), 2).to("meta").values.is_meta


def test_dropout_acts_in_training_and_not_in_evaluation():
    particles = Particles(Small(dropout=0.5), 2)
    particles.train()
    assert not torch.equal(particles(image()), particles(image()))
    assert particles.eval() is particles
    assert not particles.training
    assert torch.equal(particles(image()), particles(image()))
    assert not particles.network(0).training
    assert not copy.deepcopy(particles).network(0).training
    particles.train()
    assert not torch.equal(particles.network(0)(image()), particles.network(0)(image()))
