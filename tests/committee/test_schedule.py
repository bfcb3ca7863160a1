"""The learning rate of each step follows from its number alone."""

import math

import numpy as np
import pytest
import torch
from monai.engines.utils import IterationEvents
from monai.handlers import LrScheduleHandler
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, StepLR

from svgd_monai.committee import CommitteeTrainer, LearningRateSchedule, LogDiceLoss, Particles, PosteriorStep
from svgd_monai.errors import SettingsError


def train(name, steps=8, stop=None, network=None, optimizer=None, handler=None, **options):
    """Rates of the steps of a training; ``stop`` ends it early, ``handler`` makes another from the optimiser."""
    network = network or Particles(lambda: nn.Conv2d(1, 2, 3, padding=1), 2)
    optimizer = optimizer or torch.optim.Adam([network.values], lr=0.01)
    label = (torch.rand(2, 1, 6, 6, generator=torch.Generator().manual_seed(0)) > 0.5).long()
    trainer = CommitteeTrainer(
        "cpu", options.pop("max_epochs", 1), [{"image": label.float(), "label": label}] * steps, network, optimizer,
        LogDiceLoss(to_onehot_y=True, softmax=True), PosteriorStep(prior_std=1.0), decollate=False,
        train_handlers=[LearningRateSchedule(optimizer, name), *([handler(optimizer)] if handler else [])], **options,
    )  # fmt: skip
    rates = []

    @trainer.on(IterationEvents.MODEL_COMPLETED)  # right behind the optimiser's step
    def note(engine):
        rates.append(optimizer.param_groups[0]["lr"])
        if len(rates) == stop:
            engine.terminate()

    trainer.run()
    return rates


def test_cosine_is_torchs():
    reference = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.01)
    scheduler, expected = CosineAnnealingLR(reference, T_max=8), []
    for _ in range(8):
        expected.append(reference.param_groups[0]["lr"])
        reference.step()
        scheduler.step()
    found = train("cosine")
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert found[0] == 0.01
    assert found[4] == pytest.approx(0.005)
    assert found[-1] == pytest.approx(0.01 * (1 + math.cos(math.pi * 7 / 8)) / 2)


def test_constant_changes_nothing():
    assert train("constant") == [0.01] * 8


@pytest.mark.parametrize(
    "options",
    [
        {"max_epochs": 2, "epoch_length": 4},
        {"max_epochs": 3, "epoch_length": 3, "max_steps": 8},
        {"max_epochs": 2, "epoch_length": 4, "max_steps": 3},
        {"max_epochs": 2, "epoch_length": 4, "max_steps": 4},
        {"max_epochs": 2, "epoch_length": 4, "max_steps": 20},
    ],
)
def test_cosine_falls_over_the_steps_that_the_training_has(options):
    assert train("cosine", **options) == train("cosine")


def halving(optimizer):
    return LrScheduleHandler(StepLR(optimizer, step_size=1, gamma=0.5), epoch_level=False)


def test_constant_leaves_the_rate_to_a_scheduler_of_torchs():
    assert train("constant", steps=3, handler=halving) == [0.01, 0.005, 0.0025]


def test_two_schedules_are_refused():
    with pytest.raises(SettingsError, match=r"or leave the rate to it with learning_rate_schedule: constant\.$"):
        train("cosine", handler=halving)


def test_a_continued_training_takes_the_rates_of_its_steps():
    network = Particles(lambda: nn.Conv2d(1, 2, 3, padding=1), 2)
    first = torch.optim.Adam([network.values], lr=0.01)
    rates = train("cosine", stop=3, network=network, optimizer=first)
    second = torch.optim.Adam([network.values], lr=0.01)
    schedule = LearningRateSchedule(second, "cosine", 8)  # built, as in a bundle, before the state is loaded
    second.load_state_dict(first.state_dict())
    assert second.param_groups[0]["lr"] == rates[-1] != 0.01
    assert schedule.rates == [0.01]
    engine = type("Engine", (), {"state": type("State", (), {"iteration": 4})})
    schedule(engine)
    assert second.param_groups[0]["lr"] == train("cosine")[3]


def test_each_group_has_its_own_rate():
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": rate} for rate in (0.1, 0.2)]
    optimizer = torch.optim.SGD(groups)
    schedule = LearningRateSchedule(optimizer, "cosine", 4)
    schedule(type("Engine", (), {"state": type("State", (), {"iteration": 3})}))
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.05, 0.1])


def test_an_unknown_name_is_refused():
    with pytest.raises(SettingsError, match=r"^learning_rate_schedule: 'linear' is not one of constant, cosine\.$"):
        train("linear")
