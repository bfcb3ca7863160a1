"""On the real volumes of MSD's Task04; those that train for minutes run with ``pytest -m long``."""

import csv
import json

import pytest
import torch
from command import TINY
from monai.bundle import ConfigParser
from runs import CONFIG, run
from runs import words as run_words
from scipy.stats import rankdata

from svgd_monai.data import draw_split, load_task
from svgd_monai.rounds.prepare import prepare_volumes

#: A loop sized for two cores: 2 mm, a small network, three particles.
SMALL = {
    "device": "cpu",
    "spacing": [2, 2, 2],
    "roi_size": [24, 32, 24],
    "features": [8, 8, 16, 32, 64, 8],
    "num_particles": 3,
    "steps_per_round": 300,
}

pytestmark = pytest.mark.real


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def hippocampus(msd_root):
    return msd_root / "Task04_Hippocampus"


@pytest.fixture(scope="module")
def task(hippocampus, tmp_path_factory):
    return load_task(hippocampus, tmp_path_factory.mktemp("cache"))


def test_a_short_loop_runs_on_all_real_volumes(hippocampus, tmp_path):
    keys = {**TINY, "dataset_dir": hippocampus, "output_dir": tmp_path, "initial_labelled": 5, "queries_per_round": 3,
            "steps_per_round": 20, "validation_cases": None, "test_cases": 20}  # fmt: skip
    result = run(run_words(CONFIG, **keys))
    assert result.code == 0, result.last_line
    split = json.loads((tmp_path / "run.json").read_text())["split"]
    assert [len(split[role]) for role in ("initial", "pool", "validation", "test")] == [5, 185, 50, 20]
    table = rows(tmp_path / "learning_curve.csv")
    assert [row["unique_labels"] for row in table] == ["5", "8"]
    assert len(rows(tmp_path / "ranking.csv")) == 182
    assert len(rows(tmp_path / "round_000/cases.csv")) == 70


def constant_cases(bundle, task, overlay, tmp_path):
    files = [str(bundle / "configs/acquire.yaml"), *([str(bundle / f"configs/{overlay}.yaml")] if overlay else [])]
    parser = ConfigParser(ConfigParser.load_config_files(files))
    split = draw_split(task.dataset.items, 0, 10)
    return prepare_volumes(task, split, parser.get_parsed_content("preprocessing"), tmp_path)


def test_the_papers_clip_makes_33_volumes_constant_and_they_are_named(bundle, task, tmp_path, caplog):
    constant = constant_cases(bundle, task, "paper", tmp_path)
    assert len(constant) == 33
    assert all(case in caplog.text for case in constant)


def test_the_default_normalisation_makes_none_constant(bundle, task, tmp_path):
    assert constant_cases(bundle, task, None, tmp_path) == []


def test_padding_does_not_drive_the_mutual_information(bundle, task, tmp_path):
    """On volumes padded to 64³, the information of two images is that of their padding; on a common grid it is not."""
    from svgd_monai import pairwise_mutual_information
    from svgd_monai.data import VolumeDataset, preprocessing

    parser = ConfigParser(ConfigParser.load_config_file(str(bundle / "configs/acquire.yaml")))
    intensity = parser.get_parsed_content("intensity")
    cases = sorted(task.dataset.items)[::13][:16]
    items = [{k: v for k, v in task.dataset.items[case].items() if k != "label"} for case in cases]
    content = VolumeDataset(items, preprocessing(intensity), None)
    grid = [torch.nn.functional.interpolate(content[i]["image"][None], (24, 32, 24), mode="trilinear")[0, 0]
            for i in range(len(items))]  # fmt: skip
    padded = VolumeDataset(items, preprocessing(intensity, pad_to=(64, 64, 64)), None)
    images = torch.stack([padded[i]["image"][0] for i in range(len(items))])
    ones = [torch.ones_like(content[i]["image"][0]) for i in range(len(items))]
    masks = torch.stack([_padded(one, 64) for one in ones])
    upper = torch.triu_indices(len(items), len(items), 1)

    def correlation(a, b):
        ranks = [torch.as_tensor(rankdata(m[upper[0], upper[1]].numpy())) for m in (a, b)]
        return float(torch.corrcoef(torch.stack(ranks))[0, 1])

    of_masks = pairwise_mutual_information(masks, masks)
    assert correlation(pairwise_mutual_information(images, images), of_masks) > 0.8
    on_grid = torch.stack(grid)
    assert correlation(pairwise_mutual_information(on_grid, on_grid), of_masks) < 0.4


def _padded(mask, side):
    result = torch.zeros(side, side, side)
    start = [(side - n) // 2 for n in mask.shape]
    result[tuple(slice(s, s + n) for s, n in zip(start, mask.shape, strict=True))] = mask
    return result


@pytest.mark.long
def test_the_test_dice_rises_over_the_rounds(hippocampus, tmp_path):
    keys = {**SMALL, "dataset_dir": hippocampus, "output_dir": tmp_path, "rounds": 5, "queries_per_round": 3,
            "initial_labelled": 5, "batch_size": 4}  # fmt: skip
    assert run(run_words(CONFIG, **keys), timeout=7200).code == 0
    table = rows(tmp_path / "learning_curve.csv")
    assert float(table[-1]["test_dice"]) > float(table[0]["test_dice"])
    assert float(table[-1]["test_dice_grid"]) > 0.75


@pytest.mark.long
def test_the_svgd_committee_keeps_up_with_the_ensemble_and_still_disagrees(hippocampus, tmp_path):
    """After equal steps: at an earlier one, which may be the best, all disagree more."""
    found = {}
    for committee in ("svgd", "ensemble"):
        folder = tmp_path / committee
        keys = {**SMALL, "dataset_dir": hippocampus, "output_dir": folder, "rounds": 0, "initial_labelled": 20,
                "batch_size": 8, "committee": committee, "acquisition": "bald",
                "checkpoint": "last"}  # fmt: skip
        assert run(run_words(CONFIG, **keys), timeout=7200).code == 0
        values = torch.load(folder / "round_000/committee.pt", weights_only=True)["values"].double()
        bald = [float(row["uncertainty"]) for row in rows(folder / "ranking.csv")]
        found[committee] = {
            "dice": float(rows(folder / "learning_curve.csv")[0]["val_dice"]),
            "norm": float(values.norm(dim=1).mean()),
            "distance": float(torch.pdist(values).mean()),
            "bald": sum(bald) / len(bald),
        }
    svgd, ensemble = found["svgd"], found["ensemble"]
    assert svgd["dice"] > ensemble["dice"] - 0.01, found
    assert svgd["norm"] < 2 * ensemble["norm"], found
    assert svgd["distance"] > 0.5 * ensemble["distance"], found
    assert svgd["bald"] > 0.5 * ensemble["bald"], found
