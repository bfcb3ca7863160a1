"""The Dice log-likelihood against loops, and what decides how a class that is not there is treated."""

import itertools
import math

import pytest
import torch
from monai.losses import DiceLoss
from monai.networks import one_hot
from torch import nn

from svgd_monai.committee import LogDiceLoss

EPS = 1e-5
SHAPE = (3, 2, 4)


def labels(batch=3, classes=3, seed=0):
    """Class indices (B, 1, ...); the last class stands in none of the second item's voxels."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(0, classes, (batch, 1, *SHAPE), generator=generator)
    if batch > 1:
        drawn[1][drawn[1] == classes - 1] = 0
    return drawn


def logits(batch=3, classes=3, seed=1, dtype=torch.float64):
    return torch.randn(batch, classes, *SHAPE, generator=torch.Generator().manual_seed(seed)).to(dtype)


def loop_terms(probabilities, truth, squared_pred, batch):
    """−log SoftDice of every (item, class) and whether the class is there, in plain Python."""
    p, y = probabilities.double().flatten(2).tolist(), truth.double().flatten(2).tolist()
    groups = [list(range(len(p)))] if batch else [[b] for b in range(len(p))]
    terms, present = [], []
    for group in groups:
        rows, there = [], []
        for c in range(len(p[0])):
            overlap = size = held = 0.0
            for b in group:
                for v, w in zip(p[b][c], y[b][c], strict=True):
                    overlap += v * w
                    size += v**2 + w**2 if squared_pred else v + w
                    held += w
            rows.append(-math.log((2 * overlap + EPS) / (size + EPS)))
            there.append(held > 0)
        terms.append(rows)
        present.append(there)
    return terms, present


def loop_loss(probabilities, truth, include_background, squared_pred, batch, reduction, absent):
    terms, present = loop_terms(probabilities, truth, squared_pred, batch)
    first = 0 if include_background else 1
    table = []
    for row, there in zip(terms, present, strict=True):
        table.append([t if h or absent == "smooth" else None for t, h in zip(row[first:], there[first:], strict=True)])
    if reduction == "none":
        return [[0.0 if t is None else t for t in row] for row in table]
    if reduction == "sum":
        return sum(t for row in table for t in row if t is not None)
    means = [[t for t in row if t is not None] for row in table]
    return sum(sum(row) / len(row) if row else 0.0 for row in means) / len(means)


@pytest.mark.parametrize("absent", ["skip", "smooth"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize(
    ("include_background", "squared_pred", "batch"), list(itertools.product([True, False], repeat=3))
)
def test_equals_a_loop_over_voxels(include_background, squared_pred, batch, reduction, absent):
    probabilities = logits().softmax(1)
    truth = one_hot(labels(), 3).double()
    loss = LogDiceLoss(include_background, squared_pred=squared_pred, reduction=reduction, batch=batch, absent=absent)(
        probabilities, truth
    )
    expected = loop_loss(probabilities, truth, include_background, squared_pred, batch, reduction, absent)
    if reduction == "none":
        assert loss.shape == (1 if batch else 3, 3 if include_background else 2, 1, 1, 1)
        loss = loss[..., 0, 0, 0]
    else:
        assert loss.shape == ()
    torch.testing.assert_close(loss, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12)


def test_logits_and_class_indices_are_converted_as_in_monai():
    direct = LogDiceLoss()(logits().softmax(1), one_hot(labels(), 3))
    converted = LogDiceLoss(to_onehot_y=True, softmax=True)(logits(), labels())
    torch.testing.assert_close(converted, direct)
    torch.testing.assert_close(LogDiceLoss(to_onehot_y=True, softmax=True)(logits(), labels().byte()), direct)


@pytest.mark.parametrize("squared_pred", [True, False])
def test_one_term_is_minus_the_logarithm_of_monais_soft_dice(squared_pred):
    options = {"to_onehot_y": True, "softmax": True, "squared_pred": squared_pred, "reduction": "none"}
    dice = 1 - DiceLoss(smooth_nr=EPS, smooth_dr=EPS, **options)(logits(), labels())
    ours = LogDiceLoss(absent="smooth", **options)(logits(), labels())
    torch.testing.assert_close(ours, -dice.log())


@pytest.mark.parametrize("squared_pred", [True, False])
def test_a_target_of_probabilities_counts_as_in_monais_soft_dice(squared_pred):
    options = {"squared_pred": squared_pred, "reduction": "none"}
    probabilities, truth = logits().softmax(1), logits(seed=2).softmax(1)
    dice = 1 - DiceLoss(smooth_nr=EPS, smooth_dr=EPS, **options)(probabilities, truth)
    torch.testing.assert_close(LogDiceLoss(**options)(probabilities, truth), -dice.log())


@pytest.mark.parametrize("batch", [False, True])
def test_a_perfect_prediction_costs_nothing(batch):
    truth = one_hot(labels(), 3).double()
    assert LogDiceLoss(batch=batch)(truth, truth).item() == pytest.approx(0, abs=1e-6)


def test_a_worse_prediction_costs_more():
    truth = one_hot(labels(), 3)
    better, worse = ((truth * sharpness).softmax(1) for sharpness in (4.0, 1.0))
    assert 0 < LogDiceLoss()(better, truth) < LogDiceLoss()(worse, truth)


def item_without_a_class():
    """One item whose target holds classes 0 and 1 but not 2, and a network that has learnt most of it."""
    target = labels(1, 2, seed=3)
    return logits(1, 3, seed=4) + 4 * one_hot(target, 3), target


def test_an_absent_class_adds_neither_value_nor_gradient():
    x, target = item_without_a_class()
    probabilities = x.softmax(1).requires_grad_()
    truth = one_hot(target, 3)
    loss = LogDiceLoss()(probabilities, truth)
    loss.backward()
    terms, _ = loop_terms(probabilities.detach(), truth, True, False)
    assert loss.item() == pytest.approx((terms[0][0] + terms[0][1]) / 2)
    assert probabilities.grad[:, 2].abs().max() == 0
    assert probabilities.grad[:, :2].abs().max() > 0


def test_smoothing_an_absent_class_drowns_the_others_and_skipping_it_does_not():
    """Why ``skip`` is the default: the gradients with respect to the logits, per way, of one and the same item."""
    x, target = item_without_a_class()

    def gradient(**options):
        leaf = x.clone().requires_grad_()
        terms = LogDiceLoss(to_onehot_y=True, softmax=True, reduction="none", **options)(leaf, target).flatten()
        return [torch.autograd.grad(t, leaf, retain_graph=True)[0] for t in terms], terms

    (background, organ, absent), terms = gradient(absent="smooth")
    there = (background + organ).norm()
    assert terms[2] > 3 * (terms[0] + terms[1])
    assert absent.norm() > 5 * there
    skipped = sum(gradient(absent="skip")[0])
    torch.testing.assert_close(skipped, background + organ)


def test_a_batch_with_the_class_anywhere_is_not_skipped_by_the_batch_form():
    x = logits(2)
    target = labels(2)
    assert LogDiceLoss(to_onehot_y=True, softmax=True, batch=True, reduction="none")(x, target)[0, 2] > 0
    assert LogDiceLoss(to_onehot_y=True, softmax=True, reduction="none")(x, target)[1, 2] == 0


def test_an_item_without_any_foreground_has_no_gradient_when_background_is_left_out():
    x = logits(1).requires_grad_()
    loss = LogDiceLoss(include_background=False, to_onehot_y=True, softmax=True)(x, torch.zeros(1, 1, *SHAPE))
    loss.backward()
    assert loss.item() == 0
    assert x.grad.abs().max() == 0


@pytest.mark.parametrize("margin", [10.0, 40.0, 200.0])
def test_a_class_missed_entirely_pulls_with_a_finite_force(margin):
    target = labels(1)
    x = logits(1, dtype=torch.float32)
    x[:, 2] -= margin
    x.requires_grad_()
    loss = LogDiceLoss(to_onehot_y=True, softmax=True)(x, target)
    loss.backward()
    assert loss.isfinite()
    assert x.grad.isfinite().all()
    assert x.grad.norm() < 2
    if margin == 10:
        held = target[0, 0] == 2
        assert (x.grad[0, 2][held] < 0).all()  # it wants the class where it is


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_single(dtype):
    shape = (1, 2, 40, 40, 40)  # 64000 voxels: a count that float16 cannot hold
    x = torch.zeros(shape, dtype=dtype)
    target = torch.zeros(1, 1, 40, 40, 40)
    target[..., 20:] = 1
    loss = LogDiceLoss(to_onehot_y=True, softmax=True)(x, target)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(-math.log(2 * 0.5 * 32000 / (0.25 * 64000 + 32000)), rel=1e-5)


def test_double_precision_stays():
    assert LogDiceLoss(to_onehot_y=True, softmax=True)(logits(), labels()).dtype == torch.float64


@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("include_background", [False, True])
def test_gradients_are_those_of_finite_differences(include_background, batch):
    loss = LogDiceLoss(include_background, to_onehot_y=True, softmax=True, batch=batch)
    assert torch.autograd.gradcheck(lambda x: loss(x, labels()), logits().requires_grad_())


@pytest.mark.parametrize("shape", [(3, 2, *SHAPE), (3, 3, 3, 2, 5), (2, 3, *SHAPE)])
def test_a_target_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match="shape"):
        LogDiceLoss()(logits(), torch.ones(shape))


@pytest.mark.parametrize(
    "options", [{"absent": "ignore"}, {"smooth_nr": 0.0}, {"smooth_dr": -1.0}, {"reduction": "median"}]
)
def test_an_argument_out_of_range_is_refused(options):
    with pytest.raises(ValueError, match=next(iter(options)) if "reduction" not in options else "median"):
        LogDiceLoss(**options)


def test_one_channel_without_the_background_is_nothing():
    with pytest.raises(ValueError, match="include_background=False leaves nothing"):
        LogDiceLoss(include_background=False)(logits()[:, :1], torch.ones_like(logits()[:, :1]))


def test_it_is_a_torch_loss():
    loss = LogDiceLoss()
    assert isinstance(loss, nn.modules.loss._Loss)
    assert loss.reduction == "mean"
