"""Handlers that watch a committee."""

import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ignite.engine import Events, State
from monai.handlers import ValidationHandler
from test_trainer import make_trainer
from torch import nn

from svgd_monai.committee import (
    Balance,
    CommitteeEvaluator,
    CommitteeLoader,
    CommitteeTracker,
    CommitteeTrainer,
    LogDiceLoss,
    Particles,
    PosteriorStep,
    save_committee,
)
from svgd_monai.committee.handlers import BUFFER
from svgd_monai.errors import CheckpointError


class Writer:
    def __init__(self):
        self.scalars = {}

    def add_scalar(self, tag, value, step):
        assert (tag, step) not in self.scalars, "recorded twice"
        self.scalars[tag, step] = value


def particles(seed=0):
    return Particles(lambda: nn.Conv2d(1, 2, 3, padding=1), 3, seed)


def batches(number=4):
    generator = torch.Generator().manual_seed(0)
    labels = [(torch.rand(2, 1, 6, 6, generator=generator) > 0.5).long() for _ in range(number)]
    return [{"image": label.float(), "label": label} for label in labels]


def train(tracker, network=None, epochs=1, handlers=()):
    network = network or particles()
    trainer = CommitteeTrainer(
        "cpu",
        epochs,
        batches(),
        network,
        torch.optim.Adam([network.values], lr=0.01),
        LogDiceLoss(to_onehot_y=True, softmax=True),
        PosteriorStep(prior_std=1.0),
        decollate=False,
        train_handlers=[*handlers, tracker],
    )
    states = {}
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED,
        lambda e: states.update({e.state.iteration: (e.state.balance, e.state.member_losses)}),
    )
    trainer.run()
    return states


def test_each_step_is_recorded_with_its_balance_and_losses():
    writer = Writer()
    states = train(CommitteeTracker(writer, offset=100))
    expected = {}
    for step, (balance, losses) in states.items():
        expected |= {(f"committee/{name}", 100 + step): value.item() for name, value in balance._asdict().items()}
        expected |= {(f"loss/particle_{m}", 100 + step): value.item() for m, value in enumerate(losses)}
        expected["loss/mean", 100 + step] = losses.double().mean().item()
    assert writer.scalars == {key: pytest.approx(value) for key, value in expected.items()}
    assert all(isinstance(value, float) for value in writer.scalars.values())
    assert {name.removeprefix("committee/") for name, _ in writer.scalars if "committee/" in name} == {*Balance._fields}


def test_only_every_nth_step_is_recorded_on_demand():
    writer = Writer()
    train(CommitteeTracker(writer, every=2), epochs=2)
    assert {step for _, step in writer.scalars} == {2, 4, 6, 8}


def test_an_epoch_is_one_line_for_people(caplog):
    with caplog.at_level(logging.INFO, "svgd_monai"):
        states = train(CommitteeTracker(label="round 3"))
    (line,) = [r.getMessage() for r in caplog.records if r.name.startswith("svgd_monai")]
    balance, losses = states[4]
    assert line == (
        f"round 3, step 4: loss {losses.mean():.4f}, drive : prior : repulsion {balance.drive:.1e} : "
        f"{balance.prior:.1e} : {balance.repulsion:.1e}, distance {balance.distance:.2f}, norm {balance.norm:.1f}"
    )


def test_the_evaluators_metrics_stand_in_the_line_and_among_the_records(caplog):
    network, writer = particles(), Writer()
    evaluator = CommitteeEvaluator("cpu", batches(1), network, decollate=False)
    evaluator.add_event_handler(Events.COMPLETED, lambda e: e.state.metrics.update(val_dice=torch.tensor(0.25)))
    with caplog.at_level(logging.INFO, "svgd_monai"):
        train(
            CommitteeTracker(writer, offset=10, evaluator=evaluator), network, epochs=3,
            handlers=[ValidationHandler(2, evaluator)],
        )  # fmt: skip
    validated = {step: value for (tag, step), value in writer.scalars.items() if tag == "training/val_dice"}
    assert validated == {10 + 8: 0.25}, "of the epoch that was validated alone"
    (line,) = [message for message in caplog.messages if ", val_dice 0.2500," in message]
    assert line.startswith("training, step 8:"), "a step of its round"


def test_a_metric_of_each_class_is_a_record_for_each_and_what_is_no_number_is_none(caplog):
    network, writer = particles(), Writer()
    evaluator = CommitteeEvaluator("cpu", batches(1), network, decollate=False)
    odd = {
        "dice": torch.tensor([0.25, 0.5]),
        "note": "text",
        "none": None,
        "cases": {"a": 1.0},
        "ragged": [[0.25], [0.5, 0.75]],
        "empty": [],
        "iou": np.array([0.75]),
    }
    evaluator.add_event_handler(Events.COMPLETED, lambda e: e.state.metrics.update(odd))
    with caplog.at_level(logging.INFO, "svgd_monai"):
        train(
            CommitteeTracker(writer, evaluator=evaluator), network,
            handlers=[ValidationHandler(1, evaluator), CommitteeTracker(evaluator=evaluator)],
        )  # fmt: skip
    found = {tag: value for (tag, _), value in writer.scalars.items() if tag.startswith("training/")}
    assert found == {"training/dice_0": 0.25, "training/dice_1": 0.5, "training/iou": 0.75}
    assert caplog.text.count(", dice_0 0.2500, dice_1 0.5000, iou 0.7500,") == 2, "with a writer and without"


def test_records_of_a_gpu_are_fetched_together_and_those_that_are_left_with_the_epoch():
    class OnGpu(torch.Tensor):
        device = torch.device("cuda")

    writer = Writer()
    tracker = CommitteeTracker(writer)
    state = State(balance=Balance(*(torch.tensor(1.0) for _ in Balance._fields)), metrics={})
    written = []
    for step in range(1, BUFFER + 3):
        state.iteration, state.member_losses = step, torch.tensor([float(step)]).as_subclass(OnGpu)
        tracker.record(SimpleNamespace(state=state))
        written.append(len({step for _, step in writer.scalars}))
    assert written == [0] * (BUFFER - 1) + [BUFFER] * 3
    tracker.log(SimpleNamespace(state=state))
    losses = {step: value for (tag, step), value in writer.scalars.items() if tag == "loss/particle_0"}
    assert losses == {step: step for step in range(1, BUFFER + 3)}


def test_a_training_that_is_already_behind_its_last_step_is_not_logged(caplog):
    with caplog.at_level(logging.INFO):
        CommitteeTracker().log(make_trainer())
    assert not caplog.records


def test_the_loader_fills_a_committee_when_the_engine_starts(tmp_path):
    source, target = particles(1), particles(2)
    loader = CommitteeLoader(tmp_path / "committee.pt", target)  # the file need not be there yet
    evaluator = CommitteeEvaluator("cpu", batches(1), target, decollate=False, val_handlers=[loader])
    save_committee(tmp_path / "committee.pt", source)
    assert not torch.equal(target.values, source.values)
    evaluator.run()
    assert torch.equal(target.values, source.values)
    torch.testing.assert_close(
        evaluator.state.output["pred"], source(batches(1)[0]["image"]).softmax(2).mean(0).detach()
    )


def test_the_loader_names_a_missing_file_when_the_engine_runs(tmp_path):
    network = particles()
    loader = CommitteeLoader(tmp_path / "none.pt", network)
    evaluator = CommitteeEvaluator("cpu", batches(1), network, val_handlers=[loader])
    with pytest.raises(CheckpointError, match=r"none\.pt does not exist"):
        evaluator.run()
