"""Reading MSD data sets, inference inputs and a round's data list."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from monai.data import load_decathlon_datalist

from svgd_monai.data.datalist import read_dataset, read_images
from svgd_monai.data.roles import RoundDatalist, read_datalist, write_datalist
from svgd_monai.errors import DataError

CASES = ("scan_1", "scan_2", "scan_3", "scan_4", "scan_5")


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"not read here")
    return path


def write_task(root, cases=CASES, **changes):
    """A task folder whose files exist but are never opened; ``changes`` replace or (None) remove keys."""
    entries = []
    for case in cases:
        touch(root / "imagesTr" / f"{case}.nii.gz")
        touch(root / "labelsTr" / f"{case}.nii.gz")
        entries.append({"image": f"./imagesTr/{case}.nii.gz", "label": f"./labelsTr/{case}.nii.gz"})
    content = {
        "name": "Scans",
        "modality": {"0": "MRI"},
        "labels": {"0": "background", "1": "organ", "2": "tumour"},
        "training": entries,
        "test": [],
    } | changes
    write_json(root / "dataset.json", {key: value for key, value in content.items() if value is not None})
    return root


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def complaint(function, *arguments, **options):
    """The one-line sentence of the DataError that the call ends with."""
    with pytest.raises(DataError) as caught:
        function(*arguments, **options)
    sentence = str(caught.value)
    assert len(sentence.splitlines()) == 1
    assert sentence.endswith(".")
    return sentence


def entry(name, label="./labelsTr/scan_1.nii.gz"):
    return {"image": name, "label": label}


class TestReadDataset:
    def test_items_have_case_ids_and_absolute_paths(self, tmp_path):
        dataset = read_dataset(write_task(tmp_path))
        assert list(dataset.items) == list(CASES)
        assert dataset.items["scan_2"] == {
            "case": "scan_2",
            "image": str(tmp_path / "imagesTr/scan_2.nii.gz"),
            "label": str(tmp_path / "labelsTr/scan_2.nii.gz"),
        }
        assert (dataset.name, dataset.channels, dataset.root) == ("Scans", 1, tmp_path)
        assert dataset.classes == {0: "background", 1: "organ", 2: "tumour"}

    def test_relative_folder_gives_absolute_paths(self, tmp_path, monkeypatch):
        write_task(tmp_path / "task")
        monkeypatch.chdir(tmp_path)
        assert Path(read_dataset("task").items["scan_1"]["image"]).is_absolute()

    def test_cases_come_in_the_order_of_their_ids(self, tmp_path):
        dataset = read_dataset(write_task(tmp_path, cases=("b", "c", "a")))
        assert list(dataset.items) == ["a", "b", "c"]

    def test_channels_are_counted(self, tmp_path):
        assert read_dataset(write_task(tmp_path, modality={"0": "FLAIR", "1": "T1w"})).channels == 2

    def test_classes_are_sorted_by_value(self, tmp_path):
        names = {str(value): f"class {value}" for value in (10, 2, *range(2), *range(3, 10))}
        assert list(read_dataset(write_task(tmp_path, labels=names)).classes) == list(range(11))

    def test_missing_folder_is_named(self, tmp_path):
        assert str(tmp_path / "nowhere") in complaint(read_dataset, tmp_path / "nowhere")

    def test_folder_without_dataset_json_is_named(self, tmp_path):
        sentence = complaint(read_dataset, tmp_path)
        assert str(tmp_path) in sentence
        assert "dataset.json" in sentence

    def test_the_folder_of_all_tasks_is_told_where_one_is(self, tmp_path):
        task = write_task(tmp_path / "Task99_Phantom")
        wanted = f"The data set's folder {tmp_path} has no dataset.json that can be reached; {task} has one."
        assert complaint(read_dataset, tmp_path) == wanted

    def test_a_file_in_place_of_the_folder_is_said_to_be_one(self, tmp_path):
        file = write_task(tmp_path) / "dataset.json"
        wanted = f"The data set's folder {file} is a file; give a folder that holds a dataset.json."
        assert complaint(read_dataset, file) == wanted

    @pytest.mark.parametrize("text", ["{broken", "[1, 2]", "", "\ufeff\x00"])
    def test_file_that_is_not_a_json_object_is_named(self, tmp_path, text):
        (tmp_path / "dataset.json").write_text(text)
        assert str(tmp_path / "dataset.json") in complaint(read_dataset, tmp_path)

    @pytest.mark.parametrize("key", ["labels", "training"])
    @pytest.mark.parametrize("value", [None, "a string"])
    def test_missing_or_wrong_key_is_named(self, tmp_path, key, value):
        sentence = complaint(read_dataset, write_task(tmp_path, **{key: value}))
        assert "dataset.json" in sentence
        assert f"'{key}'" in sentence

    def test_empty_training_list_is_refused(self, tmp_path):
        assert "'training'" in complaint(read_dataset, write_task(tmp_path, training=[]))

    @pytest.mark.parametrize(
        "labels",
        [
            {},
            {"0": "background"},
            {"0": "background", "2": "organ"},
            {"1": "organ", "2": "tumour"},
            {"0": "background", "organ": "1"},
            {"0": "background", "-1": "organ"},
            {"0": "background", "1": "organ", "01": "tumour"},
            {"0": "background", "1.0": "organ"},
        ],
    )
    def test_labels_that_do_not_count_from_zero_are_refused(self, tmp_path, labels):
        sentence = complaint(read_dataset, write_task(tmp_path, labels=labels))
        assert "'labels'" in sentence
        assert all(repr(key) in sentence for key in labels)

    @pytest.mark.parametrize("name", ["background", "", 3, "two\nlines"])
    def test_class_names_that_cannot_tell_classes_apart_are_refused(self, tmp_path, name):
        labels = {"0": "background", "1": name}
        assert "'labels'" in complaint(read_dataset, write_task(tmp_path, labels=labels))

    @pytest.mark.parametrize("bad", [{"label": "x.nii.gz"}, {"image": ""}, {"image": ["a", "b"]}, ["a", "b"], 7, None])
    def test_entry_without_image_is_numbered(self, tmp_path, bad):
        sentence = complaint(read_dataset, write_task(tmp_path, training=[bad]))
        assert "entry 1 of 'training'" in sentence
        assert "'image'" in sentence

    @pytest.mark.parametrize("bad", [{"image": "imagesTr/scan_1.nii.gz"}, "imagesTr/scan_1.nii.gz"])
    def test_entry_without_label_names_the_case(self, tmp_path, bad):
        sentence = complaint(read_dataset, write_task(tmp_path, training=[bad]))
        assert "case scan_1" in sentence
        assert "'label'" in sentence

    @pytest.mark.parametrize("name", ["grid", "grid_organ", "mean"])
    def test_names_whose_columns_mean_something_else_are_refused(self, tmp_path, name):
        labels = {"0": "background", "1": "organ", "2": name}
        assert f"a class cannot be called {name!r}" in complaint(read_dataset, write_task(tmp_path, labels=labels))

    @pytest.mark.parametrize("folder", ["imagesTr", "labelsTr"])
    def test_missing_file_is_named(self, tmp_path, folder):
        missing = write_task(tmp_path) / folder / "scan_4.nii.gz"
        missing.unlink()
        assert str(missing) in complaint(read_dataset, tmp_path)

    def test_name_too_long_for_the_file_system_is_a_missing_file(self, tmp_path):
        sentence = complaint(read_dataset, write_task(tmp_path, training=[entry("x" * 5000 + ".nii.gz")]))
        assert "does not exist or cannot be reached" in sentence

    def test_case_listed_twice_is_named(self, tmp_path):
        touch(tmp_path / "elsewhere" / "scan_1.nii")
        entries = [entry("imagesTr/scan_1.nii.gz"), entry("elsewhere/scan_1.nii")]
        sentence = complaint(read_dataset, write_task(tmp_path, training=entries))
        assert "the case scan_1 is listed twice" in sentence

    @pytest.mark.parametrize("name", ["scan_9.mha", ".nii.gz"])
    def test_image_not_named_like_nifti_is_refused(self, tmp_path, name):
        touch(tmp_path / name)
        assert repr(name) in complaint(read_dataset, write_task(tmp_path, training=[entry(name)]))

    @pytest.mark.parametrize("letter", ["\n", "\r", "\t", "\x00", "\x1b", "\x85", "\u2028"])
    @pytest.mark.parametrize("key", ["image", "label"])
    def test_control_characters_in_a_name_are_refused(self, tmp_path, letter, key):
        name = f"imagesTr/scan{letter}6.nii.gz"
        if letter != "\x00":
            touch(tmp_path / name)
        bad = entry("imagesTr/scan_1.nii.gz") | {key: name}
        sentence = complaint(read_dataset, write_task(tmp_path, training=[bad]))
        assert repr(name) in sentence
        assert "control characters" in sentence

    def test_names_in_any_script_are_case_ids(self, tmp_path):
        cases = ("Größe 1", "海馬_2", "می‌خواهم")  # the last one holds a zero-width non-joiner
        assert set(read_dataset(write_task(tmp_path, cases=cases)).items) == set(cases)


def test_more_classes_than_a_mask_of_8_bits_holds_are_refused(tmp_path):
    write_task(tmp_path, labels={str(value): f"class {value}" for value in range(257)})
    assert "257 classes, more than the 256" in complaint(read_dataset, tmp_path)


class TestFilesOutsideTheFolder:
    @pytest.fixture
    def outside(self, tmp_path):
        return touch(tmp_path / "secret.nii.gz")

    def names(self, outside, root, how):
        if how == "symlink":
            (root / "imagesTr" / "link.nii.gz").symlink_to(outside)
            return "imagesTr/link.nii.gz"
        return str(outside) if how == "absolute" else "imagesTr/../../secret.nii.gz"

    @pytest.mark.parametrize("how", ["absolute", "parent", "symlink"])
    @pytest.mark.parametrize("key", ["image", "label"])
    def test_are_refused_by_default(self, tmp_path, outside, how, key):
        root = write_task(tmp_path / "task")
        name = self.names(outside, root, how)
        write_task(root, training=[entry("imagesTr/scan_1.nii.gz") | {key: name}])
        sentence = complaint(read_dataset, root)
        assert "lies outside the folder" in sentence
        assert name.rsplit("/", maxsplit=1)[-1] in sentence

    @pytest.mark.parametrize("how", ["absolute", "parent", "symlink"])
    def test_are_read_when_allowed(self, tmp_path, outside, how):
        root = write_task(tmp_path / "task")
        write_task(root, training=[entry(self.names(outside, root, how))])
        (item,) = read_dataset(root, allow_outside=True).items.values()
        assert Path(item["image"]).samefile(outside)

    def test_a_task_folder_that_is_itself_a_link_is_fine(self, tmp_path):
        write_task(tmp_path / "task")
        (tmp_path / "link").symlink_to(tmp_path / "task")
        assert list(read_dataset(tmp_path / "link").items) == list(CASES)


class TestReadImages:
    def test_task_folder_gives_training_and_test_images(self, tmp_path):
        touch(tmp_path / "imagesTs" / "new_1.nii.gz")
        write_task(tmp_path, test=["./imagesTs/new_1.nii.gz"])
        items = read_images(tmp_path)
        assert [item["case"] for item in items] == [*CASES, "new_1"]
        assert all(set(item) == {"case", "image"} for item in items)

    def test_plain_folder_is_sorted_flat_and_without_hidden_files(self, tmp_path):
        for name in ("b.nii", "a.nii.gz", "notes.txt", "._a.nii.gz", "deeper/c.nii.gz"):
            touch(tmp_path / name)
        assert read_images(tmp_path) == [
            {"case": "a", "image": str(tmp_path / "a.nii.gz")},
            {"case": "b", "image": str(tmp_path / "b.nii")},
        ]

    def test_single_file_is_one_image(self, tmp_path):
        path = touch(tmp_path / "a.nii.gz")
        assert read_images(path) == [{"case": "a", "image": str(path)}]

    @pytest.mark.parametrize("key", ["unlabeled", "test", "training", "images", "validation"])
    def test_data_list_of_strings_or_objects_relative_to_its_file(self, tmp_path, key):
        touch(tmp_path / "lists" / "a.nii.gz")
        elsewhere = touch(tmp_path / "b.nii.gz")
        listed = write_json(tmp_path / "lists" / "new.json", {key: ["a.nii.gz", {"image": str(elsewhere)}]})
        assert read_images(listed, allow_outside=True) == [
            {"case": "a", "image": str(tmp_path / "lists" / "a.nii.gz")},
            {"case": "b", "image": str(elsewhere)},
        ]

    @pytest.mark.parametrize("way", ["absolute", "up", "link"])
    def test_data_list_does_not_lead_outside_its_folder_unless_that_is_allowed(self, tmp_path, way):
        secret = touch(tmp_path / "secret.nii.gz")
        lists = tmp_path / "lists"
        lists.mkdir()
        (lists / "link.nii.gz").symlink_to(secret)
        name = {"absolute": str(secret), "up": "../secret.nii.gz", "link": "link.nii.gz"}[way]
        listed = write_json(lists / "new.json", {"images": [name]})
        with pytest.raises(DataError, match=r"entry 1 of 'images'.* lies outside the folder"):
            read_images(listed)
        assert len(read_images(listed, allow_outside=True)) == 1

    def test_links_in_a_folder_without_a_list_are_the_user_s_own(self, tmp_path):
        secret = touch(tmp_path / "elsewhere.nii.gz")
        (tmp_path / "scans").mkdir()
        (tmp_path / "scans" / "link.nii.gz").symlink_to(secret)
        assert [item["case"] for item in read_images(tmp_path / "scans")] == ["link"]

    def test_image_listed_twice_is_read_once(self, tmp_path):
        touch(tmp_path / "a.nii.gz")
        assert len(read_images(write_json(tmp_path / "l.json", {"training": ["a.nii.gz", "./a.nii.gz"]}))) == 1

    def test_nothing_there_is_named(self, tmp_path):
        assert str(tmp_path / "nowhere.json") in complaint(read_images, tmp_path / "nowhere.json")

    def test_folder_without_images_is_named(self, tmp_path):
        touch(tmp_path / "readme.txt")
        assert str(tmp_path) in complaint(read_images, tmp_path)

    @pytest.mark.skipif(os.name != "posix", reason="names with line ends exist on POSIX only")
    def test_folder_with_a_name_of_two_lines_is_refused(self, tmp_path):
        touch(tmp_path / "a\nb.nii.gz")
        assert repr("a\nb.nii.gz") in complaint(read_images, tmp_path)

    @pytest.mark.parametrize("content", [{"test": []}, {"other": ["a.nii.gz"]}, {"test": "a.nii.gz"}])
    def test_data_list_without_images_is_named(self, tmp_path, content):
        listed = write_json(tmp_path / "list.json", content)
        assert str(listed) in complaint(read_images, listed)

    def test_data_list_that_is_not_json_is_named(self, tmp_path):
        listed = tmp_path / "list.json"
        listed.write_bytes(b"\xff\xfe{")
        assert str(listed) in complaint(read_images, listed)

    def test_missing_image_is_named(self, tmp_path):
        listed = write_json(tmp_path / "list.json", {"images": ["gone.nii.gz"]})
        assert str(tmp_path / "gone.nii.gz") in complaint(read_images, listed)

    def test_two_images_of_one_case_are_refused(self, tmp_path):
        touch(tmp_path / "a.nii.gz")
        touch(tmp_path / "a.nii")
        assert "the case a" in complaint(read_images, tmp_path)

    def test_task_folder_may_not_point_outside(self, tmp_path):
        touch(tmp_path / "secret.nii.gz")
        write_task(tmp_path / "task", test=["../secret.nii.gz"])
        assert "secret.nii.gz lies outside" in complaint(read_images, tmp_path / "task")


def round_of(dataset, training=("scan_1", "scan_1", "scan_2"), test=("scan_4",)):
    def items(*cases):
        return [dataset.items[case] for case in cases]

    return RoundDatalist(items(*training), items("scan_3"), items(*test), items("scan_5"))


class TestRoundDatalist:
    @pytest.fixture
    def dataset(self, tmp_path):
        return read_dataset(write_task(tmp_path / "task"))

    def test_comes_back_with_multiplicity_and_without_hidden_labels(self, tmp_path, dataset):
        datalist = round_of(dataset)
        path = write_datalist(tmp_path / "round_000" / "datalist.json", datalist, dataset)
        again = read_datalist(path, dataset)
        assert (again.training, again.validation, again.test) == (
            datalist.training,
            datalist.validation,
            datalist.test,
        )
        assert [item["case"] for item in again.training] == ["scan_1", "scan_1", "scan_2"]
        assert again.unlabeled == [{"case": "scan_5", "image": dataset.items["scan_5"]["image"]}]

    def test_file_is_an_msd_data_list_with_relative_paths(self, tmp_path, dataset):
        path = write_datalist(tmp_path / "datalist.json", round_of(dataset), dataset)
        content = json.loads(path.read_text())
        assert content["labels"] == {"0": "background", "1": "organ", "2": "tumour"}
        assert content["unlabeled"] == [{"case": "scan_5", "image": "./imagesTr/scan_5.nii.gz"}]
        assert content["test"][0]["label"] == "./labelsTr/scan_4.nii.gz"
        assert str(tmp_path) not in path.read_text()

    def test_monai_reads_the_file(self, tmp_path, dataset):
        path = write_datalist(tmp_path / "datalist.json", round_of(dataset), dataset)
        listed = load_decathlon_datalist(path, data_list_key="training", base_dir=dataset.root)
        assert [Path(item["image"]) for item in listed] == [Path(item["image"]) for item in round_of(dataset).training]

    def test_survives_a_move_of_the_data_set(self, tmp_path, dataset):
        path = write_datalist(tmp_path / "datalist.json", round_of(dataset), dataset)
        moved = read_dataset(dataset.root.rename(tmp_path / "moved"))
        assert read_datalist(path, moved).test == [moved.items["scan_4"]]

    def test_label_that_people_handed_in_is_found_outside_the_data_set(self, tmp_path, dataset):
        items = {case: {"case": case, "image": item["image"]} for case, item in dataset.items.items()}
        unlabelled = replace(dataset, items=items)
        handed_in = touch(tmp_path / "people" / "scan_1.nii.gz")
        one = unlabelled.items["scan_1"] | {"label": str(handed_in)}
        path = write_datalist(tmp_path / "datalist.json", RoundDatalist([one], [], [], []), unlabelled)
        assert read_datalist(path, unlabelled).training == [one]
        handed_in.unlink()
        assert str(handed_in) in complaint(read_datalist, path, unlabelled)

    def test_a_case_that_was_left_out_since_is_told_with_its_reason(self, tmp_path, dataset):
        path = write_datalist(tmp_path / "datalist.json", round_of(dataset), dataset)
        items = {case: item for case, item in dataset.items.items() if case != "scan_3"}
        reason = "Case scan_3: its image is empty."
        assert complaint(read_datalist, path, replace(dataset, items=items), {"scan_3": reason}) == reason

    def test_unknown_case_is_named(self, tmp_path, dataset):
        path = write_datalist(tmp_path / "datalist.json", round_of(dataset), dataset)
        write_task(dataset.root, cases=CASES[1:])
        sentence = complaint(read_datalist, path, read_dataset(dataset.root))
        assert "'scan_1'" in sentence
        assert str(path) in sentence

    @pytest.mark.parametrize("missing", ["training", "validation", "test", "unlabeled"])
    def test_missing_role_is_named(self, tmp_path, dataset, missing):
        path = write_datalist(tmp_path / "datalist.json", round_of(dataset), dataset)
        content = json.loads(path.read_text())
        del content[missing]
        assert f"'{missing}'" in complaint(read_datalist, write_json(path, content), dataset)

    def test_entry_without_case_is_numbered(self, tmp_path, dataset):
        path = write_json(tmp_path / "l.json", {"training": [{"image": "x"}]})
        assert "entry 1 of 'training'" in complaint(read_datalist, path, dataset)

    @pytest.mark.parametrize("text", [None, "{", "[]"])
    def test_missing_or_damaged_file_is_named(self, tmp_path, dataset, text):
        path = tmp_path / "datalist.json"
        if text is not None:
            path.write_text(text)
        assert str(path) in complaint(read_datalist, path, dataset)

    @pytest.mark.parametrize("test", [("scan_1",), ("scan_3",), ("scan_4", "scan_4")])
    def test_a_case_in_two_roles_is_refused_in_writing_and_reading(self, tmp_path, dataset, test):
        path = tmp_path / "datalist.json"
        assert f"the case {test[0]}" in complaint(write_datalist, path, round_of(dataset, test=test), dataset)
        assert not path.exists()
        write_datalist(path, round_of(dataset), dataset)
        content = json.loads(path.read_text())
        content["test"] = [{"case": case} for case in test]
        assert f"the case {test[0]}" in complaint(read_datalist, write_json(path, content), dataset)

    def test_training_without_a_label_is_refused(self, tmp_path, dataset):
        bare = {key: dataset.items["scan_1"][key] for key in ("case", "image")}
        sentence = complaint(write_datalist, tmp_path / "l.json", RoundDatalist([bare], [], [], []), dataset)
        assert "scan_1" in sentence
        assert "no label" in sentence


@pytest.mark.real
@pytest.mark.skipif("SVGD_MONAI_MSD_ROOT" not in os.environ, reason="SVGD_MONAI_MSD_ROOT is not set")
def test_real_hippocampus_is_read():
    dataset = read_dataset(Path(os.environ["SVGD_MONAI_MSD_ROOT"]) / "Task04_Hippocampus")
    assert len(dataset.items) == 260
    assert dataset.classes == {0: "background", 1: "Anterior", 2: "Posterior"}
    assert len(read_images(dataset.root)) == 260
