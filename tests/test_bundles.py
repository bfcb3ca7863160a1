"""Whoever has installed the package can have the bundles, whole, where he wants them."""

import filecmp
import os
import shutil
from pathlib import Path

import pytest

from svgd_monai.bundles import PARTS, BundlesError, copy_bundles, main, shipped
from svgd_monai.temporaries import temporary_path


def test_the_bundles_are_copied_with_the_lists_that_they_read(tmp_path):
    copied = copy_bundles(tmp_path / "mine")
    assert [path.name for path in copied] == ["hippocampus_mri_svgd", "pancreas_ct_svgd"]
    for path in copied:
        assert (path / "configs/active_learning.yaml").is_file()
        assert (path / "configs/../../../data_lists").resolve() == (tmp_path / "mine/data_lists").resolve()
    assert not filecmp.dircmp(shipped() / "data_lists", tmp_path / "mine/data_lists").left_only


def test_trained_committees_do_not_travel(tmp_path, monkeypatch):
    source = tmp_path / "source"
    for place in ("bundles/a/configs/x.yaml", "bundles/a/models/model.pt", "bundles/a/eval/y", "data_lists/z.json"):
        (source / place).parent.mkdir(parents=True, exist_ok=True)
        (source / place).write_text("")
    monkeypatch.setattr("svgd_monai.bundles.shipped", lambda: source)
    copy_bundles(tmp_path / "mine")
    found = {str(path.relative_to(tmp_path / "mine")) for path in (tmp_path / "mine").rglob("*") if path.is_file()}
    assert found == {"bundles/a/configs/x.yaml", "data_lists/z.json"}


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "data_lists").mkdir()
    with pytest.raises(BundlesError, match="data_lists is there already"):
        copy_bundles(tmp_path)
    assert not (tmp_path / "bundles").exists()


@pytest.mark.parametrize("part", PARTS)
def test_a_link_that_leads_nowhere_is_not_overwritten_either(tmp_path, part):
    (tmp_path / part).symlink_to(tmp_path / "gone")
    with pytest.raises(BundlesError, match=f"{part} is there already"):
        copy_bundles(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [part]


@pytest.mark.parametrize("part", PARTS)
def test_a_process_that_was_first_is_named_by_its_folder_and_nothing_is_added(tmp_path, monkeypatch, part):
    folder, rename = tmp_path / "mine", Path.rename

    def second(self, target):
        if self.name == part and target.parent == folder:
            (target / "of another").mkdir(parents=True)
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", second)
    with pytest.raises(
        SystemExit, match=rf"^{folder / part} cannot be made \((Directory not empty|File exists)\); give another folder"
    ):
        main([str(folder)])
    assert [path.name for path in folder.rglob("*")] == [part, "of another"]


def test_what_a_killed_copy_has_left_goes_with_the_next(tmp_path):
    killed, living = (temporary_path(tmp_path / ".bundles", process) for process in (4194304, os.getppid()))
    for path in (killed, living):
        (path / "bundles").mkdir(parents=True)
    copy_bundles(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {*PARTS, living.name}


def test_a_copy_that_fails_leaves_nothing_and_is_made_by_the_next(tmp_path, monkeypatch):
    copy, names = shutil.copyfile, []

    def full(source, target, **keys):
        names.append(source)
        if len(names) == 20:
            raise OSError(28, "No space left on device")
        return copy(source, target, **keys)

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(SystemExit, match=r"mine: 1 of the files cannot be copied \(.*No space left on device\)\.$"):
        main([str(tmp_path / "mine")])
    assert list((tmp_path / "mine").iterdir()) == []
    monkeypatch.undo()
    assert len(copy_bundles(tmp_path / "mine")) == 2


def test_the_bundles_are_not_copied_into_themselves(tmp_path, monkeypatch):
    monkeypatch.setattr("svgd_monai.bundles.shipped", lambda: tmp_path)
    for part in ("bundles", "data_lists"):
        (tmp_path / part).mkdir()
        with pytest.raises(BundlesError, match=rf"lies in {tmp_path / part}, which is to be copied; give another"):
            copy_bundles(tmp_path / part / "mine")
        assert list((tmp_path / part).iterdir()) == []


def test_the_command_says_where_they_are_or_why_not(tmp_path, capsys):
    main([str(tmp_path / "mine")])
    assert capsys.readouterr().out.splitlines()[0] == str(tmp_path / "mine/bundles/hippocampus_mri_svgd")
    with pytest.raises(SystemExit, match="is there already"):
        main([str(tmp_path / "mine")])
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit, match="file"):
        main([str(tmp_path / "file/below")])
