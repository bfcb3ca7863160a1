"""A value of the command line or a file becomes one of its key's type, or is refused by the name of the key."""

import math

import pytest
import torch

from svgd_monai.errors import SettingsError
from svgd_monai.workflow import KEYS, check_setting
from svgd_monai.workflow.settings import as_word, check_like


def refusal(name, value):
    with pytest.raises(SettingsError) as caught:
        check_setting(name, value)
    sentence = str(caught.value)
    assert sentence.startswith(name)
    assert sentence.endswith(".")
    assert len(sentence.splitlines()) == 1
    return sentence


def keys(*kinds):
    return [name for name, key in KEYS.items() if key.kind in kinds]


def least(name):
    """A number that a key of numbers takes."""
    key = KEYS[name]
    return key.low if key.low is not None else (key.above or 0) + 1


def example(name):
    """A value of the key, in its type."""
    key = KEYS[name]
    if key.kind in ("ints", "floats"):
        first = (int if key.kind == "ints" else float)(least(name))
        return [first] * key.length if key.length else [first, first + 1, first + 2]
    if key.kind == "names":
        return ["ann", "bob"]
    if key.kind == "path":
        return "./a//path~/"
    if key.kind == "str":
        return {"device": "cpu", "acquisition": "bald", "annotator": "ann"}.get(name) or (key.choices or ("a word",))[0]
    return {"bool": bool, "int": int, "float": float}[key.kind](1 if key.kind == "bool" else least(name))


def same(a, b):
    return repr(a) == repr(b)


class TestEveryKey:
    @pytest.mark.parametrize("name", KEYS)
    def test_takes_a_value_of_its_type_as_it_is(self, name):
        assert same(check_setting(name, example(name)), example(name))

    @pytest.mark.parametrize("name", KEYS)
    def test_takes_null_only_where_null_means_something(self, name):
        for null in (None, "null", "None", " NONE "):
            if KEYS[name].null:
                assert check_setting(name, null) is None
            elif "none" in (KEYS[name].choices or ()):
                assert check_setting(name, null) == "none"
            else:
                assert "null" in refusal(name, null)

    @pytest.mark.parametrize("name", [name for name in KEYS if KEYS[name].kind not in ("str", "path", "names")])
    @pytest.mark.parametrize("value", ["", "maybe", "[1, 2", {"a": 1}, object, ["x"], float("nan"), float("inf")])
    def test_that_is_no_text_refuses_what_is_neither_number_switch_nor_list(self, name, value):
        refusal(name, value)

    @pytest.mark.parametrize("name", keys("str", "path"))
    @pytest.mark.parametrize("value", ["", 2.5, True, ["a"], {"a": 1}])
    def test_that_is_a_text_refuses_everything_else(self, name, value):
        refusal(name, value)

    def test_that_is_a_path_may_look_like_a_number(self):
        assert check_setting("output_dir", 2024) == "2024"

    @pytest.mark.parametrize("name", KEYS)
    def test_that_is_a_path_may_begin_at_home(self, name, monkeypatch, tmp_path):
        monkeypatch.setenv("HOME", str(tmp_path))
        named = name.endswith(("_dir", "_file", "_committee", "_committees"))
        assert (KEYS[name].kind == "path") == (named or name in ("images", "labels", "validation", "test"))
        if KEYS[name].kind == "path":
            assert check_setting(name, "~/a//b") == f"{tmp_path}/a//b"
            assert check_setting(name, "~nobody-of-that-name/a") == "~nobody-of-that-name/a"

    def test_that_is_another_text_may_begin_with_a_tilde(self):
        assert check_setting("method", "~/a") == "~/a"


