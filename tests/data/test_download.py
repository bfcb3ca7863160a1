"""A missing data set is fetched only when asked for, and arrives whole or not at all."""

import hashlib
import os
import sys
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import IncompleteRead
from urllib.error import URLError

import pytest
from monai.apps import DecathlonDataset

from svgd_monai.data import download
from svgd_monai.data.download import MD5, ensure_dataset
from svgd_monai.errors import DataError
from svgd_monai.temporaries import temporary_path

TASK = "Task04_Hippocampus"
DEAD = 4194304  # no process has so high a number


def wait_for(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def complaint(*arguments, **options):
    with pytest.raises(DataError) as caught:
        ensure_dataset(*arguments, **options)
    sentence = str(caught.value)
    assert len(sentence.splitlines()) == 1
    assert sentence.endswith(".")
    return sentence


@pytest.fixture
def calls(monkeypatch):
    """Calls of the downloader, which puts a small task in place."""
    seen = []

    def fetch(url, filepath, hash_val, hash_type, progress):
        assert progress == sys.stderr.isatty(), "a bar where nobody sees it"
        seen.append((url, hash_val, hash_type))
        filepath.write_bytes(b"an archive")

    def extract(filepath, output_dir):
        task = output_dir / filepath.name.removesuffix(".tar")
        task.mkdir()
        (task / "dataset.json").write_text("{}")

    monkeypatch.setattr(download, "download_url", fetch)
    monkeypatch.setattr(download, "extractall", extract)
    return seen


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """Makes a local archive stand in for the server's."""

    def make(members=(f"{TASK}/dataset.json", f"{TASK}/imagesTr/a.nii.gz"), md5=None, url=None):
        path = tmp_path / "server" / f"{TASK}.tar"
        path.parent.mkdir()
        (tmp_path / "content").write_text("{}")
        with tarfile.open(path, "w") as tar:
            for member in members:
                tar.add(tmp_path / "content", arcname=member)
        monkeypatch.setitem(DecathlonDataset.resource, TASK, url or path.as_uri())
        monkeypatch.setitem(MD5, TASK, md5 or hashlib.md5(path.read_bytes()).hexdigest())
        return path

    return make


def test_folder_that_exists_is_left_alone(tmp_path, calls):
    assert ensure_dataset(tmp_path, download=True) == tmp_path
    assert ensure_dataset(tmp_path, download=False) == tmp_path
    assert calls == []


def test_relative_folder_becomes_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "task").mkdir()
    assert ensure_dataset("task") == tmp_path / "task"


def test_missing_folder_is_named_with_the_way_out(tmp_path, calls):
    sentence = complaint(tmp_path / TASK, download=False)
    assert all(part in sentence for part in (str(tmp_path / TASK), "dataset_dir", "download: true", *MD5))
    assert calls == []


def test_only_known_tasks_are_downloaded(tmp_path, calls):
    sentence = complaint(tmp_path / "my_scans", download=True)
    assert all(part in sentence for part in (str(tmp_path / "my_scans"), *MD5))
    assert calls == []


@pytest.mark.parametrize("task", ["Task04_Hippocampus", "Task07_Pancreas"])
def test_download_has_the_url_and_hash_of_monai(tmp_path, calls, task):
    assert ensure_dataset(tmp_path / "new" / task, download=True) == tmp_path / "new" / task
    assert calls == [(DecathlonDataset.resource[task], DecathlonDataset.md5[task], "md5")]
    assert (tmp_path / "new" / task / "dataset.json").is_file()
    assert [path.name for path in (tmp_path / "new").iterdir()] == [task]


@pytest.mark.parametrize("half", ["download_url", "extractall"])
@pytest.mark.parametrize(
    "error",
    [
        URLError("no route\nto host"),
        ConnectionResetError(104, "Connection reset by peer"),
        RuntimeError("hash check failed"),
        OSError(28, "No space left on device"),
        tarfile.ReadError("unexpected end of data"),
        ValueError("unsafe path"),
        IncompleteRead(b"half"),
    ],
)
def test_failed_download_is_a_sentence_and_leaves_nothing(tmp_path, monkeypatch, calls, half, error):
    def fail(*_, **__):
        staging, lock = sorted(tmp_path.iterdir())
        assert lock.name == f".{TASK}.lock"
        (staging / TASK).mkdir()
        (staging / TASK / "dataset.json").write_text("{")
        raise error

    monkeypatch.setattr(download, half, fail)
    sentence = complaint(tmp_path / TASK, download=True)
    assert str(tmp_path / TASK) in sentence
    assert DecathlonDataset.resource[TASK] in sentence
    assert list(tmp_path.iterdir()) == []


