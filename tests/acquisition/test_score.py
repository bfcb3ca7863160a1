import math

import pytest
import scipy.stats
import torch

from svgd_monai.acquisition import NORMALISE_NAMES, acquisition_score, rank_cases

U = torch.tensor([2.0, 4.0, 3.0, 6.0])
MI = torch.tensor([0.1, 0.3, 0.2, 4.0], dtype=torch.float64)
UNLABELLED = torch.tensor([True, True, True, False])


def test_minmax_over_all_by_hand():
    score = acquisition_score(U, torch.tensor([0.0, 1.0, 0.25, 0.5]), mi_weight=2.0)
    assert score.dtype == torch.float64
    assert score.tolist() == pytest.approx([0.0, 0.5 - 2.0, 0.25 - 0.5, 1.0 - 1.0])


def test_minmax_over_the_unlabelled_lets_a_labelled_case_leave_the_scale():
    # u: (2, 4, 3, 6) -> (0, 1, .5, 2); MI: (.1, .3, .2, 4) -> (0, 1, .5, 19.5)
    score = acquisition_score(U, MI, reference=UNLABELLED)
    assert score.tolist() == pytest.approx([0.0, 0.0, 0.0, 2.0 - 19.5])
    over_all = acquisition_score(U, MI)
    assert over_all[3].item() == pytest.approx(0.0)  # 1 − 1
    assert over_all[1].item() == pytest.approx(0.5 - 0.2 / 3.9)


def test_zscore_by_hand():
    # over (2, 4, 3): mean 3, population standard deviation sqrt(2/3)
    unit = math.sqrt(2 / 3)
    score = acquisition_score(U, None, normalise="zscore", reference=UNLABELLED)
    assert score.tolist() == pytest.approx([-1 / unit, 1 / unit, 0.0, 3 / unit])
    expected = scipy.stats.zscore(U.numpy()) - 0.5 * scipy.stats.zscore(MI.numpy())
    assert acquisition_score(U, MI, 0.5, "zscore").tolist() == pytest.approx(expected.tolist())


def test_rank_by_hand_with_ties_and_a_case_outside_the_reference():
    values = torch.tensor([1.0, 5.0, 5.0, 9.0, 5.0, 0.0])
    reference = torch.tensor([True, True, True, True, False, False])
    score = acquisition_score(values, None, normalise="rank", reference=reference)
    assert score.tolist() == pytest.approx([0.5 / 4, 2 / 4, 2 / 4, 3.5 / 4, 2 / 4, 0.0])
    over_all = acquisition_score(values, None, normalise="rank")
    assert over_all.tolist() == pytest.approx(((scipy.stats.rankdata(values.numpy()) - 0.5) / 6).tolist())


@pytest.mark.parametrize("normalise", NORMALISE_NAMES)
def test_a_term_without_a_range_counts_nothing(normalise):
    equal = torch.full((4,), 0.1)
    assert acquisition_score(equal, None, normalise=normalise).tolist() == [0.0] * 4
    alone = acquisition_score(U, MI, normalise=normalise)
    assert (
        acquisition_score(U, equal, normalise=normalise).tolist()
        == acquisition_score(U, None, normalise=normalise).tolist()
    )
    assert acquisition_score(U, MI, normalise=normalise, reference=torch.zeros(4).bool()).tolist() == alone.tolist()
    nothing = acquisition_score(U, None, normalise=normalise, reference=torch.zeros(4).bool())
    assert nothing.tolist() == acquisition_score(U, None, normalise=normalise).tolist()
    one = torch.tensor([False, True, False, False])
    assert acquisition_score(U, MI, normalise=normalise, reference=one).tolist() == alone.tolist()
    equal_but_outside = torch.tensor([3.0, 3.0, 3.0, 6.0])
    mixed = acquisition_score(equal_but_outside, MI, normalise=normalise, reference=UNLABELLED)
    of_all = acquisition_score(equal_but_outside, None, normalise=normalise)
    redundancy = -acquisition_score(torch.zeros(4), MI, normalise=normalise, reference=UNLABELLED)
    assert mixed.tolist() == (of_all - redundancy).tolist()
    assert acquisition_score(U[:1], MI[:1], normalise=normalise).tolist() == [0.0]
    assert acquisition_score(U[:0], MI[:0], normalise=normalise).tolist() == []