class TestNumbers:
    @pytest.mark.parametrize("name", keys("int"))
    def test_whole_ones_are_taken_as_words_and_floats(self, name):
        number = int(least(name)) + 1
        for value in (number, float(number), str(number), f" {number} ", f"{number}.0"):
            assert same(check_setting(name, value), number)

    @pytest.mark.parametrize("name", keys("int"))
    def test_whole_ones_have_no_fraction(self, name):
        assert "whole number" in refusal(name, 2.5)
        assert "whole number" in refusal(name, "2.5")

    @pytest.mark.parametrize("name", keys("float"))
    def test_fractions_are_taken_as_words_and_whole_ones(self, name):
        if KEYS[name].below is None:
            assert same(check_setting(name, 3), 3.0)
            assert same(check_setting(name, "3.25"), 3.25)
        assert same(check_setting(name, "0.25"), 0.25)
        assert same(check_setting(name, "1e-3"), 0.001)

    @pytest.mark.parametrize("name", keys("int", "float"))
    def test_are_no_switches(self, name):
        refusal(name, True)
        refusal(name, "true")

    @pytest.mark.parametrize("name", [name for name in keys("int", "float") if KEYS[name].low is not None])
    def test_below_the_least_are_refused(self, name):
        low = KEYS[name].low
        assert check_setting(name, low) == low
        assert f"below {low:g}" in refusal(name, low - 1)
        assert f"below {low:g}" in refusal(name, str(low - 1))

    @pytest.mark.parametrize("name", [name for name in keys("int", "float") if KEYS[name].above is not None])
    def test_that_must_be_above_a_bound_are_not_on_it(self, name):
        above = KEYS[name].above
        assert f"not above {above:g}" in refusal(name, above)
        assert check_setting(name, math.nextafter(above, math.inf)) > above

    @pytest.mark.parametrize("seed", [2**53 + 1, 2**64 - 1, 10**30])
    def test_a_large_seed_keeps_every_digit(self, seed):
        assert check_setting("seed", seed) == seed

    def test_a_number_that_no_float_holds_is_refused(self):
        assert "whole number" in refusal("seed", 10**400)

    @pytest.mark.parametrize("name", KEYS)
    def test_every_number_has_a_bound(self, name):
        key = KEYS[name]
        if key.kind in ("int", "float", "ints", "floats"):
            assert (key.low is None) != (key.above is None)


class TestSwitches:
    @pytest.mark.parametrize("name", keys("bool"))
    def test_take_true_and_false_in_any_case(self, name):
        for word in ("true", "True", "TRUE", " true", True):
            assert check_setting(name, word) is True
        for word in ("false", "False", "FALSE", "false ", False):
            assert check_setting(name, word) is False

    @pytest.mark.parametrize("value", ["yes", "no", "on", "1", "0", 1, 0, 1.0])
    def test_take_nothing_else(self, value):
        assert "neither true nor false" in refusal("keep_labelled", value)


class TestLists:
    @pytest.mark.parametrize("name", keys("ints", "floats"))
    def test_may_be_given_as_one_number(self, name):
        number, length = example(name)[0], KEYS[name].length or 1
        assert same(check_setting(name, number), [number] * length)

    @pytest.mark.parametrize("name", keys("ints", "floats"))
    def test_may_be_given_as_a_tuple(self, name):
        assert same(check_setting(name, tuple(example(name))), example(name))

    @pytest.mark.parametrize("name", [name for name in keys("ints", "floats") if KEYS[name].length])
    def test_of_another_length_are_refused(self, name):
        assert "list of" in refusal(name, example(name)[:-1])
        assert "list of" in refusal(name, [*example(name), 1])
        assert "list of" in refusal(name, [])

    @pytest.mark.parametrize("name", keys("ints", "floats"))
    @pytest.mark.parametrize("bad", [-1, "x", None, True, [1], float("nan")])
    def test_with_one_bad_number_are_refused(self, name, bad):
        refusal(name, [*example(name)[:-1], bad])

    def test_of_any_length_may_be_a_text_with_commas(self):
        for value in ([4, 0], "4,0", "[4, 0]"):
            assert same(check_setting("seeds", value), [4, 0])
        assert "twice" in refusal("seeds", [1, 2, 1])
        refusal("seeds", [])

    def test_are_of_the_key_s_type(self):
        assert same(check_setting("spacing", [1, "2", 2.5]), [1.0, 2.0, 2.5])
        assert same(check_setting("roi_size", [32.0, "48", 64]), [32, 48, 64])
        assert "whole number" in refusal("roi_size", [32, 48.5, 64])


class TestNames:
    @pytest.mark.parametrize("name", keys("names"))
    def test_may_be_a_list_a_tuple_one_name_or_a_text_with_commas(self, name):
        for value in (["ann", "bob"], ("ann", "bob"), "ann,bob", " [ann, bob] "):
            assert check_setting(name, value) == ["ann", "bob"]
        assert check_setting(name, "ann") == ["ann"]
        assert check_setting(name, ["7", 8]) == ["7", "8"]

    @pytest.mark.parametrize("name", keys("names"))
    @pytest.mark.parametrize("value", ["", "a,,b", [], ["a", "a"], ["a", None], {"a": 1}, 2.5, True, [["a"]]])
    def test_are_distinct_and_not_empty(self, name, value):
        refusal(name, value)

    @pytest.mark.parametrize("bad", ["a/b", "..", ".hidden", "a\\b", "ta\tb"])
    def test_of_annotators_can_be_folders(self, bad):
        refusal("annotators", ["ann", bad])
        refusal("annotator", bad)


