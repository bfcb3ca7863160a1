"""Where the processes that ``torchrun`` starts meet: who speaks for them, and what the first has the others do.

They meet in the key-value store of their launcher, and not in collectives: one can wait there for as long as the first
prepares volumes, and still hear a signal.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from svgd_monai.errors import SettingsError, causes
from svgd_monai.workflow.sentences import GO_ON

_VOICE, _BEGUN, _END = "voice", "begun", "end"
_POLL = 0.05  # s
_LINGER = 1.0  # s
#: Seconds that a process has for ending by itself once it is to terminate; torchrun kills after 30.
GRACE = 10.0
TERMINATED = f"Terminated, by whoever started the processes or because another of them has ended; {GO_ON}."
_LOST = f"Another process of this run has ended or does not answer; {GO_ON}."


@dataclass(frozen=True)
class Meeting:
    """The processes of a run.

    Attributes:
        store: of their launcher.
        rank: of this process.
        ranks: processes in all.
    """

    store: Any
    rank: int
    ranks: int


_meetings: list[Meeting] = []  # one at most


def meet() -> Meeting | None:
    """Join the processes that the launcher has started with this one; None where it is alone.

    Raises:
        torch.distributed.DistError: they do not find together.
    """
    if not _meetings and _started() > 1:
        store, rank, ranks = next(rendezvous("env://"))
        if os.environ.get("GROUP_WORLD_SIZE") == "1":
            # A single launcher's store outlives its restarts (torchrun --max_restarts), and so what was said before;
            # several launchers meet anew, and do not count alike.
            store = PrefixStore(f"attempt_{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
        _meetings.append(Meeting(store, rank, ranks))
        if threading.current_thread() is threading.main_thread():
            _end_when_blocked()
    return meeting()


def meeting() -> Meeting | None:
    """The processes of this run; None where it has but one."""
    return _meetings[0] if _meetings else None


def check_met() -> None:
    """Refuse to do the same work in each of several processes.

    Raises:
        SettingsError: a launcher has started several, and the configuration does not share its work out.
    """
    if _started() > 1 and meeting() is None:
        raise SettingsError(
            f"{_started()} processes were started; add multi_gpu.yaml to --config_file, which shares the work out."
        )


def part() -> None:
    """End the meeting: the first lets the others go on to their end."""
    found = meeting()
    if found is not None and found.rank == 0:
        found.store.set(_END, "")


def one_voice(sentence: str) -> str | int:
    """What to exit with: the sentence in the first process that has one, 1 in all that follow."""
    found = meeting()
    if found is None:
        return sentence
    try:
        speaker = found.store.compare_set(_VOICE, "", str(found.rank))
    except RuntimeError:  # the launcher is gone
        return sentence
    if found.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        time.sleep(_LINGER)  # the store is this process's own, and the others have yet to look
    return sentence if speaker == str(found.rank).encode() else 1


def lost_process(error: BaseException | None) -> str | None:
    """The sentence of an error that comes of another process's end; None for any other error."""
    for found in causes(error) if _meetings else ():
        # Gloo's have no type of their own.
        if isinstance(found, dist.DistError) or (isinstance(found, RuntimeError) and "gloo" in str(found).lower()):
            return _LOST
    return None


def begun() -> None:
    """The first process says that the configuration is sound; the others wait for that.

    Raises:
        SystemExit: the first has ended.
    """
    found = meeting()
    if found is None:
        return
    if found.rank == 0:
        found.store.set(_BEGUN, "")
    else:
        _wait_for(found.store, _BEGUN)


def announce(number: int, content: Mapping[str, Any]) -> None:
    """The first process says what all do next.

    Args:
        number: counts from 0.
        content: plain values.
    """
    found = meeting()
    if found is not None:
        found.store.set(_command(number), json.dumps(content))


def announced(number: int) -> dict[str, Any] | None:
    """Wait for what the first process says; None when it has no more to say.

    Raises:
        SystemExit: it has ended.
    """
    found = meeting()
    if found is None or _wait_for(found.store, _command(number), _END) == _END:
        return None
    content: dict[str, Any] = json.loads(found.store.get(_command(number)))
    return content


def _started() -> int:
    """How many processes the launcher has started."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def _command(number: int) -> str:
    return f"command/{number}"


def _wait_for(store: Any, *keys: str) -> str:
    """The first of the keys that is set; ends where some process has said that the run is over."""
    while True:
        for key in (*keys, _VOICE):
            if store.check([key]):
                if key == _VOICE:
                    raise SystemExit(1)
                return key
        time.sleep(_POLL)


def _end_when_blocked() -> None:
    """Have SIGTERM end this process also where it waits for another in a call that knows no signals, as NCCL's do."""
    ours, interpreters = socket.socketpair()
    interpreters.setblocking(False)
    signal.set_wakeup_fd(interpreters.fileno(), warn_on_full_buffer=False)

    def watch() -> None:
        keep = interpreters  # for as long as the process lives
        while signal.SIGTERM not in ours.recv(64):
            pass
        time.sleep(GRACE)
        word = one_voice(TERMINATED)
        if isinstance(word, str):
            sys.stderr.write(f"{word}\n")
            sys.stderr.flush()
        keep.close()
        os._exit(1)

    threading.Thread(target=watch, name="svgd_monai.workflow.meeting", daemon=True).start()