@pytest.mark.parametrize("normalise", NORMALISE_NAMES)
@pytest.mark.parametrize("mi_weight", [0.0, 1.0])
def test_an_undefined_case_ranks_last_and_sets_no_range(normalise, mi_weight):
    uncertainty = torch.tensor([2.0, 100.0, 4.0, 3.0])
    information = torch.tensor([0.1, math.nan, 0.3, 0.4])
    score = acquisition_score(uncertainty, information, mi_weight, normalise)
    defined = torch.tensor([0, 2, 3])
    alone = acquisition_score(uncertainty[defined], information[defined], mi_weight, normalise)
    assert score[1] == -math.inf
    assert score[defined].tolist() == alone.tolist()
    assert rank_cases(score, "abcd")[-1] == 1


def test_a_reference_of_undefined_cases_only_is_replaced():
    information = torch.tensor([math.nan, 0.3, 0.2, 4.0])
    only = torch.tensor([True, False, False, False])
    assert torch.equal(acquisition_score(U, information, reference=only), acquisition_score(U, information))


def test_all_undefined():
    assert acquisition_score(U, torch.full((4,), math.nan)).tolist() == [-math.inf] * 4


def test_weight_zero_and_no_information_are_uncertainty_alone():
    alone = acquisition_score(U, None, mi_weight=7.0)
    assert alone.tolist() == pytest.approx([0.0, 0.5, 0.25, 1.0])
    assert torch.equal(acquisition_score(U, MI, mi_weight=0.0), alone)


def test_the_score_is_computed_in_double_precision():
    coarse = torch.tensor([0.0, 1.0, 3.0], dtype=torch.float16)
    assert acquisition_score(coarse, coarse, 0.5).tolist() == pytest.approx([0.0, 0.5 / 3, 0.5], abs=1e-15)
    close = torch.tensor([1.0, 1.0 + 1e-12, 1.0 + 2e-12], dtype=torch.float64)
    assert acquisition_score(close, None).tolist() == pytest.approx([0.0, 0.5, 1.0], abs=1e-3)


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="'softmax'; known are minmax, zscore, rank"):
        acquisition_score(U, MI, normalise="softmax")
    with pytest.raises(ValueError, match="uncertainty of a case is not finite"):
        acquisition_score(torch.tensor([1.0, math.nan]), None)
    with pytest.raises(ValueError, match="infinite"):
        acquisition_score(U[:2], torch.tensor([1.0, math.inf]))
    with pytest.raises(ValueError, match="weight"):
        acquisition_score(U, MI, mi_weight=math.nan)
    with pytest.raises(ValueError, match="information has the shape"):
        acquisition_score(U, MI[:3])
    with pytest.raises(ValueError, match="reference has the shape"):
        acquisition_score(U, MI, reference=UNLABELLED[:1])
    with pytest.raises(ValueError, match=r"\(N,\)"):
        acquisition_score(U[None], None)


def test_the_last_unlabelled_case_is_weighed_against_the_labelled():
    """Its own range is a point; by case ids alone a labelled case would be drawn again and again."""
    score = acquisition_score(U, MI, reference=torch.tensor([True, False, False, False]))
    assert rank_cases(score, ["z", "a", "b", "c"], [False, True, True, True]) == [1, 2, 0, 3]
    assert score.tolist() == acquisition_score(U, MI).tolist()


def test_ranking_is_descending_with_ties_by_case_id():
    scores = torch.tensor([0.5, -math.inf, 0.7, 0.5, 0.5])
    assert rank_cases(scores, ["c", "z", "y", "a", "b"]) == [2, 3, 4, 0, 1]
    labelled = [False, False, False, True, False]
    assert rank_cases(scores, ["c", "z", "y", "a", "b"], labelled) == [2, 4, 0, 3, 1]
    with pytest.raises(ValueError, match="score of case b is not a number"):
        rank_cases(torch.tensor([1.0, math.nan]), ["a", "b"])
    with pytest.raises(ValueError, match="2 scores do not fit 1 cases"):
        rank_cases(torch.tensor([1.0, 2.0]), ["a"])
