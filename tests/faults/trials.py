"""The disturbances: each function names its trials, with what makes each happen and judges it."""

import errno
import itertools
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from injection import Fault, Point, run, start
from lab import queries

#: Moments of one atomic write: half of it on disk, whole but not renamed, renamed. A cache's has no first one.
MOMENTS = {"torn": "sync", "unnamed": "rename", "done": "remove"}
VOLUMES = 2  # of the cache's volumes, all of which are written alike
ROUND_1 = Fault("kill", Point("rename", "round_001/training.pt", 2))  # round 0 complete, round 1 half trained


class Trial(NamedTuple):
    """A disturbance."""

    fault: str  # the row of the table
    place: str
    happen: Callable  # (fault, place) -> Finding


def writes(lab):
    """The distinct writes of a run, with the moments of each: (path, n-th time) of every file, in their order."""
    volumes = 0
    for point in lab.points:
        if point.act == "rename":
            volumes += point.path.startswith("cache/volumes")
            if not point.path.startswith("cache/volumes") or volumes <= VOLUMES:
                yield point.path, point.number
    yield "tensorboard/events", 1
    yield "tensorboard/events", 20


def killed(lab, signal):
    """SIGKILL or SIGTERM at every write, at each of its moments in turn."""
    moments = itertools.cycle(MOMENTS)
    for path, number in writes(lab):
        moment = next(moments)
        if Point("sync", path, number) not in lab.points and moment == "torn":
            moment = next(moments)  # of a cache, for which nobody waits
        act = MOMENTS[moment] if not path.startswith("tensorboard") else "record"
        kind = {"SIGTERM": "term", "SIGKILL": "torn" if act == "sync" else "kill"}[signal]
        fault = Fault(kind, Point(act, path, number))
        place = f"{lab.plain(path)} ({number}), {'record' if act == 'record' else moment}"
        yield Trial(f"{signal} at a write", place, partial(strike, lab, fault, -9 if signal == "SIGKILL" else 1))


def strike(lab, fault, expected_code, row, place, again_fault=None, **keys):
    """One fault in a run of its own, and the same command again."""
    folder = lab.fresh()
    argv = lab.argv(folder, **keys)
    end = run(argv, folder, fault)
    return lab.judge(row, place, folder, end, lambda: run(argv, folder, again_fault), expected_code)


