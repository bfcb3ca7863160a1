"""A particle that is no longer finite does not take the others down, and a committee beyond help stops with advice."""

import json
import math

import pytest
import torch
from command import TINY, run_bundle, words
from ignite.engine import Events
from monai.engines.utils import IterationEvents
from torch import nn

from svgd_monai.committee import (
    CommitteeKeeper,
    CommitteeTracker,
    CommitteeTrainer,
    LogDiceLoss,
    Particles,
    PosteriorStep,
    finite_particles,
    guard,
)
from svgd_monai.errors import SettingsError, TrainingError


def network():
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 1))


def batches(number):
    generator = torch.Generator().manual_seed(0)
    labels = [(torch.rand(2, 1, 6, 6, generator=generator) > 0.6).long() for _ in range(number)]
    return [{"image": y + 0.3 * torch.randn(y.shape, generator=generator), "label": y} for y in labels]


def make(members=3, steps=6, epochs=1, committee="svgd", optimizer=torch.optim.Adam, **options):
    particles = Particles(network, members, seed=2)
    return CommitteeTrainer(
        "cpu",
        epochs,
        batches(steps),
        particles,
        optimizer([particles.values], lr=0.01),
        LogDiceLoss(to_onehot_y=True, softmax=True),
        PosteriorStep(committee, likelihood_scale=5.0, prior_std=1.0),
        decollate=False,
        **options,
    )


def spoil(trainer, member, steps, what="gradient", value=math.nan):
    """Make a particle bad at the given steps, as a backward or the memory may."""

    def act(engine):
        if engine.state.iteration in steps:
            matrix = engine.network.values
            {"gradient": matrix.grad, "parameters": matrix.detach()}[what][member, 3] = value

    event = IterationEvents.BACKWARD_COMPLETED if what == "gradient" else Events.ITERATION_STARTED
    trainer.add_event_handler(event, act)
    return trainer


def values_after(trainer):
    """The particles behind each step."""
    seen = {0: trainer.network.values.detach().clone()}
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED, lambda e: seen.update({e.state.iteration: e.network.values.detach().clone()})
    )
    trainer.run()
    return seen


@pytest.mark.parametrize("what", ["gradient", "parameters"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e30])
@pytest.mark.parametrize("committee", ["svgd", "ensemble"])
def test_the_step_of_the_others_is_that_of_a_committee_without_the_bad_particle(committee, value, what, caplog):
    trainer = spoil(make(3, 1, committee=committee), 1, [1], what, value)
    rest = make(3, 1, committee=committee)
    good = [0, 2]
    others = Particles(network, 2)
    with torch.no_grad():
        others.values.copy_(rest.network.values[good])
    alone = CommitteeTrainer(
        "cpu", 1, batches(1), others, torch.optim.Adam([others.values], lr=0.01), rest.loss_function, rest.step,
        decollate=False,
    )  # fmt: skip
    alone.run()
    trainer.run()
    torch.testing.assert_close(trainer.network.values[good], others.values)
    for name, number in trainer.state.balance._asdict().items():
        torch.testing.assert_close(number, getattr(alone.state.balance, name), msg=name)
    assert trainer.network.values.isfinite().all()
    assert trainer.state.replaced_particles == 1
    assert "particle 1 is no longer finite" in caplog.text


def test_a_healthy_training_is_not_touched():
    trainer = make()
    trainer.run()
    assert trainer.state.replaced_particles == 0
    particles = trainer.network.values.detach()
    losses = trainer.state.member_losses
    assert trainer.guard.healthy(losses) is None
    assert finite_particles(particles, particles, losses).all()


def test_a_restored_particle_goes_on_from_the_start_of_the_epoch_and_learns_again():
    trainer = spoil(make(steps=4, epochs=3), 1, [7])
    seen = values_after(trainer)
    assert torch.equal(seen[7][1], seen[4][1])
    assert not torch.equal(seen[7][0], seen[4][0])
    assert not torch.equal(seen[8][1], seen[7][1])
    assert (seen[8] - seen[7]).abs().amax(1)[1] < 0.05  # a step of some learning rates, not of many
    assert trainer.state.replaced_particles == 1


def test_a_particle_that_fails_again_in_the_same_epoch_becomes_a_noisy_copy_of_a_healthy_one(caplog):
    trainer = spoil(make(steps=6), 1, [3, 4])
    seen = values_after(trainer)
    assert torch.equal(seen[3][1], seen[0][1])
    distances = (seen[4][[0, 2]] - seen[4][1]).norm(dim=1)
    nearest = int(distances.argmin())
    assert float(distances[nearest] / seen[4][2 * nearest].norm()) == pytest.approx(guard.NOISE, rel=1e-4)
    assert f"a copy of particle {2 * nearest} with noise" in caplog.text
    assert trainer.state.replaced_particles == 2


