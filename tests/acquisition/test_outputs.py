"""What a handler takes from an engine's output: millilitres, and chance that follows from the seed."""

import json
import logging
import math

import pytest
import torch
from ignite.engine import Engine
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedEvaluator
from monai.transforms import Activationsd, AsDiscreted

from svgd_monai.acquisition import AcquisitionHandler, PoolInformation
from svgd_monai.acquisition.names import PoolNames
from svgd_monai.acquisition.outputs import statistics_of, voxel_ml
from svgd_monai.errors import DataError, SettingsError
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


def probabilities_of(prediction):
    """The mean probabilities, (C, ...), that are taken from a prediction (C, ...)."""
    return statistics_of([{"pred": prediction}])[0][:-2]


def logits(channels, seed=0, scale=1.0):
    return scale * torch.randn(channels, 4, 5, 6, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("scale", [0.1, 1.0, 20.0])
def test_a_sigmoid_of_one_channel_is_the_probability_of_the_foreground(scale):
    foreground = logits(1, scale=scale).sigmoid()
    both = torch.cat([1 - foreground, foreground])
    assert torch.equal(probabilities_of(foreground), both)
    assert torch.equal(probabilities_of(foreground.half()), probabilities_of(foreground.half().float()))
    members = {f"pred_{number}": logits(1, number).sigmoid() for number in range(3)}
    found = statistics_of([members])[0]
    expected = torch.stack([torch.cat([1 - p, p]) for p in members.values()])[:, None]
    torch.testing.assert_close(found, summarise(expected)[0])


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_sigmoid_that_is_sure_everywhere_is_one_still(value):
    prediction = torch.full((1, 4, 5, 6), value)
    assert torch.equal(probabilities_of(prediction), torch.cat([1 - prediction, prediction]))


def blended(probability):
    """As windows leave it: sums and bounds are met up to rounding."""
    return probability + 1e-7 * torch.randn(probability.shape, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("scale", [0.1, 1.0, 200.0])
@pytest.mark.parametrize("kind", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_probabilities_of_several_classes_are_taken_as_they_are(kind, scale):
    probability = logits(3, scale=scale).softmax(0)
    torch.testing.assert_close(probabilities_of(probability.to(kind)), probability.to(kind).float(), rtol=0, atol=0)
    found = statistics_of([{"pred": blended(probability)}])[0]
    assert found.isfinite().all()
    torch.testing.assert_close(found[:-2], probability, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "prediction",
    [logits(2), logits(3, scale=0.1), logits(2, scale=30.0), logits(3) + 100, torch.zeros(3, 4, 5, 6)],
)
def test_logits_of_several_classes_become_their_softmax(prediction):
    torch.testing.assert_close(probabilities_of(prediction), prediction.softmax(0))


MASK = (logits(1) > 0).float()
NO_UNCERTAINTY = {
    "logits of one channel": (logits(1, scale=5.0), r"Activationsd\(keys='pred', sigmoid=True\)"),
    "an argmax": (MASK, "one channel of whole numbers, which are classes and no probabilities"),
    "an argmax in whole numbers": (torch.zeros(1, 4, 5, 6, dtype=torch.long), "one channel of whole numbers"),
    "an argmax of more classes": (2 * MASK, "one channel, with values from 0 to 2, .* such as AsDiscreted"),
    "several sigmoids": (logits(3).sigmoid(), "3 channels between 0 and 1 that do not sum to 1, as sigmoids do"),
    "two sure sigmoids": (logits(2, scale=200.0).sigmoid(), "2 channels between 0 and 1"),
    "sigmoids of one value": (torch.full((3, 4, 5, 6), 0.5), "3 channels between 0 and 1"),
}


@pytest.mark.parametrize("name", NO_UNCERTAINTY)
def test_a_prediction_that_is_no_probability_of_classes_is_refused(name):
    prediction, words = NO_UNCERTAINTY[name]
    for output in ([{"pred": prediction}], {"pred": prediction[None]}):
        with pytest.raises(SettingsError, match=rf"^postprocessing: pred has .*{words}"):
            statistics_of(output)
    with pytest.raises(SettingsError, match=r"^postprocessing: pred_1 has "):
        statistics_of([{"pred_0": logits(2), "pred_1": prediction}])


@pytest.mark.parametrize(
    ("value", "channels"),
    [(math.inf, 1), (-math.inf, 1), (math.nan, 1), (math.inf, 2), (math.nan, 2)],  # a logit of −∞ is a chance of 0
)
def test_a_value_that_is_not_finite_is_no_matter_of_the_kind_of_prediction(value, channels):
    """The handler names its case."""
    prediction = torch.full((channels, 4, 5, 6), 0.5)
    prediction[0, 1, 2, 3] = value
    (statistics,) = statistics_of([{"pred": prediction}])
    assert not torch.isfinite(statistics[..., 1, 2, 3]).all()


def evaluated(folder, items, post=None, channels=1, **options):
    """The rows that a handler writes of one of MONAI's evaluators over a list of items."""

    class Network(torch.nn.Module):
        def forward(self, x):
            return 3 * x.expand(-1, channels, -1, -1, -1)

    loader = DataLoader(Dataset(items), batch_size=2)
    evaluator = SupervisedEvaluator("cpu", loader, Network(), postprocessing=post, **options)
    AcquisitionHandler(folder, "entropy").attach(evaluator)
    evaluator.run()
    return read_csv(folder / "scores.csv")


def image(value, file=None):
    meta = {} if file is None else {"filename_or_obj": file}
    return {"image": MetaTensor(torch.full((1, 4, 4, 4), float(value)), meta=meta)}


def test_a_network_with_a_sigmoid_is_ranked_by_its_uncertainty(tmp_path):
    items = [{"case": f"at_{value}", **image(value)} for value in (-3, 1, 0, -0.5)]
    rows = evaluated(tmp_path, items, Activationsd("pred", sigmoid=True))
    assert [row["case"] for row in rows] == ["at_0", "at_-0.5", "at_1", "at_-3"]
    assert float(rows[0]["uncertainty"]) == pytest.approx(math.log(2))
    assert {row["case"]: float(row["foreground_ml"]) for row in rows} == {
        "at_0": 0.0, "at_-0.5": 0.0, "at_1": 0.064, "at_-3": 0.0
    }  # fmt: skip


def test_the_log_says_where_no_case_has_any_uncertainty(tmp_path, caplog):
    post = AsDiscreted("pred", argmax=True, to_onehot=2)
    rows = evaluated(tmp_path, [{"case": case, **image(1)} for case in CASES[:3]], post, channels=2)
    assert {float(row["uncertainty"]) for row in rows} == {0.0}
    assert [text for text in caplog.messages if text.startswith("the uncertainty of all cases is 0")]
    caplog.clear()
    evaluated(tmp_path, [{"case": case, **image(1)} for case in CASES[:3]], channels=2)
    assert not [text for text in caplog.messages if "uncertainty" in text]


@pytest.mark.parametrize("decollate", [True, False])
def test_a_case_without_a_name_has_that_of_its_file(decollate, tmp_path):
    files = ("scans/a.nii.gz", "scans/b.1.nii", "scans/c.mha", "d.nii.gz")
    items = [image(number, file) for number, file in enumerate(files)]
    rows = evaluated(tmp_path, items, channels=2, decollate=decollate)
    assert sorted(row["case"] for row in rows) == ["a", "b.1", "c.mha", "d"]


@pytest.mark.parametrize("decollate", [True, False])
@pytest.mark.parametrize("item", [image(0), {"image": torch.zeros(1, 4, 4, 4)}])
def test_a_case_that_nothing_names_is_refused(item, decollate, tmp_path):
    with pytest.raises(DataError, match=r"^case: an item of the pool has neither .* give each item .* a case\.$"):
        evaluated(tmp_path, [item], channels=2, decollate=decollate)


def test_two_cases_of_one_name_are_refused(tmp_path):
    items = [image(0, f"{folder}/t1.nii.gz") for folder in ("a", "b", "c")]
    with pytest.raises(
        DataError, match=r"^case t1: two items .* \(a/t1\.nii\.gz and b/t1\.nii\.gz\); give each a case"
    ):
        evaluated(tmp_path, items, channels=2)
    with pytest.raises(DataError, match=r"^case x: two items of the pool have this name; give each a case"):
        evaluated(tmp_path, [{"case": "x", **image(0)}, {"case": "x", **image(1)}], channels=2)


@pytest.mark.parametrize(("other", "same"), [("a/t1.nii.gz", True), ("b/t1.nii.gz", False)])
def test_of_several_processes_each_may_have_a_case_but_not_another_of_its_name(other, same, monkeypatch):
    names = PoolNames()
    assert names.add(image(0, "a/t1.nii.gz")) == "t1"
    monkeypatch.setattr("svgd_monai.acquisition.names.everyones", lambda own: [own, {"t1": other}])
    if same:
        names.compare()
    else:
        with pytest.raises(DataError, match=r"^case t1: two items"):
            names.compare()


def test_information_of_a_pool_without_names_goes_by_those_of_its_files(tmp_path):
    named, unnamed = Images("a"), Images("a")
    unnamed.data = [{"image": f"scans/{item['case']}.nii.gz"} for item in named.data]
    found = [
        PoolInformation(images, tmp_path / f"{number}.npz", (8, 8, 8)).pairs(CASES[:3], CASES[:1])
        for number, images in enumerate((named, unnamed))
    ]
    assert torch.equal(*found)


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


def test_a_file_that_nobody_asks_is_not_read(tmp_path, caplog):
    """Strategies without mutual information have no words for a cache of other settings."""
    path = tmp_path / "information.npz"
    path.write_bytes(b"nothing")
    information = PoolInformation(Images("a"), path, (8, 8, 8))
    assert not caplog.messages
    information.pairs(CASES[:1], CASES[1:2])
    assert "cannot be read" in caplog.text


def test_information_goes_by_what_a_file_holds_and_not_by_its_name(tmp_path):
    before, moved, rewritten = (Images("a") for _ in range(3))
    for item in moved.data:
        item["image"] = f"moved/{item['image']}"
    rewritten.data[0]["fingerprint"] = "another content"
    for dataset, computed in ((before, 3), (moved, 0), (rewritten, 2)):  # a pair, and entropies of what was read
        information = PoolInformation(dataset, tmp_path / "information.npz", (8, 8, 8))
        information.pairs(CASES[:1], CASES[1:2])
        assert information.store.computed == computed