def refused(lab, row, number, every):
    """The system refuses a write and all that follow it."""
    for index, (path, count) in enumerate(writes(lab)):
        if path.startswith("tensorboard") or index % every:
            continue
        synced = number == errno.ENOSPC and Point("sync", path, count) in lab.points
        act = ("open", "sync")[index // every % 2] if synced else "open"
        fault = Fault("refuse", Point(act, path, count), number)
        yield Trial(row, f"{lab.plain(path)} ({count}), {act}", partial(strike, lab, fault, 1))
    # In a training, by the writer's own thread: it raises its error again as it is closed.
    fault = Fault("refuse", Point("record", "tensorboard/events", 20), number)
    yield Trial(row, "tensorboard/events (20), record", partial(strike, lab, fault, 1))


def full_disk(lab, sizes=(64, 128, 192, 256, 320, 384)):
    """A real small disk that is full, and larger when the user has made room."""
    if may_mount():
        for size in sizes:
            yield Trial("full disk", f"of {size} KiB", partial(_full_disk, lab, size))


def _full_disk(lab, size, row, place):
    with Mount(lab.fresh(), f"size={size}k,mode=777") as folder:
        argv = lab.argv(folder)
        end = run(argv, folder)
        remount(folder, "size=64m")
        return lab.judge(row, place, folder, end, lambda: run(argv, folder))


def read_only_disk(lab):
    """A disk that has become read-only, and is mended."""
    if may_mount():
        yield Trial("read-only disk", "a half-trained run", partial(_read_only_disk, lab))


def _read_only_disk(lab, row, place):
    with Mount(lab.fresh(), "size=64m,mode=777") as folder:
        shutil.copytree(lab.stopped_at(ROUND_1), folder, dirs_exist_ok=True)
        remount(folder, "ro")
        argv = lab.argv(folder)
        end = run(argv, folder)
        remount(folder, "rw")
        return lab.judge(row, place, folder, end, lambda: run(argv, folder))


def permissions(lab):
    """Files that the user may not write or read; only root can play this, as somebody who is not."""
    if os.getuid() == 0:
        yield Trial("no permission", "to write in output_dir", partial(_no_permission, lab))
        yield Trial("no permission", "to read an image", partial(_no_permission_to_read, lab))


def _no_permission(lab, row, place):
    folder = lab.fresh(lab.stopped_at(ROUND_1))
    _open_to_all(lab.root)
    argv = lab.argv(folder)
    end = run(argv, folder, Fault("nobody"))
    return lab.judge(row, place, folder, end, lambda: run(argv, folder))


def _no_permission_to_read(lab, row, place):
    folder, data = lab.fresh(), lab.copy_of_data()
    folder.mkdir()
    _open_to_all(lab.root)
    folder.chmod(0o777)
    next(data.glob("imagesTr/*")).chmod(0)
    argv = lab.argv(folder, data)
    end = run(argv, folder, Fault("nobody"))
    return lab.judge(row, place, folder, end, lambda: run(argv, folder))


def _open_to_all(root):
    for path in (root, *root.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def may_mount():
    """Whether this process may mount a small disk."""
    with tempfile.TemporaryDirectory() as folder, Mount(Path(folder, "disk"), "size=64k") as disk:
        return disk is not None


class Mount:
    """A small disk at a folder; None where this process may not mount one."""

    def __init__(self, folder, options):
        self.folder, self.options, self.there = folder, options, False

    def __enter__(self):
        self.folder.mkdir(parents=True)
        mount = ["mount", "-t", "tmpfs", "-o", self.options, "none", str(self.folder)]
        self.there = os.getuid() == 0 and subprocess.run(mount, check=False, capture_output=True).returncode == 0
        return self.folder if self.there else None

    def __exit__(self, *_):
        if self.there:
            subprocess.run(["umount", str(self.folder)], check=True)


def remount(folder, options):
    """Change a mounted disk."""
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


def truncate(path):
    """Half of a file is lost."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def flip(path):
    """One bit in the middle of a file is another: text stays text."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def empty(path):
    """The name is there, the content is not."""
    path.write_bytes(b"")


def lose(path):
    """The name is gone with the content."""
    path.unlink()


DAMAGES = {"truncated": truncate, "bit flipped": flip, "emptied": empty, "lost": lose}
#: The files by which a run that is half through goes on; a volume's name is a hash.
DAMAGED = (
    "round_000/committee.pt", "round_001/training.pt", "ledger.json", "run.json", "round_000/datalist.json",
    "round_001/datalist.json", "round_000/queries.json", "cache/case_checks.json", "cache/mutual_information.npz",
    "cache/volumes", "round_000/training.json", "round_000/times.json", "learning_curve.csv", "ranking.csv",
)  # fmt: skip
#: Results, by which nothing is decided any more where a data set is the oracle: that they are cut off is noticed,
#: another digit in them is not.
RESULTS = ("round_000/metrics.json", "round_000/cases.csv", "round_000/scores.csv")
NOTICED = ("truncated", "emptied", "lost")


def damaged(lab):
    """Files that are damaged between two commands; where the next one refuses, the file it names is removed.

    A lost one it must not refuse. But not ``run.json``, without which a folder with rounds is refused as well: its
    backup is put back.
    """
    for name, damage in [*itertools.product(DAMAGED, DAMAGES), *itertools.product(RESULTS, NOTICED)]:
        yield Trial(f"{damage} file", name, partial(_damaged, lab, DAMAGES[damage]))


def _damaged(lab, damage, row, place):
    folder = lab.fresh(lab.stopped_at(ROUND_1))
    path = sorted(folder.glob(f"{place}/*.pt"))[0] if place == "cache/volumes" else folder / place
    backup, made = path.read_bytes(), queries(folder)
    damage(path)
    argv = lab.argv(folder)
    remedy = partial(path.write_bytes, backup) if place == "run.json" else path.unlink if path.exists() else None
    finding = lab.judge(row, place, folder, None, lambda: run(argv, folder), remedy=remedy, made=made)
    if remedy == path.unlink and damage is not flip and "refuses" in finding.next and "Remove it" not in finding.next:
        return finding._replace(sound=False, trouble="the refusal does not say that the file may be removed")
    return finding


def inputs(lab):
    """A volume that disappears, or becomes another one, while a run is between two rounds."""
    rows = {"remove": "a volume disappears between rounds", "replace": "a volume changes between rounds"}
    for kind, role, what in itertools.product(rows, ("initial", "pool", "test"), ("image", "label")):
        yield Trial(rows[kind], f"{what} ({role} case)", partial(_input, lab, kind, role, what))


def _input(lab, kind, role, what, row, place):
    folder, data = lab.fresh(), lab.copy_of_data()
    # Of the pool the case that the first round queries: it must be trained on next.
    case = lab.expected["queries"][0][0] if role == "pool" else lab.expected_split()[role][0]
    file = data / f"{what}sTr" / f"{case}.nii.gz"
    good = lab.root / "good.nii.gz"
    shutil.copy2(file, good)
    shutil.copy2(next(path for path in sorted(file.parent.iterdir()) if path != file), f"{file}.other")
    argv = lab.argv(folder, data)
    end = run(argv, folder, Fault(kind, Point("rename", "round_000/queries.json", 1), where=str(file)))
    still = run(argv, folder)
    if still.code != 1:
        return lab.failed(row, place, still, "the next command does not notice")
    return lab.judge(row, place, folder, end, lambda: run(argv, folder), remedy=lambda: shutil.copy2(good, file))


def second_process(lab):
    """Two of the same command at once."""
    yield Trial("a second process", "the same output_dir", partial(_second_process, lab))


def _second_process(lab, row, place):
    folder = lab.fresh()
    argv = lab.argv(folder)
    with tempfile.TemporaryDirectory() as streams:
        first = start(argv, folder, Path(streams))
        while not (folder / "run.json").is_file() and first.is_alive():
            time.sleep(0.05)
        end = run(argv, folder)
        first.join()
    if first.exitcode != 0 or end.code != 1:
        return lab.failed(row, place, end, f"the first ended with {first.exitcode}")
    return lab.judge(row, place, folder, end, lambda: run(argv, folder))


def machine(lab):
    """Memory, workers and clocks."""
    for call in (1, 4):
        yield Trial("out of memory", f"CUDA, step {call}", partial(strike, lab, Fault("cuda memory", number=call), 1))
        yield Trial(
            "out of memory", f"address space, step {call}", partial(strike, lab, Fault("memory", number=call), 1)
        )
    for item in (1, 3):
        worker = partial(strike, lab, Fault("worker", number=item), 1, num_workers=1)
        yield Trial("a loader worker dies", f"item {item}", worker)
    for look in (1, 30):
        yield Trial(
            "the clock jumps back a day", f"at look {look}", partial(strike, lab, Fault("clock", number=look), 0)
        )
    kill, clock = Fault("kill", Point("rename", "round_001/committee.pt", 1)), Fault("clock", number=1)
    stopped = partial(strike, lab, kill, -9, again_fault=clock)
    yield Trial("the clock jumps back a day", "while the run is stopped", stopped)
