import pytest

from svgd_monai.data import Split
from svgd_monai.errors import RunFolderError
from svgd_monai.rounds import Ledger

SPLIT = Split(initial=("a", "b"), pool=("c", "d", "e"), validation=("v",), test=("t",))


def test_a_redraw_costs_no_label_and_adds_weight():
    ledger = Ledger(SPLIT)
    ledger.record(["c", "a"])
    ledger.record(["c"])
    assert ledger.training == ["a", "b", "c", "a", "c"]
    assert ledger.labelled == ["a", "b", "c"]
    assert ledger.unlabelled == ["d", "e"]


def test_the_record_keeps_rounds_labels_and_draws_apart():
    ledger = Ledger(SPLIT)
    ledger.record(["c", "a"])
    ledger.record(["c"])
    content = ledger.as_dict()
    assert content["cases"]["a"] == {"role": "initial", "labelled_in_round": None, "labelled": True, "times_drawn": 2}
    assert content["cases"]["c"] == {"role": "pool", "labelled_in_round": 0, "labelled": True, "times_drawn": 2}
    assert content["cases"]["e"] == {"role": "pool", "labelled_in_round": None, "labelled": False, "times_drawn": 0}
    assert content["cases"]["v"]["role"] == "validation"
    assert content["rounds"] == [
        {"round": 0, "queries": ["c", "a"], "new_labels": ["c"], "unique_labels": 3, "training_items": 4},
        {"round": 1, "queries": ["c"], "new_labels": [], "unique_labels": 3, "training_items": 5},
    ]


def test_the_record_reads_back():
    ledger = Ledger(SPLIT)
    ledger.record(["e"])
    ledger.record(["e", "d"])
    assert Ledger.from_dict(SPLIT, ledger.as_dict()) == ledger


@pytest.mark.parametrize(("queries", "named"), [(["v"], "v"), (["nobody"], "nobody"), (["c", "c"], "twice")])
def test_queries_from_outside_the_pool_or_doubled_are_refused(queries, named):
    with pytest.raises(RunFolderError, match=named):
        Ledger(SPLIT).record(queries)


@pytest.mark.parametrize("content", [{}, {"rounds": 3}, {"rounds": [{"q": []}]}])
def test_what_is_no_ledger_is_refused(content):
    with pytest.raises(RunFolderError, match=r"ledger\.json"):
        Ledger.from_dict(SPLIT, content)
