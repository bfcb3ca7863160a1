"""What a round has given: a row of the curve and a line that a person can follow."""

import logging

import pytest

from svgd_monai.errors import RunFolderError
from svgd_monai.files import write_csv, write_json
from svgd_monai.rounds import RunFolder
from svgd_monai.rounds.curve import curve_row
from svgd_monai.rounds.log import log_end, log_round

MINUTES = {"train": 60.0, "evaluate": 30.0, "acquire": 30.0}


@pytest.fixture
def folder(tmp_path):
    """Three rounds, whose unlabelled cases the members disagree about by 0.3, 0.031 and 0.029 nats."""
    run = RunFolder(tmp_path)
    for number, (values, times) in enumerate(
        [((0.2, 0.4), MINUTES), ((0.021, 0.041), MINUTES), ((0.019, 0.039), {"acquire": 5.0})]
    ):
        rows = [{"labelled": "false", "disagreement": value} for value in values]
        rows.append({"labelled": "true", "disagreement": 9.0})
        write_csv(run.round(number) / "scores.csv", ["labelled", "disagreement"], rows)
        write_json(run.round(number) / "times.json", times)
    return run


def row(number, test_dice=0.75):
    return {"round": number, "unique_labels": 5, "val_dice": 0.5, "test_dice": test_dice}


@pytest.mark.parametrize(("rounds", "to_go"), [(None, ""), (1, ""), (3, " About 4 min to go.")])
def test_a_round_is_one_line(folder, caplog, rounds, to_go):
    with caplog.at_level(logging.INFO):
        log_round(folder, row(1, test_dice=None), rounds)
    assert caplog.messages == [
        "Round 1: 5 unique labels, validation Dice 0.5000 on the working grid, test Dice unknown, mean BALD of the "
        "unlabelled cases 0.0310." + to_go
    ]


def test_a_committee_that_has_collapsed_is_told_and_rounds_trained_elsewhere_take_no_time(folder, caplog):
    with caplog.at_level(logging.INFO):
        log_round(folder, row(2), 3)
    line, warning = caplog.messages
    assert line.endswith("cases 0.0290. About 2 min to go.")
    assert warning.startswith("Round 2: the committee has collapsed, its members disagree 9.7e-02 times as much as in")


def test_without_an_unlabelled_case_there_is_no_disagreement_and_nothing_to_label(folder, caplog):
    write_csv(folder.round(2) / "scores.csv", ["labelled", "disagreement"], [])
    with caplog.at_level(logging.INFO):
        log_round(folder, row(2))
        log_end(folder, 2, 2)
    assert caplog.messages[0].endswith("mean BALD of the unlabelled cases unknown.")
    assert caplog.messages[1:] == [f"The run in {folder.root} is complete."]


@pytest.mark.parametrize(
    ("number", "rounds", "cause", "sentence"),
    [
        (0, 4, (), "after 0 rounds every case of it is labelled. 4 further rounds were not run."),
        (1, 2, ["no case is left"], "after 1 round no case is left. 1 further round was not run."),
    ],
)
def test_a_run_that_ends_early_says_why(folder, caplog, number, rounds, cause, sentence):
    with caplog.at_level(logging.INFO):
        log_end(folder, number, rounds, *cause)
    assert caplog.messages[0] == f"The pool is exhausted: {sentence}"


def test_a_file_that_lacks_what_the_curve_needs_is_named(folder):
    place = folder.round(0)
    nothing = {"dice": None, "dice_grid": None, "dice_per_class": {}}
    whole = {"metrics.json": {"validation": nothing, "test": nothing}, "training.json": {"seconds": 1.0}}
    for name in whole:
        for other, content in whole.items():
            write_json(place / other, {} if other == name else content)
        with pytest.raises(RunFolderError, match=rf"{name} lacks '"):
            curve_row(place, 0, 5, 5)
    write_json(place / "training.json", whole["training.json"])
    (place / "times.json").unlink()
    assert curve_row(place, 0, 5, 6) == {
        "round": 0, "unique_labels": 5, "training_items": 6, "val_dice": None, "test_dice": None,
        "test_dice_grid": None, "seconds_train": 1.0, "seconds_score": None,
    }  # fmt: skip
