"""A training that is cut off anywhere and started again ends with the same committee, bit for bit."""

import gc
import json
import logging
import math
import random
import weakref

import pytest
import torch
from ignite.engine import Engine, Events
from ignite.handlers import EarlyStopping
from monai.engines.utils import IterationEvents
from monai.handlers import CheckpointLoader, LrScheduleHandler
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.utils.data import DataLoader, Dataset

from svgd_monai.committee import (
    CommitteeKeeper,
    CommitteeTrainer,
    LogDiceLoss,
    Particles,
    PosteriorStep,
    load_committee,
    save_committee,
)
from svgd_monai.committee import keeper as keeper_module
from svgd_monai.data import StepSampler, epoch_length, epochs
from svgd_monai.errors import CheckpointError, SettingsError

STEPS, VALIDATIONS = 10, 4  # epochs of 3, 3, 3 and 1 steps
METRICS = [0.2, 0.6, 0.5, 0.4]
NO_VALIDATION = None


class PowerError(Exception):
    """Stands for the power that goes."""


class Samples(Dataset):
    """Five small images."""

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.labels = (torch.rand(5, 1, 6, 6, generator=generator) > 0.6).long()
        self.images = self.labels + 0.3 * torch.randn(5, 1, 6, 6, generator=generator)

    def __len__(self):
        return 5

    def __getitem__(self, index):
        return {"image": self.images[index], "label": self.labels[index]}


def network(dropout):
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Dropout(dropout), nn.ReLU(), nn.Conv2d(4, 2, 1))


class Validator:
    """An evaluator whose metric of each epoch is given; like a real one, it draws from torch's stream."""

    def __init__(self, metrics, better):
        self.engine = Engine(lambda engine, batch: None)
        self.metrics = metrics
        if better is not None:
            self.engine.metric_cmp_fn = better

    def attach(self, trainer):
        trainer.add_event_handler(Events.EPOCH_COMPLETED, self.validate)

    def validate(self, trainer):
        torch.rand(())
        value = self.metrics[trainer.state.epoch - 1]
        if value is not NO_VALIDATION:
            self.engine.run([0])
            self.engine.state.metrics["val_dice"] = value


def train(folder, kill=None, dropout=0.0, metrics=METRICS, seed=0, spoil=(), handlers=(), behind=None, **options):
    """A training of fresh objects in ``folder``, cut off at the event and number that ``kill`` says.

    ``spoil`` are steps at which particle 1 has a gradient that is no number; ``behind`` makes a handler behind the
    keeper, from particles and optimiser, and what of it the keeper saves.
    """
    torch.manual_seed(random.randrange(1 << 30))  # a fresh process has a stream of its own
    particles = Particles(lambda: network(dropout), 2, seed=options.pop("initialisation", 0))
    optimizer = torch.optim.Adam([particles.values], lr=0.01)
    sampler = StepSampler(5, 2, STEPS, seed=1)
    validator = None if metrics is None else Validator(metrics, options.pop("better", None))
    options.setdefault("key", {"steps": STEPS})
    handler, saved = (None, None) if behind is None else behind(particles, optimizer)
    keeper = CommitteeKeeper(
        folder,
        particles,
        optimizer,
        evaluator=None if validator is None else validator.engine,
        sampler=sampler,
        seed=seed,
        state=saved,
        **options,
    )
    trainer = CommitteeTrainer(
        "cpu",
        epochs(STEPS, VALIDATIONS),
        DataLoader(Samples(), batch_sampler=sampler),
        particles,
        optimizer,
        LogDiceLoss(to_onehot_y=True, softmax=True),
        PosteriorStep(likelihood_scale=5, prior_std=1.0),
        max_steps=STEPS,
        epoch_length=epoch_length(STEPS, VALIDATIONS),
        decollate=False,
        train_handlers=[*handlers] if validator is None else [*handlers, validator],
    )
    trace, balances = [], {}

    def watch(engine):
        trace.append((engine.state.iteration, particles.values.detach().clone()))
        balances[engine.state.iteration] = {name: float(v) for name, v in engine.state.balance._asdict().items()}

    trainer.add_event_handler(Events.ITERATION_COMPLETED, watch)
    keeper.attach(trainer)
    if handler is not None:
        handler.attach(trainer)

    def make_bad(engine):
        if engine.state.iteration in spoil:
            particles.values.grad[1] = math.nan

    trainer.add_event_handler(IterationEvents.BACKWARD_COMPLETED, make_bad)

    def die(_):
        raise PowerError

    if kill is not None:
        event, number = kill
        # Behind the keeper's own.
        trainer.add_event_handler(Events.STARTED, lambda _: trainer.add_event_handler(event(once=number), die))
        with pytest.raises(PowerError):
            trainer.run()
    else:
        trainer.run()
    particles.balances = balances
    return particles, trace


