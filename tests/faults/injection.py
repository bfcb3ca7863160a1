"""Faults for a process that runs the real command line: dead at a write, a write that the system refuses, and the like.

Nothing of the package is touched: an audit hook of the interpreter sees every file that is opened for writing, renamed,
removed or made, whoever does it, before it is done, and may end the process or refuse. ``fsync`` and TensorBoard's
records, which raise no audit event, are wrapped.
"""

import errno
import faulthandler
import gc
import multiprocessing
import os
import re
import resource
import runpy
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch

#: What a command imports, at once or on the way: an optimiser brings torch._dynamo.
PRELOADED = [
    "fire", "matplotlib.backends.backend_agg", "monai.bundle", "svgd_monai.rounds", "tensorboard.summary.writer",
    "torch._dynamo", "torch.utils.tensorboard",
]  # fmt: skip
HANGS = 240  # seconds that no command takes
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_PATH_EVENTS = {"os.rename": 1, "os.remove": 0, "os.mkdir": 0}  # which argument is the path that changes


class Point(NamedTuple):
    """One write of a run: the n-th time that something is done to a file."""

    act: str  # open, sync, rename, remove, mkdir, record
    path: str  # relative to the run's folder; tensorboard/events for all event files
    number: int


@dataclass(frozen=True)
class Fault:
    """What goes wrong in a process.

    Args:
        kind: ``kill``, ``torn`` (killed with half of the file written), ``term``, ``refuse``, or a name of ``_OTHER``.
        point: the write at which it does; None where the kind needs none.
        number: of the system's error for ``refuse``; of the call, the second and so on for other kinds.
        lasting: whether the system goes on refusing.
        where: what else a kind needs.
    """

    kind: str
    point: Point | None = None
    number: int = errno.ENOSPC
    lasting: bool = True
    where: str = ""


