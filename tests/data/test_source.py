"""From the keys of a configuration to checked items by role."""

import shutil
from collections import Counter
from pathlib import Path

import pytest

from svgd_monai.data import make_phantom
from svgd_monai.data.datalist import read_dataset
from svgd_monai.data.roles import RoundDatalist, write_datalist
from svgd_monai.data.source import (
    class_names,
    labelled_cases,
    phantom_dataset,
    pool_items,
    revealed_labels,
    round_datalist,
    stage_datalist,
)
from svgd_monai.data.splits import Split, read_split, write_splits
from svgd_monai.data.task import load_task
from svgd_monai.errors import DataError

CASES = [f"phantom_mr_{n:03d}" for n in range(1, 11)]
SPLIT = Split(tuple(CASES[:2]), tuple(CASES[2:6]), tuple(CASES[6:8]), tuple(CASES[8:]))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_phantom(tmp_path_factory.mktemp("source") / "phantom", "mr", 10)


@pytest.fixture(scope="module")
def dataset(root):
    return read_dataset(root)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def cases(items):
    return [item["case"] for item in items]


def test_a_round_holds_every_case_in_its_role_with_multiplicity(dataset):
    labelled = [CASES[0], CASES[1], CASES[4], CASES[0], CASES[4], CASES[4]]
    datalist = round_datalist(dataset, SPLIT, labelled)
    assert cases(datalist.training) == labelled
    assert cases(datalist.validation) == list(SPLIT.validation)
    assert cases(datalist.test) == list(SPLIT.test)
    assert cases(datalist.unlabeled) == [CASES[2], CASES[3], CASES[5]]
    assert all("label" in item for role in ("training", "validation", "test") for item in getattr(datalist, role))
    assert not any("label" in item for item in datalist.unlabeled)


def test_an_initial_case_that_is_not_yet_labelled_is_unlabelled(dataset):
    assert cases(round_datalist(dataset, SPLIT, [CASES[1]]).unlabeled) == [CASES[0], *CASES[2:6]]


def test_the_data_sets_own_items_are_left_alone(dataset):
    pool_items(round_datalist(dataset, SPLIT, CASES[:2]))
    assert all("label" in item for item in dataset.items.values())


def made(*, training, unlabeled):
    def items(names, label):
        return [
            {"case": case, "image": f"{case}.nii", "fingerprint": f"{case}+x" if label else case}
            | ({"label": f"{case}_label.nii"} if label else {})
            for case in names
        ]

    return RoundDatalist(items(training, True), [], [], items(unlabeled, False))


def test_the_pool_is_each_image_once_by_case_and_without_labels():
    datalist = made(training=["c", "a", "c"], unlabeled=["d", "b"])
    pool = pool_items(datalist)
    assert cases(pool) == ["a", "b", "c", "d"]
    assert all(set(item) == {"case", "image", "fingerprint"} for item in pool)
    assert [item["fingerprint"] for item in pool] == ["a", "b", "c", "d"]  # the image's alone: a label changes nothing
    assert cases(pool_items(datalist, keep_labelled=False)) == ["b", "d"]
    assert datalist.training[0]["label"] == "c_label.nii"


def test_labelled_cases_are_distinct_and_sorted():
    assert labelled_cases(made(training=["c", "a", "c"], unlabeled=["b"])) == ["a", "c"]


def test_a_task_is_checked_and_its_items_carry_the_hash_of_their_files(root, cache):
    task = load_task(root, cache, num_classes=3)
    assert list(task.dataset.items) == CASES == list(task.facts)
    item = task.dataset.items[CASES[0]]
    fact = task.facts[CASES[0]]
    assert task.with_fingerprint(item)["fingerprint"] == f"{fact.image_sha256}+{fact.label_sha256}"
    unlabelled = {key: value for key, value in item.items() if key != "label"}
    assert task.with_fingerprint(unlabelled)["fingerprint"] == fact.image_sha256
    assert "fingerprint" not in item
    assert (cache / "case_checks.json").is_file()


def test_a_moved_task_has_the_same_fingerprint(root, cache, tmp_path):
    shutil.copytree(root, tmp_path / "elsewhere")
    assert load_task(tmp_path / "elsewhere", tmp_path).fingerprint == load_task(root, cache).fingerprint


def test_a_changed_case_changes_the_fingerprints(root, cache, tmp_path):
    changed = shutil.copytree(root, tmp_path / "changed")
    shutil.copy(changed / "imagesTr" / f"{CASES[1]}.nii.gz", changed / "imagesTr" / "spare.nii.gz")
    label = changed / "labelsTr" / f"{CASES[0]}.nii.gz"
    content = bytearray(label.read_bytes())
    content[4] ^= 1  # the time in gzip's header: other bytes, the same volume
    label.write_bytes(content)
    before, after = load_task(root, cache), load_task(changed, tmp_path)
    assert before.fingerprint != after.fingerprint
    differing = [
        case
        for case in CASES
        if before.with_fingerprint(before.dataset.items[case])["fingerprint"]
        != after.with_fingerprint(after.dataset.items[case])["fingerprint"]
    ]
    assert differing == [CASES[0]]


def test_another_number_of_classes_is_refused(root, cache):
    with pytest.raises(DataError, match=r"^num_classes: 2 does not fit .* has 3 labels\.$"):
        load_task(root, cache, num_classes=2)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(DataError, match="Task99"):
        load_task(tmp_path / "Task99_Nothing", tmp_path)


def stage(root, cache, **options):
    return stage_datalist(root, cache, **({"initial_labelled": 3, "validation_cases": 2, "test_cases": 2} | options))


