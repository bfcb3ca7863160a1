"""What an inference is given: images, a place for the results, and names for the classes."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from svgd_monai.data import BAD_CASES_FILE, read_bad_cases, write_bad_cases
from svgd_monai.errors import DataError, SettingsError
from svgd_monai.evaluation import inference_images, named_classes
from svgd_monai.evaluation.inputs import BAD_IMAGES_FILE


def scan(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.arange(60, dtype=np.float32).reshape(3, 4, 5), np.eye(4)), path)
    return path


class TestImages:
    def test_of_a_folder_a_file_and_a_list(self, tmp_path):
        first, second = scan(tmp_path / "scans/a.nii.gz"), scan(tmp_path / "scans/b.nii")
        listed = tmp_path / "list.json"
        listed.write_text(json.dumps({"images": ["scans/b.nii"]}))
        items = [{"case": "a", "image": str(first)}, {"case": "b", "image": str(second)}]
        assert inference_images(first.parent, tmp_path / "out") == items
        assert inference_images(second, tmp_path / "out") == items[1:]
        assert inference_images(listed, tmp_path / "out") == items[1:]
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("given", ["scans", "scans/a.nii.gz", "list.json"])
    @pytest.mark.parametrize("spelt", ["scans", "scans/../scans/", "link"])
    def test_that_lie_where_the_results_would_go_are_refused(self, tmp_path, given, spelt):
        scan(tmp_path / "scans/a.nii.gz")
        (tmp_path / "list.json").write_text(json.dumps({"images": ["scans/a.nii.gz"]}))
        (tmp_path / "link").symlink_to(tmp_path / "scans")
        with pytest.raises(DataError, match=r"output_dir: .* holds the image .*a\.nii\.gz"):
            inference_images(tmp_path / given, f"{tmp_path}/{spelt}")

    def test_results_beside_or_below_the_images_are_not_found_again(self, tmp_path):
        scan(tmp_path / "scans/a.nii.gz")
        scan(tmp_path / "scans/out/a_seg.nii.gz")
        assert [item["case"] for item in inference_images(tmp_path / "scans", tmp_path / "scans/out")] == ["a"]

    def test_are_listed_once(self, tmp_path, monkeypatch):
        folder, listed = scan(tmp_path / "scans/a.nii.gz").parent, []
        iterdir = Path.iterdir
        monkeypatch.setattr(Path, "iterdir", lambda path: listed.append(path) or iterdir(path))
        assert len(inference_images(folder, tmp_path / "out")) == 1
        assert listed.count(folder) == 1

    def test_that_are_unsound_are_named(self, tmp_path):
        path = tmp_path / "scans/a.nii.gz"
        scan(path).write_bytes(b"<html>")
        with pytest.raises(DataError, match=r"Case a: .*a\.nii\.gz is not gzip"):
            inference_images(path.parent, tmp_path / "out")

    def test_that_are_unsound_or_missing_are_left_out_and_listed(self, tmp_path):
        sound, short = scan(tmp_path / "scans/a.nii.gz"), scan(tmp_path / "scans/b.nii.gz")
        short.write_bytes(short.read_bytes()[:-9])
        listed, out = tmp_path / "list.json", tmp_path / "out"
        listed.write_text(json.dumps({"images": ["scans/a.nii.gz", "scans/b.nii.gz", "scans/c.nii.gz"]}))
        items = [{"case": "a", "image": str(sound)}]
        assert inference_images(sound.parent, out, on_bad_case="skip") == items
        assert list(read_bad_cases(out / BAD_IMAGES_FILE)) == ["b"]
        assert inference_images(listed, out, on_bad_case="skip") == items
        reasons = read_bad_cases(out / BAD_IMAGES_FILE)
        assert [word in reasons[case] for case, word in (("b", "is cut off"), ("c", "c.nii.gz"))] == [True, True]
        with pytest.raises(DataError, match=r"c\.nii\.gz"):
            inference_images(listed, out)
        scan(short)
        assert len(inference_images(sound.parent, out)) == 2
        assert not (out / BAD_IMAGES_FILE).exists(), "the list of an earlier inference is gone"

    def test_that_are_links_which_lead_nowhere_are_left_out_too(self, tmp_path):
        sound = scan(tmp_path / "scans/a.nii.gz")
        (sound.parent / "b.nii.gz").symlink_to(tmp_path / "nowhere.nii.gz")
        with pytest.raises(DataError, match=r"b\.nii\.gz does not exist"):
            inference_images(sound.parent, tmp_path / "out")
        items = inference_images(sound.parent, tmp_path / "out", on_bad_case="skip")
        assert [item["case"] for item in items] == ["a"]
        assert list(read_bad_cases(tmp_path / "out" / BAD_IMAGES_FILE)) == ["b"]

    def test_whose_names_leave_no_room_for_those_of_the_results_are_named(self, tmp_path):
        longest = scan(tmp_path / f"scans/{'x' * 236}.nii.gz")
        (item,) = inference_images(longest.parent, tmp_path / "out")
        (tmp_path / f"{item['case']}_uncertainty.nii.gz").touch()
        scan(tmp_path / f"scans/{'x' * 237}.nii.gz")
        with pytest.raises(
            DataError, match=r"^The name of .* is too long: it has 237 bytes before its ending, of which 236"
        ):
            inference_images(longest.parent, tmp_path / "out")
        assert inference_images(longest.parent, tmp_path / "out", on_bad_case="skip") == [item]
        assert list(read_bad_cases(tmp_path / "out" / BAD_IMAGES_FILE)) == ["x" * 237]

    @pytest.mark.parametrize("policy", ["fail", "skip"])
    def test_leave_the_list_of_a_run_in_the_same_folder_alone(self, tmp_path, policy):
        path, run = scan(tmp_path / "scans/a.nii.gz"), tmp_path / "run"
        write_bad_cases(run / BAD_CASES_FILE, {"c": "c is cut off."})
        inference_images(path.parent, run, on_bad_case=policy)
        assert read_bad_cases(run / BAD_CASES_FILE) == {"c": "c is cut off."}

    def test_of_one_case_are_refused_also_where_one_of_them_is_missing(self, tmp_path):
        scan(tmp_path / "scans/a.nii.gz")
        listed = tmp_path / "list.json"
        listed.write_text(json.dumps({"images": ["elsewhere/a.nii.gz", "scans/a.nii.gz"]}))
        with pytest.raises(DataError, match=r"list\.json holds two images of the case a\."):
            inference_images(listed, tmp_path / "out", on_bad_case="skip")

    def test_of_which_none_is_sound_are_refused(self, tmp_path):
        for name in "ab":
            scan(tmp_path / f"scans/{name}.nii.gz").write_bytes(b"<html>")
        with pytest.raises(DataError, match=r"^Case a: .*a\.nii\.gz is not gzip.* \(and 1 more bad case: b\)"):
            inference_images(tmp_path / "scans", tmp_path / "out", on_bad_case="skip")
        assert not (tmp_path / "out").exists()


class TestClasses:
    def metadata(self, path, **channels):
        names = channels or {"0": "background", "1": "organ", "2": "tumour"}
        path.write_text(json.dumps({"network_data_format": {"outputs": {"pred": {"channel_def": names}}}}))
        return path

    def test_are_those_of_the_metadata(self, tmp_path):
        found = named_classes(None, 3, self.metadata(tmp_path / "metadata.json"))
        assert found == {0: "background", 1: "organ", 2: "tumour"}

    def test_of_the_key_come_first(self, tmp_path):
        assert named_classes(("nothing", "liver"), 2, tmp_path / "nowhere.json") == {0: "nothing", 1: "liver"}

    @pytest.mark.parametrize("bundle", ["hippocampus_mri_svgd", "pancreas_ct_svgd"])
    def test_of_the_bundles_own_metadata_are_found(self, bundle, pytestconfig):
        file = pytestconfig.rootpath / "bundles" / bundle / "configs/metadata.json"
        assert named_classes(None, 3, file)[0] == "background"

    @pytest.mark.parametrize(
        ("classes", "named"),
        [
            (["background"], "classes names 1 classes, num_classes is 2"),
            ("background", "'background' is not a list"),
            (["background", ""], "not all names"),
            (["background", "a\nb"], "not all names"),
            (["background", 1], "not all names"),
            (["a", "a"], "two classes one name"),
        ],
    )
    def test_that_do_not_fit_are_refused(self, tmp_path, classes, named):
        with pytest.raises(SettingsError, match=named):
            named_classes(classes, 2, tmp_path / "metadata.json")

    def test_of_metadata_that_do_not_fit_are_refused_by_the_files_name(self, tmp_path):
        file = self.metadata(tmp_path / "metadata.json")
        with pytest.raises(SettingsError, match=r"classes: .*metadata\.json names 3 classes, num_classes is 4; list"):
            named_classes(None, 4, file)

    @pytest.mark.parametrize("content", ['{"version": "1"}', "[]", '{"network_data_format": {"outputs": {}}}'])
    def test_of_metadata_that_do_not_say_are_asked_for(self, tmp_path, content):
        file = tmp_path / "metadata.json"
        file.write_text(content)
        with pytest.raises(SettingsError, match=r"metadata\.json names 0 classes, num_classes is 3; list a name"):
            named_classes(None, 3, file)

    def test_of_no_metadata_are_asked_for(self, tmp_path):
        with pytest.raises(SettingsError, match=r"classes: .*nowhere\.json cannot be read .*; list a name"):
            named_classes(None, 3, tmp_path / "nowhere.json")
