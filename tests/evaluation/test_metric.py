"""The Dice that a training's validation goes by, against hand counts and against what is reported."""

import math

import pytest
import torch
from monai.networks import one_hot

from svgd_monai.evaluation import CaseDice
from svgd_monai.evaluation.cases import dice_per_class, mean_of_known, mean_over_cases

#: A lesion of one voxel beside its organ of two, in a volume of four.
TRUTH = [1, 1, 2, 0]


def measured(pairs):
    """The metric over cases of (prediction, truth), as an evaluator feeds it: one case after the other."""
    metric = CaseDice()
    for pair in pairs:
        metric(*(one_hot(torch.tensor(values).reshape(1, 1, 4, 1, 1), 3) for values in pair))
    return metric.aggregate().item()


def test_a_perfect_prediction_has_dice_1():
    assert measured([(TRUTH, TRUTH)]) == 1.0


def test_an_invented_class_counts_nothing_and_an_absent_one_is_left_out():
    empty = [0, 0, 0, 0]
    assert measured([(TRUTH, TRUTH), (empty, empty)]) == 1.0
    assert measured([(TRUTH, TRUTH), ([0, 0, 2, 0], empty)]) == pytest.approx((1 + 1 / 2) / 2)


def test_each_class_is_averaged_over_its_cases_first():
    """As in metrics.json; a mean of the cases' means would be (1/2 + 1) / 2."""
    assert measured([([1, 1, 0, 0], TRUTH), ([1, 0, 0, 0], [1, 0, 0, 0])]) == pytest.approx((1 + 0) / 2)


def test_nothing_to_find_and_nothing_found_is_no_number():
    assert math.isnan(measured([([0, 0, 0, 0], [0, 0, 0, 0])]))


def test_it_is_the_reports_dice_on_random_cases():
    random = torch.Generator().manual_seed(0)
    pairs = [[torch.randint(3, (4,), generator=random).tolist() for _ in range(2)] for _ in range(20)]
    rows = [dice_per_class(torch.tensor(p), torch.tensor(t), 3) for p, t in pairs]
    assert measured(pairs) == mean_of_known(mean_over_cases(rows))  # to the last bit: either names one committee


@pytest.mark.parametrize("copies", [2, 3, 7])
def test_cases_that_several_processes_have_measured_give_the_same_number(copies):
    """MONAI puts the processes' values together; a sum over n copies rounds otherwise than n times the sum."""
    random = torch.Generator().manual_seed(1)
    for _ in range(20):
        pairs = [[torch.randint(3, (4,), generator=random).tolist() for _ in range(2)] for _ in range(5)]
        assert measured(pairs) == measured(pairs * copies) == measured(pairs[::-1])
