"""Scores of a pool are those of the bundle's own acquisition stage, and nothing is measured twice."""

import math
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from command import run_bundle, words
from filelock import FileLock, Timeout
from label_data import make_studies, new_committee, small_bundle

from svgd_monai.data import RoundDatalist, read_dataset, write_datalist
from svgd_monai.errors import CheckpointError, DataError, SettingsError
from svgd_monai.files import read_csv
from svgd_monai.monailabel import PoolScorer, pool
from svgd_monai.monailabel.measures import MeasureStore

NUMBERS = ("score", "uncertainty", "mutual_information", "foreground_ml")


def acquire(bundle, studies, folder, **keys):
    """``scores.csv`` of the real command line: a row per case of the pool, best first."""
    dataset = read_dataset(studies.phantom)
    listed = RoundDatalist(
        training=[dataset.items[case] for case in studies.labelled],
        validation=[],
        test=[],
        unlabeled=[dataset.items[case] for case in studies.unlabelled],
    )
    keys = {
        "dataset_dir": studies.phantom,
        "output_dir": folder,
        "datalist_file": write_datalist(folder / "datalist.json", listed, dataset),
        "keep_labelled": "false",
        **keys,
    }
    done = run_bundle(*words(bundle / "configs/acquire.yaml", **keys))
    assert done.exit_code == 0, done.stderr
    return read_csv(folder / "scores.csv")


def table(scores):
    return [(s.image, s.rank, *(getattr(s, name) for name in NUMBERS)) for s in scores]


def table_of_csv(rows):
    return [(row["case"], int(row["rank"]), *(_number(row[name]) for name in NUMBERS)) for row in rows]


def _number(cell):
    return float(cell) if cell and math.isfinite(float(cell)) else None


def measured_at(folder):
    """When the committee last ran."""
    return (folder / "measured/scores.csv").stat().st_mtime_ns


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "kept"


@pytest.mark.parametrize("acquisition", ["entropy_mi", "bald", "max_cover", "power_bald", "random_foreground"])
def test_the_numbers_are_those_of_the_acquisition_stage(acquisition, small, studies, folder, tmp_path):
    expected = acquire(small, studies, tmp_path / "run", acquisition=acquisition)
    scores = PoolScorer(small, folder, {"acquisition": acquisition})(studies.unlabelled, studies.labelled)
    assert len(scores) == len(studies.unlabelled)
    assert table(scores) == table_of_csv(expected)


def test_keys_of_the_query_can_be_set_as_text(small, studies, folder, tmp_path):
    keys = {"mi_grid": "[4, 6, 4]", "mi_weight": "3", "normalise": "rank", "uncertainty_reduction": "top"}
    expected = acquire(small, studies, tmp_path / "run", **keys)
    scores = PoolScorer(small, folder, {**keys, "models": "of the server"})(studies.unlabelled, studies.labelled)
    assert table(scores) == table_of_csv(expected)


def test_the_other_keys_of_the_query_reach_it_as_well(small, studies, folder, tmp_path):
    keys = {"acquisition": "max_cover", "queries_per_round": "3", "candidates": "2", "seed": "5", "mi_bins": "8",
            "mi_aggregation": "max", "mi_content": "foreground", "normalise_over": "all"}  # fmt: skip
    expected = acquire(small, studies, tmp_path / "run", **keys)
    assert table(PoolScorer(small, folder, keys)(studies.unlabelled, studies.labelled)) == table_of_csv(expected)


@pytest.mark.parametrize(
    ("key", "value"),
    [("acquisition", "best"), ("mi_weight", "-1"), ("mi_grid", "[4"), ("seed", "many"), ("seed", "2020-13-45")],
)
def test_a_wrong_value_is_refused_by_name(key, value, small, folder):
    with pytest.raises(SettingsError, match=key):
        PoolScorer(small, folder, {key: value})