def test_of_two_processes_the_later_takes_what_the_earlier_has_fetched(tmp_path, monkeypatch, calls):
    extract = download.extractall

    def extract_behind_another(filepath, output_dir):
        (tmp_path / TASK).mkdir()
        (tmp_path / TASK / "dataset.json").write_text('{"name": "the other"}')
        extract(filepath, output_dir)

    monkeypatch.setattr(download, "extractall", extract_behind_another)
    assert ensure_dataset(tmp_path / TASK, download=True) == tmp_path / TASK
    assert [path.name for path in tmp_path.iterdir()] == [TASK]
    assert (tmp_path / TASK / "dataset.json").read_text() == '{"name": "the other"}'


def test_processes_that_want_one_task_wait_for_the_one_that_fetches_it(tmp_path, monkeypatch, calls, caplog):
    caplog.set_level("INFO", logger=download.__name__)
    fetch, others = download.download_url, []

    def fetch_beside_another(*words, **options):
        if not others:
            others.append(ThreadPoolExecutor().submit(ensure_dataset, tmp_path / TASK, download=True))
            wait_for(lambda: "waits for it" in caplog.text)
        fetch(*words, **options)

    monkeypatch.setattr(download, "download_url", fetch_beside_another)
    assert ensure_dataset(tmp_path / TASK, download=True) == tmp_path / TASK
    assert others[0].result(timeout=60) == tmp_path / TASK
    assert len(calls) == 1
    assert [path.name for path in tmp_path.iterdir()] == [TASK]


def test_where_one_fails_the_process_that_has_waited_fetches(tmp_path, monkeypatch, calls, caplog):
    caplog.set_level("INFO", logger=download.__name__)
    fetch, others = download.download_url, []

    def fail_beside_another(*words, **options):
        if others:
            return fetch(*words, **options)
        others.append(ThreadPoolExecutor().submit(ensure_dataset, tmp_path / TASK, download=True))
        wait_for(lambda: "waits for it" in caplog.text)
        raise ConnectionResetError(104, "Connection reset by peer")

    monkeypatch.setattr(download, "download_url", fail_beside_another)
    complaint(tmp_path / TASK, download=True)
    assert others[0].result(timeout=60) == tmp_path / TASK
    assert (tmp_path / TASK / "dataset.json").is_file()
    assert [path.name for path in tmp_path.iterdir()] == [TASK]


def test_what_a_killed_process_has_left_is_removed(tmp_path, calls):
    left, lives = (temporary_path(tmp_path / f".{TASK}", process) for process in (DEAD, os.getppid()))
    for staging in (left, lives):
        (staging / TASK).mkdir(parents=True)
        (staging / f"{TASK}.tar").write_bytes(b"half")
    (tmp_path / f".{TASK}.lock").touch()
    assert ensure_dataset(tmp_path / TASK, download=True) == tmp_path / TASK
    assert set(tmp_path.iterdir()) == {tmp_path / TASK, lives}


def test_interrupted_download_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(url, filepath, **_):
        filepath.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(download, "download_url", interrupt)
    with pytest.raises(KeyboardInterrupt):
        ensure_dataset(tmp_path / TASK, download=True)
    assert list(tmp_path.iterdir()) == []


def test_parent_that_cannot_be_made_is_a_sentence(tmp_path, calls):
    (tmp_path / "file").write_text("in the way")
    assert str(tmp_path / "file" / TASK) in complaint(tmp_path / "file" / TASK, download=True)


def test_archive_is_really_fetched_and_extracted(tmp_path, archive):
    archive()
    folder = ensure_dataset(tmp_path / "data" / TASK, download=True)
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()) == [
        "dataset.json",
        "imagesTr/a.nii.gz",
    ]
    assert [path.name for path in (tmp_path / "data").iterdir()] == [TASK]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"md5": "0" * 32}, "0" * 32),
        ({"members": ["Other/dataset.json"]}, f"{TASK}/dataset.json"),
        ({"members": [f"{TASK}/../../escaped"]}, "escaped"),
        ({"url": "file:///nowhere/Task04_Hippocampus.tar"}, "No such file"),
    ],
)
def test_wrong_archive_is_a_sentence_and_leaves_nothing(tmp_path, archive, changes, said):
    archive(**changes)
    sentence = complaint(tmp_path / "data" / TASK, download=True)
    assert said in sentence
    assert list((tmp_path / "data").iterdir()) == []
    assert not (tmp_path / "escaped").exists()
