"""Drawing and reading splits, and the splits that come with the project."""

import json
import logging
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from svgd_monai.data.datalist import read_dataset
from svgd_monai.data.splits import Split, draw_split, read_split, resolve_split, write_splits
from svgd_monai.errors import DataError

DATA_LISTS = Path(__file__).parents[2] / "data_lists"
CASES = [f"case_{number:03d}" for number in range(100)]
# file, initial, pool, validation, test
PAPER = [("task04_hippocampus", 10, 150, 50, 50), ("task07_pancreas", 20, 201, 30, 30)]


def roles(split):
    return (split.initial, split.pool, split.validation, split.test)


def complaint(function, *arguments, **options):
    with pytest.raises(DataError) as caught:
        function(*arguments, **options)
    sentence = str(caught.value)
    assert len(sentence.splitlines()) == 1
    assert sentence.endswith(".")
    return sentence


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def single(**changes):
    """One split of six cases; ``changes`` replace or (None) remove roles."""
    content = {"initial": ["a", "b"], "pool": ["c", "d"], "validation": ["e"], "test": ["f"]} | changes
    return {role: cases for role, cases in content.items() if cases is not None}


class TestDrawSplit:
    @given(number=st.integers(3, 300), seed=st.integers(0, 10**9), data=st.data())
    def test_roles_divide_the_cases(self, number, seed, data):
        cases = [f"case_{index}" for index in range(number)]
        initial = data.draw(st.integers(1, number - 2 * min(max(number // 5, 1), 50)))
        split = draw_split(cases, seed, initial)
        assert sorted(case for role in roles(split) for case in role) == sorted(cases)
        assert len(split.initial) == initial
        assert all(list(role) == sorted(role) for role in roles(split))

    def test_seed_varies_the_initial_set_and_nothing_held_out(self):
        splits = [draw_split(CASES, seed, 10) for seed in range(5)]
        assert len({split.initial for split in splits}) == 5
        assert len({(split.validation, split.test) for split in splits}) == 1

    def test_order_of_the_cases_does_not_matter(self):
        assert draw_split(CASES, 0, 10) == draw_split(reversed(CASES), 0, 10)

    def test_draw_is_frozen_for_all_time(self):
        assert draw_split("abcdefghij", 3, 2) == Split(("g", "h"), ("a", "c", "f", "i"), ("e", "j"), ("b", "d"))

    @pytest.mark.parametrize(("number", "size"), [(3, 1), (9, 1), (10, 2), (99, 19), (250, 50), (260, 50), (1000, 50)])
    def test_null_sizes_are_a_fifth_at_most_fifty(self, number, size):
        split = draw_split([str(index) for index in range(number)], 0, 1)
        assert (len(split.validation), len(split.test)) == (size, size)

    def test_test_set_does_not_depend_on_the_other_sizes(self):
        assert draw_split(CASES, 0, 10, 5, 20).test == draw_split(CASES, 1, 30, 40, 20).test

    def test_larger_initial_set_holds_the_smaller(self):
        assert set(draw_split(CASES, 0, 5).initial) < set(draw_split(CASES, 0, 20).initial)

    def test_every_case_is_drawn_by_some_seed(self):
        drawn = {case for seed in range(40) for case in draw_split(CASES, seed, 10).initial}
        assert len(drawn) > 55  # of 60; a case is missed by all 40 seeds with probability 0.0007

    def test_pool_may_be_empty_but_not_less(self):
        assert draw_split(CASES, 0, 60).pool == ()
        sentence = complaint(draw_split, CASES, 0, 61)
        assert all(part in sentence for part in ("initial_labelled is 61", "100 cases", "60 are left"))

    def test_held_out_sets_that_leave_nothing_are_named(self):
        sentence = complaint(draw_split, CASES, 0, 1, validation_cases=80, test_cases=30)
        assert all(
            part in sentence for part in ("validation_cases (80)", "test_cases (30)", "of 100 cases only 0 are left")
        )

    @pytest.mark.parametrize("size", [0, -1])
    @pytest.mark.parametrize("key", ["initial_labelled", "validation_cases", "test_cases"])
    def test_size_below_one_names_its_key(self, key, size):
        sizes = {"initial_labelled": 5, "validation_cases": 5, "test_cases": 5} | {key: size}
        assert f"{key} must be at least 1, not {size}" in complaint(draw_split, CASES, 0, **sizes)

    def test_case_given_twice_is_named(self):
        assert "'case_007' twice" in complaint(draw_split, [*CASES, "case_007"], 0, 10)

    def test_as_dict_is_plain_json(self):
        split = draw_split(CASES, 0, 10)
        assert json.loads(json.dumps(split.as_dict())) == {
            role: list(getattr(split, role)) for role in ("initial", "pool", "validation", "test")
        }


class TestReadSplit:
    def test_single_split_serves_every_seed(self, tmp_path):
        file = write(tmp_path / "s.json", single())
        assert read_split(file, "abcdef", 0) == read_split(file, "abcdef", 9)
        assert roles(read_split(file, "abcdef", 0)) == (("a", "b"), ("c", "d"), ("e",), ("f",))

    def test_written_splits_come_back_by_seed(self, tmp_path):
        file = write_splits(tmp_path / "s.json", "Task", "somewhere", CASES, [0, 7], 10)
        assert read_split(file, CASES, 7) == draw_split(CASES, 7, 10)
        content = json.loads(file.read_text())
        assert (content["task"], content["source"], list(content["seeds"])) == ("Task", "somewhere", ["0", "7"])

    def test_order_in_the_file_does_not_matter(self, tmp_path):
        shuffled = write(tmp_path / "s.json", single(initial=["b", "a"], pool=["d", "c"]))
        assert roles(read_split(shuffled, "abcdef", 0))[:2] == (("a", "b"), ("c", "d"))

    def test_cases_that_the_split_does_not_name_are_not_used(self, tmp_path):
        split = read_split(write(tmp_path / "s.json", single()), "abcdefghij", 0)
        assert sorted(case for role in roles(split) for case in role) == list("abcdef")

    def test_empty_pool_is_allowed(self, tmp_path):
        assert read_split(write(tmp_path / "s.json", single(pool=[])), "abcdef", 0).pool == ()

    @pytest.mark.parametrize("name", ["mine", "mine.json"])
    def test_name_is_looked_up_in_the_search_folders_in_turn(self, tmp_path, name):
        write(tmp_path / "second" / "mine.json", single())
        write(tmp_path / "third" / "mine.json", single(initial=["a"]))
        search = [tmp_path / "first", tmp_path / "second", tmp_path / "third"]
        assert read_split(name, "abcdef", 0, search).initial == ("a", "b")

    def test_what_was_looked_for_is_named(self, tmp_path):
        sentence = complaint(read_split, "mine", "abcdef", 0, [tmp_path / "lists"])
        expected = ("split_file mine", str(tmp_path / "lists" / "mine"), str(tmp_path / "lists" / "mine.json"))
        assert all(part in sentence for part in expected)

    def test_unknown_seed_is_named_with_the_known_ones(self, tmp_path):
        file = write_splits(tmp_path / "s.json", "Task", "somewhere", CASES, [0, 7], 10)
        sentence = complaint(read_split, file, CASES, 1)
        assert "seed 1" in sentence
        assert "0, 7" in sentence

    @pytest.mark.parametrize("seeds", [[], {"0": ["a"]}, None])
    def test_damaged_seeds_are_named(self, tmp_path, seeds):
        file = write(tmp_path / "s.json", single() | {"seeds": seeds})
        sentence = complaint(read_split, file, "abcdef", 0)
        assert str(file) in sentence
        assert "seed 0" in sentence

    @pytest.mark.parametrize("text", ["{", "[]", '"name"'])
    def test_file_that_is_not_a_json_object_is_named(self, tmp_path, text):
        file = tmp_path / "s.json"
        file.write_text(text)
        assert str(file) in complaint(read_split, file, "abcdef", 0)

    @pytest.mark.parametrize("role", ["initial", "pool", "validation", "test"])
    @pytest.mark.parametrize("cases", [None, "abc", [1, 2], {"a": 1}])
    def test_missing_or_wrong_role_is_named(self, tmp_path, role, cases):
        file = write(tmp_path / "s.json", single(**{role: cases}))
        sentence = complaint(read_split, file, "abcdef", 0)
        assert f"'{role}'" in sentence
        assert str(file) in sentence

    @pytest.mark.parametrize("role", ["initial", "validation", "test"])
    def test_empty_role_is_named(self, tmp_path, role):
        assert f"'{role}'" in complaint(read_split, write(tmp_path / "s.json", single(**{role: []})), "abcdef", 0)

    def test_unknown_case_is_named(self, tmp_path):
        file = write(tmp_path / "s.json", single(pool=["c", "x", "y", "z"]))
        sentence = complaint(read_split, file, "abcdef", 0)
        assert all(part in sentence for part in (str(file), "'x'", "'pool'", "2 more"))
        one, two = (write(tmp_path / f"{odd}.json", single(pool=["c", *odd])) for odd in ("x", "xy"))
        assert "more" not in complaint(read_split, one, "abcdef", 0)
        assert "nor 1 more" in complaint(read_split, two, "abcdef", 0)

    @pytest.mark.parametrize("changes", [{"test": ["a"]}, {"validation": ["f"]}, {"pool": ["c", "c"]}])
    def test_case_used_twice_is_named(self, tmp_path, changes):
        ((cases,),) = [changes.values()]
        sentence = complaint(read_split, write(tmp_path / "s.json", single(**changes)), "abcdef", 0)
        assert f"the case {cases[0]!r} twice" in sentence


class TestResolveSplit:
    def test_null_file_draws(self):
        assert resolve_split(CASES, None, 4, 10, 15, 20) == draw_split(CASES, 4, 10, 15, 20)

    def test_file_decides_over_sizes_and_says_so(self, tmp_path, caplog):
        file = write_splits(tmp_path / "s.json", "Task", "somewhere", CASES, [0], 10, 15, 20)
        with caplog.at_level(logging.WARNING):
            assert resolve_split(CASES, file, 0, 10) == draw_split(CASES, 0, 10, 15, 20)
        assert not caplog.records
        assert resolve_split(CASES, file, 0, 11, 15) == draw_split(CASES, 0, 10, 15, 20)
        assert [record.getMessage() for record in caplog.records] == [
            f"split_file {file} has 10 initial cases; the setting of 11 is not used"
        ]

    def test_search_folders_are_passed_on(self, tmp_path):
        write(tmp_path / "mine.json", single())
        assert resolve_split("abcdef", "mine", 0, 2, search=[tmp_path]).test == ("f",)


@pytest.mark.parametrize(("name", "initial", "pool", "validation", "test"), PAPER)
class TestSplitsOfThePaper:
    def all_cases(self, name):
        content = json.loads((DATA_LISTS / f"{name}.json").read_text())
        seed = content["seeds"]["0"]
        return content["validation"] + content["test"] + seed["initial"] + seed["pool"]

    def test_have_the_sizes_of_the_protocol(self, name, initial, pool, validation, test):
        for seed in range(5):
            split = read_split(name, self.all_cases(name), seed, [DATA_LISTS])
            assert tuple(map(len, roles(split))) == (initial, pool, validation, test)

    def test_are_what_draw_split_draws(self, name, initial, pool, validation, test, tmp_path):
        file = DATA_LISTS / f"{name}.json"
        content = json.loads(file.read_text())
        cases = self.all_cases(name)
        sizes = (initial, validation, test)
        again = write_splits(tmp_path / "again.json", content["task"], content["source"], cases, range(5), *sizes)
        assert again.read_bytes() == file.read_bytes()
        assert read_split(file, cases, 3) == draw_split(cases, 3, *sizes)


@pytest.mark.real
@pytest.mark.skipif("SVGD_MONAI_MSD_ROOT" not in os.environ, reason="SVGD_MONAI_MSD_ROOT is not set")
def test_hippocampus_splits_use_every_real_case():
    cases = list(read_dataset(Path(os.environ["SVGD_MONAI_MSD_ROOT"]) / "Task04_Hippocampus").items)
    split = resolve_split(cases, "task04_hippocampus", 2, 10, search=[DATA_LISTS])
    assert split == draw_split(cases, 2, 10)
    assert sorted(case for role in roles(split) for case in role) == cases


def test_all_is_every_case_outside_the_held_out_sets(tmp_path):
    ten = draw_split(CASES, 3, 10)
    everything = draw_split(CASES, 3, None)
    assert (everything.validation, everything.test) == (ten.validation, ten.test)
    assert everything.initial == tuple(sorted(ten.initial + ten.pool))
    assert everything.pool == ()
    file = write(tmp_path / "split.json", single(initial=["a", "d"], pool=["b", "c"]))
    read = resolve_split("abcdef", file, 0, None)
    assert (read.initial, read.pool) == (("a", "b", "c", "d"), ())


def test_all_of_nothing_is_refused():
    assert "initial_labelled is 1, but of 4 cases only 0 are left" in complaint(draw_split, "abcd", 0, None, 2, 2)
