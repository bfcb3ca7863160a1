import dataclasses

import numpy as np
import pytest
import torch

from svgd_monai.acquisition import PoolView, ScoreOptions, Strategy, get_strategy, select, strategy
from svgd_monai.errors import SettingsError

MODULE = """
import functools
import torch
from svgd_monai.acquisition import Strategy, strategy

def Plain(view, options, query):
    return view.uncertainty

def attributed(view, options, query):
    return view.information

attributed.uncertainty_map = "variance"
attributed.uses_information = True

@strategy(uncertainty_map="bald", uses_information=True)
def decorated(view, options, query):
    return view.information

@strategy()
def bare(view, options, query):
    return [1, 2, 3]

made = Strategy("another", "jensen_shannon", False, Plain)
partial = functools.partial(lambda factor, view, options, query: factor * view.uncertainty.numpy(), -1)

class Callable:
    uses_information = True
    def __call__(self, view, options, query):
        return view.information

instance = Callable()
number = 3

def two(view, options):
    return view.uncertainty

def unknown_map(view, options, query):
    return view.uncertainty

unknown_map.uncertainty_map = "surprise"

def short(view, options, query):
    return view.uncertainty[:2]

def column(view, options, query):
    return view.uncertainty[:, None]

def nothing(view, options, query):
    return None

def text(view, options, query):
    return "abc"

def undefined(view, options, query):
    return torch.tensor([0.0, float("nan"), 1.0])

def best_first(view, options, query):
    return torch.tensor([0.0, float("-inf"), float("inf")])

def learned(view, options, query):
    return torch.tensor([1.0, 3.0, 2.0], requires_grad=True)
"""


@pytest.fixture
def module(tmp_path, monkeypatch, request):
    """Writes the user's modules and gives a name of no other test."""
    name = f"Mine_{abs(hash(request.node.name))}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    return name


def pool():
    return PoolView(
        ("a", "b", "c"),
        torch.tensor([0.1, 0.2, 0.3]),
        torch.tensor([3.0, 2.0, 1.0]),
        torch.ones(3),
        torch.zeros(3, dtype=torch.bool),
        np.random.default_rng(0),
    )


def queries(path, count=3):
    return select(get_strategy(path), pool(), ScoreOptions(), count, False)


@pytest.mark.parametrize(
    ("attribute", "uncertainty_map", "uses_information", "queried"),
    [
        ("Plain", "entropy", False, "cba"),
        ("attributed", "variance", True, "abc"),
        ("decorated", "bald", True, "abc"),
        ("bare", "entropy", False, "cba"),
        ("made", "jensen_shannon", False, "cba"),
        ("partial", "entropy", False, "abc"),
        ("instance", "entropy", True, "abc"),
        ("best_first", "entropy", False, "cab"),
        ("learned", "entropy", False, "bca"),
    ],
)
def test_a_dotted_path_gives_the_users_strategy(module, attribute, uncertainty_map, uses_information, queried):
    found = get_strategy(f"{module}.{attribute}")
    assert isinstance(found, Strategy)
    assert found.name == f"{module}.{attribute}"
    assert found.uncertainty_map == uncertainty_map
    assert found.uses_information is uses_information
    scores, chosen = queries(f"{module}.{attribute}")
    assert "".join(chosen) == queried
    assert scores.dtype == torch.float64
    assert not scores.requires_grad