def record(folder):
    content = json.loads((folder / "training.json").read_text())
    assert content.pop("seconds") > 0
    return content


def committee(folder):
    particles = Particles(lambda: network(0.0), 2, seed=99)
    load_committee(folder / "committee.pt", particles)
    return particles.values.detach()


def values_at(trace, step):
    return dict(trace)[step]


@pytest.mark.parametrize("checkpoint", ["best", "last"])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize(
    "kill",
    [(Events.EPOCH_COMPLETED, n) for n in (1, 2, 3, 4)] + [(Events.ITERATION_COMPLETED, n) for n in (2, 3, 4, 8, 10)],
    ids=lambda kill: f"{kill[0].name}-{kill[1]}",
)
def test_a_training_cut_off_anywhere_ends_as_an_uninterrupted_one(tmp_path, kill, dropout, checkpoint):
    whole, pieces = tmp_path / "whole", tmp_path / "pieces"
    options = {"dropout": dropout, "checkpoint": checkpoint}
    expected, trace = train(whole, **options)
    train(pieces, kill=kill, **options)
    assert not (pieces / "committee.pt").exists()
    particles, rest = train(pieces, **options)
    for step, values in rest:
        assert torch.equal(values, values_at(trace, step)), f"step {step}"
    assert torch.equal(particles.values, expected.values)
    assert record(pieces) == record(whole)
    assert (pieces / "committee.pt").read_bytes() == (whole / "committee.pt").read_bytes()


def test_what_was_saved_is_let_go_where_no_step_is_left(tmp_path, monkeypatch):
    class Saved(dict):
        """A dictionary that can be watched."""

    class Watch:
        def attach(self, trainer):
            trainer.add_event_handler(Events.COMPLETED, self)

        def __call__(self, _):
            gc.collect()
            held.append(watched[-1]())

    watched, held, read = [], [], keeper_module.read_progress

    def reading(*arguments):
        saved = Saved(read(*arguments))
        watched.append(weakref.ref(saved))
        return saved

    train(tmp_path, (Events.EPOCH_COMPLETED, 4))
    monkeypatch.setattr(keeper_module, "read_progress", reading)
    train(tmp_path, handlers=[Watch()])
    assert held == [None]


def test_a_training_cut_off_three_times_goes_on_where_it_was(tmp_path):
    expected, _ = train(tmp_path / "whole", dropout=0.5)
    train(tmp_path / "pieces", (Events.ITERATION_COMPLETED, 5), dropout=0.5)
    _, second = train(tmp_path / "pieces", (Events.ITERATION_COMPLETED, 8), dropout=0.5)
    _, third = train(tmp_path / "pieces", (Events.ITERATION_COMPLETED, 10), dropout=0.5)
    particles, last = train(tmp_path / "pieces", dropout=0.5)
    assert [[step for step, _ in trace] for trace in (second, third, last)] == [[4, 5, 6, 7, 8], [7, 8, 9, 10], [10]]
    assert torch.equal(particles.values, expected.values)


@pytest.mark.parametrize("checkpoint", ["best", "last"])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_within_an_epoch_a_training_goes_on_at_the_step_where_it_was_saved(tmp_path, step, dropout, checkpoint):
    whole, pieces = tmp_path / "whole", tmp_path / "pieces"
    options = {"dropout": dropout, "checkpoint": checkpoint}
    expected, _ = train(whole, **options)
    train(pieces, (Events.ITERATION_COMPLETED, step), every=0.0, **options)
    particles, rest = train(pieces, every=0.0, **options)
    ends = [3, 6, 9, 10]  # there the validation is waited for, which is done again
    assert rest[0][0] == (step if step in ends else step + 1)
    assert torch.equal(particles.values, expected.values)
    assert record(pieces) == record(whole)
    assert (pieces / "committee.pt").read_bytes() == (whole / "committee.pt").read_bytes()


