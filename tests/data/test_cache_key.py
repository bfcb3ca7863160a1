"""The key of a cached volume: the same in every process, and another one where a transform holds something else."""

import hashlib
import os
import pickle
import subprocess
import sys
from pathlib import Path

import monai
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Lambdad, ScaleIntensityd, SobelGradientsd

from svgd_monai.data import cache_key, transform_key
from svgd_monai.errors import SettingsError


def holding(**values):
    """A transform of MONAI's with more attributes."""
    step = ScaleIntensityd("image")
    vars(step).update(values)
    return step


def names(last=29):
    return {f"organ_{number}" for number in range(last)} | {f"organ_{last}"}


HELD = {
    "a set": lambda: holding(names=names()),
    "a frozen set within a set": lambda: holding(groups={frozenset(names()), frozenset(names(5)), "one", 2}),
    "a tensor": lambda: holding(mean=torch.arange(5.0)),
    "a parameter": lambda: holding(mean=torch.nn.Parameter(torch.arange(5.0))),
    "an image of MONAI's": lambda: holding(reference=MetaTensor(torch.ones(1, 2, 2, 2), meta={"name": "a"})),
    "a transform of MONAI's that holds tensors": lambda: SobelGradientsd("image"),
}


def keys():
    return [transform_key([make()]).decode() for make in HELD.values()]


def test_is_the_same_in_every_process():
    script = "import test_cache_key; print(*test_cache_key.keys())"
    found = []
    for seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parent)}
        done = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
        )
        found.append(done.stdout.split()[-len(HELD) :])
    assert found[0] == found[1] == keys()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"names": names()}, {"names": names(28)}),
        ({"names": {"a", "b"}}, {"names": frozenset(("a", "b"))}),
        ({"names": {"a", "b"}}, {"names": ["a", "b"]}),
        ({"mean": torch.tensor([1.0, 2.0])}, {"mean": torch.tensor([1.0, 3.0])}),
        ({"mean": torch.tensor([1.0, 2.0])}, {"mean": torch.tensor([[1.0, 2.0]])}),
        ({"mean": torch.zeros(2)}, {"mean": torch.zeros(2, dtype=torch.int32)}),
        ({"mean": torch.zeros(2)}, {"mean": MetaTensor(torch.zeros(2))}),
        ({"mean": MetaTensor(torch.zeros(2))}, {"mean": MetaTensor(torch.zeros(2), affine=2 * torch.eye(4))}),
    ],
)
def test_tells_contents_apart(one, other):
    assert transform_key([holding(**one)]) != transform_key([holding(**other)])


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor(3.0),
        torch.empty(0, 2),
        torch.tensor([1.5], dtype=torch.bfloat16),
        torch.tensor([True]),
        torch.arange(6.0)[::2],
        torch.arange(6.0)[::6],
        torch.arange(6.0).reshape(2, 3).T,
        torch.ones(2, requires_grad=True),
    ],
)
def test_takes_tensors_of_any_type_and_shape(tensor):
    plain = torch.tensor(tensor.tolist(), dtype=tensor.dtype).reshape(tensor.shape)
    assert transform_key([holding(mean=tensor)]) == transform_key([holding(mean=plain)])


def test_takes_sparse_tensors():
    assert transform_key([holding(mean=torch.eye(2).to_sparse())])


def test_finds_the_code_of_what_a_set_holds(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    module, found = tmp_path / "users_function_in_a_set.py", []
    for number in (1, 2):
        module.write_text(f"def function(x):\n    return x + {number}\n")
        sys.modules.pop(module.stem, None)
        function = __import__(module.stem).function
        found.append(transform_key([holding(functions={function})]))
    assert found[0] != found[1]


def test_without_sets_and_tensors_it_is_that_of_earlier_versions():
    """A cache that is there stays valid."""
    step = ScaleIntensityd("image", maxv=2.0)
    start = f"{cache_key.FORMAT} {monai.__version__}\n".encode()
    assert transform_key([step]) == hashlib.sha256(start + pickle.dumps(step, protocol=4)).hexdigest().encode()


def test_of_a_set_that_leads_back_to_itself_is_refused():
    step = holding(others=set())
    step.others.add(step)
    with pytest.raises(SettingsError, match=r"^ScaleIntensityd cannot be part of a cache's key "):
        transform_key([step])


def test_of_a_nameless_function_in_a_set_is_refused():
    with pytest.raises(SettingsError, match=r"^Lambdad cannot be part of a cache's key "):
        transform_key([Lambdad("image", {1, lambda x: x}.pop)])
