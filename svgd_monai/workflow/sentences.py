"""The one sentence that a user reads in place of a traceback."""

from __future__ import annotations

import errno
import os
import pydoc
import re
import sys
import traceback
from collections.abc import Collection, Iterator
from types import CodeType, TracebackType

import torch
from monai.utils import OptionalImportError

from svgd_monai.errors import SvgdMonaiError, causes
from svgd_monai.files import reason

GO_ON = "the same command goes on where this one stopped"
#: Of a configuration that keeps nothing of what it has done until it is done.
BEGIN_ANEW = "the same command begins anew"
#: What a file system says of itself, though not always of which file: TensorBoard's writer does not.
_FILE_SYSTEM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE})
#: What calls a component: MONAI, and the committee for each of its members.
_MAKERS = frozenset({("monai.utils.module", "instantiate"), ("svgd_monai.committee.particles", "fresh_network")})
#: What calls the loss, and where those that are not a user's own lie.
_TRAINS = ("svgd_monai.committee.trainer", "_descend")
_LOSSES = re.compile(r"(monai\.losses|torch\.nn\.modules\.loss|svgd_monai\.committee\.loss)(\.|$)")
_IN_TRACEBACK = re.compile(rf"^{SvgdMonaiError.__module__}\.\w+: (.+)$", re.MULTILINE)


def sentence_of(error: BaseException | None) -> str | None:
    """The sentence of the first user's error in the chain of causes; else of the first that MONAI or the system has."""
    other: str | None = None
    for found in causes(error):
        if (handed_on := _handed_on(found)) is not None:
            return handed_on
        if isinstance(found, SvgdMonaiError):
            return " ".join(str(found).split())
        if other is None and isinstance(found, OSError) and found.filename is not None:
            other = f"{found.filename}: {found.strerror}."
        other = other or _shortage(found) or _mistake(found)
    return other


def tell_cause(error: BaseException) -> None:
    """Have a line follow the traceback, whose own last one is MONAI's and names a component that is not to blame."""
    first, *_ = reversed([error, *_raised_from(error)])
    frames = traceback.extract_tb(first.__traceback__)
    place = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    before = sys.excepthook

    def hook(kind: type[BaseException], ended: BaseException, trace: TracebackType | None) -> None:
        sys.excepthook = before
        before(kind, ended, trace)
        if ended is not first and any(found is first for found in causes(ended)):
            sys.stderr.write(f"It began with {reason(first)}{place}.\n")

    sys.excepthook = hook


def _raised_from(error: BaseException) -> Iterator[BaseException]:
    """What an error was raised from, and so on; not what was merely handled as it was raised."""
    seen = {id(error)}
    while (cause := error.__cause__) is not None and id(cause) not in seen:  # they can go round in a circle
        seen.add(id(cause))
        yield cause
        error = cause


def no_component(name: str) -> str:
    """The sentence of a name, in quotes, that stands for nothing."""
    where = "the current folder, on PYTHONPATH or in an installed package"
    return f"_target_: {name} is neither a component of MONAI's nor the path of one in {where}."


def _handed_on(error: BaseException) -> str | None:
    """The sentence of the user's error of a loader's worker, of which torch hands on nothing but the traceback."""
    text = str(error)
    sentences = _IN_TRACEBACK.findall(text) if " in DataLoader worker process " in text.partition("\n")[0] else ()
    return sentences[-1] if sentences else None  # the outermost stands last


def _shortage(error: BaseException) -> str | None:
    """The sentence of an error that says that the machine has too little of something."""
    text = " ".join(str(error).split())
    if isinstance(error, OSError) and error.errno in _FILE_SYSTEM:
        return f"A file cannot be written: {os.strerror(error.errno)}; {GO_ON}."
    if isinstance(error, RuntimeError) and text.startswith("DataLoader worker"):
        return (
            "A worker that loads data has died, often for want of memory; --num_workers 0 loads without workers; "
            f"{GO_ON}."
        )
    memory = isinstance(error, (MemoryError, torch.OutOfMemoryError)) or getattr(error, "errno", None) == errno.ENOMEM
    if memory or (isinstance(error, RuntimeError) and "can't allocate memory" in text):
        device = "of the GPU " if "CUDA" in text else ""
        return (
            f"The memory {device}does not suffice. On a machine with more, {GO_ON}; a smaller batch_size, roi_size or "
            "num_particles needs less, in another output_dir if this one holds a training."
        )
    return None


def _mistake(error: BaseException) -> str | None:
    """The sentence of an error with which a library refuses what a configuration gives it."""
    text = " ".join(str(error).split()).rstrip(".")
    if isinstance(error, pydoc.ErrorDuringImport):
        return f"_target_: {text}."
    if isinstance(error, OptionalImportError):
        # Behind these words MONAI hands on the traceback of the import.
        text = text.partition(" For details about installing")[0].partition(" Original traceback")[0]
        return f"A component needs a package that is not installed: {text.rstrip('.')}."
    places = [
        (str(frame.f_globals.get("__name__", "")), frame.f_code) for frame, _ in traceback.walk_tb(error.__traceback__)
    ]
    place = places[-1][0] if places else ""
    if place == "monai.utils.module" and isinstance(error, ModuleNotFoundError):
        return no_component(text.removeprefix("Cannot locate class or function path: "))
    if place == "monai.utils.module" and isinstance(error, TypeError):  # the call itself, nothing within
        return f"_target_: {text}."
    if place == "monai.bundle.reference_resolver" and isinstance(error, ValueError):
        return f"{text[:1].upper()}{text[1:]}."
    refused = _refusal(places, text) if isinstance(error, ValueError) else None
    unfit = isinstance(error, (AssertionError, IndexError, RuntimeError, ValueError)) and "CUDA" not in text
    return refused or (_refused_batch(places, text) if unfit else None)


def _refusal(places: list[tuple[str, CodeType]], text: str) -> str | None:
    """The sentence of a constructor of MONAI's or torch's that refuses a value which a configuration gives it."""
    called = _called(places, _MAKERS, {"monai", "torch"})
    refusing = next((code.co_qualname for _, code in called if code.co_name == "__init__"), None)
    return None if refusing is None else f"_target_: {refusing}(): {text}."


def _refused_batch(places: list[tuple[str, CodeType]], text: str) -> str | None:
    """The sentence of a loss of MONAI's, torch's or this package's that refuses what a training gives it."""
    called = _called(places, {_TRAINS}, {"monai", "torch", "svgd_monai"})
    refusing = next((c.co_qualname for module, c in called if c.co_name == "forward" and _LOSSES.match(module)), None)
    given = "a bundle gives it logits (B, C, ...) and classes (B, 1, ...)"
    return None if refusing is None else f"loss: {refusing}(): {text}; {given}."


def _called(
    places: list[tuple[str, CodeType]], callers: Collection[tuple[str, str]], libraries: Collection[str]
) -> list[tuple[str, CodeType]]:
    """What ran below the last of some callers; nothing if part of it is a user's own, whose traceback tells where."""
    calls = [number for number, (module, code) in enumerate(places) if (module, code.co_name) in callers]
    called = places[calls[-1] + 1 :] if calls else []
    return called if all(module.partition(".")[0] in libraries for module, _ in called) else []
