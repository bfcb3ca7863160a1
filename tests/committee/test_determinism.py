"""``--deterministic true`` reaches torch from the command line, and the same command ends with the same bits."""

import pytest
import torch
from command import TINY, run_bundle, words


@pytest.fixture
def algorithms():
    before = torch.are_deterministic_algorithms_enabled()
    yield
    torch.use_deterministic_algorithms(before)


def test_the_same_command_ends_with_the_same_particles(algorithms, bundle, phantom_mr, tmp_path):
    keys = {key: TINY[key] for key in ("num_particles", "features", "spacing", "roi_size", "steps_per_round", "device")}
    keys |= {"batch_size": 2, "dataset_dir": phantom_mr, "cache_dir": tmp_path / "cache", "validations_per_round": 1}
    particles = []
    for number, value in enumerate(("false", "true", "true")):
        output = tmp_path / str(number)
        result = run_bundle(
            *words(bundle / "configs/train.yaml", **keys, deterministic=value, output_dir=output, model_file="none")
        )
        assert result.exit_code == 0, result.stderr
        assert torch.are_deterministic_algorithms_enabled() is (value == "true")
        particles.append(torch.load(output / "committee.pt", weights_only=True)["values"])
    assert torch.equal(particles[1], particles[2])
    assert torch.equal(particles[0], particles[1])  # on a CPU the others are deterministic too
