"""The command line with a device of its own, ``apart:0``: ``python apart.py --build FOLDER run --config_file ...``.

The device (``apart.cpp``) is a CPU to its kernels and none to everybody else, so that what forgets to move a tensor is
noticed without a GPU. It is compiled once for each folder.
"""

import argparse
import dataclasses
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import torch
from torch.utils.cpp_extension import load

from svgd_monai.workflow.keys import KEYS

NAME = "apart"


def add_device(folder):
    """Build the device in ``folder`` unless it is there, and make it known to torch and to the command line.

    Returns:
        The number of times that the host has waited for a value of the device so far, as a function.
    """
    folder.mkdir(parents=True, exist_ok=True)
    torch.utils.rename_privateuse1_backend(NAME)
    source = str(Path(__file__).with_name("apart.cpp"))
    built = load(NAME, [source], extra_cflags=["-O1"], build_directory=str(folder))
    module = SimpleNamespace(
        is_available=lambda: True, is_initialized=lambda: True, device_count=lambda: 1, current_device=lambda: 0,
        get_amp_supported_dtype=lambda: [torch.bfloat16], _is_in_bad_fork=lambda: False, manual_seed_all=lambda _: None,
    )  # fmt: skip
    torch._register_device_module(NAME, module)
    KEYS["device"] = dataclasses.replace(KEYS["device"], check=None)
    return built.waits


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", type=Path, required=True)
    options, words = parser.parse_known_args()
    add_device(options.build)
    sys.argv = ["monai.bundle", *words]
    runpy.run_module("monai.bundle", run_name="__main__", alter_sys=True)