def test_a_stage_draws_a_split(root, cache):
    datalist = stage(root, cache)
    roles = [cases(getattr(datalist, role)) for role in ("training", "validation", "test", "unlabeled")]
    assert [len(role) for role in roles] == [3, 2, 2, 3]
    assert sorted(case for role in roles for case in role) == CASES
    assert all(item["fingerprint"].count("+") == 1 for item in datalist.training)
    assert all("+" not in item["fingerprint"] for item in datalist.unlabeled)


def test_a_seed_changes_the_initial_set_and_never_what_is_measured(root, cache):
    stages = [stage(root, cache, seed=seed) for seed in range(5)]
    assert len({tuple(cases(s.validation) + cases(s.test)) for s in stages}) == 1
    assert len({tuple(cases(s.training)) for s in stages}) > 1


def test_the_whole_pool_is_trained_on_when_it_is_revealed(root, cache):
    plain, revealed = stage(root, cache), stage(root, cache, reveal_pool=True)
    assert Counter(cases(revealed.training)) == Counter(cases(plain.training) + cases(plain.unlabeled))
    assert revealed.unlabeled == []
    assert cases(revealed.test) == cases(plain.test)


def test_the_initial_set_may_be_smaller_than_asked_for_where_the_whole_pool_is_revealed(root, cache):
    revealed = stage(root, cache, reveal_pool=True, initial_labelled=7)
    assert len(revealed.training) == 6
    assert cases(revealed.test) == cases(stage(root, cache).test)
    with pytest.raises(DataError, match=r"^initial_labelled is 7, but of 10 cases only 6 are left after "):
        stage(root, cache, initial_labelled=7)
    with pytest.raises(DataError, match=r"^initial_labelled is 7, but of 10 cases only 0 are left after "):
        stage(root, cache, reveal_pool=True, initial_labelled=7, validation_cases=8)
    with pytest.raises(DataError, match=r"^initial_labelled must be at least 1, not 0\.$"):
        stage(root, cache, reveal_pool=True, initial_labelled=0)


def test_a_rounds_data_list_is_taken_as_it_is(root, cache, tmp_path, dataset):
    file = write_datalist(tmp_path / "datalist.json", round_datalist(dataset, SPLIT, [CASES[1], CASES[1]]), dataset)
    datalist = stage_datalist(root, cache, file)
    assert cases(datalist.training) == [CASES[1], CASES[1]]
    assert cases(datalist.validation) == list(SPLIT.validation)
    assert all("fingerprint" in item for item in [*datalist.training, *datalist.unlabeled])


def test_a_split_is_found_by_its_name_and_decides_the_sizes(root, cache, tmp_path):
    write_splits(tmp_path / "mine.json", "phantom", "drawn by a test", CASES, [0, 1], 4, 1, 3)
    datalist = stage(root, cache, split_file="mine", data_lists=tmp_path, seed=1)
    split = read_split(tmp_path / "mine.json", CASES, 1)
    assert cases(datalist.training) == list(split.initial)
    assert cases(datalist.test) == list(split.test)
    assert [len(datalist.training), len(datalist.validation), len(datalist.test)] == [4, 1, 3]


def test_labels_are_revealed_by_the_data_set_alone(root):
    assert set(revealed_labels(root)) == set(CASES)
    assert revealed_labels(root)[CASES[0]].endswith(f"labelsTr/{CASES[0]}.nii.gz")
    assert revealed_labels(root, "people") == {}


def test_classes_have_their_names(root):
    assert class_names(root) == {0: "background", 1: "anterior", 2: "posterior"}


def test_the_phantom_is_made_once(tmp_path):
    path = phantom_dataset(tmp_path / "phantom", num_cases=2)
    assert path == str(tmp_path / "phantom")
    stamps = {file: file.stat().st_mtime_ns for file in (tmp_path / "phantom").rglob("*")}
    phantom_dataset(tmp_path / "phantom", num_cases=2)
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "phantom").rglob("*")} == stamps


class TestFilesThatChange:
    """A round's list knows what its files held; a stage that finds another content goes no further."""

    @pytest.fixture
    def listed(self, root, tmp_path):
        data = Path(shutil.copytree(root, tmp_path / "data"))
        task = load_task(data, tmp_path / "cache")
        datalist = task.with_fingerprints(round_datalist(task.dataset, SPLIT, SPLIT.initial))
        return data, write_datalist(tmp_path / "datalist.json", datalist, task.dataset), tmp_path / "cache"

    def test_unchanged_files_pass(self, listed):
        data, file, cache = listed
        found = stage_datalist(data, cache, file)
        assert [item["case"] for item in found.training] == list(SPLIT.initial)

    @pytest.mark.parametrize("role", ["initial", "pool", "validation", "test"])
    def test_another_image_is_refused_by_name(self, listed, role):
        data, file, cache = listed
        case, other = getattr(SPLIT, role)[0], SPLIT.pool[-1]
        for kind in ("imagesTr", "labelsTr"):
            shutil.copy2(data / kind / f"{other}.nii.gz", data / kind / f"{case}.nii.gz")
        with pytest.raises(DataError, match=rf"^Case {case}: .* not the file that the run was started with"):
            stage_datalist(data, cache, file)

    def test_a_listed_case_whose_file_is_gone_is_refused_by_name(self, listed):
        data, file, cache = listed
        (data / "imagesTr" / f"{SPLIT.test[0]}.nii.gz").unlink()
        with pytest.raises(DataError, match=SPLIT.test[0]):
            stage_datalist(data, cache, file)
