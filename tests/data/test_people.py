"""A folder of images to label, and a team's own labelled sets."""

import json
import logging
import shutil

import pytest

from svgd_monai.data.people import find_people_data, read_labelled_folder
from svgd_monai.errors import DataError

CLASSES = {0: "background", 1: "anterior", 2: "posterior"}


def case(number):
    return f"phantom_mr_{number:03d}"


@pytest.fixture
def held_out(phantom_mr, tmp_path):
    for kind in ("images", "labels"):
        (tmp_path / f"set/{kind}").mkdir(parents=True)
        for number in (1, 2):
            shutil.copy(phantom_mr / f"{kind}Tr/{case(number)}.nii.gz", tmp_path / f"set/{kind}")
    return tmp_path / "set"


@pytest.fixture
def images(phantom_mr, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(3, 7):
        shutil.copy(phantom_mr / f"imagesTr/{case(number)}.nii.gz", folder)
    return folder


def test_the_pool_has_no_labels_and_a_held_out_set_has(images, held_out, tmp_path):
    data = find_people_data(images, None, held_out).checked(CLASSES, tmp_path, 1)
    assert sorted(data.pool) == [case(n) for n in range(3, 7)]
    assert all("label" not in item for item in data.pool.values())
    assert sorted(data.test) == [case(1), case(2)]
    assert data.validation == {}
    assert data.fingerprint(case(3)) == data.facts[case(3)].image_sha256
    assert data.fingerprint(case(1)).count("+") == 1


def test_a_set_may_be_in_msd_form(phantom_mr):
    assert len(read_labelled_folder(phantom_mr, "test")) == 20


def test_a_set_may_have_msd_folders_without_a_list(held_out):
    for kind in ("images", "labels"):
        (held_out / kind).rename(held_out / f"{kind}Tr")
    assert sorted(read_labelled_folder(held_out, "test")) == [case(1), case(2)]


def test_an_image_without_a_label_is_named(held_out):
    (held_out / f"labels/{case(2)}.nii.gz").unlink()
    with pytest.raises(DataError, match=f"validation: the case {case(2)} has no label"):
        read_labelled_folder(held_out, "validation")


@pytest.mark.parametrize("key", ["validation", "test"])
def test_whatever_is_wrong_with_a_set_is_named_by_its_key(key, images, held_out):
    (held_out / "dataset.json").write_text("{}")
    with pytest.raises(DataError, match=f"^{key}: .*dataset.json has no 'labels'"):
        find_people_data(images, **{key: held_out})
    (held_out / "dataset.json").unlink()
    for number in (1, 2):
        (held_out / f"images/{case(number)}.nii.gz").unlink()
    with pytest.raises(DataError, match=f"^{key}: .*images holds no NIfTI image"):
        find_people_data(images, **{key: held_out})


def test_two_sets_share_no_case(images, held_out):
    with pytest.raises(DataError, match="is in the validation set too"):
        find_people_data(images, held_out, held_out)


def test_the_same_image_in_pool_and_set_is_held_out(images, held_out, caplog):
    shutil.copy(held_out / f"images/{case(1)}.nii.gz", images)
    with caplog.at_level(logging.INFO):
        data = find_people_data(images, held_out)
    assert case(1) not in data.pool
    assert f"{case(1)} is in the validation set and leaves the pool" in caplog.text


def test_another_image_of_the_same_name_is_refused(images, held_out):
    shutil.copy(images / f"{case(3)}.nii.gz", images / f"{case(1)}.nii.gz")
    with pytest.raises(DataError, match=f"validation: the case {case(1)} differs from the image"):
        find_people_data(images, held_out)


def test_a_pool_of_held_out_cases_alone_is_none(held_out):
    with pytest.raises(DataError, match="holds no image beside"):
        find_people_data(held_out / "images", held_out)


@pytest.mark.parametrize("key", ["images", "validation", "test"])
def test_a_missing_folder_is_named_by_its_key(key, images, tmp_path):
    folders = {"images": images, key: tmp_path / "nowhere"}
    with pytest.raises(DataError, match=f"^{key}: .*nowhere"):
        find_people_data(**folders)


def test_a_broken_image_is_named(images, tmp_path):
    (images / f"{case(4)}.nii.gz").write_bytes(b"no image")
    with pytest.raises(DataError, match=f"Case {case(4)}: "):
        find_people_data(images).checked(CLASSES, tmp_path, 1)
    json.loads((tmp_path / "case_checks.json").read_text())  # what was found of the others is kept


@pytest.mark.parametrize("suffix", ["seg", "uncertainty"])
def test_a_segmentation_left_among_the_images_is_named(suffix, images):
    shutil.copy(images / f"{case(4)}.nii.gz", images / f"{case(3)}_{suffix}.nii.gz")
    with pytest.raises(DataError, match=rf"^images: .*{case(3)}_{suffix}\.nii\.gz has the name of a file that a"):
        find_people_data(images)
    (images / f"{case(3)}.nii.gz").unlink()
    assert f"{case(3)}_{suffix}" in find_people_data(images).pool, "by itself it is a name like any other"


def test_a_list_may_name_images_elsewhere_when_that_is_allowed(images, tmp_path):
    file = tmp_path / "lists/ours.json"
    file.parent.mkdir()
    file.write_text(json.dumps({"images": [str(images / f"{case(number)}.nii.gz") for number in (3, 4)]}))
    assert sorted(find_people_data(file, allow_outside=True).pool) == [case(3), case(4)]
    with pytest.raises(DataError, match=r"^images: .* lies outside the folder"):
        find_people_data(file)


def test_a_bad_image_may_be_left_out_of_the_pool_but_not_of_a_held_out_set(images, held_out, tmp_path):
    (images / f"{case(4)}.nii.gz").write_bytes(b"no image")
    data = find_people_data(images, None, held_out).checked(CLASSES, tmp_path, 1, "skip")
    assert sorted(data.pool) == [case(n) for n in (3, 5, 6)]
    assert list(data.bad) == [case(4)]
    (held_out / f"labels/{case(2)}.nii.gz").write_bytes(b"no label")
    with pytest.raises(DataError, match=f"^Case {case(2)}: "):
        find_people_data(images, None, held_out).checked(CLASSES, tmp_path, 1, "skip")


def test_a_held_out_set_in_msd_form_keeps_to_its_folder(images, phantom_mr, tmp_path):
    own = {
        "image": str(phantom_mr / f"imagesTr/{case(1)}.nii.gz"),
        "label": str(phantom_mr / f"labelsTr/{case(1)}.nii.gz"),
    }
    listed = json.loads((phantom_mr / "dataset.json").read_text()) | {"training": [own]}
    (tmp_path / "dataset.json").write_text(json.dumps(listed))
    with pytest.raises(DataError, match="outside"):
        find_people_data(images, None, tmp_path)
    assert list(find_people_data(images, None, tmp_path, allow_outside=True).test) == [case(1)]


def test_a_pool_of_bad_images_alone_is_refused(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.nii.gz").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"^images: every image is bad; the first one: .*a\.nii\.gz"):
        find_people_data(tmp_path / "images").checked(CLASSES, tmp_path, 1, "skip")


def listed(images, tmp_path, *missing):
    """A data list of the images, and of some that are not there."""
    file = tmp_path / "list.json"
    names = [*sorted(path.name for path in images.iterdir()), *missing]
    file.write_text(json.dumps({"images": [f"{images.name}/{name}" for name in names]}))
    return file


@pytest.mark.parametrize("form", ["folder", "list"])
def test_a_missing_image_may_be_left_out_as_a_bad_one_is(form, images, held_out, tmp_path):
    """In a folder, a link that leads nowhere."""
    gone = case(9)
    if form == "folder":
        (images / f"{gone}.nii.gz").symlink_to(tmp_path / "nowhere.nii.gz")
    given = images if form == "folder" else listed(images, tmp_path, f"{gone}.nii.gz")
    (images / f"{case(4)}.nii.gz").write_bytes(b"no image")
    with pytest.raises(DataError, match=rf"^images: .*{gone}\.nii\.gz does not exist or cannot be reached"):
        find_people_data(given)
    found = find_people_data(given, None, held_out, on_bad_case="skip")
    assert list(found.bad) == [gone]
    data = found.checked(CLASSES, tmp_path, 1, "skip")
    assert sorted(data.pool) == [case(n) for n in (3, 5, 6)]
    assert sorted(data.bad) == [case(4), gone]
    assert f"{gone}.nii.gz does not exist or cannot be reached" in data.bad[gone]


def test_a_missing_image_of_a_case_that_is_held_out_is_no_bad_one(images, held_out, tmp_path):
    """It was moved to the set, and the list of the pool names it still."""
    file = listed(images, tmp_path, f"{case(1)}.nii.gz")
    data = find_people_data(file, held_out, on_bad_case="skip")
    assert (case(1) in data.pool, data.bad) == (False, {})


def test_a_pool_of_missing_images_alone_is_refused(images, tmp_path):
    file = listed(images, tmp_path)
    shutil.rmtree(images)
    with pytest.raises(DataError, match=rf"^images: every image is bad; the first one: .*{case(3)}\.nii\.gz does not"):
        find_people_data(file, on_bad_case="skip")


def test_a_name_that_leaves_no_room_for_those_of_its_files_is_refused_or_left_out(images, tmp_path):
    image = images / f"{case(3)}.nii.gz"
    for size in (235, 236):
        shutil.copy(image, images / f"{'x' * size}.nii.gz")
    sentence = "The name of .* is too long: it has 236 bytes before its ending, of which 235 are the most"
    with pytest.raises(DataError, match=f"^images: {sentence}"):
        find_people_data(images)
    data = find_people_data(images, on_bad_case="skip")
    assert ["x" * size in data.pool for size in (235, 236)] == [True, False]
    assert list(data.bad) == ["x" * 236]
    for kind in ("images", "labels"):
        (tmp_path / "set" / kind).mkdir(parents=True)
        shutil.copy(images / f"{'x' * 236}.nii.gz", tmp_path / "set" / kind)
    assert list(find_people_data(images, tmp_path / "set").validation) == ["x" * 236], "no file is made for it"
