"""From methods, a grid and seeds to runs."""

from pathlib import Path

import pytest

from svgd_monai.errors import SettingsError
from svgd_monai.rounds.study import study_cells

COMMON = {"committee": "svgd", "acquisition": "entropy_mi"}
KNOWN = frozenset({"architecture"})


def cells(methods=None, grid=None, seeds=(0, 1)):
    return study_cells(methods, grid, seeds, COMMON, KNOWN)


def complaint(*arguments, **options):
    with pytest.raises(SettingsError) as caught:
        cells(*arguments, **options)
    return str(caught.value)


def test_every_method_has_every_seed_and_whole_seeds_come_first():
    found = cells({"a": {"acquisition": "bald"}, "b": None})
    assert [(cell.method, cell.seed) for cell in found] == [("a", 0), ("b", 0), ("a", 1), ("b", 1)]
    assert found[0].keys == {"acquisition": "bald", "method": "a"}
    assert found[3].place == Path("runs/b/seed_1")


def test_a_grid_is_every_combination_named_as_reports_name_it():
    found = cells(grid={"committee": ["svgd", "ensemble"], "keep_labelled": [True, False]}, seeds=(0,))
    assert [cell.method for cell in found] == [
        "svgd/entropy_mi", "svgd/entropy_mi/delete", "ensemble/entropy_mi", "ensemble/entropy_mi/delete",
    ]  # fmt: skip
    assert all("method" not in cell.keys for cell in found)  # their settings say it
    assert len({cell.place for cell in found}) == 4


def test_further_keys_of_a_grid_are_in_the_name():
    found = cells(grid={"acquisition": ["bald"], "mi_weight": [0.5, 1]}, seeds=(0,))
    assert [cell.keys["method"] for cell in found] == ["svgd/bald mi_weight=0.5", "svgd/bald mi_weight=1"]


def test_a_grids_methods_are_named_by_the_studys_own_keys_where_the_grid_has_none():
    (cell,) = study_cells(None, {"acquisition": ["bald"]}, (0,), {**COMMON, "committee": "ensemble"}, KNOWN)
    assert cell.method == "ensemble/bald"


def test_a_grid_of_further_keys_tells_whether_labelled_cases_stay():
    found = cells(grid={"keep_labelled": [True, False], "mi_weight": [0.5, 1.0]}, seeds=(0,))
    assert len({cell.method for cell in found}) == len({cell.place for cell in found}) == 4
    assert found[0].method == "svgd/entropy_mi mi_weight=0.5 keep_labelled=True"


def test_values_are_put_into_their_types():
    (cell,) = cells({"a": {"prior_std": "flat", "initial_labelled": "all"}}, seeds=(0,))
    assert cell.keys == {"prior_std": None, "initial_labelled": None, "method": "a"}


def test_components_are_left_as_they_are_written():
    component = {"_target_": "UNet", "in_channels": "@in_channels"}
    (cell,) = cells({"a": {"architecture": component}}, seeds=(0,))
    assert cell.keys["architecture"] == component


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "methods: the study has none, and its grid is empty."),
        (({"a": {"lerning_rate": 1}},), "methods: a: lerning_rate is not a key of a run."),
        (({1: {}, "1": {}},), "methods: two of 1, '1' are the same name."),
        (({"a": {"learning_rate": -1}},), "methods: a: learning_rate: -1 is not above 0."),
        (({"a": {"seed": 3}},), "methods: a: the study itself sets seed; leave it out."),
        (({"a b": {}, "a/b": {}},), "methods: a/b would share its folder a_b with another method; rename it."),
        (({"a": {}, "A": {}},), "methods: A would share its folder A with another method; rename it."),
        ((["a"],), "methods: ['a'] is not a mapping."),
        ((None, {"acquisition": "bald"}), "grid: acquisition must be a list of values, not 'bald'."),
        ((None, {"colour": ["red"]}), "grid: colour is not a key of a run."),
        (({"svgd/bald": {}}, {"acquisition": ["bald"]}), "grid: svgd/bald is a method of that name already."),
    ],
)
def test_nonsense_is_refused_in_a_sentence(arguments, sentence):
    assert complaint(*arguments) == sentence
