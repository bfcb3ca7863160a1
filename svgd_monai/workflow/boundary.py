"""Where a configuration enters our code, and where an error of the user's becomes one sentence.

A bundle's YAML begins with ``initialize: [{_target_: svgd_monai.workflow.enter}]`` and runs its ``steps`` through
``run: [{_target_: svgd_monai.workflow.run_steps}]``. MONAI would report an error inside either as "Failed to evaluate
ConfigExpression", many frames deep; here it ends the program with the sentence of the
:class:`~svgd_monai.errors.SvgdMonaiError`, as the last line on stderr. No code below this module exits.

What the user typed is not in the configuration that MONAI hands on (a null is dropped, a mistyped key is merged), so it
is read where it still is: in the frame of ``monai.bundle.run`` that called us.
"""

from __future__ import annotations

import inspect
import logging
import pydoc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from monai.bundle import ConfigParser, ConfigWorkflow
from monai.bundle.scripts import run as bundle_run

from svgd_monai.errors import SettingsError, SvgdMonaiError
from svgd_monai.workflow.settings import KEYS, check_like, check_setting
from svgd_monai.workflow.tracking import Tracking, check_tracking, tracking_keys

logger = logging.getLogger(__name__)

#: Keys of a configuration that are its own machinery and not handed on.
MACHINERY = ("_meta_", "imports", "initialize", "run", "finalize", "steps")
_STEPS = "steps"


@dataclass
class Caller:
    """The MONAI workflow that evaluates the configuration.

    Attributes:
        workflow: it.
        typed: the key-value pairs of the command line (or of the call of ``monai.bundle.run``).
        files: the configuration files; empty when the workflow was not made by ``monai.bundle.run``.
        tracking: what ``--tracking`` says.
    """

    workflow: ConfigWorkflow
    typed: dict[str, Any] = field(default_factory=dict)
    files: Any = ()
    tracking: Tracking = None


def calling_workflow() -> Caller:
    """Find the workflow that is evaluating the configuration which called us.

    Raises:
        RuntimeError: the caller is not a configuration.
    """
    workflow: ConfigWorkflow | None = None
    frame: FrameType | None = inspect.currentframe()
    while frame is not None:
        candidate = frame.f_locals.get("self")
        if workflow is None and isinstance(candidate, ConfigWorkflow):
            workflow = candidate
        if workflow is not None and frame.f_code is bundle_run.__code__:
            return Caller(workflow, *_typed(frame.f_locals))
        frame = frame.f_back
    if workflow is None:
        raise RuntimeError("svgd_monai.workflow is for configurations that `python -m monai.bundle run` evaluates.")
    return Caller(workflow)


def _typed(arguments: dict[str, Any]) -> tuple[dict[str, Any], Any, Tracking]:
    own = {*inspect.signature(bundle_run).parameters, *inspect.signature(ConfigWorkflow).parameters}
    defaults = ConfigParser.load_config_file(arguments["args_file"]) if arguments["args_file"] else {}
    typed = {k: v for k, v in {**defaults, **arguments["override"]}.items() if k not in own}
    files = arguments["config_file"] or defaults.get("config_file", ())
    return typed, files, arguments["tracking"] or defaults.get("tracking")


def enter() -> None:
    """Check the configuration that called us, and put its values into their types.

    Raises:
        SystemExit: a key of the command line is unknown, or a value is of the wrong type or out of range.
    """
    with boundary():
        caller = calling_workflow()
        parser = caller.workflow.parser
        if parser.get("bundle_root", ".") == ".":
            parser["bundle_root"] = str(Path(caller.workflow.config_root_path).resolve().parent)
        _check_typed(caller)
        check_tracking(parser, caller.tracking)
        later = []
        for name in KEYS:
            if name not in parser:
                continue
            if _is_computed(parser[name]):
                later.append(name)
            else:
                parser[name] = check_setting(name, parser[name])
        for name in later:
            value = parser.get_parsed_content(name)
            checked = check_setting(name, str(value) if KEYS[name].kind == "str" else value)
            if repr(checked) != repr(value):  # what is in its type already stays an expression
                parser[name] = checked


def run_steps() -> None:
    """Evaluate the calling configuration's ``steps``, one after the other.

    Raises:
        SystemExit: with the sentence of the error, when it is one of the user's or of the file system's.
    """
    with boundary():
        evaluate_steps(calling_workflow().workflow.parser)


def evaluate_steps(parser: ConfigParser) -> None:
    """Evaluate the expressions under ``steps``."""
    for index in range(len(parser[_STEPS])):
        parser.get_parsed_content(f"{_STEPS}::{index}")


@contextmanager
def boundary() -> Iterator[None]:
    """Turn an error that a user can mend, however deep MONAI has wrapped it, into an exit with its sentence."""
    try:
        yield
    except KeyboardInterrupt:
        raise SystemExit("Interrupted; the same command goes on where this one stopped.") from None
    except Exception as error:
        sentence = _sentence(error)
        if sentence is None:
            raise
        logger.debug("ended by", exc_info=error)
        raise SystemExit(sentence) from None


def _sentence(error: BaseException | None) -> str | None:
    """The sentence of the first user's error in the chain of causes; else of the first that MONAI or the system has."""
    other: str | None = None
    while error is not None:
        if isinstance(error, SvgdMonaiError):
            return " ".join(str(error).split())
        if other is None and isinstance(error, OSError) and error.filename is not None:
            other = f"{error.filename}: {error.strerror}."
        other = other or _mistake(error)
        error = error.__cause__ or error.__context__
    return other


def _mistake(error: BaseException) -> str | None:
    """The sentence of an error with which MONAI refuses a component or a reference of a configuration."""
    text = " ".join(str(error).split()).rstrip(".")
    if isinstance(error, pydoc.ErrorDuringImport):
        return f"_target_: {text}."
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    place = "" if frame is None else frame.tb_frame.f_globals.get("__name__", "")
    if place == "monai.utils.module" and isinstance(error, ModuleNotFoundError):
        name = text.removeprefix("Cannot locate class or function path: ")
        where = "the current folder, on PYTHONPATH or in an installed package"
        return f"_target_: {name} is neither a component of MONAI's nor the path of one in {where}."
    if place == "monai.utils.module" and isinstance(error, TypeError):  # the call itself, nothing within
        return f"_target_: {text}."
    if place == "monai.bundle.reference_resolver" and isinstance(error, ValueError):
        return f"{text[:1].upper()}{text[1:]}."
    return None


def _check_typed(caller: Caller) -> None:
    """The command line may set what the configuration files know, no more; overlay files may add keys."""
    if not caller.typed:
        return
    known = ConfigParser(ConfigParser.load_config_files(caller.files))
    tracked = tracking_keys(caller.tracking)
    parser = caller.workflow.parser
    for name, value in caller.typed.items():
        if name in tracked and name not in known:
            continue
        if name not in known:
            raise SettingsError(f"--{name} is not a key of {_names(caller.files)}.")
        if name in KEYS:
            if value is None:  # MONAI drops it
                parser[name] = None
        elif not _is_computed(value) and not _is_computed(known[name]):
            parser[name] = check_like(name, value, known[name])


def _is_computed(value: Any) -> bool:
    """Whether a raw value is an expression, a reference, a macro or a component."""
    return (isinstance(value, str) and value[:1] in ("$", "@", "%")) or isinstance(value, dict)


def _names(files: Any) -> str:
    names = files.split(",") if isinstance(files, str) else list(files)
    return " and ".join(str(name) for name in names)
