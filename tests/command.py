"""The real command line, ``python -m monai.bundle``, run in this process or in one of its own."""

import contextlib
import io
import logging
import os
import runpy
import subprocess
import sys
import traceback
from dataclasses import dataclass
from unittest import mock

#: Keys with which a whole loop takes seconds. A side of 16 voxels needs another of 32: the network halves four times.
TINY = {
    "device": "cpu",
    "num_particles": 2,
    "features": [2, 2, 2, 2, 4, 2],
    "spacing": [3, 3, 3],
    "roi_size": [16, 32, 16],
    "mi_grid": [8, 8, 8],
    "rounds": 1,
    "steps_per_round": 2,
    "validations_per_round": 1,
    "batch_size": 2,
    "initial_labelled": 3,
    "validation_cases": 2,
    "test_cases": 2,
    "surface_distances": "false",
}


@dataclass(frozen=True)
class Result:
    """What a command ended with."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def last_line(self):
        """The last line on stderr, empty when there is none."""
        return self.stderr.rstrip().rpartition("\n")[2]


def words(*configs, **keys):
    """The words of a ``run`` of configuration files, overlays last, with keys as a user types them."""
    files = str(configs[0]) if len(configs) == 1 else str([str(config) for config in configs])
    return ["run", "--config_file", files, *(str(word) for key in keys for word in (f"--{key}", keys[key]))]


def run_bundle(*arguments):
    """``python -m monai.bundle ARGUMENTS`` in this process; its end is told as the interpreter would tell it."""
    stdout, stderr = io.StringIO(), io.StringIO()
    argv = ["monai.bundle", *map(str, arguments)]
    with (
        _logging_restored(),
        mock.patch.object(sys, "argv", argv),
        mock.patch.object(sys, "path", list(sys.path)),
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
        _Interpreter() as interpreter,
    ):
        runpy.run_module("monai.bundle", run_name="__main__", alter_sys=True)
    return Result(interpreter.exit_code, stdout.getvalue(), stderr.getvalue())


def run_bundle_subprocess(*arguments, timeout=120, cwd=None):
    """``python -m monai.bundle ARGUMENTS`` in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "monai.bundle", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    return Result(done.returncode, done.stdout, done.stderr)


class _Interpreter:
    """Tells how a program ended as the interpreter does: the word of an exit or the traceback on stderr, and a code."""

    exit_code = 0

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if isinstance(error, SystemExit):
            if error.code is None or isinstance(error.code, int):
                self.exit_code = error.code or 0
            else:
                sys.stderr.write(f"{error.code}\n")
                self.exit_code = 1
        elif isinstance(error, Exception):
            traceback.print_exception(error)
            self.exit_code = 1
        else:
            return False  # no error, or the interrupt of whoever runs the tests
        return True


@contextlib.contextmanager
def _logging_restored():
    """A bundle's logging.conf replaces the handlers of the root logger, those of pytest among them."""
    loggers = [
        logging.root,
        *(log for log in logging.root.manager.loggerDict.values() if isinstance(log, logging.Logger)),
    ]
    before = [(log, log.handlers[:], log.level, log.propagate, log.disabled) for log in loggers]
    try:
        yield
    finally:
        for log, handlers, level, propagate, disabled in before:
            log.handlers[:] = handlers
            log.setLevel(level)
            log.propagate, log.disabled = propagate, disabled
