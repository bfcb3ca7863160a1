"""The trainer is a MONAI trainer to every handler, and one particle is plain Adam."""

import logging
import math

import pytest
import torch
from ignite.engine import Events
from ignite.metrics import Average
from monai.data import MetaTensor
from monai.engines.utils import IterationEvents
from monai.handlers import (
    CheckpointLoader,
    CheckpointSaver,
    EarlyStopHandler,
    StatsHandler,
    TensorBoardStatsHandler,
    ValidationHandler,
    from_engine,
)
from monai.losses import DiceCELoss
from monai.optimizers import Novograd
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.checkpoint import checkpoint

from svgd_monai.committee import (
    CommitteeEvaluator,
    CommitteeTrainer,
    LogDiceLoss,
    Particles,
    PosteriorStep,
    svgd_direction,
)
from svgd_monai.committee.optimizer import check_optimizer
from svgd_monai.errors import SettingsError

LOSS = LogDiceLoss(to_onehot_y=True, softmax=True)


class Small(nn.Module):
    def __init__(self, dropout=0.0):
        super().__init__()
        self.first = nn.Conv3d(1, 4, 3, padding=1)
        self.norm = nn.InstanceNorm3d(4, affine=True)
        self.dropout = nn.Dropout(dropout)
        self.second = nn.Conv3d(4, 2, 1)

    def forward(self, x):
        return self.second(self.dropout(torch.relu(self.norm(self.first(x)))))


def batches(number=12, meta=False):
    generator = torch.Generator().manual_seed(0)
    made = []
    for _ in range(number):
        label = (torch.rand(2, 1, 6, 6, 6, generator=generator) > 0.6).long()
        image = label + 0.3 * torch.randn(label.shape, generator=generator)
        made.append({"image": MetaTensor(image) if meta else image, "label": MetaTensor(label) if meta else label})
    return made


def make_trainer(members=3, data=None, epochs=1, step=None, particles=None, rate=0.01, loss=LOSS, **options):
    options = {"decollate": False} | options
    particles = Particles(Small(), members) if particles is None else particles
    return CommitteeTrainer(
        device="cpu",
        max_epochs=epochs,
        train_data_loader=batches() if data is None else data,
        network=particles,
        optimizer=torch.optim.Adam([particles.values], lr=rate),
        loss_function=loss,
        step=step or PosteriorStep(),
        **options,
    )


def make_evaluator(particles, **options):
    return CommitteeEvaluator("cpu", batches(2), particles, decollate=False, **options)


class Writer:
    """The part of a summary writer that MONAI's handler calls."""

    def __init__(self):
        self.scalars = []

    def add_scalar(self, tag, value, step):
        self.scalars.append((tag, float(value), step))

    def flush(self):
        pass

    def close(self):
        pass


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD])
@pytest.mark.parametrize("meta", [False, True])
def test_one_particle_with_a_flat_prior_is_plain_training_to_the_bit(optimizer, meta):
    particles = Particles(Small(), 1, seed=4)
    network = particles.network(0).train()
    plain = optimizer(network.parameters(), lr=0.01, weight_decay=0)
    losses = []
    for batch in batches(10):
        plain.zero_grad()
        loss = LOSS(network(batch["image"]), batch["label"])
        loss.backward()
        plain.step()
        losses.append(loss.item())

    trainer = make_trainer(particles=particles, data=batches(10, meta))
    trainer.optimizer = optimizer([particles.values], lr=0.01, weight_decay=0)
    seen = []
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda e: seen.append(e.state.output["loss"].item()))
    trainer.run()
    assert seen == losses
    assert type(trainer.state.output["image"]) is torch.Tensor, "a MetaTensor's dispatch costs time"
    assert torch.equal(particles.values[0], torch.cat([p.detach().reshape(-1) for p in network.parameters()]))