def test_copies_are_the_same_at_every_run_and_follow_the_seed():
    def run(seed):
        trainer = spoil(make(on_bad_particle="resample", seed=seed), 0, [2])
        return values_after(trainer)

    first, again, other = run(1), run(1), run(2)
    assert torch.equal(first[6], again[6])
    assert torch.equal(first[1], other[1])
    assert not torch.equal(first[2][0], other[2][0])


FIRST_MOMENTS = ("exp_avg", "momentum_buffer", "prev")
ELEMENTWISE = [
    getattr(torch.optim, name)
    for name in ("Adam", "AdamW", "SGD", "RMSprop", "Adagrad", "Adadelta", "Adamax", "NAdam", "RAdam", "Rprop")
]


@pytest.mark.parametrize("optimizer", ELEMENTWISE)
def test_the_optimisers_rows_of_a_replaced_particle_begin_anew(optimizer):
    options = {"momentum": 0.9} if optimizer is torch.optim.SGD else {}
    if optimizer is torch.optim.AdamW:
        options["weight_decay"] = 0
    trainer = spoil(make(optimizer=lambda p, lr: optimizer(p, lr=lr, **options)), 1, [6])
    trainer.run()
    state = trainer.optimizer.state[trainer.network.values]
    matrices = {name: value for name, value in state.items() if value.shape == trainer.network.values.shape}
    assert matrices
    for name, value in matrices.items():
        assert value[[0, 2]].abs().sum() > 0
        expected = torch.zeros_like(value[1]) if name in FIRST_MOMENTS else value[[0, 2]].mean(0)
        torch.testing.assert_close(value[1], expected)


class Lookahead(torch.optim.SGD):
    """With states of names that torch does not have, as optimisers of others."""

    def step(self, closure=None):
        result = super().step(closure)
        for group in self.param_groups:
            for values in group["params"]:
                state = self.state[values]
                state["exp_avg_slow"] = state.get("exp_avg_slow", 0) + values.grad
                state["hessian"] = state.get("hessian", 0) + values.grad.square()
        return result


def test_what_points_in_a_particles_own_direction_begins_at_0_by_whatever_name():
    trainer = spoil(make(optimizer=lambda p, lr: Lookahead(p, lr=lr)), 1, [6])
    trainer.run()
    state = trainer.optimizer.state[trainer.network.values]
    assert state["exp_avg_slow"][[0, 2]].abs().sum() > 0
    torch.testing.assert_close(state["exp_avg_slow"][1], torch.zeros_like(state["exp_avg_slow"][1]))
    torch.testing.assert_close(state["hessian"][1], state["hessian"][[0, 2]].mean(0))


@pytest.mark.parametrize("policy", ["restore", "resample", "stop"])
def test_a_committee_without_a_finite_particle_stops_with_advice(policy):
    trainer = make(on_bad_particle=policy)
    for member in range(3):
        spoil(trainer, member, [2])
    with pytest.raises(TrainingError, match=r"^No particle .* step 2: .*learning_rate.*\.$"):
        trainer.run()


def test_an_image_that_is_not_finite_stops_with_advice():
    trainer = make(steps=1)
    trainer.data_loader[0]["image"][0, 0, 0, 0] = math.nan
    with pytest.raises(TrainingError, match="No particle"):
        trainer.run()


def test_stop_stops_and_names_the_particle():
    with pytest.raises(TrainingError, match=r"^on_bad_particle: particle 2 of 3 .* step 4"):
        spoil(make(on_bad_particle="stop"), 2, [4]).run()


def test_too_many_replacements_stop(monkeypatch):
    monkeypatch.setattr(guard, "LIMIT", 3)
    trainer = spoil(make(steps=10), 1, range(2, 11))
    with pytest.raises(TrainingError, match=r"More than 3 particles .* step 5"):
        trainer.run()
    assert trainer.state.iteration == 5


def test_particles_that_have_become_one_stop_with_advice():
    trainer = make()
    with torch.no_grad():
        trainer.network.values.copy_(trainer.network.values[:1] * (1 + 1e-6 * torch.arange(3)[:, None]))
    with pytest.raises(TrainingError, match=r"collapsed.*step 1 .*likelihood_scale"):
        trainer.run()


def test_one_particle_is_neither_a_collapse_nor_far_from_others(caplog):
    trainer = make(members=1)
    trainer.run()
    assert trainer.state.iteration == 6
    assert trainer.state.balance.isolated.item() == 0
    assert caplog.text == ""


def test_a_kernel_that_underflows_is_reported_once_an_epoch(caplog):
    trainer = make(5, steps=3, epochs=2)
    with torch.no_grad():
        trainer.network.values[3] += 1e3  # 4 of the 10 pairs are far apart: the median is that of the near ones
    trainer.run()
    assert trainer.state.balance.isolated.item() == 1
    assert caplog.text.count("the kernel between them is 0") == 2