@pytest.fixture(params=["at once", "in the next step"])
def flags(request):
    """When the guard reads its flags: on a CPU at once, on a GPU when the next step begins."""
    if request.param == "in the next step":
        request.getfixturevalue("late_flags")
    return request.param


@pytest.mark.parametrize("kill", [4, 5])
@pytest.mark.parametrize("spoil", [(5, 6), (4, 6)])
def test_a_bad_particle_goes_back_to_the_epochs_start_also_behind_an_interruption(tmp_path, kill, spoil, flags):
    whole, pieces = tmp_path / "whole", tmp_path / "pieces"
    expected, trace = train(whole, spoil=spoil)
    start = values_at(trace, 3)[1]
    if flags == "at once":
        assert torch.equal(values_at(trace, spoil[0])[1], start)  # put back
    assert not torch.equal(values_at(trace, spoil[1])[1], start)  # the second time in an epoch: a copy of the other
    train(pieces, (Events.ITERATION_COMPLETED, kill), every=0.0, spoil=spoil)
    particles, rest = train(pieces, every=0.0, spoil=spoil)
    assert rest[0][0] == kill + 1
    for number, values in rest:
        assert torch.equal(values, values_at(trace, number)), f"step {number}"
    assert torch.equal(particles.values, expected.values)
    assert record(pieces) == record(whole)
    assert record(whole)["replaced_particles"] == 2


def test_within_an_epoch_the_progress_is_written_when_the_last_time_is_long_ago(tmp_path, monkeypatch):
    seconds, written = [0.0], []

    class Clock:
        """Steps of 350 s."""

        def attach(self, trainer):
            trainer.add_event_handler(Events.ITERATION_STARTED, lambda _: seconds.append(seconds[-1] + 350))

    def write(_, content):
        written.append((content["iteration"], content["epoch"], content["guard"] is not None))

    monkeypatch.setattr(keeper_module.time, "monotonic", lambda: seconds[-1])
    monkeypatch.setattr(keeper_module, "write_torch", write)
    monkeypatch.setattr(keeper_module, "save_committee", lambda *_: tmp_path / "committee.pt")
    train(tmp_path, handlers=[Clock()])
    within, behind = [(2, 0), (5, 1), (8, 2)], [(3, 1), (6, 2), (9, 3), (10, 4)]
    assert sorted(written) == sorted([(*place, True) for place in within] + [(*place, False) for place in behind])
    assert record(tmp_path)["step"] == 6


def test_dropout_draws_from_the_given_seed(tmp_path):
    first, _ = train(tmp_path / "a", dropout=0.5, seed=1)
    again, _ = train(tmp_path / "b", dropout=0.5, seed=1)
    other, _ = train(tmp_path / "c", dropout=0.5, seed=2)
    assert torch.equal(first.values, again.values)
    assert not torch.equal(first.values, other.values)


