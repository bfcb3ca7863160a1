"""The steps of ``multi_gpu.yaml``: a configuration that ``torchrun`` starts in several processes.

    initialize:
    - {_target_: svgd_monai.workflow.join}
    - {_target_: svgd_monai.workflow.enter}
    - {_target_: svgd_monai.workflow.connect}
    finalize:
    - {_target_: svgd_monai.workflow.leave}

The first process checks the configuration, and when it has found it sound the others do; so a mistake is told once, and
data that a configuration makes is made by one.
"""

from __future__ import annotations

import logging
import os
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore

from svgd_monai.errors import SettingsError
from svgd_monai.workflow.boundary import boundary
from svgd_monai.workflow.caller import calling_workflow
from svgd_monai.workflow.meeting import begun, meet, meeting, part

#: How long a process waits for another that lives and does not answer. One that has died is noticed at once.
TIMEOUT = timedelta(minutes=30)


def join() -> None:
    """Meet the other processes, and let the first go ahead.

    Raises:
        SystemExit: the first has found a mistake.
    """
    with boundary():
        found = meet()
        if found is not None and found.rank > 0:
            logging.disable(logging.WARNING)  # what one process says is enough
            begun()


def own_device() -> str:
    """``cuda:LOCAL_RANK`` where there is CUDA, else ``cpu``.

    Raises:
        SettingsError: there are fewer devices than processes on this machine.
    """
    if not torch.cuda.is_available():
        return "cpu"
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if local > torch.cuda.device_count():
        raise SettingsError(
            f"device: {local} processes on this machine have {torch.cuda.device_count()} CUDA devices; start no more "
            "processes than devices, or say --device cpu."
        )
    return f"cuda:{_local_rank()}"


def connect() -> None:
    """Open the lines between the processes: NCCL where each has a CUDA device of its own, gloo elsewhere.

    Raises:
        SystemExit: the configuration is one that a single process runs.
    """
    with boundary():
        found = meeting()
        if found is None:
            return
        parser = calling_workflow().workflow.parser
        if not any(key in parser for key in ("loop", "train", "dataloader#sampler")):
            raise SettingsError(
                "multi_gpu.yaml is for the loop, training, evaluation and scoring; run anything else as one process."
            )
        if parser.get("oracle") == "people":
            raise SettingsError("oracle: people needs a single process; start it without torchrun and multi_gpu.yaml.")
        device = torch.device(parser.get_parsed_content("device"))
        own = device.type == "cuda" and device.index == _local_rank()
        if device.type == "cuda":
            torch.cuda.set_device(device)
        begun()
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if own else "gloo",
            store=PrefixStore("group", found.store),
            rank=found.rank,
            world_size=found.ranks,
            timeout=TIMEOUT,
        )
        if found.rank > 0 and "summary_writer" in parser:
            parser["summary_writer"] = None


def leave() -> None:
    """Part, when all are done."""
    with boundary():
        part()
        if dist.is_initialized():
            dist.barrier()
            dist.destroy_process_group()


def _local_rank() -> int:
    return int(os.environ.get("LOCAL_RANK", "0"))