def test_rows_hold_the_losses_gradients_after_backward_and_minus_phi_after_the_step():
    particles = Particles(Small(), 3)
    before = particles.values.detach().clone()
    networks = [particles.network(m).train() for m in range(3)]
    batch = batches(1)[0]
    losses = [LOSS(network(batch["image"]), batch["label"]) for network in networks]
    for loss in losses:
        loss.backward()
    gradients = torch.stack([torch.cat([p.grad.reshape(-1) for p in network.parameters()]) for network in networks])

    rows = {}
    trainer = make_trainer(particles=particles, data=[batch], step=PosteriorStep(likelihood_scale=4, prior_std=2.0))
    for event in (IterationEvents.BACKWARD_COMPLETED, IterationEvents.MODEL_COMPLETED):
        trainer.add_event_handler(event, lambda _, e=event: rows.update({e: particles.values.grad.clone()}))
    trainer.run()
    torch.testing.assert_close(rows[IterationEvents.BACKWARD_COMPLETED], gradients)
    phi = svgd_direction(before, -4 * gradients - before / 4)
    torch.testing.assert_close(rows[IterationEvents.MODEL_COMPLETED], -phi, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(trainer.state.member_losses, torch.stack(losses).detach())
    assert not trainer.state.member_losses.requires_grad, "it would hold the graph of every step that is noted"
    torch.testing.assert_close(trainer.state.output["loss"], torch.stack(losses).detach().mean())
    mean = torch.stack([network(batch["image"]).softmax(1) for network in networks]).mean(0)
    torch.testing.assert_close(trainer.state.output["pred"], mean.detach())
    assert not torch.equal(particles.values, before)


def test_iteration_events_fire_in_monais_order_with_what_they_promise():
    trainer, fired = make_trainer(data=batches(2)), []
    promised = {
        IterationEvents.FORWARD_COMPLETED: {"image", "label", "pred"},
        IterationEvents.LOSS_COMPLETED: {"image", "label", "pred", "loss"},
        IterationEvents.BACKWARD_COMPLETED: {"image", "label", "pred", "loss"},
        IterationEvents.MODEL_COMPLETED: {"image", "label", "pred", "loss"},
    }
    for event in promised:
        trainer.add_event_handler(event, lambda e, name=event: fired.append((name, set(e.state.output))))
    trainer.run()
    assert fired == 2 * list(promised.items())


def test_the_loss_decreases():
    trainer, losses = make_trainer(epochs=5, rate=0.02, step=PosteriorStep(likelihood_scale=20, prior_std=1.0)), []
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda e: losses.append(e.state.output["loss"].item()))
    trainer.run()
    assert sum(losses[-6:]) < 0.7 * sum(losses[:6])


def refuse(make, **options):
    particles = Particles(Small(), 2)
    with pytest.raises(SettingsError) as caught:
        CommitteeTrainer("cpu", 1, [], particles, make([particles.values], lr=0.1, **options), LOSS, PosteriorStep())
    return str(caught.value)


@pytest.mark.parametrize("make", [torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD])
def test_a_weight_decay_is_refused(make):
    name = make.__name__
    assert refuse(make, weight_decay=0.01).startswith(f"optimizer: {name} has a weight_decay of 0.01, but the prior")


class Own(Novograd):
    pass


MUON = [torch.optim.Muon] if hasattr(torch.optim, "Muon") else []  # torch 2.9 and newer
OTHERS = [type(name, (torch.optim.SGD,), {}) for name in ("LAMB", "LARS", "Lamb")]  # of packages that are not here


@pytest.mark.parametrize("make", [torch.optim.Adafactor, torch.optim.LBFGS, *MUON, Novograd, Own, *OTHERS])
def test_an_optimiser_that_mixes_the_particles_is_refused(make):
    assert refuse(make).startswith(f"optimizer: {make.__name__} takes a statistic over a whole tensor")


def test_an_optimiser_that_knows_no_weight_decay_will_do():
    check_optimizer(torch.optim.Rprop([Particles(Small(), 2).values]))


def test_an_optimiser_that_would_not_go_down_with_the_particles_is_refused():
    assert "maximize" in refuse(torch.optim.Adam, maximize=True)
    other = torch.optim.Adam([torch.nn.Parameter(torch.zeros(2, 3))])
    assert refuse(lambda *_, **__: other).startswith("optimizer: it does not hold the particles")


def test_compilation_is_refused():
    with pytest.raises(SettingsError, match=r"^compile: "):
        make_trainer(compile=True)


def test_gradients_are_not_accumulated_over_batches():
    with pytest.raises(SettingsError, match=r"^accumulation_steps: .* give a larger batch_size"):
        make_trainer(accumulation_steps=2)
    assert make_trainer(accumulation_steps=1).accumulation_steps == 1


@pytest.mark.parametrize(
    ("steps", "ends"),
    [(steps, [4, 8, last]) for steps, last in ((10, 10), (12, 12), (9, 9), (None, 12), (8, 12), (7, 12), (20, 12))],
)
def test_the_last_epoch_is_cut_at_the_last_step_and_completes(steps, ends):
    trainer, completed, iterations = make_trainer(epochs=3, epoch_length=4, max_steps=steps), [], []
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda e: completed.append(e.state.iteration))
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda e: iterations.append(e.state.iteration))
    ended = []
    trainer.add_event_handler(Events.COMPLETED, lambda e: ended.append(e.state.iteration))
    trainer.run()
    assert completed == ends
    assert iterations == list(range(1, ends[-1] + 1))
    assert ended == ends[-1:]


