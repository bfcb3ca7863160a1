"""Atomic writes: a reader sees the old file or the whole new one, never a part.

Every file that this package leaves behind goes through :func:`write_bytes`: temporary file in the same folder,
``fsync``, ``os.replace``, ``fsync`` of the folder (the recipe of ``rename(2)``). A crash leaves at most a temporary
file, which nothing reads (see :mod:`svgd_monai.temporaries`). Caches of a file a case leave out ``fsync``: it takes
most of the time of writing a small file, and what a machine without power loses of them is found damaged, and made
again.
"""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import pickle
import re
import struct
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch

from svgd_monai.errors import RunFolderError
from svgd_monai.temporaries import temporary_path

#: What zipfile and torch raise on a file that is none of theirs or is damaged, depending on the bytes.
_LOAD_ERRORS = (
    OSError,
    RuntimeError,
    ValueError,
    TypeError,
    EOFError,
    LookupError,
    AssertionError,
    AttributeError,
    NotImplementedError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
    pickle.UnpicklingError,
)

#: What a spreadsheet may execute at the start of a cell; behind apostrophes, so that each text reads back as it was.
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_GUARDED = re.compile(r"''*[=+\-@\t\r]")

#: What a folder says that may be written to and not read, or whose file system (SMB, FUSE) has no ``fsync`` for one.
_NO_FOLDER_SYNC = frozenset({errno.EACCES, errno.EINVAL, errno.ENOTSUP})


def write_bytes(path: str | os.PathLike[str], content: bytes, durable: bool = True) -> Path:
    """Write ``content`` to ``path`` atomically and durably.

    Args:
        path: the file; its folder is made when missing.
        content: the whole content.
        durable: wait until the disk has it; False for a cache whose reader checks what it reads.

    Returns:
        The path written.

    Raises:
        OSError: the file system refuses (full, read-only, no permission); the old file stands, or the whole new one.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_path(path)
    try:
        try:
            with temporary.open("wb") as file:
                file.write(content)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)  # where nothing may be written, it complains as well
        if durable:
            _sync_folder(path.parent)
    except OSError as error:
        # A full disk names no file, others the temporary one: the user knows the one that it was to become.
        raise OSError(error.errno, error.strerror, str(path)) from error
    return path


def write_text(path: str | os.PathLike[str], content: str) -> Path:
    """Write UTF-8 text with :func:`write_bytes`."""
    return write_bytes(path, content.encode("utf-8"))


def write_json(path: str | os.PathLike[str], content: Any) -> Path:
    """Write ``content`` as indented JSON.

    Raises:
        ValueError: ``content`` holds a NaN or an infinity, which JSON does not know.
    """
    return write_text(path, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def write_csv(path: str | os.PathLike[str], columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> Path:
    """Write a CSV with a header; ``None`` becomes an empty field, a float is written so that it reads back exactly.

    A text that a spreadsheet would take for a formula gets an apostrophe before it, which :func:`read_csv` takes away.
    """
    buffer = _Rows(newline="")
    # A text is quoted for what ends lines alone: with "\n" there, a carriage return would break its row.
    writer = csv.DictWriter(buffer, columns, lineterminator="\r\n", extrasaction="raise")
    writer.writeheader()
    writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
    return write_text(path, buffer.getvalue())


def write_torch(path: str | os.PathLike[str], content: Any, durable: bool = True) -> Path:
    """Write tensors and plain values, to be read back with ``torch.load(..., weights_only=True)``."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return write_bytes(path, buffer.getvalue(), durable)


def read_torch(path: str | os.PathLike[str]) -> Any:
    """Read what :func:`write_torch` wrote, to the CPU: tensors and plain values, nothing that could run.

    Raises:
        RunFolderError: the file is missing, is none of torch's, or fails its checksums; torch itself does not look at
            these, and a flipped bit would load as a weight.
    """
    check_torch(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except _LOAD_ERRORS as error:
        raise RunFolderError(f"{path} is damaged or holds no tensors ({type(error).__name__}).") from error


def check_torch(path: str | os.PathLike[str]) -> None:
    """Read a file of :func:`write_torch` and compare its checksums, without loading anything.

    Raises:
        RunFolderError: the file is missing, is none of torch's, or fails its checksums.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except _LOAD_ERRORS as error:
        raise RunFolderError(f"{path} is damaged or holds no tensors ({type(error).__name__}).") from error
    if broken is not None:
        raise RunFolderError(f"{path} is damaged: the checksum of {broken} is wrong.")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file.

    Raises:
        RunFolderError: the file is missing, unreadable or not JSON; also where Python's parser is lenient: a key that
            stands twice, a NaN, an infinity.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        return json.loads(text, object_pairs_hook=_distinct_keys, parse_constant=_no_number)
    except (OSError, ValueError, RecursionError) as error:
        raise RunFolderError(f"{path} cannot be read as JSON ({reason(error)}).") from error


def read_csv(path: str | os.PathLike[str]) -> list[dict[str, str]]:
    """Read a CSV with a header into a dictionary a row.

    Raises:
        RunFolderError: the file is missing, not UTF-8, without a header, a column stands twice, or a row has another
            number of fields than the header.
    """
    try:
        with Path(path).open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            columns = list(reader.fieldnames or ())
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, ValueError, csv.Error) as error:
        raise RunFolderError(f"{path} cannot be read as CSV ({reason(error)}).") from error
    if not columns:
        raise RunFolderError(f"{path} is empty or has no header; it holds no rounds, cases or other rows.")
    if len(set(columns)) < len(columns):
        raise RunFolderError(f"{path} has two columns of the same name.")
    for line, row in rows:
        if None in row or None in row.values():
            raise RunFolderError(f"{path}, line {line}: the number of fields differs from the header's.")
    return [{column: unguarded(value) for column, value in row.items()} for _, row in rows]


def unguarded(cell: str) -> str:
    """A cell's text without the apostrophe that :func:`write_csv` has put before it."""
    return cell[1:] if _GUARDED.match(cell) else cell


def reason(error: BaseException) -> str:
    """One line that says what ``error`` is, for use inside a sentence."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


class _Rows(io.StringIO):
    def write(self, row: str, /) -> int:  # a CSV writer hands over a row at a time
        return super().write(row.removesuffix("\r\n") + "\n")


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(float(value))
    if isinstance(value, str) and _FORMULA.match(value) and not _is_number(value):
        return f"'{value}"
    return value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _distinct_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        twice = next(key for number, (key, _) in enumerate(pairs) if key in dict(pairs[:number]))
        raise ValueError(f"the key {twice!r} occurs twice")
    return content


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":  # elsewhere a folder cannot be opened; the rename is as durable as the system makes it
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
