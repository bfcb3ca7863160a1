"""Where a configuration enters our code, and where an error of the user's becomes one sentence.

A bundle's YAML begins with ``initialize: [{_target_: svgd_monai.workflow.enter}]`` and runs its ``steps`` through
``run: [{_target_: svgd_monai.workflow.run_steps}]``. MONAI would report an error inside either as "Failed to evaluate
ConfigExpression", many frames deep; here it ends the program with the sentence of the
:class:`~svgd_monai.errors.SvgdMonaiError`, as the last line on stderr. No code below this module exits.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from monai.bundle import ConfigParser

from svgd_monai.errors import SettingsError
from svgd_monai.seeding import use_deterministic_algorithms
from svgd_monai.workflow.caller import Caller, calling_workflow
from svgd_monai.workflow.keys import KEYS
from svgd_monai.workflow.meeting import TERMINATED, check_met, lost_process, meeting, one_voice
from svgd_monai.workflow.overlays import check_overlays
from svgd_monai.workflow.parts import note_parts
from svgd_monai.workflow.sentences import BEGIN_ANEW, GO_ON, sentence_of, tell_cause
from svgd_monai.workflow.settings import as_word, check_like, check_setting
from svgd_monai.workflow.tracking import check_tracking, tracking_keys

logger = logging.getLogger(__name__)

#: Keys of a configuration that are its own machinery and not handed on.
MACHINERY = ("_meta_", "imports", "initialize", "run", "finalize", "steps")
_STEPS = "steps"
_GO_ON = ("train", "stages")  # which a training has, and what trains: they keep what they have done
_IN_BUNDLE = ("output_dir", "committee_file", "model_file")  # what lies in the bundle's folder unless it is set
_LEFT = f"A part of the configuration, such as a hook or a handler, has ended one process of this run; {GO_ON}."


class _Terminated(KeyboardInterrupt):
    """A scheduler, or whoever sends SIGTERM, wants the process to end; libraries let it pass as they let Ctrl-C."""


def enter() -> None:
    """Check the configuration that called us, and put its values into their types.

    Raises:
        SystemExit: a key of the command line is unknown, or a value is of the wrong type or out of range.
    """
    with boundary():
        check_met()
        caller = calling_workflow()
        parser = caller.workflow.parser
        if parser.get("bundle_root", ".") == ".":
            parser["bundle_root"] = root = str(Path(caller.workflow.config_root_path).resolve().parent)
            if "#" in root and (within := [key for key in _IN_BUNDLE if "@bundle_root" in str(parser.get(key))]):
                why = f"the bundle's folder {root} holds a #, which MONAI turns into ::"
                raise SettingsError(f"{within[0]}: {why}; move the bundle, or set {' and '.join(within)}.")
        if caller.files:
            check_overlays(caller.files, parser.get("stages"))
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
            checked = check_setting(name, str(value) if KEYS[name].kind in ("str", "path") else value)
            if repr(checked) != repr(value):  # what is in its type already stays an expression
                parser[name] = checked
        note_parts(parser)
        if parser.get("deterministic", False):
            use_deterministic_algorithms()


def run_steps() -> None:
    """Evaluate the calling configuration's ``steps``, one after the other.

    Raises:
        SystemExit: with the sentence of the error, when it is one of the user's or of the file system's.
    """
    with boundary():
        parser = calling_workflow().workflow.parser
    with boundary(goes_on=any(key in parser for key in _GO_ON)):
        evaluate_steps(parser)


def evaluate_steps(parser: ConfigParser) -> None:
    """Evaluate the expressions under ``steps``; another call does so again, as MONAI does with those under ``run``."""
    for index in range(len(parser[_STEPS])):
        step = f"{_STEPS}::{index}"
        parser.get_parsed_content(step)
        parser.ref_resolver.remove_resolved_content(step)


@contextmanager
def boundary(goes_on: bool = True) -> Iterator[None]:
    """Turn an error that a user can mend, however deep MONAI has wrapped it, into an exit with its sentence.

    Args:
        goes_on: whether the same command goes on where this one stops, as sentences on a stop then say.
    """

    def said(sentence: str) -> str | int:
        return one_voice(sentence if goes_on else sentence.replace(GO_ON, BEGIN_ANEW))

    try:
        with _termination(), _threads():
            yield
    except _Terminated:
        raise SystemExit(said(f"Terminated; {GO_ON}." if meeting() is None else TERMINATED)) from None
    except KeyboardInterrupt:
        raise SystemExit(said(f"Interrupted; {GO_ON}.")) from None
    except SystemExit as end:  # a part's of the user's, or of a boundary within
        word = said(_LEFT)
        if meeting() is None or end.code:
            raise
        raise SystemExit(word) from None  # with status 0 the launcher would wait for the others, and they for this one
    except Exception as error:
        sentence = sentence_of(error) or lost_process(error)
        if sentence is None:
            if one_voice("") == "":
                tell_cause(error)
            raise
        logger.debug("ended by", exc_info=error)
        raise SystemExit(said(sentence)) from None


@contextmanager
def _termination() -> Iterator[None]:
    """Within, SIGTERM is an exception, so that what is half-written goes; unless somebody else has a use for it."""
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def _threads() -> Iterator[None]:
    """Within, a thread that ends with an error that a user can mend says so in a line.

    TensorBoard writes in a thread of its own, and raises in ours what ended it.
    """
    if threading.current_thread() is not threading.main_thread():  # boundaries of other threads may overlap
        yield
        return
    before = threading.excepthook

    def hook(ended: Any) -> None:
        sentence = sentence_of(ended.exc_value)
        if sentence is None:
            before(ended)
        else:
            logger.warning("%s", sentence)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = before


def _terminate(*_: Any) -> NoReturn:
    # A signal to the whole group ends a loader's workers too, and torch would raise, wherever the end has come to, that
    # they are gone. (Without any handler, Python itself complains of a signal that is waiting already.)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    raise _Terminated


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
        if isinstance(value, str) and "#" in value and not _is_computed(value):
            raise SettingsError(f"{name}: {value!r} holds a #, which MONAI turns into ::; do without it.")
        if name in KEYS:
            if value is None:  # MONAI drops it
                parser[name] = None
        elif not _is_computed(value):
            parser[name] = as_word(value) if _is_computed(known[name]) else check_like(name, value, known[name])


def _is_computed(value: Any) -> bool:
    """Whether a raw value is an expression, a reference, a macro or a component."""
    return (isinstance(value, str) and value[:1] in ("$", "@", "%")) or isinstance(value, dict)


def _names(files: Any) -> str:
    names = files.split(",") if isinstance(files, str) else list(files)
    return " and ".join(str(name) for name in names)
