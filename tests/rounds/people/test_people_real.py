"""The real hippocampus volumes as a team gets them: images alone, labels handed over round by round."""

import shutil

import pytest
from labelling import Team, curve, datalist

#: For two cores: 2 mm, two particles of a small network, a learning rate with which a hundred steps learn.
SMALL = {
    "spacing": [2, 2, 2],
    "roi_size": [24, 32, 24],
    "mi_grid": [12, 16, 12],
    "features": [4, 4, 8, 16, 32, 4],
    "num_particles": 2,
    "batch_size": 4,
    "learning_rate": 0.004,
    "steps_per_round": 100,
    "validations_per_round": 2,
    "augmentation": "none",
    "initial_labelled": 10,
    "queries_per_round": 5,
    "min_validation": 10,
    "rounds": 3,
}


@pytest.mark.real
@pytest.mark.long
@pytest.mark.timeout(3000)
def test_three_rounds_on_the_real_volumes(msd_root, tmp_path):
    team = Team(msd_root / "Task04_Hippocampus", tmp_path, **SMALL)
    team.works()
    for number in range(4):
        asked = team.worklist(number)
        assert len(asked) == (10 if number == 0 else 5)
        team.label(*asked)
        said = team.works()
    assert "complete" in said
    table = curve(tmp_path)
    assert [row["unique_labels"] for row in table] == ["10", "15", "20", "25"]
    # Measured on two cores: 0.786 in the last round, 0.644 in the worst.
    assert float(table[-1]["val_dice"]) > 0.65
    assert len(datalist(tmp_path, 3, "unlabeled")) == 260 - 25
    labels = [team.ledger["cases"][case]["labels"][0] for number in (1, 2, 3) for case in team.worklist(number)]
    assert all(label["corrected_voxels"] > 0 and label["corrected_surface_voxels"] > 0 for label in labels)
    mean = sum(label["presegmentation_dice"] for label in labels) / len(labels)
    assert mean > 0.55, "measured: 0.684"


@pytest.mark.real
def test_the_first_worklist_of_real_volumes(msd_root, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    for path in sorted((msd_root / "Task04_Hippocampus/imagesTr").glob("hippo*.nii.gz"))[::26]:
        shutil.copy(path, images)
    team = Team(msd_root / "Task04_Hippocampus", tmp_path / "run", images=images)
    assert "Worklist 0, 3 cases" in team.works()
    rows = team.table(0)
    assert [row["case"].startswith("hippocampus_") for row in rows] == [True] * 3
    assert float(rows[1]["mutual_information"]) <= float(rows[2]["mutual_information"])
