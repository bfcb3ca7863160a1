"""A committee's prediction: the mean of its members, by window or whole, with the statistics of its disagreement."""

import pytest
import torch
from ignite.engine import Events
from monai.data import DataLoader, MetaTensor
from monai.engines.utils import IterationEvents
from monai.handlers import MeanDice, from_engine
from monai.inferers import SimpleInferer, SlidingWindowInferer
from monai.transforms import AsDiscreted
from torch import nn

from svgd_monai.acquisition import committee_statistics
from svgd_monai.committee import (
    CommitteeEvaluator,
    CommitteeMean,
    CommitteeStatistics,
    Particles,
    committee_mean,
)
from svgd_monai.statistics import STATISTICS, VOTES, member_agreement


class Pointwise(nn.Module):
    """Sees one voxel at a time, so that windows cannot matter."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv3d(1, 4, 1)
        self.dropout = nn.Dropout(0.5)
        self.second = nn.Conv3d(4, 3, 1)

    def forward(self, x):
        return self.second(self.dropout(torch.tanh(self.first(x))))


def image(*shape, batch=2, seed=0):
    return 3 * torch.randn(batch, 1, *(shape or (6, 5, 4)), generator=torch.Generator().manual_seed(seed))


def both_forms(members=3):
    particles = Particles(Pointwise(), members)
    return particles, CommitteeMean([particles.network(m) for m in range(members)])


@pytest.fixture(params=["particles", "mean"])
def committee(request):
    return both_forms()[0 if request.param == "particles" else 1]


def stacked_softmax(committee, x):
    """(M, B, C, ...) from plain networks in evaluation mode."""
    count = 3
    plain = committee.networks if isinstance(committee, CommitteeMean) else map(committee.network, range(count))
    with torch.no_grad():
        return torch.stack([network.eval()(x).softmax(1) for network in plain])


def evaluate(committee, x, decollate=False, **options):
    batch = {"image": x, "label": torch.zeros_like(x)}
    evaluator = CommitteeEvaluator("cpu", [batch], committee, decollate=decollate, **options)
    evaluator.run()
    return evaluator.state.output


def test_the_prediction_is_the_mean_softmax_of_the_members(committee):
    output = evaluate(committee, image())
    torch.testing.assert_close(output["pred"], stacked_softmax(committee, image()).mean(0))


def test_the_statistics_are_those_of_the_stacked_members(committee):
    output = evaluate(committee, image())
    assert output[STATISTICS].shape == (2, 5, 6, 5, 4)
    torch.testing.assert_close(output[STATISTICS], committee_statistics(stacked_softmax(committee, image())))


@pytest.mark.parametrize("mode", ["constant", "gaussian"])
@pytest.mark.parametrize("shape", [(13, 9, 10), (5, 6, 7), (8, 8, 8), (20, 4, 8)])
def test_windows_over_any_volume_blend_to_the_whole(committee, shape, mode):
    inferer = SlidingWindowInferer((8, 8, 8), sw_batch_size=2, overlap=0.25, mode=mode)
    output = evaluate(committee, image(*shape, batch=1), inferer=inferer)
    expected = committee_statistics(stacked_softmax(committee, image(*shape, batch=1)))
    torch.testing.assert_close(output[STATISTICS], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(output["pred"], expected[:, :3], rtol=1e-4, atol=1e-5)


def stacked_votes(committee, x):
    """(B, C, ...), fraction of the members that choose each class."""
    chosen = stacked_softmax(committee, x).argmax(2)
    return torch.stack([(chosen == c).float().mean(0) for c in range(3)], dim=1)


def test_votes_come_beside_the_same_statistics_where_they_are_asked_for(committee):
    output = evaluate(committee, image(), votes=True)
    assert set(output) == {"image", "label", "pred", STATISTICS, VOTES}
    torch.testing.assert_close(output[STATISTICS], committee_statistics(stacked_softmax(committee, image())))
    torch.testing.assert_close(output["pred"], stacked_softmax(committee, image()).mean(0))
    torch.testing.assert_close(output[VOTES], stacked_votes(committee, image()))


def test_votes_blend_over_windows_to_those_of_the_whole(committee):
    x = image(13, 9, 10, batch=1)
    inferer = SlidingWindowInferer((8, 8, 8), sw_batch_size=2, overlap=0.25, mode="gaussian")
    votes = evaluate(committee, x, inferer=inferer, votes=True)[VOTES]
    torch.testing.assert_close(votes, stacked_votes(committee, x), rtol=1e-4, atol=1e-5)
    agreement = member_agreement(votes, 3)
    torch.testing.assert_close(agreement, member_agreement(stacked_votes(committee, x), 3), rtol=1e-4, atol=1e-5)
    assert 0 < float(agreement.min()) < 1


def test_the_two_forms_of_a_committee_predict_the_same():
    outputs = [evaluate(form, image(), inferer=SimpleInferer()) for form in both_forms()]
    torch.testing.assert_close(outputs[0][STATISTICS], outputs[1][STATISTICS])


def test_dropout_is_off_and_the_mode_comes_back(committee):
    committee.train()
    torch.testing.assert_close(evaluate(committee, image())["pred"], evaluate(committee, image())["pred"])
    assert committee.training
    inner = committee.network(0) if isinstance(committee, Particles) else committee.networks[0]
    assert inner.training


def test_nothing_is_recorded_for_gradients(committee):
    output = evaluate(committee, image())
    assert not output["pred"].requires_grad
    assert not output[STATISTICS].requires_grad


def test_events_fire_with_the_prediction_in_place(committee):
    fired = []
    evaluator = CommitteeEvaluator("cpu", [{"image": image(), "label": image()}], committee, decollate=False)
    for event in (IterationEvents.FORWARD_COMPLETED, IterationEvents.MODEL_COMPLETED):
        evaluator.add_event_handler(event, lambda e, name=event: fired.append((name, set(e.state.output))))
    evaluator.run()
    keys = {"image", "label", "pred", STATISTICS}
    assert fired == [(IterationEvents.FORWARD_COMPLETED, keys), (IterationEvents.MODEL_COMPLETED, keys)]


def test_a_volume_without_a_label_is_predicted(committee):
    evaluator = CommitteeEvaluator("cpu", [{"image": image()}], committee, decollate=False)
    evaluator.run()
    torch.testing.assert_close(evaluator.state.output["pred"], stacked_softmax(committee, image()).mean(0))


def test_metadata_survives_to_the_prediction(committee):
    affine = torch.diag(torch.tensor([2.0, 3.0, 4.0, 1.0], dtype=torch.float64))
    loader = DataLoader([{"image": MetaTensor(image()[0], affine=affine)}], batch_size=1)
    seen = []
    evaluator = CommitteeEvaluator("cpu", loader, committee, inferer=SlidingWindowInferer((4, 4, 4), 2, 0.25))
    evaluator.add_event_handler(Events.ITERATION_COMPLETED, lambda e: seen.extend(e.state.output))
    evaluator.run()
    assert isinstance(seen[0]["pred"], MetaTensor)
    torch.testing.assert_close(seen[0]["pred"].affine, affine)


def test_monais_metrics_and_postprocessing_attach(committee):
    x = image(batch=2)
    truth = stacked_softmax(committee, x).mean(0).argmax(1, keepdim=True)
    evaluator = CommitteeEvaluator(
        "cpu",
        [{"image": x, "label": truth}],
        committee,
        postprocessing=AsDiscreted(["pred", "label"], argmax=[True, False], to_onehot=3),
        key_val_metric={"val_dice": MeanDice(include_background=True, output_transform=from_engine(["pred", "label"]))},
    )
    evaluator.run()
    assert evaluator.state.metrics["val_dice"] == pytest.approx(1.0)


@pytest.mark.parametrize("amp", [False, True])
def test_reduced_precision_is_the_members_alone(amp):
    particles = Particles(nn.Conv3d(1, 3, 1), 2)
    dtypes = []

    class Spy(nn.Module):
        def members(self, x):
            for logits in particles.members(x):
                dtypes.append(logits.dtype)
                yield logits

    statistics = CommitteeStatistics(Spy(), amp)(image())
    assert dtypes == [torch.bfloat16 if amp else torch.float32] * 2
    assert statistics.dtype == torch.float32
    torch.testing.assert_close(statistics[:, :3].sum(1), torch.ones(2, 6, 5, 4))  # the softmax is not rounded
    exact = committee_statistics(particles(image()).softmax(2))
    torch.testing.assert_close(statistics, exact, rtol=0.05, atol=0.05)


def test_a_batch_of_nothing_is_refused(committee):
    with pytest.raises(ValueError, match="batch"):
        CommitteeEvaluator("cpu", [None], committee).run()


# CommitteeMean


def test_the_mean_of_plain_networks_is_their_mean_softmax():
    _, mean = both_forms()
    mean.eval()
    torch.testing.assert_close(mean(image()), stacked_softmax(mean, image()).mean(0))
    torch.testing.assert_close(torch.stack(list(mean.members(image()))).softmax(2).mean(0), mean(image()))


def test_a_mean_of_half_precision_networks_is_summed_in_single():
    mean = committee_mean(Pointwise, 2).bfloat16().eval()
    probability = mean(image().bfloat16())
    assert probability.dtype == torch.float32
    torch.testing.assert_close(probability.sum(1), torch.ones(2, 6, 5, 4))


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_scripted_and_traced_means_give_the_same_numbers():
    _, mean = both_forms()
    mean.eval()
    other = image(9, 4, 5, batch=1, seed=1)
    for exported in (torch.jit.script(mean), torch.jit.trace(mean, image())):
        torch.testing.assert_close(exported(image()), mean(image()))
        torch.testing.assert_close(exported(other), mean(other))


def test_a_mean_is_made_from_a_factory():
    mean = committee_mean(Pointwise, 4)
    assert len(mean.networks) == 4
    assert len({network.first.weight.data_ptr() for network in mean.networks}) == 4


def test_a_mean_of_nobody_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        CommitteeMean([])
