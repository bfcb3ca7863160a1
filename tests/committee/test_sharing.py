"""Every item of every member's batch is computed once, whatever the number of processes."""

from collections import Counter

import pytest
import torch
from monai.losses import DiceCELoss, DiceFocalLoss
from torch import nn

from svgd_monai import LogDiceLoss
from svgd_monai.committee.sharing import check_divisible, shares
from svgd_monai.errors import SettingsError

CASES = [(m, i, r) for m in (1, 2, 5) for i in (4, 7) for r in (1, 2, 3, 4, 5, 6, 8, 13) if -(-r // m) <= i]


@pytest.mark.parametrize(("members", "items", "ranks"), CASES)
def test_each_item_of_each_member_is_computed_once_with_its_share_of_the_weight(members, items, ranks):
    done = Counter()
    for rank in range(ranks):
        own = list(shares(members, items, rank, ranks))
        assert own, "a process without work"
        for member, part, weight in own:
            done.update((member, item) for item in range(items)[part])
            assert weight == len(range(items)[part]) / items
    assert done == Counter((member, item) for member in range(members) for item in range(items))


def test_a_process_too_many_is_refused_in_all():
    for rank in range(5):
        with pytest.raises(SettingsError, match=r"2 particles with batches of 2 .* 5 processes"):
            list(shares(2, 2, rank, 5))


class NegativeLogLikelihood(nn.NLLLoss):
    """Of logits and class indices as the other losses take them."""

    def forward(self, logits, target):
        return super().forward(logits.log_softmax(1), target[:, 0])


LOGITS = {"to_onehot_y": True, "softmax": True}
LOSSES = {
    "log Dice": LogDiceLoss(**LOGITS),
    "log Dice over the batch": LogDiceLoss(**LOGITS, batch=True),
    "sum of log Dice": LogDiceLoss(**LOGITS, reduction="sum"),
    "Dice and cross entropy": DiceCELoss(**LOGITS),
    "Dice over the batch and cross entropy": DiceCELoss(**LOGITS, batch=True),
    "sum of Dice and cross entropy": DiceCELoss(**LOGITS, reduction="sum"),
    "Dice and weighted cross entropy": DiceCELoss(**LOGITS, weight=torch.tensor([1.0, 9.0, 3.0])),
    "negative log-likelihood": NegativeLogLikelihood(),
    "weighted negative log-likelihood": NegativeLogLikelihood(torch.tensor([1.0, 9.0, 3.0])),
    "Dice and focal": DiceFocalLoss(**LOGITS),
    "Dice over the batch and focal": DiceFocalLoss(**LOGITS, batch=True),
    "a part of one's own": nn.ModuleList([nn.Identity(), LogDiceLoss(**LOGITS, batch=True)]),
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_may_be_shared_out_by_items_if_it_is_the_mean_of_theirs(name):
    loss, generator = LOSSES[name], torch.Generator().manual_seed(0)
    call = loss[1] if isinstance(loss, nn.ModuleList) else loss
    logits = torch.randn(3, 3, 8, 8, 8, generator=generator) * torch.tensor([0.1, 1, 5]).view(3, 1, 1, 1, 1)
    target = (torch.rand(3, 1, 8, 8, 8, generator=generator) * torch.tensor([1.2, 2, 3]).view(3, 1, 1, 1, 1)).long()
    items = torch.stack([call(logits[i : i + 1], target[i : i + 1]) for i in range(3)]).mean()
    divisible = bool(torch.isclose(call(logits, target), items, rtol=1e-5))
    check_divisible(loss, 3, 3)  # each process has a particle of its own: any loss will do
    if divisible:
        check_divisible(loss, 1, 3)
    else:
        with pytest.raises(SettingsError, match=r"^loss: a loss over the whole batch cannot .* at most 1 processes"):
            check_divisible(loss, 1, 3)
    assert divisible == (name in {"log Dice", "Dice and cross entropy", "negative log-likelihood", "Dice and focal"})
