"""The committee of round 0 is trained once for runs that differ in their queries only."""

import copy
import json

import pytest
import torch
from runs import arguments, outcome, run

from svgd_monai.data import make_phantom
from svgd_monai.files import write_json, write_torch
from svgd_monai.rounds.first import FirstCommittees, training_key
from svgd_monai.workflow import KEYS

SMALL = {"validation_cases": 1, "test_cases": 1, "steps_per_round": 2, "validations_per_round": 1, "rounds": 1}
RECORD = {
    "settings": {"seed": 0, "learning_rate": 0.1, "acquisition": "random", "device": "cpu", "output_dir": "a"},
    "components": {"loss": {"_target_": "X"}},
    "split": {"initial": ["a"], "pool": ["b"], "validation": ["c"], "test": ["d"]},
    "dataset": {"fingerprint": "f"},
    "versions": {"torch": "2"},
}


def test_what_is_only_queried_or_where_it_lies_does_not_count():
    other = copy.deepcopy(RECORD)
    other["settings"].update(acquisition="bald", output_dir="b", rounds=9, method="x")
    other["split"].update(pool=["b", "e"], test=[])
    assert training_key(other) == training_key(RECORD)


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("settings", {"learning_rate": 0.2}),
        ("settings", {"seed": 1}),
        ("settings", {"device": "cuda:0"}),
        ("settings", {"on_bad_particle": "resample"}),
        ("settings", {"deterministic": True}),
        ("settings", {"some_new_key": 1}),
        ("components", {"loss": {"_target_": "Y"}}),
        ("split", {"initial": ["a", "b"]}),
        ("split", {"validation": ["b"]}),
        ("dataset", {"fingerprint": "g"}),
        ("versions", {"torch": "3"}),
    ],
)
def test_what_training_depends_on_counts(part, change):
    other = copy.deepcopy(RECORD)
    other[part].update(change)
    assert training_key(other) != training_key(RECORD)


def test_a_run_takes_anothers_first_committee_and_ends_as_without_it(tmp_path):
    dataset = make_phantom(tmp_path / "data", "mr", 8)
    shared = tmp_path / "shared"
    for name, keys in {
        "first": {"acquisition": "random", "first_committees": shared},
        "second": {"acquisition": "entropy", "first_committees": shared},
        "alone": {"acquisition": "entropy"},
    }.items():
        result = run(arguments(dataset, tmp_path / name, **SMALL, **keys))
        assert result.code == 0, result.last_line
        if name == "second":
            assert "Round 0: the committee is copied from" in result.out
    assert outcome(tmp_path / "second") == outcome(tmp_path / "alone")
    assert len(list(shared.glob("*/committee.pt"))) == 1
    trained = [json.loads((tmp_path / name / "round_000/times.json").read_text()) for name in ("first", "second")]
    assert "train" in trained[0]
    assert "train" not in trained[1]


def test_every_key_of_a_query_is_a_key():
    from svgd_monai.rounds.first import QUERY_KEYS

    assert set(KEYS) >= QUERY_KEYS


@pytest.mark.parametrize("name", ["committee.pt", "training.json"])
def test_a_damaged_committee_is_not_taken_and_is_replaced(tmp_path, name, caplog):
    first = FirstCommittees(tmp_path / "shared", RECORD)
    source = tmp_path / "round_000"
    write_torch(source / "committee.pt", {"values": torch.arange(1000.0)})
    write_json(source / "training.json", {"step": 1})
    first.leave(source)
    good = (first.folder / name).read_bytes()
    damaged = bytearray(good)
    damaged[len(good) // 2] ^= 0xFF
    (first.folder / name).write_bytes(damaged)
    assert first.take(tmp_path / "other") is False
    assert str(first.folder / name) in caplog.text
    assert not (tmp_path / "other").exists()
    first.leave(source)
    assert (first.folder / name).read_bytes() == good
    assert first.take(tmp_path / "other") is True
