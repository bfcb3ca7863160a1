"""A reader sees the old file or the whole new one; numbers and words read back as they were."""

import csv
import errno
import json
import math
import os
import random
import stat
from pathlib import Path

import pytest
import torch

from svgd_monai.errors import RunFolderError
from svgd_monai.files import (
    check_torch,
    read_csv,
    read_json,
    read_torch,
    reason,
    write_bytes,
    write_csv,
    write_json,
    write_text,
    write_torch,
)
from svgd_monai.temporaries import TEMPORARY_SUFFIX


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_content_is_written_and_its_folders_made(tmp_path):
    path = tmp_path / "a" / "b" / "file.bin"
    assert write_bytes(str(path), b"\x00\xff\r\n") == path
    assert path.read_bytes() == b"\x00\xff\r\n"
    assert names(path.parent) == ["file.bin"]


def test_an_old_file_is_replaced(tmp_path):
    path = tmp_path / "file"
    write_bytes(path, b"old and longer")
    write_bytes(path, b"new")
    assert path.read_bytes() == b"new"


def test_a_cache_does_not_wait_for_the_disk_and_is_whole_or_not_there(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", synced.append)
    assert write_bytes(tmp_path / "cache", b"new", durable=False).read_bytes() == b"new"
    write_torch(tmp_path / "tensors", {"a": torch.ones(2)}, durable=False)
    assert read_torch(tmp_path / "tensors")["a"].tolist() == [1, 1]
    assert names(tmp_path) == ["cache", "tensors"]
    assert synced == []
    write_bytes(tmp_path / "file", b"new")
    assert len(synced) == 2  # the file and its folder


@pytest.mark.parametrize("step", ["fsync", "replace", "write"])
def test_a_failure_leaves_the_old_file_and_nothing_beside_it(tmp_path, monkeypatch, step):
    path = tmp_path / "file"
    write_bytes(path, b"old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    if step == "fsync":
        monkeypatch.setattr(os, "fsync", fail)
    elif step == "replace":
        monkeypatch.setattr(Path, "replace", fail)
        monkeypatch.setattr(os, "replace", fail)
        monkeypatch.setattr(os, "rename", fail)
    content = b"new" if step != "write" else "not bytes"
    with pytest.raises(TypeError if step == "write" else OSError):
        write_bytes(path, content)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("step", ["open", "fsync", "replace"])
def test_a_failure_names_the_file_and_not_the_temporary_one(tmp_path, monkeypatch, step):
    def fail(path, *_):
        raise OSError(28, "No space left on device", str(path) if step != "fsync" else None)

    owner = os if step == "fsync" else Path
    monkeypatch.setattr(owner, step, fail)
    with pytest.raises(OSError, match="No space left") as caught:
        write_bytes(tmp_path / "file", b"new")
    assert caught.value.filename == str(tmp_path / "file")


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENAMETOOLONG])
def test_the_file_is_named_where_the_removal_of_the_temporary_one_fails_as_well(tmp_path, monkeypatch, number):
    """As on a disk that is mounted for reading only, which refuses to remove even what is not there."""

    def fail(path, *_, **__):
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(Path, "open", fail)
    monkeypatch.setattr(Path, "unlink", fail)
    with pytest.raises(OSError, match=os.strerror(number)) as caught:
        write_bytes(tmp_path / "file", b"new")
    assert (caught.value.errno, caught.value.filename) == (number, str(tmp_path / "file"))


def of_folders(monkeypatch, number):
    """Have ``fsync`` refuse folders."""
    fsync = os.fsync

    def refuse(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refuse)


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EACCES])
def test_a_file_system_without_fsync_for_folders_is_written_to_all_the_same(tmp_path, monkeypatch, number):
    of_folders(monkeypatch, number)
    assert write_bytes(tmp_path / "file", b"new").read_bytes() == b"new"
    assert names(tmp_path) == ["file"]


def test_a_folder_that_does_not_reach_the_disk_is_an_error_that_names_the_file(tmp_path, monkeypatch):
    of_folders(monkeypatch, errno.EIO)
    with pytest.raises(OSError, match="Input/output error") as caught:
        write_bytes(tmp_path / "file", b"new")
    assert caught.value.filename == str(tmp_path / "file")


@pytest.mark.parametrize("name", ["x" * 250, "ü" * 125, "日" * 83])
def test_a_name_as_long_as_file_systems_take_it_leaves_room_for_the_temporary_one(tmp_path, name):
    assert write_bytes(tmp_path / name, b"new").read_bytes() == b"new"
    assert names(tmp_path) == [name]


