"""What a handler takes from an engine's output: millilitres, and chance that follows from the seed."""

import json
import logging

import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor

from svgd_monai.acquisition import AcquisitionHandler, PoolInformation
from svgd_monai.acquisition.outputs import statistics_of, voxel_ml
from svgd_monai.errors import DataError
from svgd_monai.files import read_csv
from svgd_monai.statistics import summarise

CASES = [f"case_{number:02d}" for number in range(30)]


def test_a_voxels_volume_is_that_of_its_affine():
    affine = torch.diag(torch.tensor([2.0, -1.5, 4.0, 1.0]))
    affine[0, 1] = 0.7  # a shear leaves the volume
    assert voxel_ml({"affine": affine}) == pytest.approx(0.012)
    assert voxel_ml({"image": MetaTensor(torch.zeros(1, 2, 2, 2), affine=affine)}) == pytest.approx(0.012)
    assert voxel_ml({"image": torch.zeros(1, 2, 2, 2)}) == 1e-3


def test_a_batched_output_of_unlabelled_cases_is_taken_by_its_predictions_alone():
    """As engines without decollation put it out: no label, and whatever else a user's handler has added."""
    predictions = torch.rand(12, 2, 3, 4, 5, 6, generator=torch.Generator().manual_seed(0)).softmax(2)
    output = {"label": None, "image": torch.zeros(2, 1), "pred_meta_dict": {}, "pred_names": ["a", "b"]}
    output |= {f"pred_{member}": predictions[member] for member in reversed(range(12))}
    found = statistics_of(output)
    torch.testing.assert_close(torch.stack(found), summarise(predictions))
    apart = statistics_of([{**output, **{f"pred_{m}": predictions[m, item] for m in range(12)}} for item in range(2)])
    torch.testing.assert_close(torch.stack(apart), torch.stack(found))
    assert torch.equal(statistics_of({"statistics": found[0][None], "label": None})[0], found[0])
    with pytest.raises(ValueError, match=r"neither statistics nor predictions, only \['label'\]"):
        statistics_of({"label": None})


@pytest.mark.parametrize("acquisition", ["bald", "random"])
def test_a_prediction_that_is_not_finite_is_named_by_its_case(acquisition, tmp_path):
    def predict(_engine, batch):
        probability = torch.full((1, 2, 4, 4, 4), 0.5)
        if batch["case"] == ["case_02"]:
            probability[0, :, 1, 2, 3] = torch.nan
        return {"pred": probability}

    engine = Engine(predict)
    AcquisitionHandler(tmp_path, acquisition).attach(engine)
    with pytest.raises(DataError, match=r"^case case_02: the prediction is not finite"):
        engine.run([{"case": [case]} for case in CASES])
    assert not any(tmp_path.iterdir())


def scored(folder, acquisition="random", labelled=(), **options):
    """The rows that a handler writes of cases whose predicted foreground is half their voxels."""
    probability = torch.zeros(1, 2, 4, 4, 4)
    probability[:, 1, :2], probability[:, 0, 2:] = 0.9, 0.9
    probability[:, 0, :2], probability[:, 1, 2:] = 0.1, 0.1
    engine = Engine(lambda _, __: {"pred": probability})
    handler = AcquisitionHandler(folder, acquisition, labelled, count=3, **options)
    handler.attach(engine)
    affine = torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0]))[None]
    engine.run([{"case": [case], "affine": affine, "image": torch.zeros(1, 1, 4, 4, 4)} for case in CASES])
    return read_csv(folder / "scores.csv"), json.loads((folder / "queries.json").read_text())


def test_the_predicted_foreground_is_in_millilitres(tmp_path):
    rows, _ = scored(tmp_path)
    assert {float(row["foreground_ml"]) for row in rows} == {32 * 0.008}


def test_what_a_killed_run_has_left_half_written_goes(tmp_path, left):
    left(tmp_path / "scores.csv")
    scored(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["queries.json", "scores.csv"]


def test_a_random_query_follows_from_the_seed_alone(tmp_path):
    chosen = {}
    for name, seed in (("a", 0), ("b", 0), ("c", 1), ("d", 2)):
        (tmp_path / name).mkdir()
        chosen[name] = scored(tmp_path / name, seed=seed)[1]
    assert chosen["a"] == chosen["b"]
    assert len({tuple(queried) for queried in chosen.values()}) == 3


@pytest.mark.parametrize(
    ("labelled", "said"),
    [
        (CASES[2:], "to label next: case_00, case_01; drawn again: case_02"),
        ((), "to label next: case_00, case_01, case_02"),
        (CASES, "drawn again: case_00, case_01, case_02"),
    ],
)
def test_the_log_names_the_new_cases_apart_from_those_drawn_again(labelled, said, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        _, queried = scored(tmp_path, "entropy", labelled)  # of equal scores the unlabelled go first, then by name
    assert queried == CASES[:3]
    assert f"30 cases scored; {said}" in caplog.messages


class Images:
    """A pool of images that are preprocessed in some way."""

    def __init__(self, transform_hash):
        self.transform_hash = transform_hash
        self.data = [{"case": case, "fingerprint": case, "image": case} for case in CASES[:3]]

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        return {"image": torch.rand(1, 8, 8, 8, generator=generator) ** (2 if self.transform_hash == "b" else 1)}


def test_information_of_volumes_that_were_preprocessed_otherwise_is_computed_again(tmp_path):
    found = {}
    for way in ("a", "a", "b"):
        information = PoolInformation(Images(way), tmp_path / "information.npz", (8, 8, 8))
        found.setdefault(way, []).append((information.pairs(CASES[:3], CASES[:2]), information.store.computed))
    (first, computed), (again, nothing), (other, anew) = (*found["a"], *found["b"])
    assert torch.equal(first, again)
    assert (computed > 0, nothing, anew) == (True, 0, computed)
    assert not torch.allclose(first, other)


def test_a_store_of_one_grid_is_not_read_for_another(tmp_path):
    for grid in ((8, 8, 8), (4, 4, 4)):
        information = PoolInformation(Images("a"), tmp_path / "information.npz", grid)
        found = information.pairs(CASES[:1], CASES[1:2])
        assert information.store.computed > 0
    alone = PoolInformation(Images("a"), tmp_path / "alone.npz", (4, 4, 4)).pairs(CASES[:1], CASES[1:2])
    assert torch.equal(found, alone)


def test_information_goes_by_what_a_file_holds_and_not_by_its_name(tmp_path):
    before, moved, rewritten = (Images("a") for _ in range(3))
    for item in moved.data:
        item["image"] = f"moved/{item['image']}"
    rewritten.data[0]["fingerprint"] = "another content"
    for dataset, computed in ((before, 3), (moved, 0), (rewritten, 2)):  # a pair, and entropies of what was read
        information = PoolInformation(dataset, tmp_path / "information.npz", (8, 8, 8))
        information.pairs(CASES[:1], CASES[1:2])
        assert information.store.computed == computed
