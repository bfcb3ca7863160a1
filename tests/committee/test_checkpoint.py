"""Committee files: both forms into both classes, and one sentence for whatever is wrong with a file."""

import pickle
import random
import subprocess
import sys

import pytest
import torch
from torch import nn

from svgd_monai.committee import (
    CommitteeMean,
    Particles,
    committee_mean,
    convert_committee,
    load_committee,
    save_committee,
)
from svgd_monai.committee.convert import main
from svgd_monai.errors import CheckpointError


def network(width=4):
    return nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, 2, 1))


def particles(members=3, width=4, seed=0):
    return Particles(lambda: network(width), members, seed)


def mean(members=3, width=4):
    return committee_mean(lambda: network(width), members)


def image():
    return torch.randn(2, 1, 5, 6, generator=torch.Generator().manual_seed(0))


def probabilities(committee):
    with torch.no_grad():
        return torch.stack(list(committee.members(image()))).softmax(2)


@pytest.fixture
def source():
    return particles(seed=1)


@pytest.fixture(params=["committee.pt", "model.pt"])
def file(request, tmp_path, source):
    """The same committee in either form."""
    path = save_committee(tmp_path / "run" / "committee.pt", source)
    return path if request.param == "committee.pt" else convert_committee(path, tmp_path / "models" / "model.pt")


@pytest.mark.parametrize("make", [particles, mean])
def test_both_forms_fill_both_classes(file, source, make):
    committee = make()
    load_committee(file, committee)
    torch.testing.assert_close(probabilities(committee), probabilities(source))


def test_a_round_trip_is_exact(file, source):
    committee = particles()
    load_committee(file, committee)
    assert torch.equal(committee.values, source.values)


def test_a_filled_committee_keeps_its_parameter(file):
    committee = particles()
    parameter = committee.values  # an optimiser holds it
    load_committee(file, committee)
    assert committee.values is parameter


def test_other_values_than_the_particles_own_can_be_saved(tmp_path, source):
    best = torch.randn_like(source.values)
    path = save_committee(tmp_path / "committee.pt", source, best)
    committee = particles()
    load_committee(path, committee)
    assert torch.equal(committee.values, best)


def test_a_bundles_weights_are_the_state_of_the_plain_committee(tmp_path, source):
    model = convert_committee(save_committee(tmp_path / "committee.pt", source), tmp_path / "model.pt")
    plain = CommitteeMean([source.network(m) for m in range(3)])
    state = torch.load(model, weights_only=True)
    assert list(state) == list(plain.state_dict())
    other = mean()
    other.load_state_dict(state)  # as any MONAI tool does
    torch.testing.assert_close(probabilities(other), probabilities(source))


def test_more_than_ten_members_keep_their_order(tmp_path):
    source, committee = particles(12, seed=1), particles(12)
    model = convert_committee(save_committee(tmp_path / "committee.pt", source), tmp_path / "model.pt")
    load_committee(model, committee)
    assert torch.equal(committee.values, source.values)


def test_equal_values_give_equal_bytes(tmp_path, source):
    first = save_committee(tmp_path / "a.pt", source)
    again = particles(seed=9)
    load_committee(first, again)
    second = save_committee(tmp_path / "b.pt", again)
    third = save_committee(tmp_path / "c.pt", particles(seed=9), again.values.detach().clone())
    assert first.read_bytes() == second.read_bytes() == third.read_bytes()
    models = [convert_committee(path, tmp_path / f"model_{path.name}") for path in (first, second)]
    assert models[0].read_bytes() == models[1].read_bytes()


def test_only_the_values_are_stored_not_the_memory_they_are_part_of(tmp_path, source):
    large = torch.zeros(1000, *source.values.shape)
    slim = save_committee(tmp_path / "a.pt", source, large[0].clone())
    view = save_committee(tmp_path / "b.pt", source, large[0])
    assert view.stat().st_size == slim.stat().st_size


def complaint(path, committee=None):
    with pytest.raises(CheckpointError) as caught:
        load_committee(path, committee or particles())
    sentence = str(caught.value)
    assert len(sentence.splitlines()) == 1
    assert sentence.endswith(".")
    assert str(path) in sentence
    return sentence


@pytest.mark.parametrize("make", [particles, mean])
def test_a_missing_file_is_named(tmp_path, make):
    assert "does not exist" in complaint(tmp_path / "none.pt", make())