def test_the_content_reaches_the_disk_before_its_name_and_the_folder_after(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    acts = []
    fsync, replace = os.fsync, Path.replace

    def spy_fsync(descriptor):
        status = os.fstat(descriptor)
        is_folder = stat.S_ISDIR(status.st_mode)
        acts.append(("fsync", "folder") if is_folder else ("fsync", "file", status.st_size))
        fsync(descriptor)

    def spy_replace(self, target):
        assert path.read_bytes() == b"old"
        assert self.parent == path.parent  # a rename across file systems would be no rename
        assert self.name.endswith(TEMPORARY_SUFFIX)
        acts.append(("replace", self.read_bytes()))
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(Path, "replace", spy_replace)
    write_bytes(path, b"whole content")
    assert acts == [("fsync", "file", 13), ("replace", b"whole content"), ("fsync", "folder")]


def test_text_is_utf_8_with_the_line_ends_given(tmp_path):
    path = write_text(tmp_path / "file", "Größe\nφ\r\n")
    assert path.read_bytes() == "Größe\nφ\r\n".encode()


def test_json_reads_back(tmp_path):
    content = {"name": "Müller, ∇φ", "numbers": [1, 0.1, None, True], "nested": {"a": []}}
    path = write_json(tmp_path / "file.json", content)
    assert read_json(path) == content
    assert path.read_text(encoding="utf-8").endswith("}\n")
    assert "∇φ" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_json_refuses_what_it_does_not_know_and_keeps_the_old_file(tmp_path, value):
    path = write_json(tmp_path / "file.json", {"a": 1})
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"a": [value]})
    assert json.loads(path.read_text()) == {"a": 1}
    assert names(tmp_path) == ["file.json"]


def test_floats_read_back_from_a_csv_exactly(tmp_path):
    generator = random.Random(0)
    values = [generator.uniform(-1, 1) * 10 ** generator.randint(-300, 300) for _ in range(500)]
    values += [0.1 + 0.2, 1 / 3, 5e-324, 1.7976931348623157e308, 1e16, -0.0]
    path = write_csv(tmp_path / "file.csv", ["value"], [{"value": value} for value in values])
    assert [float(row["value"]) for row in read_csv(path)] == values


def test_numpy_floats_read_back_exactly(tmp_path):
    import numpy as np

    path = write_csv(tmp_path / "file.csv", ["value"], [{"value": np.float64(1) / 3}])
    assert path.read_text() == "value\n0.3333333333333333\n"


def test_cells_are_written_as_people_read_them(tmp_path):
    rows = [{"a": True, "b": False, "c": None, "d": 3, "e": "text"}]
    path = write_csv(tmp_path / "file.csv", ["a", "b", "c", "d", "e"], rows)
    assert path.read_bytes() == b"a,b,c,d,e\ntrue,false,,3,text\n"


def test_commas_quotes_and_line_ends_survive(tmp_path):
    values = ["a,b", 'say "no"', "two\nlines", " space ", "", "∇"]
    path = write_csv(tmp_path / "file.csv", ["x", "y"], [{"x": value, "y": 1} for value in values])
    assert [row["x"] for row in read_csv(path)] == values


@pytest.mark.parametrize("value", ["a\rb", "\r", "ends\r", "\r=1+1", "a\r\nb", "\n\r", 'a"\rb', "a,\rb"])
def test_carriage_returns_survive_and_end_no_row(tmp_path, value):
    path = write_csv(tmp_path / "file.csv", ["x", "y"], [{"x": value, "y": value}, {"x": "last", "y": 1}])
    assert read_csv(path) == [{"x": value, "y": value}, {"x": "last", "y": "1"}]
    with path.open(newline="") as file:
        assert not any(cell.startswith("=") for row in csv.reader(file) for cell in row)
    assert path.read_bytes().endswith(b"\nlast,1\n")


FORMULAS = [
    "=1+1",
    "+cmd|' /C calc'!A0",
    "-2+3",
    "@SUM(A1)",
    "\t=1",
    "'=1",
    "''-x",
    "-",
    "'",
    "'a",
    "a=1",
    "-1.5",
    "+7",
    "-inf",
]


def test_no_text_is_a_formula_of_a_spreadsheet_and_each_reads_back(tmp_path):
    path = write_csv(tmp_path / "file.csv", ["x", "y"], [{"x": value, "y": 1} for value in FORMULAS])
    with path.open(newline="") as file:
        raw = [row[0] for row in csv.reader(file)][1:]
    for text, cell in zip(FORMULAS, raw, strict=True):
        number = text in ("-1.5", "+7", "-inf")
        assert number or cell[0] not in "=+-@\t\r", cell
        assert not number or cell == text, "a number that was read as text stays one"
    assert [row["x"] for row in read_csv(path)] == FORMULAS


def test_negative_numbers_are_no_formulas(tmp_path):
    path = write_csv(tmp_path / "file.csv", ["x"], [{"x": -0.5}, {"x": -3}])
    assert path.read_text() == "x\n-0.5\n-3\n"


def test_a_csv_without_rows_keeps_its_header(tmp_path):
    path = write_csv(tmp_path / "file.csv", ["a", "b"], [])
    assert path.read_text() == "a,b\n"
    assert read_csv(path) == []