@pytest.mark.parametrize("amp", [False, True])
def test_the_flag_of_reduced_precision_sets_autocast_and_nothing_else(amp):
    dtypes = []

    def loss(logits, target):
        dtypes.append(logits.dtype)
        return LOSS(logits, target)

    trainer, losses = make_trainer(members=2, data=batches(3), loss=loss, amp=amp), []
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda e: losses.append(e.state.member_losses))
    trainer.run()
    assert set(dtypes) == {torch.bfloat16 if amp else torch.float32}
    assert trainer.scaler is None  # a scaled loss would scale the drive and not the repulsion
    assert torch.stack(losses).isfinite().all()
    assert trainer.network.values.grad.dtype == torch.float32
    assert trainer.state.output["pred"].dtype == torch.float32


def gradients_of_the_first_step(network, loss=LOSS, **options):
    """Losses (M,) and their gradients (M, D)."""
    rows = []
    trainer = make_trainer(particles=Particles(network, 2), data=batches(1), loss=loss, **options)
    trainer.add_event_handler(
        IterationEvents.BACKWARD_COMPLETED, lambda e: rows.append(e.network.values.grad.detach().clone())
    )
    trainer.run()
    return trainer.state.member_losses, rows[0]


def own_loss(logits, target):
    """Of a user, with a layer that has weights in single precision."""
    kernel = torch.full((1, 1, 3, 3, 3), 1 / 27)
    return (nn.functional.conv3d(logits.softmax(1)[:, 1:], kernel, padding=1) - target).square()


@pytest.mark.parametrize(
    "loss", [DiceCELoss(to_onehot_y=True, softmax=True, weight=torch.tensor([0.2, 1.0])), own_loss]
)
def test_a_loss_with_weights_in_single_precision_meets_bfloat16_as_in_monais_trainer(loss):
    losses, rows = gradients_of_the_first_step(Small(), loss, amp=True)
    exact, gradients = gradients_of_the_first_step(Small(), loss)
    torch.testing.assert_close(losses, exact, rtol=0.01, atol=0)
    assert float((rows - gradients).norm() / gradients.norm()) < 0.05


def test_the_dice_log_likelihood_is_in_single_precision_within_autocast():
    losses, rows = gradients_of_the_first_step(Small(), amp=True)
    particles, (batch,) = Particles(Small(), 2), batches(1)
    particles.zero_grad()
    for member in range(2):
        with torch.autocast("cpu", torch.bfloat16):
            logits = particles.member(member, batch["image"])
        loss = LOSS(logits.float(), batch["label"])
        loss.backward()
        assert loss.dtype == torch.float32
        torch.testing.assert_close(losses[member], loss.detach(), rtol=1e-6, atol=0)
    torch.testing.assert_close(rows, particles.values.grad)


class Saving(Small):
    """Computes the activations of its last layers again in the backward pass."""

    reentrant = False

    def forward(self, x):
        return checkpoint(self.rest, self.first(x), use_reentrant=self.reentrant)

    def rest(self, first):
        return self.second(torch.relu(self.norm(first)))


class SavingReentrant(Saving):
    reentrant = True


@pytest.mark.parametrize("amp", [False, True])
@pytest.mark.parametrize("network", [Saving, SavingReentrant])
def test_a_network_with_activation_checkpointing_trains_as_one_without(network, amp):
    losses, rows = gradients_of_the_first_step(Small(), amp=amp)
    again, found = gradients_of_the_first_step(network(), amp=amp)
    assert torch.equal(again, losses)
    torch.testing.assert_close(found, rows)


def test_the_network_trains_in_training_mode():
    particles = Particles(Small(dropout=0.5), 2)
    particles.eval()
    modes = []
    trainer = make_trainer(particles=particles, data=batches(1))
    trainer.add_event_handler(
        IterationEvents.FORWARD_COMPLETED, lambda e: modes.append((e.network.training, e.network.network(0).training))
    )
    trainer.run()
    assert modes == [(True, True)]


def test_a_batch_is_prepared_as_in_monais_trainer():
    seen = []

    def prepare(batch, device, non_blocking, **options):
        seen.append((device, non_blocking, options))
        return batch["scan"], batch["mask"]

    (batch,) = batches(1)
    data = [{"scan": batch["image"], "mask": batch["label"]}]
    make_trainer(data=data, prepare_batch=prepare, non_blocking=True, to_kwargs={"copy": True}).run()
    assert seen == [(torch.device("cpu"), True, {"copy": True})]