def test_an_epoch_that_goes_on_does_not_report_it_again(caplog):
    first, second = make(5, steps=1), make(5, steps=1)
    for trainer in (first, second):
        with torch.no_grad():
            trainer.network.values[3] += 1e3
    first.run()
    second.guard.go_on(first.guard.noted())
    second.run()
    assert second.state.balance.isolated.item() == 1
    assert caplog.text.count("the kernel between them is 0") == 1


@pytest.mark.parametrize("bad", [1, 2, 3])
def test_flags_that_are_read_late_are_read_before_the_next_step_and_before_the_epoch_ends(late_flags, bad):
    trainer, seen = spoil(make(steps=3, epochs=2), 1, [bad]), {}

    def look(name):
        return lambda engine: seen.setdefault((name, engine.state.iteration), engine.network.values.detach().clone())

    trainer.add_event_handler(Events.STARTED, look("start"))
    trainer.add_event_handler(IterationEvents.FORWARD_COMPLETED, look("forward"))
    trainer.add_event_handler(Events.EPOCH_COMPLETED, look("end"))
    trainer.run()
    assert trainer.state.replaced_particles == 1
    start = seen["start", 0][1]
    assert torch.equal(seen["forward", bad + 1][1], start)
    assert torch.equal(seen["end", 3][1], start) == (bad == 3)


def test_flags_that_are_read_late_are_read_where_a_training_is_ended_before_its_time(late_flags):
    trainer = spoil(make(steps=6), 1, [2])
    trainer.add_event_handler(Events.ITERATION_COMPLETED(once=2), lambda engine: engine.terminate())
    trainer.run()
    assert trainer.state.iteration == 2
    assert trainer.state.replaced_particles == 1


def test_a_loss_that_is_no_number_makes_a_particle_bad_though_its_gradient_is_one():
    trainer = make(steps=2)
    particles = trainer.network.values.detach()
    found = finite_particles(particles, torch.ones_like(particles), torch.tensor([0.1, math.nan, 0.2]))
    assert found.tolist() == [True, False, True]


def test_a_kernel_of_members_that_never_meet_is_not_reported():
    trainer = make(5, steps=1, committee="ensemble")
    with torch.no_grad():
        trainer.network.values[3] += 1e3  # 4 of the 10 pairs are far apart: the median is that of the near ones
    trainer.run()
    assert trainer.state.balance.isolated.item() == 0


def test_replacements_are_counted_in_tensorboard_and_in_the_log(caplog):
    class Writer(dict):
        def add_scalar(self, tag, value, step):
            self[tag, step] = value

    writer = Writer()
    trainer = spoil(make(steps=4, epochs=2, train_handlers=[CommitteeTracker(writer, offset=10)]), 1, [6])
    with caplog.at_level("INFO"):
        trainer.run()
    counts = {step: value for (tag, step), value in writer.items() if tag == "training/replaced_particles"}
    assert counts == {18: 1}
    assert "replaced particles 1" in caplog.text


@pytest.mark.parametrize("kill", [(Events.ITERATION_COMPLETED, 6), (Events.ITERATION_COMPLETED, 9)])
def test_a_training_cut_off_around_a_replacement_ends_as_an_uninterrupted_one(kill, tmp_path):
    def train(folder, kill=None):
        trainer = spoil(make(steps=4, epochs=3), 1, [6, 7, 10])
        CommitteeKeeper(folder, trainer.network, trainer.optimizer, checkpoint="last").attach(trainer)
        if kill is None:
            trainer.run()
        else:
            trainer.add_event_handler(kill[0](once=kill[1]), lambda engine: math.sqrt(-1))
            with pytest.raises(ValueError, match=r"math domain|nonnegative"):
                trainer.run()
        return trainer

    whole = train(tmp_path / "whole")
    train(tmp_path / "pieces", kill)
    pieces = train(tmp_path / "pieces")
    assert torch.equal(pieces.network.values, whole.network.values)
    for folder in ("whole", "pieces"):
        assert json.loads((tmp_path / folder / "training.json").read_text())["replaced_particles"] == 3


def test_a_learning_rate_out_of_all_measure_ends_the_command_with_advice(bundle, phantom_mr, tmp_path):
    keys = {key: TINY[key] for key in ("num_particles", "features", "spacing", "roi_size", "steps_per_round", "device")}
    keys |= {"batch_size": 2, "learning_rate": 1e30, "dataset_dir": phantom_mr, "output_dir": tmp_path}
    result = run_bundle(*words(bundle / "configs/train.yaml", **keys))
    assert result.exit_code == 1
    assert result.last_line.startswith("No particle has a finite loss")
    assert not (tmp_path / "committee.pt").exists()


def test_an_unknown_policy_is_refused():
    with pytest.raises(SettingsError, match=r"^on_bad_particle: 'ignore'"):
        make(on_bad_particle="ignore")