def test_a_package_of_the_users_own(tmp_path, monkeypatch):
    folder = tmp_path / "my_package_of_strategies" / "inner"
    folder.mkdir(parents=True)
    (folder / "one.py").write_text("def best(view, options, query):\n    return view.uncertainty\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert queries("my_package_of_strategies.inner.one.best")[1] == ["c", "b", "a"]
    assert "no module my_package_of_strategies.other in" in refusal("my_package_of_strategies.other.best")


def test_a_known_name_comes_before_a_module_of_that_name(tmp_path, monkeypatch):
    (tmp_path / "entropy.py").write_text("raise RuntimeError('never')\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert get_strategy("entropy").name == "entropy"


def refusal(path, call=get_strategy):
    with pytest.raises(SettingsError) as caught:
        call(path)
    sentence = str(caught.value)
    assert path in sentence
    assert len(sentence.splitlines()) == 1
    assert sentence.endswith(".")
    assert not sentence.endswith("..")
    return sentence


def test_a_module_that_is_not_there_is_named():
    assert refusal("no_such_module.best") == (
        "acquisition: no_such_module.best cannot be used, "
        "there is no module no_such_module in the current folder or on PYTHONPATH."
    )
    assert "no module json.nowhere in" in refusal("json.nowhere.best")
    assert "no module numpy_ in" in refusal("numpy_.linalg.best")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("import no_such_helper\n", r"ModuleNotFoundError: No module named 'no_such_helper'."),
        ("def best(:\n", "SyntaxError: invalid syntax"),
        ("1 / 0\n", "ZeroDivisionError: division by zero."),
        ("raise ValueError('two\\nlines.')\n", "ValueError: two lines."),
        ("from svgd_monai.acquisition import strategy\n@strategy\ndef best(v, o, q): ...\n", "takes one of entropy"),
    ],
)
def test_an_error_inside_the_users_module_is_told(tmp_path, monkeypatch, content, why):
    name = f"broken_{abs(hash(content))}"
    (tmp_path / f"{name}.py").write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    sentence = refusal(f"{name}.best")
    assert f"importing {name} ended with" in sentence
    assert why in sentence


@pytest.mark.parametrize(
    ("attribute", "why"),
    [
        ("absent", "has no absent"),
        ("number", r"number must be a function of three arguments \(view, options, query\) and is of the type int"),
        ("Callable", "must be a function of .* and is a class"),
        ("two", r"two must be a function of three arguments \(view, options, query\) and takes others\.$"),
        ("unknown_map", "'surprise' is not one of entropy, bald, variance, jensen_shannon"),
    ],
)
def test_what_is_no_strategy_is_refused(module, attribute, why):
    with pytest.raises(SettingsError, match=why):
        get_strategy(f"{module}.{attribute}")
    refusal(f"{module}.{attribute}")


@pytest.mark.parametrize(
    ("attribute", "why"),
    [
        ("short", "must return one score per case, (3,), it returned the shape (2,)"),
        ("column", "must return one score per case, (3,), it returned the shape (3, 1)"),
        ("nothing", "it returned a NoneType"),
        ("text", "it returned a str"),
        ("undefined", "gave case b a score that is not a number"),
    ],
)
def test_what_is_no_score_per_case_is_refused(module, attribute, why):
    assert why in refusal(f"{module}.{attribute}", queries)


@pytest.mark.parametrize("name", ["entropie", "mine.", ".mine", "a..b", "mine.1", "my module.best", "", "Entropy"])
def test_what_is_neither_a_name_nor_a_path_is_refused_with_the_names(name):
    with pytest.raises(SettingsError, match=r"acquisition must be one of random, .*power_bald, or your own as"):
        get_strategy(name)


def test_an_error_of_the_users_function_is_left_as_it_is():
    def fails(view, options, query):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        select(Strategy("mine.fails", "entropy", False, fails), pool(), ScoreOptions(), 1, False)


def test_the_decorator_keeps_the_function_and_refuses_an_unknown_map():
    @strategy(uncertainty_map="variance")
    def mine(view, options, query):
        return view.uncertainty

    assert mine.name == "mine"
    assert mine.score(pool(), ScoreOptions(), None).tolist() == pytest.approx([0.1, 0.2, 0.3])
    with pytest.raises(SettingsError, match="takes one of entropy, bald"):
        strategy(uncertainty_map="surprise")
    with pytest.raises(SettingsError, match="must be one of entropy, bald"):
        dataclasses.replace(mine, uncertainty_map="surprise")