def test_a_new_label_costs_no_inference_and_changes_the_scores(small, studies, folder):
    scorer = PoolScorer(small, folder)
    before = scorer(studies.unlabelled, studies.labelled)
    ran = measured_at(folder)
    best = before[0].image
    pool = {image: path for image, path in studies.unlabelled.items() if image != best}
    after = scorer(pool, {**studies.labelled, best: studies.unlabelled[best]})
    assert measured_at(folder) == ran
    assert {s.image: s.uncertainty for s in after} == {s.image: s.uncertainty for s in before if s.image != best}
    assert all(a.mutual_information != b.mutual_information for a in after for b in before if a.image == b.image)
    assert table(after) == table(
        PoolScorer(small, folder.with_name("fresh"))(pool, {**studies.labelled, best: studies.unlabelled[best]})
    )


def test_one_process_at_a_time_works_in_the_folder(small, studies, folder, monkeypatch):
    keep, free = MeasureStore.keep, []

    def keep_and_look(self, numbers):
        try:
            FileLock(folder / ".lock").acquire(timeout=0)
        except Timeout:
            free.append(False)
        keep(self, numbers)

    monkeypatch.setattr(MeasureStore, "keep", keep_and_look)
    PoolScorer(small, folder)(studies.unlabelled, studies.labelled)
    assert free == [False]
    FileLock(folder / ".lock").acquire(timeout=0)


def test_only_new_images_are_measured(small, studies, folder):
    scorer = PoolScorer(small, folder)
    *some, last = studies.unlabelled
    scorer({image: studies.unlabelled[image] for image in some}, studies.labelled)
    scores = scorer(studies.unlabelled, studies.labelled)
    assert [row["case"] for row in read_csv(folder / "measured/scores.csv")] == [last]
    assert table(scores) == table(PoolScorer(small, folder.with_name("fresh"))(studies.unlabelled, studies.labelled))


def test_another_committee_measures_anew(small, studies, folder):
    scorer = PoolScorer(small, folder)
    version, before = scorer.version(), scorer(studies.unlabelled, studies.labelled)
    new_committee(small, seed=1)
    after = scorer(studies.unlabelled, studies.labelled)
    assert scorer.version() != version
    assert {s.uncertainty for s in after}.isdisjoint({s.uncertainty for s in before})


def test_another_configuration_measures_anew(small, studies, folder):
    """As after an upgrade of the bundle: what it wires differently may change every number."""
    PoolScorer(small, folder)(studies.unlabelled, studies.labelled)
    ran = measured_at(folder)
    config = small / "configs/acquire.yaml"
    config.write_text(config.read_text(encoding="utf-8").replace("overlap: 0.25", "overlap: 0.5"), encoding="utf-8")
    PoolScorer(small, folder)(studies.unlabelled, studies.labelled)
    assert measured_at(folder) != ran


def test_a_committee_that_comes_meanwhile_measures_all_images(small, studies, folder, monkeypatch):
    """As of a training that ends; numbers of two committees do not compare."""
    keep, before = MeasureStore.keep, PoolScorer(small, folder).version()

    def keep_and_train(self, numbers):
        keep(self, numbers)
        if self.premises["committee"] == before:
            new_committee(small, seed=1)

    monkeypatch.setattr(pool, "_CHUNK", 2)
    monkeypatch.setattr(MeasureStore, "keep", keep_and_train)
    scorer = PoolScorer(small, folder)
    scores = scorer(studies.unlabelled, studies.labelled)
    assert {s.committee for s in scores} == {scorer.version()} != {before}
    assert table(scores) == table(PoolScorer(small, folder.with_name("fresh"))(studies.unlabelled, studies.labelled))


def test_another_image_of_the_same_name_is_measured_anew(small, studies, folder):
    scorer = PoolScorer(small, folder)
    first, second, *_ = studies.unlabelled
    before = {s.image: s.uncertainty for s in scorer(studies.unlabelled, studies.labelled)}
    shutil.copy(studies.unlabelled[second], studies.unlabelled[first])
    after = {s.image: s.uncertainty for s in scorer(studies.unlabelled, studies.labelled)}
    assert after[first] == after[second] == before[second] != before[first]


