import pytest

from svgd_monai.data import Split
from svgd_monai.errors import RunFolderError
from svgd_monai.files import write_json
from svgd_monai.rounds import ActiveLearning, Ledger

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


@pytest.mark.parametrize("name", ["round_000/queries.json", "ledger.json"])
def test_a_flipped_letter_in_a_record_of_queries_is_refused_with_the_file(tmp_path, name):
    """It may leave JSON."""
    ledger = Ledger(SPLIT)
    ledger.record(["c", "d"])
    content = {"round_000/queries.json": ["c", "d"], "ledger.json": ledger.as_dict()}
    for file, whole in content.items():
        write_json(tmp_path / file, whole)
    (tmp_path / name).write_text((tmp_path / name).read_text().replace('"d"', '"f"'))
    with pytest.raises(RunFolderError, match=rf"^{tmp_path / name}: round 0 queried .*\. Remove it, and the same"):
        ActiveLearning({"output_dir": tmp_path, "rounds": 1}, {})._read_ledger(Ledger(SPLIT))
