"""No two writes share a temporary file, and what is left of them goes without harm to those that go on."""

import os
import platform
import time
from pathlib import Path
from types import SimpleNamespace

from svgd_monai import temporaries
from svgd_monai.files import write_bytes
from svgd_monai.temporaries import ABANDONED, TEMPORARY_SUFFIX, remove_temporaries, temporary_path

DEAD = 4194304  # no process has so high a number


def test_what_a_killed_process_has_left_goes_and_what_a_living_one_writes_stays(tmp_path):
    dead, own, other = (temporary_path(tmp_path / "a", process) for process in (DEAD, os.getpid(), os.getppid()))
    users = tmp_path / "a.notes.tmp", tmp_path / f"a.{DEAD}.tmp", tmp_path / dead.name.removesuffix(".tmp")
    for path in (dead, own, other, *users):
        path.write_bytes(b"half")
    folder = temporary_path(tmp_path / ".Task04", DEAD)
    folder.mkdir()
    remove_temporaries(tmp_path)
    assert set(tmp_path.iterdir()) == {folder, other, *users}


def test_folders_of_such_names_go_where_they_are_asked_for(tmp_path):
    file, folder, other = (temporary_path(tmp_path / name, process) for name, process in
                           (("a", DEAD), ("b", DEAD), ("c", os.getppid())))  # fmt: skip
    file.write_bytes(b"half")
    for each in (folder, other):
        (each / "within").mkdir(parents=True)
    (tmp_path / "mine.tmp").mkdir()
    remove_temporaries(tmp_path, folders=True)
    assert set(tmp_path.iterdir()) == {file, other, tmp_path / "mine.tmp"}


def test_only_the_folders_asked_for_are_cleared(tmp_path):
    round_folder = tmp_path / "round_000"
    round_folder.mkdir()
    left = [temporary_path(folder / "a", DEAD) for folder in (tmp_path, round_folder)]
    for path in left:
        path.write_bytes(b"half")
    remove_temporaries(tmp_path, "round_*/")
    assert [path.exists() for path in left] == [True, False]
    remove_temporaries(tmp_path / "not there")


def test_what_another_users_process_writes_stays(tmp_path, monkeypatch):
    path = temporary_path(tmp_path / "a", DEAD)
    path.write_bytes(b"half")

    def refuse(*_):
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    remove_temporaries(tmp_path)
    assert path.exists()


def test_a_number_that_is_no_process_s_is_nobody_s(tmp_path):
    temporary_path(tmp_path / "a", 2**70).write_bytes(b"half")
    remove_temporaries(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_where_the_question_would_end_a_process_it_is_not_asked(tmp_path, monkeypatch):
    """``os.kill`` of Windows takes a signal of 0 for Ctrl-C."""
    other, old, own = (temporary_path(tmp_path / name, process) for name, process in
                       (("a", DEAD), ("b", DEAD), ("c", os.getpid())))  # fmt: skip
    for path in (other, old, own):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - ABANDONED - 60,) * 2)
    monkeypatch.setattr(temporaries, "os", SimpleNamespace(name="nt", getpid=os.getpid))
    remove_temporaries(tmp_path)
    assert list(tmp_path.iterdir()) == [other]


def test_what_may_not_be_removed_is_in_nobodys_way(tmp_path, monkeypatch):
    """As another user's file in a folder that all may write to."""
    first, second = (temporary_path(tmp_path / name, DEAD) for name in "ab")
    for path in (first, second):
        path.write_bytes(b"half")
    unlink = Path.unlink

    def refuse(self, *args, **keys):
        if self == first:
            raise PermissionError(1, "Operation not permitted", str(self))
        unlink(self, *args, **keys)

    monkeypatch.setattr(Path, "unlink", refuse)
    remove_temporaries(tmp_path)
    assert list(tmp_path.iterdir()) == [first]


def test_what_another_machine_writes_stays_for_a_day(tmp_path, monkeypatch):
    monkeypatch.setattr(platform, "node", lambda: "other")
    fresh, old = (temporary_path(tmp_path / name, DEAD) for name in "ab")
    monkeypatch.undo()
    for path in (fresh, old):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - ABANDONED - 60,) * 2)
    os.utime(fresh, (time.time() - ABANDONED + 600,) * 2)
    remove_temporaries(tmp_path)
    assert list(tmp_path.iterdir()) == [fresh]


def test_a_file_that_gets_its_name_meanwhile_is_no_error(tmp_path, monkeypatch):
    monkeypatch.setattr(platform, "node", lambda: "other")
    path = temporary_path(tmp_path / "a", DEAD)
    monkeypatch.undo()
    path.write_bytes(b"whole")
    is_file = Path.is_file

    def renamed(self):
        found = is_file(self)
        self.replace(tmp_path / "a")
        return found

    monkeypatch.setattr(Path, "is_file", renamed)
    remove_temporaries(tmp_path)
    assert (tmp_path / "a").read_bytes() == b"whole"


def test_two_machines_with_one_process_id_may_write_one_file_at_a_time(tmp_path, monkeypatch):
    """As containers that share a cache; the ids of their processes are small and often the same."""
    replace = Path.replace

    def replace_behind_the_other(self, target):
        monkeypatch.setattr(Path, "replace", replace)
        write_bytes(target, b"the other's")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", replace_behind_the_other)
    write_bytes(tmp_path / "volume.pt", b"mine")
    assert (tmp_path / "volume.pt").read_bytes() == b"mine"
    assert [path.name for path in tmp_path.iterdir()] == ["volume.pt"]


def test_names_tell_whose_they_are_and_never_repeat(tmp_path):
    names = {temporary_path(tmp_path / "a.csv").name for _ in range(100)}
    assert len(names) == 100
    assert all(len(temporary_path(tmp_path / ("ü" * n)).name.encode()) <= 255 for n in (99, 100, 101, 127))
    assert all(name.startswith(f"a.csv.{os.getpid()}.") and name.endswith(TEMPORARY_SUFFIX) for name in names)