@pytest.mark.parametrize("content", ["{", "[]", '{"premises": {}}', ""])
def test_damaged_measures_are_made_again(content, small, studies, folder):
    scorer = PoolScorer(small, folder)
    before = scorer(studies.unlabelled, studies.labelled)
    (folder / "measures.json").write_text(content)
    assert table(scorer(studies.unlabelled, studies.labelled)) == table(before)


def test_without_labelled_images_uncertainty_alone_ranks(small, studies, folder):
    scores = PoolScorer(small, folder)(studies.unlabelled, {})
    assert [s.uncertainty for s in scores] == sorted((s.uncertainty for s in scores), reverse=True)
    assert {s.mutual_information for s in scores} == {0.0}


def test_a_constant_image_has_no_score_and_ranks_last(small, studies, folder):
    image = next(iter(studies.unlabelled))
    volume = nib.load(studies.unlabelled[image])
    nib.save(nib.Nifti1Image(np.full(volume.shape, 7, np.int16), volume.affine), studies.unlabelled[image])
    *_, last = PoolScorer(small, folder)(studies.unlabelled, studies.labelled)
    assert (last.image, last.score, last.mutual_information) == (image, None, None)


def test_the_name_of_an_image_is_never_run(small, studies, folder):
    """MONAI would evaluate text in a configuration that begins with $."""
    image, path = next(iter(studies.unlabelled.items()))
    name = "$1/0"
    scores = PoolScorer(small, folder)({name: path, "@nothing": studies.unlabelled[image]}, studies.labelled)
    assert {s.image for s in scores} == {name, "@nothing"}


def test_folders_may_have_names_that_mean_something_to_monai(phantoms, tmp_path):
    studies = make_studies(phantoms["mr"], tmp_path / "scans #2 of me@home $x")
    bundle = small_bundle("mr", tmp_path / "app #1 @network's %y")
    scores = PoolScorer(bundle, studies.root / ".svgd_monai")(studies.unlabelled, studies.labelled)
    assert len(scores) == len(studies.unlabelled)
    assert {"volumes", "mutual_information.npz"} <= {path.name for path in (studies.root / ".svgd_monai").iterdir()}
    assert {path.name for path in tmp_path.iterdir()} == {studies.root.name, bundle.parent.name}


@pytest.mark.parametrize("name", ["two\nlines", "a\rb", "not UTF-8 \udcff"])
def test_a_name_that_would_break_a_table_or_a_message_is_refused(name, small, studies, folder):
    """As in every other list of images."""
    try:
        path = shutil.copy(next(iter(studies.unlabelled.values())), studies.root / f"{name}.nii.gz")
    except OSError:
        pytest.skip("this file system takes no such name")
    with pytest.raises(DataError, match="holds control characters") as caught:
        PoolScorer(small, folder)({**studies.unlabelled, name: str(path)}, studies.labelled)
    assert str(caught.value).startswith(f"Case {name!r}: ")


def test_a_missing_image_is_named(small, studies, folder):
    with pytest.raises(DataError, match=r"Case 'gone': the image .*gone\.nii\.gz does not exist"):
        PoolScorer(small, folder)({**studies.unlabelled, "gone": str(studies.root / "gone.nii.gz")}, {})


def test_a_bad_image_is_named(small, studies, folder):
    image, path = next(iter(studies.unlabelled.items()))
    with Path(path).open("r+b") as file:
        file.truncate(200)
    with pytest.raises(DataError, match=image):
        PoolScorer(small, folder)(studies.unlabelled, studies.labelled)


def test_without_a_committee_the_sentence_names_its_file(small, studies, folder):
    scorer = PoolScorer(small, folder)
    scorer.committee_file.unlink()
    assert scorer.version() is None
    with pytest.raises(CheckpointError, match=r"model\.pt does not exist; train a committee first"):
        scorer(studies.unlabelled, studies.labelled)


def test_an_empty_pool_needs_no_committee(small, folder):
    scorer = PoolScorer(small, folder)
    scorer.committee_file.unlink()
    assert scorer({}, {}) == []
