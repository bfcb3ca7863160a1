"""A strategy from a user's own file, through the command line."""

import csv
import json

import pytest
from command import TINY, run_bundle_subprocess, words
from runs import run

MINE = '''
import torch
from svgd_monai.acquisition import strategy

def By_Name(view, options, query):
    """The last names first."""
    order = sorted(view.cases)
    return torch.tensor([float(order.index(case)) for case in view.cases])

@strategy(uncertainty_map="bald", uses_information=True)
def least_known(view, options, query):
    assert view.pairs(view.cases, view.labelled_cases).shape == (len(view.cases), len(view.labelled_cases))
    return -view.information

def one_too_few(view, options, query):
    return view.uncertainty[1:]
'''


def stage(bundle, name, dataset, output, **keys):
    known = (bundle / f"configs/{name}.yaml").read_text()
    tiny = {key: value for key, value in TINY.items() if f"\n{key}:" in known}
    return words(bundle / f"configs/{name}.yaml", dataset_dir=dataset, output_dir=output, **{**tiny, **keys})


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("outside")
    (folder / "my_own.py").write_text(MINE)
    return folder


@pytest.fixture(scope="module")
def trained(bundle, phantom_mr, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    keys = {"steps_per_round": 1, "validations_per_round": 1, "model_file": "none"}
    result = run(stage(bundle, "train", phantom_mr, folder, **keys))
    assert result.code == 0, result.last_line
    return folder / "committee.pt"


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_a_file_in_the_current_folder_is_found(bundle, phantom_mr, trained, mine, tmp_path):
    argv = stage(bundle, "acquire", phantom_mr, tmp_path, committee_file=trained, acquisition="my_own.By_Name")
    result = run_bundle_subprocess(*argv, "--queries_per_round", 2, cwd=mine)
    assert result.exit_code == 0, result.last_line
    cases = [row["case"] for row in rows(tmp_path / "scores.csv")]
    assert cases == sorted(cases, reverse=True)
    assert json.loads((tmp_path / "queries.json").read_text()) == cases[:2]


def test_it_may_ask_for_another_map_and_for_information(bundle, phantom_mr, trained, mine, tmp_path):
    keys = {"committee_file": trained}
    for name in ("my_own.least_known", "bald"):
        result = run(stage(bundle, "acquire", phantom_mr, tmp_path / name, acquisition=name, **keys), path=mine)
        assert result.code == 0, result.last_line
    table, bald = ({row["case"]: row for row in rows(tmp_path / name / "scores.csv")} for name in (
        "my_own.least_known", "bald"
    ))  # fmt: skip
    assert all(float(row["score"]) == -float(row["mutual_information"]) for row in table.values())
    assert {case: row["uncertainty"] for case, row in table.items()} == {
        case: row["uncertainty"] for case, row in bald.items()
    }


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("my_own.by_name", "the module my_own has no by_name"),
        ("not_mine.best", "there is no module not_mine in the current folder or on PYTHONPATH"),
        ("my_own.one_too_few", "must return one score per case, (16,), it returned the shape (15,)"),
        ("max_coverage", "acquisition must be one of random"),
    ],
)
def test_what_is_wrong_with_it_ends_in_one_sentence(bundle, phantom_mr, trained, mine, tmp_path, name, why):
    argv = stage(bundle, "acquire", phantom_mr, tmp_path, committee_file=trained, acquisition=name)
    result = run(argv, path=mine)
    assert result.code == 1
    assert result.last_line.startswith("acquisition")
    assert result.last_line.endswith(".")
    assert why in result.last_line
    assert name in result.last_line
    assert not (tmp_path / "queries.json").exists()
