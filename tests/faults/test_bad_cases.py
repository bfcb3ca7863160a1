"""Bad cases that are skipped: listed, never used, and the same ones when the run goes on."""

import csv
import json
import os
import shutil

import pytest
from command import TINY, run_bundle, words

from svgd_monai.data import find_cases, write_bad_cases
from svgd_monai.rounds.loop import ActiveLearning

BAD = {
    "phantom_mr_002": "truncated image",
    "phantom_mr_005": "missing label",
    "phantom_mr_009": "label of an unknown class",
    "phantom_mr_014": "outside the folder",
}


@pytest.fixture(scope="module")
def dataset(phantom_mr, tmp_path_factory):
    """The phantom with four bad cases."""
    import nibabel as nib
    import numpy as np

    root = shutil.copytree(phantom_mr, tmp_path_factory.mktemp("bad") / "data", copy_function=os.link)
    image, label = (lambda case, kind=kind: root / kind / f"{case}.nii.gz" for kind in ("imagesTr", "labelsTr"))
    truncated, missing, odd, outside = BAD
    content = image(truncated).read_bytes()
    image(truncated).unlink()
    image(truncated).write_bytes(content[:-100])
    label(missing).unlink()
    old = nib.load(label(odd))
    values = np.asanyarray(old.dataobj).copy()
    values[0, 0, 0] = 9
    label(odd).unlink()
    nib.save(nib.Nifti1Image(values, old.affine), label(odd))
    secret = root.parent / "elsewhere.nii.gz"
    image(outside).rename(secret)
    image(outside).symlink_to(secret)
    return root


def command(bundle, dataset, output, **keys):
    keys = {**TINY, "dataset_dir": dataset, "output_dir": output, "queries_per_round": 3, **keys}
    return run_bundle(*words(bundle / "configs/active_learning.yaml", **keys))


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def skipped(bundle, dataset, tmp_path_factory):
    output = tmp_path_factory.mktemp("skipped") / "run"
    result = command(bundle, dataset, output, on_bad_case="skip")
    assert result.exit_code == 0, result.stderr
    return output


def test_they_are_listed_by_name_and_reason(skipped):
    listed = {row["case"]: row["reason"] for row in rows(skipped / "bad_cases.csv")}
    assert list(listed) == sorted(BAD)
    truncated, missing, odd, outside = BAD
    assert "cut off" in listed[truncated]
    assert "does not exist" in listed[missing]
    assert "label value 9" in listed[odd]
    assert "outside the folder" in listed[outside]


def test_they_play_no_role_and_are_never_queried(skipped):
    record = json.loads((skipped / "run.json").read_text())
    used = {case for cases in record["split"].values() for case in cases}
    assert not used & set(BAD)
    assert len(used) == 20 - len(BAD)
    for number in range(2):
        listed = (skipped / f"round_00{number}/datalist.json").read_text() + (skipped / "ranking.csv").read_text()
        assert not any(case in listed for case in BAD)
    assert not set(json.loads((skipped / "round_000/queries.json").read_text())) & set(BAD)


def test_the_others_keep_the_roles_that_they_have_in_a_sound_data_set(skipped, phantom_mr):
    from svgd_monai.data import draw_split, read_dataset

    tiny = (TINY["initial_labelled"], TINY["validation_cases"], TINY["test_cases"])
    whole = draw_split(read_dataset(phantom_mr).items, 0, *tiny).as_dict()
    split = json.loads((skipped / "run.json").read_text())["split"]
    assert split == {role: [case for case in cases if case not in BAD] for role, cases in whole.items()}


def test_a_run_keeps_to_its_list_also_when_a_case_is_mended_or_gone(bundle, dataset, phantom_mr, skipped, tmp_path):
    mended = shutil.copytree(dataset, tmp_path / "data", symlinks=True, copy_function=os.link)
    shutil.copy2(phantom_mr / "labelsTr/phantom_mr_005.nii.gz", mended / "labelsTr")
    content = json.loads((mended / "dataset.json").read_text())
    content["training"] = [item for item in content["training"] if "phantom_mr_002" not in item["image"]]
    (mended / "dataset.json").unlink()
    (mended / "dataset.json").write_text(json.dumps(content))
    output = shutil.copytree(skipped, tmp_path / "run")
    result = command(bundle, mended, output, on_bad_case="skip")
    assert result.exit_code == 0, result.stderr
    assert "finished" in result.stdout + result.stderr
    assert len(rows(output / "bad_cases.csv")) == len(BAD)


def test_the_list_stands_before_the_record_of_the_run(bundle, dataset, tmp_path, monkeypatch):
    """A command that is killed between the two would else never go on."""
    from svgd_monai.errors import RunFolderError
    from svgd_monai.rounds import RunFolder

    def killed(self, record):
        raise RunFolderError("Here the command ends.")

    monkeypatch.setattr(RunFolder, "open", killed)
    assert command(bundle, dataset, tmp_path / "run", on_bad_case="skip").exit_code == 1
    assert len(rows(tmp_path / "run/bad_cases.csv")) == len(BAD)


def test_a_list_of_an_earlier_attempt_does_not_stay(tmp_path):
    write_bad_cases(tmp_path / "bad_cases.csv", {"a": "It is empty."})
    write_bad_cases(tmp_path / "bad_cases.csv", {})
    assert not (tmp_path / "bad_cases.csv").exists()


def test_a_run_that_has_begun_without_a_bad_case_leaves_none_out_later(tmp_path):
    run = ActiveLearning({"output_dir": tmp_path}, {})
    assert run._left_out() is None
    (tmp_path / "run.json").write_text("{}")
    assert run._left_out() is None, "it has made nothing yet"
    (tmp_path / "learning_curve.csv").touch()
    assert run._left_out() == {}
    write_bad_cases(tmp_path / "bad_cases.csv", {"a": "It is empty."})
    assert run._left_out() == {"a": "It is empty."}


def test_a_case_that_turns_bad_later_is_refused_by_name(bundle, dataset, skipped, tmp_path):
    worse = shutil.copytree(dataset, tmp_path / "data", symlinks=True, copy_function=os.link)
    (worse / "imagesTr/phantom_mr_007.nii.gz").unlink()
    output = shutil.copytree(skipped, tmp_path / "run")
    result = command(bundle, worse, output, on_bad_case="skip")
    assert result.exit_code == 1
    assert "phantom_mr_007" in result.last_line


def test_without_the_key_they_end_the_command(bundle, dataset, tmp_path):
    result = command(bundle, dataset, tmp_path / "run")
    assert result.exit_code == 1
    assert "phantom_mr_005" in result.last_line
    assert not (tmp_path / "run").exists()


def test_files_outside_the_folder_are_taken_where_that_is_allowed(dataset):
    _, strict = find_cases(dataset, on_bad_case="skip")
    _, open_ = find_cases(dataset, on_bad_case="skip", allow_outside=True)
    assert set(strict) - set(open_) == {"phantom_mr_014"}


def test_a_role_of_which_no_sound_case_is_left_is_named(bundle, dataset, tmp_path):
    names = [f"phantom_mr_{number:03d}" for number in (1, 3, 4)]
    split = {"initial": names[:1], "pool": names[1:2], "validation": names[2:], "test": ["phantom_mr_002"]}
    file = tmp_path / "split.json"
    file.write_text(json.dumps(split))
    result = command(bundle, dataset, tmp_path / "run", on_bad_case="skip", split_file=file)
    assert result.exit_code == 1
    assert "role test" in result.last_line