def test_a_column_that_nobody_announced_is_refused(tmp_path):
    with pytest.raises(ValueError, match="typo"):
        write_csv(tmp_path / "file.csv", ["a"], [{"a": 1, "typo": 2}])
    assert names(tmp_path) == []


def test_tensors_read_back_without_pickled_objects(tmp_path):
    content = {"values": torch.arange(6.0).reshape(2, 3), "name": "x", "steps": [1, 2], "none": None}
    path = write_torch(tmp_path / "file.pt", content)
    loaded = torch.load(path, weights_only=True)
    assert torch.equal(loaded.pop("values"), content.pop("values"))
    assert loaded == content


class TestTensorsThatAreDamaged:
    @pytest.fixture
    def path(self, tmp_path):
        return write_torch(tmp_path / "file.pt", {"values": torch.arange(1000.0)})

    def test_a_flipped_bit_is_noticed_which_torch_would_load_as_a_weight(self, path):
        content = bytearray(path.read_bytes())
        place = content.find(torch.arange(500.0, 510.0).numpy().tobytes())
        content[place + 3] ^= 1
        path.write_bytes(content)
        assert torch.load(path, weights_only=True)["values"][500] != 500
        assert "checksum" in complaint(read_torch, path)
        assert "checksum" in complaint(check_torch, path)

    @pytest.mark.parametrize("kept", [0, 100, -1])
    def test_a_file_that_was_cut_off_is_noticed(self, path, kept):
        path.write_bytes(path.read_bytes()[:kept])
        assert "is damaged or holds no tensors" in complaint(read_torch, path)

    @pytest.mark.parametrize("read", [read_torch, check_torch])
    def test_a_missing_one_is_named(self, tmp_path, read):
        assert "FileNotFoundError" in complaint(read, tmp_path / "none.pt")

    def test_a_pickled_object_is_refused(self, tmp_path):
        path = write_torch(tmp_path / "file.pt", {"a": Path("b")})
        check_torch(path)
        assert "is damaged or holds no tensors" in complaint(read_torch, path)


def complaint(read, path):
    with pytest.raises(RunFolderError) as caught:
        read(path)
    sentence = str(caught.value)
    assert sentence.startswith(str(path))
    assert sentence.endswith(".")
    assert len(sentence.splitlines()) == 1
    return sentence


@pytest.mark.parametrize("read", [read_json, read_csv])
def test_a_missing_file_is_named(tmp_path, read):
    assert "FileNotFoundError" in complaint(read, tmp_path / "none")


@pytest.mark.parametrize("read", [read_json, read_csv])
def test_a_folder_is_named(tmp_path, read):
    complaint(read, tmp_path)


@pytest.mark.parametrize("read", [read_json, read_csv])
def test_a_file_that_is_not_utf_8_is_named(tmp_path, read):
    path = tmp_path / "file"
    path.write_bytes(b'a,b\n"\xff\xfe"\n')
    complaint(read, path)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        '{"a": 1,}',
        "a,b\n1,2\n",
        '{"a": 1, "b": {"c": 1, "c": 2}}',
        "[NaN]",
        "[-Infinity]",
        "[" * 100_000,
        "[" + "1" * 5000 + "]",
    ],
    ids=lambda content: content[:12],
)
def test_a_file_that_is_not_json_is_named(tmp_path, content):
    path = tmp_path / "file.json"
    path.write_text(content)
    assert "cannot be read as JSON" in complaint(read_json, path)


@pytest.mark.parametrize(("content", "line"), [("a,b\n1,2\n3\n", 3), ("a,b\n1,2,3\n", 2)])
def test_a_row_of_another_length_is_named(tmp_path, content, line):
    path = tmp_path / "file.csv"
    path.write_text(content)
    assert f"line {line}" in complaint(read_csv, path)


def test_the_line_is_the_files_own_behind_texts_of_several_lines_and_empty_ones(tmp_path):
    path = tmp_path / "file.csv"
    path.write_text('a,b\n"1\n2",3\n\n4\n')
    assert "line 5" in complaint(read_csv, path)


@pytest.mark.parametrize("content", ["", "\n", "\n\n"])
def test_a_file_without_a_header_is_no_table_without_rows(tmp_path, content):
    path = tmp_path / "file.csv"
    path.write_text(content)
    assert "has no header" in complaint(read_csv, path)


def test_an_open_quote_is_named(tmp_path):
    path = tmp_path / "file.csv"
    path.write_text('a,b\n1,"2\n')
    assert "cannot be read as CSV" in complaint(read_csv, path)


def test_a_column_that_stands_twice_is_named(tmp_path):
    path = tmp_path / "file.csv"
    path.write_text("case,case\n1,2\n")
    assert "two columns" in complaint(read_csv, path)


def test_a_reason_is_one_line():
    assert reason(ValueError("two\n  lines")) == "ValueError: two lines"
    assert reason(KeyError()) == "KeyError"