def test_the_best_committee_is_kept(tmp_path):
    particles, trace = train(tmp_path)
    assert torch.equal(committee(tmp_path), values_at(trace, 6))
    assert torch.equal(particles.values, values_at(trace, 6))
    assert record(tmp_path) == {
        "step": 6,
        "val_dice": 0.6,
        "validations": [
            {"step": step, "val_dice": value, "balance": particles.balances[step]}
            for step, value in zip([3, 6, 9, 10], METRICS, strict=True)
        ],
        "replaced_particles": 0,
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["committee.pt", "training.json"]


def test_the_last_committee_is_kept_on_demand(tmp_path):
    _, trace = train(tmp_path, checkpoint="last")
    assert torch.equal(committee(tmp_path), values_at(trace, 10))
    assert record(tmp_path)["step"] == 10
    assert record(tmp_path)["val_dice"] == 0.4


def test_without_an_evaluator_the_last_is_kept(tmp_path, caplog):
    _, trace = train(tmp_path, metrics=None)
    assert "no validation" not in caplog.text
    assert torch.equal(committee(tmp_path), values_at(trace, 10))
    assert record(tmp_path)["val_dice"] is None


def test_of_equals_the_first_is_kept(tmp_path):
    train(tmp_path, metrics=[0.2, 0.6, 0.6, 0.6])
    assert record(tmp_path)["step"] == 6


@pytest.mark.parametrize(
    ("metrics", "step", "value"),
    [
        ([0.2, 0.6, math.nan, 0.5], 6, 0.6),
        ([0.2, 0.6, math.inf, 0.5], 6, 0.6),
        ([math.nan, 0.1, math.nan, math.nan], 6, 0.1),
        ([math.nan] * 4, 10, None),
    ],
)
def test_a_validation_without_a_number_never_beats_one_with(tmp_path, metrics, step, value, caplog):
    train(tmp_path, metrics=metrics)
    content = record(tmp_path)
    assert ("no validation has given a val_dice" in caplog.text) == (value is None)
    assert (content["step"], content["val_dice"]) == (step, value)
    assert [v["val_dice"] for v in content["validations"]] == [m if math.isfinite(m) else None for m in metrics]


def test_an_epoch_without_a_validation_has_no_metric_and_is_never_the_best(tmp_path):
    whole, pieces = tmp_path / "whole", tmp_path / "pieces"
    metrics = [NO_VALIDATION, 0.6, NO_VALIDATION, 0.4]
    train(whole, metrics=metrics)
    content = record(whole)
    assert (content["step"], content["val_dice"]) == (6, 0.6)
    assert [v["val_dice"] for v in content["validations"]] == [None, 0.6, None, 0.4]
    train(pieces, (Events.ITERATION_COMPLETED, 8), metrics=metrics)
    train(pieces, metrics=metrics)
    assert record(pieces) == content


def test_a_metric_of_which_the_lower_is_better(tmp_path):
    train(tmp_path, metrics=[0.4, math.nan, 0.2, 0.3], better=lambda current, best: current < best)
    content = record(tmp_path)
    assert (content["step"], content["val_dice"]) == (9, 0.2)


@pytest.mark.parametrize("change", [{"metric": "val_iou"}, {"checkpoint": "last"}], ids=str)
def test_what_is_kept_by_another_measure_is_not_continued(tmp_path, caplog, change):
    train(tmp_path, (Events.ITERATION_COMPLETED, 4))
    _, trace = train(tmp_path, **change, metrics=[0.5] * 4 if "checkpoint" in change else None)
    assert "was written with other settings; the training begins anew" in caplog.text
    assert trace[0][0] == 1


def test_a_metric_that_is_not_measured_cannot_choose_the_best(tmp_path):
    sentence = r"checkpoint: best needs the validation's val_iou, which is not among val_dice"
    with pytest.raises(SettingsError, match=sentence):
        train(tmp_path / "best", metric="val_iou")
    train(tmp_path / "last", metric="val_iou", checkpoint="last")


def test_a_metric_of_several_numbers_cannot_choose_the_best(tmp_path):
    metrics = [torch.tensor([0.1, 0.2])] * 4
    sentence = r"^checkpoint: best needs the validation's val_dice, which is not a single number;"
    with pytest.raises(SettingsError, match=sentence):
        train(tmp_path / "best", metrics=metrics)
    train(tmp_path / "last", metrics=metrics, checkpoint="last")


@pytest.mark.parametrize(
    ("checkpoint", "last", "kept"), [("best", 2, 2), ("last", 2, 2), ("best", 5, 3), ("last", 5, 5)]
)
def test_a_training_that_a_handler_ends_within_an_epoch_keeps_what_it_has(tmp_path, checkpoint, last, kept):
    class End:
        def attach(self, trainer):
            trainer.add_event_handler(Events.ITERATION_COMPLETED(once=last), lambda _: trainer.terminate())

    _, trace = train(tmp_path, checkpoint=checkpoint, handlers=[End()])
    assert trace[-1][0] == last
    assert record(tmp_path)["step"] == kept
    assert torch.equal(committee(tmp_path), values_at(trace, kept))
    assert not (tmp_path / "training.pt").exists()


def test_a_model_file_that_cannot_be_written_is_refused_before_the_training(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SettingsError, match=r"^model_file: .*file cannot be written to"):
        train(tmp_path, model_file=tmp_path / "file/models/model.pt")
    assert not (tmp_path / "training.pt").exists()


def test_the_result_is_there_only_when_the_training_is_complete(tmp_path):
    train(tmp_path, (Events.EPOCH_COMPLETED, 4))
    assert [path.name for path in tmp_path.iterdir()] == ["training.pt"]


def test_what_a_killed_training_left_half_written_goes(tmp_path, left):
    left(tmp_path / "training.pt")
    train(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["committee.pt", "training.json"]


def test_the_progress_holds_tensors_and_plain_values(tmp_path):
    train(tmp_path, (Events.EPOCH_COMPLETED, 2))
    assert torch.load(tmp_path / "training.pt", weights_only=True)["iteration"] == 6


def test_progress_of_another_key_is_not_continued(tmp_path, caplog):
    train(tmp_path, (Events.EPOCH_COMPLETED, 2), key={"learning_rate": 0.1})
    with caplog.at_level(logging.WARNING):
        particles, trace = train(tmp_path, key={"learning_rate": 0.2})
    assert "training.pt was written with other settings; the training begins anew" in caplog.text
    assert [step for step, _ in trace] == list(range(1, STEPS + 1))
    assert torch.equal(particles.values, train(tmp_path / "other")[0].values)


def test_the_order_of_a_keys_words_does_not_matter(tmp_path):
    train(tmp_path, (Events.EPOCH_COMPLETED, 2), key={"a": 1, "b": 2})
    assert train(tmp_path, key={"b": 2, "a": 1})[1][0][0] == 7


def truncated(path):
    path.write_bytes(path.read_bytes()[:-100])


def emptied(path):
    path.write_bytes(b"")


def garbage(path):
    path.write_bytes(b"." + b"garbage" * 30)


def replaced_by(**changes):
    def change(path):
        saved = torch.load(path, weights_only=True)
        for name, value in changes.items():
            if value is None:
                del saved[name]
            else:
                saved[name] = value
        torch.save(saved, path)

    return change


def a_tensor(path):
    torch.save(torch.zeros(3), path)


@pytest.mark.parametrize(
    "damage",
    [
        truncated,
        emptied,
        garbage,
        a_tensor,
        replaced_by(values=torch.zeros(3, 7)),
        replaced_by(values=torch.zeros(1)),
        replaced_by(optimizer=None),
        replaced_by(optimizer={"state": {}, "param_groups": []}),
        replaced_by(random=torch.zeros(3)),
        replaced_by(best=None),
        replaced_by(validations=None),
        replaced_by(seconds=None),
    ],
    ids=lambda damage: damage.__name__,
)
def test_damaged_progress_begins_anew_with_a_warning(tmp_path, caplog, damage):
    expected, _ = train(tmp_path / "whole", dropout=0.5)
    folder = tmp_path / "damaged"
    train(folder, (Events.EPOCH_COMPLETED, 2), dropout=0.5)
    damage(folder / "training.pt")
    with caplog.at_level(logging.WARNING):
        particles, trace = train(folder, dropout=0.5)
    assert "training.pt is damaged" in caplog.text
    assert "begins anew" in caplog.text
    assert [step for step, _ in trace] == list(range(1, STEPS + 1))
    assert torch.equal(particles.values, expected.values)
    assert record(folder) == record(tmp_path / "whole")


@pytest.mark.parametrize(
    "guard", [{}, {"values": torch.zeros(2, 3), "step": 3, "restored": [], "warned": False}, [1], 7], ids=str
)
def test_damaged_notes_of_the_guard_begin_anew_with_nothing_of_the_old_training(tmp_path, caplog, guard):
    expected, _ = train(tmp_path / "whole", dropout=0.5)
    folder = tmp_path / "damaged"
    train(folder, (Events.ITERATION_COMPLETED, 5), dropout=0.5, every=0.0)
    replaced_by(guard=guard)(folder / "training.pt")
    particles, trace = train(folder, dropout=0.5)
    assert "begins anew" in caplog.text
    assert trace[0][0] == 1
    assert torch.equal(particles.values, expected.values)


def test_a_warm_start_begins_with_the_given_committee(tmp_path):
    start = Particles(lambda: network(0.0), 2, seed=77)
    file = save_committee(tmp_path / "start.pt", start)
    particles, _ = train(tmp_path / "warm", initial=file)
    same, _ = train(tmp_path / "cold", initialisation=77)
    assert torch.equal(particles.values, same.values)


def test_a_continued_warm_start_does_not_begin_again(tmp_path):
    file = save_committee(tmp_path / "start.pt", Particles(lambda: network(0.0), 2, seed=77))
    whole, _ = train(tmp_path / "whole", initial=file)
    train(tmp_path / "pieces", (Events.EPOCH_COMPLETED, 2), initial=file)
    particles, trace = train(tmp_path / "pieces", initial=file)
    assert trace[0][0] == 7
    assert torch.equal(particles.values, whole.values)


@pytest.mark.parametrize("every", [0.0, 600.0])
@pytest.mark.parametrize("spoil", [(), (8,)])
def test_monais_loader_behind_the_keeper_begins_a_training_and_undoes_no_continued_one(tmp_path, spoil, every):
    file = tmp_path / "start.pt"
    torch.save(Particles(lambda: network(0.0), 2, seed=77).state_dict(), file)
    options = {
        "behind": lambda particles, _: (CheckpointLoader(str(file), {"network": particles}), None),
        "spoil": spoil,
        "every": every,
        "checkpoint": "last",
    }
    whole, _ = train(tmp_path / "whole", **options)
    assert torch.equal(
        whole.values, train(tmp_path / "same", initialisation=77, spoil=spoil, checkpoint="last")[0].values
    )
    train(tmp_path / "pieces", (Events.ITERATION_COMPLETED, 7), **options)
    particles, trace = train(tmp_path / "pieces", **options)
    assert trace[0][0] == (8 if every == 0.0 else 7)
    assert torch.equal(particles.values, whole.values)


def annealing(epoch_level):
    def behind(_, optimizer):
        scheduler = CosineAnnealingLR(optimizer, T_max=VALIDATIONS if epoch_level else STEPS)
        return LrScheduleHandler(scheduler, epoch_level=epoch_level), {"scheduler": scheduler}

    return behind


@pytest.mark.parametrize("every", [0.0, 600.0])
@pytest.mark.parametrize("step", [4, 5, 6, 7])
@pytest.mark.parametrize("epoch_level", [True, False])
def test_a_scheduler_behind_the_keeper_goes_on_where_it_was(tmp_path, epoch_level, step, every):
    options = {"behind": annealing(epoch_level), "every": every, "checkpoint": "last"}
    whole, trace = train(tmp_path / "whole", **options)
    train(tmp_path / "pieces", (Events.ITERATION_COMPLETED, step), **options)
    particles, rest = train(tmp_path / "pieces", **options)
    assert rest[0][0] > 1
    for number, values in rest:
        assert torch.equal(values, values_at(trace, number)), f"step {number}"
    assert torch.equal(particles.values, whole.values)


class Stop:
    """Early stopping behind the keeper: the second metric is the best."""

    def __init__(self, patience):
        self.patience = patience

    def attach(self, trainer):
        stopping = EarlyStopping(self.patience, lambda _: METRICS[trainer.state.epoch - 1], trainer)
        self.state_dict, self.load_state_dict = stopping.state_dict, stopping.load_state_dict
        trainer.add_event_handler(Events.EPOCH_COMPLETED, stopping)


@pytest.mark.parametrize("kill", [(Events.EPOCH_COMPLETED, 2), (Events.ITERATION_COMPLETED, 8)], ids=str)
def test_early_stopping_counts_on(tmp_path, kill):
    def behind(*_):
        return (stop := Stop(1)), {"stop": stop}

    _, whole = train(tmp_path / "whole", behind=behind)
    assert whole[-1][0] == 9
    train(tmp_path / "pieces", kill, behind=behind)
    assert train(tmp_path / "pieces", behind=behind)[1][-1][0] == 9


class Odd:
    def state_dict(self):
        return {"object": self}

    def load_state_dict(self, _):
        pass

    def attach(self, _):
        pass


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (Odd(), r"^state: the state_dict of part holds more than tensors and plain values"),
        ([1], r"^state: part is a list, which has no state_dict"),
    ],
)
def test_a_state_that_cannot_be_saved_is_refused_before_the_training(tmp_path, part, message):
    with pytest.raises(SettingsError, match=message):
        train(tmp_path, behind=lambda *_: (Odd(), {"part": part}))


def test_a_missing_warm_start_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"none\.pt does not exist"):
        train(tmp_path, initial=tmp_path / "none.pt")


def test_the_committee_is_written_once_more_as_plain_modules_on_demand(tmp_path):
    train(tmp_path / "run", model_file=tmp_path / "models/model.pt")
    plain = torch.load(tmp_path / "models/model.pt", weights_only=True)
    values = committee(tmp_path / "run")
    assert {name.split(".")[1] for name in plain} == {str(member) for member in range(len(values))}
    flat = torch.cat([value.reshape(-1) for name, value in plain.items() if name.startswith("networks.0.")])
    torch.testing.assert_close(flat, values[0], rtol=0, atol=0)


def test_an_unknown_checkpoint_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="checkpoint: 'newest' is not one of best, last"):
        train(tmp_path, checkpoint="newest")