class TestWords:
    @pytest.mark.parametrize("name", [name for name, key in KEYS.items() if key.choices])
    def test_of_a_choice_are_taken_in_any_case(self, name):
        for choice in KEYS[name].choices:
            assert check_setting(name, choice) == choice
            assert check_setting(name, choice.upper()) == choice

    @pytest.mark.parametrize("name", [name for name, key in KEYS.items() if key.choices])
    def test_of_no_choice_are_refused_with_the_choices(self, name):
        assert ", ".join(KEYS[name].choices) in refusal(name, "foo")

    def test_an_unknown_strategy_is_refused_with_the_known_ones(self):
        assert "entropy_mi" in refusal("acquisition", "foo")

    def test_a_strategy_of_the_users_own_keeps_the_case_of_its_path(self, tmp_path, monkeypatch):
        (tmp_path / "OwnCase.py").write_text("def Best(view, options, query):\n    return view.uncertainty\n")
        monkeypatch.syspath_prepend(tmp_path)
        assert check_setting("acquisition", "OwnCase.Best") == "OwnCase.Best"
        assert "has no best" in refusal("acquisition", "OwnCase.best")

    @pytest.mark.parametrize("word", ["flat", "Flat", " FLAT "])
    def test_flat_is_a_prior(self, word):
        assert check_setting("prior_std", word) is None

    def test_flat_is_nothing_else(self):
        refusal("learning_rate", "flat")

    def test_paths_are_left_alone(self):
        assert check_setting("output_dir", "Runs/A run ") == "Runs/A run "


class TestDevice:
    @pytest.mark.parametrize("value", ["gpu", "cuda:x", "cpu:", "/dev/sda"])
    def test_of_no_such_kind_is_refused(self, value):
        assert "device of torch" in refusal("device", value)

    @pytest.mark.parametrize(("count", "refused"), [(0, ["cuda", "cuda:0"]), (2, ["cuda:2", "cuda:7"])])
    def test_that_is_not_there_is_refused(self, monkeypatch, count, refused):
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        for value in refused:
            assert f"CUDA devices found: {count}." in refusal("device", value)

    def test_that_is_there_is_taken(self, monkeypatch):
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        for value in ("cpu", "cuda", "cuda:0", "cuda:1"):
            assert check_setting("device", value) == value


class TestKeyOfAConfigurationAlone:
    @pytest.mark.parametrize(
        ("value", "example", "result"),
        [
            ("False", True, False),
            ("true", False, True),
            ("3", 1, 3),
            (3, 0.5, 3.0),
            ("0.25", 1.0, 0.25),
            (None, [64, 64, 64], None),
            ("null", [64, 64, 64], None),
            ("null", "entropy", None),
            ([1, 2], [3], [1, 2]),
            ({"a": 1}, {"b": 2}, {"a": 1}),
            ("bald", "entropy", "bald"),
            ([1], None, [1]),
        ],
    )
    def test_takes_a_value_of_the_type_of_the_file_s_own(self, value, example, result):
        assert same(check_like("own", value, example), result)

    @pytest.mark.parametrize(
        ("value", "example"),
        [
            ("maybe", True),
            (None, True),
            ("null", False),
            (1, True),
            ("x", 1),
            (2.5, 1),
            (None, 1),
            (True, 0.5),
            ("nan", 0.5),
            (3, [1, 2]),
            ([1], {"a": 1}),
        ],
    )
    def test_refuses_one_of_another_type(self, value, example):
        with pytest.raises(SettingsError, match=r"^own: .*\.$"):
            check_like("own", value, example)


def test_whether_a_window_is_too_small_is_for_the_network_to_say():
    assert check_setting("roi_size", 8) == [8, 8, 8]
    assert refusal("roi_size", [4, 32, 32]).startswith("roi_size: ")


def test_windows_that_overlap_wholly_are_refused():
    assert "below 1" in refusal("overlap", 1)
    assert "below 1" in refusal("val_interval", 0)


@pytest.mark.parametrize(
    ("typed", "value"), [("false", False), ("True", True), ("None", None), ("null", None), ("cpu", "cpu"), (3, 3)]
)
def test_a_word_for_a_computed_key_is_what_yaml_takes_it_for(typed, value):
    assert as_word(typed) is value or as_word(typed) == value
