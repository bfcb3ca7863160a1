"""Seeds for one purpose do not depend on the others, and never change."""

import hashlib
import os

import numpy as np
import pytest
import torch

from svgd_monai.seeding import derive_seed, use_deterministic_algorithms


@pytest.mark.parametrize(("words", "text"), [((), "7"), (("batches", 3), "7/batches/3"), ((-1,), "7/-1")])
def test_the_seed_is_the_beginning_of_a_sha_256(words, text):
    bits = bin(int(hashlib.sha256(text.encode()).hexdigest(), 16))[2:].zfill(256)
    assert derive_seed(7, *words) == int(bits[:63], 2)


def test_the_seed_of_a_purpose_stays_what_it_always_was():
    assert derive_seed(0) == 3456079177858693020
    assert derive_seed(0, "member", 1) == 6762831394314249745


def test_purposes_do_not_collide():
    seeds = [derive_seed(seed, word, n) for seed in range(10) for word in ("batches", "torch") for n in range(50)]
    assert len(set(seeds)) == len(seeds)


def test_neighbouring_seeds_share_no_pattern():
    bits = [bin(derive_seed(n, "x") ^ derive_seed(n + 1, "x")).count("1") for n in range(200)]
    assert min(bits) > 10
    assert abs(sum(bits) / len(bits) - 31.5) < 2


def test_every_generator_takes_the_seed():
    for n in range(50):
        seed = derive_seed(n)
        assert 0 <= seed < 2**63
        torch.Generator().manual_seed(seed)
        np.random.default_rng(seed)


def test_deterministic_algorithms_hold_for_the_rest_of_the_process(monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    before = torch.are_deterministic_algorithms_enabled()
    try:
        use_deterministic_algorithms()
        assert not torch.backends.cudnn.benchmark
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    finally:
        torch.use_deterministic_algorithms(before)