@dataclass
class _Hook:
    folder: str
    fault: Fault | None
    trace: Path | None
    seen: Counter = field(default_factory=Counter)
    pid: int = field(default_factory=os.getpid)
    refusing: bool = False

    def audit(self, event, arguments):
        if event == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & _WRITES and not isinstance(path, int):
                self.act("open", path)
        elif event in _PATH_EVENTS:
            self.act(event.removeprefix("os."), arguments[_PATH_EVENTS[event]])

    def act(self, act, path):
        path = os.path.abspath(os.fsdecode(path))  # noqa: PTH100 - a Path would be slow here
        if os.getpid() != self.pid or not path.startswith(self.folder + os.sep):
            return
        point = self._point(act, path[len(self.folder) + 1 :])
        if self.trace is not None:
            with self.trace.open("a") as file:
                file.write("\t".join(map(str, point)) + "\n")
        if self.fault is None or self.fault.point is None:
            return
        if point == self.fault.point:
            self._strike(path)
        elif self.refusing and self.fault.lasting and act not in ("remove",):
            raise self._refusal(path)

    def _point(self, act, path):
        path = re.sub(r"\.\d+\.[0-9a-f]{16}\.tmp$", "", path)
        if path.startswith("tensorboard" + os.sep):
            path = "tensorboard/events"
        self.seen[act, path] += 1
        return Point(act, path, self.seen[act, path])

    def _strike(self, path):
        kind = self.fault.kind
        if kind == "torn":
            os.truncate(path, os.stat(path).st_size // 2)  # noqa: PTH116
        if kind in ("kill", "torn"):
            os.kill(os.getpid(), signal.SIGKILL)
        elif kind == "term":
            os.kill(os.getpid(), signal.SIGTERM)
        elif kind == "refuse":
            self.refusing = True
            raise self._refusal(path)
        else:
            _AT_POINT[kind](self.fault)

    def _refusal(self, path):
        return OSError(self.fault.number, os.strerror(self.fault.number), path)


def _watch(hook):
    """Have ``hook`` told of every write of this process."""
    from tensorboard.summary.writer.record_writer import RecordWriter

    fsync, record = os.fsync, RecordWriter.write

    def watched_fsync(descriptor):
        number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
        hook.act("sync", os.readlink(f"/proc/self/fd/{number}"))  # noqa: PTH115
        fsync(descriptor)

    def watched_record(self, data):
        hook.act("record", f"{hook.folder}/tensorboard/events")
        record(self, data)

    os.fsync, RecordWriter.write = watched_fsync, watched_record
    sys.addaudithook(hook.audit)


def _step_fails(fault, error):
    from svgd_monai.committee.posterior import PosteriorStep

    original, calls = PosteriorStep.__call__, 0

    def step(self, *arguments):
        nonlocal calls
        calls += 1
        if calls == fault.number:
            error()
        return original(self, *arguments)

    PosteriorStep.__call__ = step


def _cuda_memory():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 1 GiB.")


def _memory():
    """The kernel gives this process no more memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + (8 << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))
    torch.empty(1 << 28)


def _dying_worker(fault):
    """The process that loads the n-th item is killed, as by the kernel when memory is short."""
    from torch.utils.data import get_worker_info

    from svgd_monai.data import VolumeDataset

    original, calls = VolumeDataset._transform, 0

    def transform(self, index):
        nonlocal calls
        if get_worker_info() is not None:
            calls += 1
            if calls == fault.number:
                os.kill(os.getpid(), signal.SIGKILL)
        return original(self, index)

    VolumeDataset._transform = transform


def _clock_back(fault):
    """The wall clock jumps back by a day at the n-th look at it; the other clock, which measures, does not."""
    real, looks = time.time, 0

    def clock():
        nonlocal looks
        looks += 1
        return real() - (86400 if looks >= fault.number else 0)

    time.time = clock


def _as_nobody(fault):
    import torch._dynamo  # noqa: F401 an optimiser imports it, and nobody may not enter root's own Python

    os.setgid(65534)
    os.setuid(65534)


_OTHER = {
    "cuda memory": lambda fault: _step_fails(fault, _cuda_memory),
    "memory": lambda fault: _step_fails(fault, _memory),
    "worker": _dying_worker,
    "clock": _clock_back,
    "nobody": _as_nobody,
}
#: What may happen to the world while the process is at a point; ``where`` says to which file.
_AT_POINT = {
    "remove": lambda fault: os.rename(fault.where, fault.where + ".gone"),  # noqa: PTH104
    "replace": lambda fault: os.replace(fault.where + ".other", fault.where),  # noqa: PTH105
}


class End(NamedTuple):
    """How a command ended."""

    code: int  # minus the signal where one killed it
    out: str
    err: str

    @property
    def last_line(self):
        """The last line on stderr, empty when there is none."""
        return self.err.rstrip().rpartition("\n")[2]


def _child(argv, folder, streams, fault, trace):
    for stream, name in ((1, "out"), (2, "err")):  # the fork server's own streams are not those of the caller
        os.dup2(os.open(streams / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    torch.set_num_threads(1)
    faulthandler.dump_traceback_later(HANGS, exit=True)  # a command that hangs says where
    multiprocessing.set_start_method("fork", force=True)  # of loader workers, as in a process that nobody forked
    gc.freeze()  # what the fork server has imported: each stage's collection would go through all of it
    if fault is not None and fault.kind in _OTHER:
        _OTHER[fault.kind](fault)
    _watch(_Hook(str(folder), fault, trace))
    sys.argv = ["monai.bundle", *argv]
    runpy.run_module("monai.bundle", run_name="__main__", alter_sys=True)


def start(argv, folder, streams, fault=None, trace=None):
    """Start the real command line in a process of its own; the fork server has the imports done."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["svgd_monai.rounds", "monai.bundle", "torch.utils.tensorboard", "matplotlib.figure"]
    )
    process = context.Process(target=_child, args=(argv, folder, streams, fault, trace))
    process.start()
    return process


def run(argv, folder, fault=None, trace=None):
    """Run a command to its end.

    Args:
        argv: its words.
        folder: the run's folder, whose writes are watched.
        fault: what goes wrong; None: nothing.
        trace: file to which every write is noted.
    """
    with tempfile.TemporaryDirectory() as streams:
        Path(streams).chmod(0o777)
        process = start(argv, folder, Path(streams), fault, trace)
        process.join()
        out, err = (Path(streams, name).read_text(errors="replace") for name in ("out", "err"))
        return End(process.exitcode, out, err)