def test_a_folder_is_no_committee(tmp_path):
    complaint(tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_named(file, share):
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    assert "damaged" in complaint(file)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_garbage_is_named(tmp_path):
    path = tmp_path / "committee.pt"
    for seed in range(100):
        generator = random.Random(seed)
        path.write_bytes(generator.randbytes(generator.randint(1, 200)))
        complaint(path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_bytes_changed_in_the_files_index_are_named(tmp_path):
    """A flipped bit of a weight is read as it is; whatever makes the file unreadable ends in one sentence."""
    content = pickle.dumps({"format": 1, "layout": [["0.weight", [4, 1, 3, 3]]]}, protocol=2)
    path = tmp_path / "committee.pt"
    for seed in range(100):
        generator, changed = random.Random(seed), bytearray(content)
        for _ in range(3):
            changed[generator.randrange(len(changed))] = generator.randrange(256)
        path.write_bytes(changed)
        complaint(path)


@pytest.mark.parametrize("make", [particles, mean])
@pytest.mark.parametrize("members", [1, 2, 4])
def test_another_number_of_particles_is_named(file, make, members):
    sentence = complaint(file, make(members))
    assert sentence.startswith("num_particles: ")
    assert "holds 3 particles" in sentence
    assert f"says {members}" in sentence


@pytest.mark.parametrize("make", [particles, mean])
def test_another_architecture_is_named(file, make):
    sentence = complaint(file, make(3, 5))
    assert "features" in sentence
    assert "0.bias" in sentence


@pytest.mark.parametrize("make", [particles, mean])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_named(tmp_path, source, make, bad):
    values = source.values.detach().clone()
    values[1, 3] = bad
    assert "not finite" in complaint(save_committee(tmp_path / "committee.pt", source, values), make())


def test_a_refused_file_leaves_the_committee_as_it_was(tmp_path):
    committee = particles(3)
    before = committee.values.detach().clone()
    complaint(save_committee(tmp_path / "a.pt", particles(2)), committee)
    assert torch.equal(committee.values, before)


class Bomb:
    def __reduce__(self):
        return (exec, ("raise SystemExit('executed')",))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("write", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
def test_a_pickled_object_is_refused_and_not_executed(tmp_path, write):
    path = tmp_path / "committee.pt"
    write({"format": 1, "values": Bomb(), "layout": []}, path)
    complaint(path)


@pytest.mark.parametrize(
    "content",
    [
        [1, 2],
        {},
        "text",
        torch.zeros(3),
        {"weight": torch.zeros(3)},
        {"networks.0.0.weight": "text"},
        {"networks.first.weight": torch.zeros(3)},
        {1: torch.zeros(3)},
        {"format": 1, "values": torch.zeros(3), "layout": [["0.weight", [3]]]},
        {"format": 1, "values": torch.zeros(3, 4), "layout": [["0.weight", [3]]]},
        {"format": 1, "values": "text", "layout": []},
        {"format": 1, "values": torch.zeros(3, 4), "layout": "text"},
        {"format": 2, "values": torch.zeros(3, 4), "layout": [["0.weight", [4]]]},
    ],
    ids=repr,
)
@pytest.mark.parametrize("make", [particles, mean])
def test_another_content_is_no_committee(tmp_path, content, make):
    path = tmp_path / "committee.pt"
    torch.save(content, path)
    complaint(path, make())


def test_only_a_committee_can_be_filled(file):
    with pytest.raises(TypeError, match="Linear"):
        load_committee(file, nn.Linear(1, 1))


def test_the_command_converts(tmp_path, source):
    path = save_committee(tmp_path / "committee.pt", source)
    main([str(path), str(tmp_path / "models" / "model.pt")])
    committee = mean()
    load_committee(tmp_path / "models" / "model.pt", committee)
    torch.testing.assert_close(probabilities(committee), probabilities(source))


def test_the_command_ends_with_one_sentence(tmp_path):
    with pytest.raises(SystemExit) as caught:
        main([str(tmp_path / "none.pt"), str(tmp_path / "model.pt")])
    assert str(caught.value).endswith("train a committee first.")
    assert not (tmp_path / "model.pt").exists()


def test_the_command_says_when_it_cannot_write(tmp_path, source):
    path = save_committee(tmp_path / "committee.pt", source)
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit) as caught:
        main([str(path), str(tmp_path / "file" / "model.pt")])
    assert "file" in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "file"))


def test_the_command_runs_as_a_module(tmp_path):
    command = [sys.executable, "-m", "svgd_monai.committee.convert", "none.pt", "model.pt"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "committee_file: none.pt does not exist; train a committee first."


def test_a_file_that_is_missing_is_told_by_the_key_that_names_it(tmp_path):
    with pytest.raises(CheckpointError, match=r"^initial_committee: \S+none\.pt does not exist"):
        load_committee(tmp_path / "none.pt", torch.nn.Linear(1, 1), key="initial_committee")