def test_a_batch_of_nothing_is_refused():
    with pytest.raises(ValueError, match="batch"):
        make_trainer(data=[None]).run()


def test_monais_validation_handler_runs_the_evaluator_after_each_epoch():
    particles = Particles(Small(), 2)
    evaluator, seen = make_evaluator(particles), []
    evaluator.add_event_handler(Events.COMPLETED, lambda e: seen.append(e.state.output["pred"].clone()))
    make_trainer(particles=particles, epochs=3, epoch_length=4, train_handlers=[ValidationHandler(1, evaluator)]).run()
    assert len(seen) == 3
    assert not torch.equal(seen[0], seen[2])
    assert particles.training
    torch.testing.assert_close(
        seen[2], torch.stack([particles.network(m)(batches(2)[1]["image"]).softmax(1) for m in range(2)]).mean(0)
    )


def test_monais_checkpoint_handlers_save_and_load_the_particles(tmp_path):
    particles = Particles(Small(), 2)
    saver = CheckpointSaver(
        str(tmp_path), {"net": particles}, save_final=True, final_filename="final.pt", save_interval=1
    )
    make_trainer(particles=particles, data=batches(2), epochs=2, train_handlers=[saver]).run()
    assert len(list(tmp_path.iterdir())) == 3
    other = Particles(Small(), 2, seed=9)
    loader = CheckpointLoader(str(tmp_path / "final.pt"), {"net": other})
    evaluator = make_evaluator(other, val_handlers=[loader])
    evaluator.run()
    assert torch.equal(other.values, particles.values)


def test_monais_stats_handlers_read_the_loss(caplog):
    writer = Writer()
    handlers = [
        StatsHandler(name="committee_test", output_transform=from_engine(["loss"], first=True), tag_name="train_loss"),
        TensorBoardStatsHandler(
            writer, output_transform=from_engine(["loss"], first=True), tag_name="train_loss", iteration_log=True
        ),
    ]
    logging.getLogger("committee_test").addHandler(caplog.handler)  # MONAI's loggers do not propagate
    losses = []
    with caplog.at_level("INFO"):
        trainer = make_trainer(data=batches(3), decollate=True, train_handlers=handlers)
        trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda e: losses.append(float(e.state.output[0]["loss"])))
        trainer.run()
    assert [(step, value) for tag, value, step in writer.scalars if tag == "train_loss"] == [
        (step, pytest.approx(value)) for step, value in enumerate(losses, start=1)
    ]
    assert f"Iter: 2/3 -- train_loss: {losses[1]:.4f}" in caplog.text


def test_a_real_summary_writer_is_served(tmp_path):
    handler = TensorBoardStatsHandler(
        log_dir=str(tmp_path), output_transform=from_engine(["loss"], first=True), tag_name="loss"
    )
    make_trainer(data=batches(2), decollate=True, train_handlers=[handler]).run()
    handler.close()
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [event.step for event in events.Scalars("loss")] == [1, 2]


def test_monais_early_stopping_stops():
    trainer = make_trainer(data=batches(2), epochs=10)
    stopper = EarlyStopHandler(patience=2, score_function=lambda e: 0.0, trainer=trainer, epoch_level=True)
    stopper.attach(trainer)
    trainer.run()
    assert trainer.state.epoch == 3


def test_ignites_metrics_attach():
    trainer = make_trainer(data=batches(4))
    losses = []
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda e: losses.append(e.state.output["loss"].item()))
    Average(output_transform=lambda output: output["loss"]).attach(trainer, "mean_loss")
    trainer.run()
    assert trainer.state.metrics["mean_loss"] == pytest.approx(sum(losses) / 4)


def test_monais_key_metric_and_decollation_work_as_in_its_own_trainer():
    from monai.handlers import MeanDice
    from monai.transforms import AsDiscreted

    particles = Particles(Small(), 2)
    trainer = CommitteeTrainer(
        "cpu",
        1,
        batches(3),
        particles,
        torch.optim.Adam([particles.values], lr=0.01),
        LOSS,
        PosteriorStep(),
        postprocessing=AsDiscreted(["pred", "label"], argmax=[True, False], to_onehot=2),
        key_train_metric={"dice": MeanDice(include_background=False, output_transform=from_engine(["pred", "label"]))},
    )
    trainer.run()
    assert 0 < trainer.state.metrics["dice"] < 1
    assert math.isfinite(trainer.state.best_metric)
