"""Data and places that the tests share."""

import os

# Before torch is imported, here and in the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path

import pytest
import torch

from svgd_monai.data import make_phantom
from svgd_monai.temporaries import temporary_path

PHANTOM_CASES = 20
#: Seconds that a long test may take, on a machine that does other work as well; pyproject.toml has the others'.
LONG = 7200


def pytest_collection_modifyitems(items):
    """Long tests take long."""
    for item in items:
        if item.get_closest_marker("long") is not None and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(LONG))


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Sums come out in the same order everywhere, and tests of the same machine do not wait for one another."""
    torch.set_num_threads(1)


@pytest.fixture
def left():
    """Puts beside a file what a killed process leaves of it, and tells where."""

    def leave(path):
        temporary = temporary_path(path, process=4194304)  # no process has so high a number
        temporary.write_bytes(b"half")
        return temporary

    return leave


@pytest.fixture(scope="session")
def bundle():
    """The folder of the hippocampus bundle."""
    return Path(__file__).parents[1] / "bundles/hippocampus_mri_svgd"


@pytest.fixture(scope="session")
def phantom_mr(tmp_path_factory):
    """A data set of 20 small MR cases; to be read only."""
    return make_phantom(tmp_path_factory.mktemp("data") / "phantom_mr", "mr", PHANTOM_CASES)


@pytest.fixture(scope="session")
def msd_root():
    """The folder that holds the real Task04_Hippocampus."""
    root = os.environ.get("SVGD_MONAI_MSD_ROOT")
    if not root:
        pytest.skip("SVGD_MONAI_MSD_ROOT is not set: the folder that holds Task04_Hippocampus")
    assert (Path(root) / "Task04_Hippocampus/dataset.json").is_file(), f"SVGD_MONAI_MSD_ROOT: no Task04 in {root}"
    return Path(root)
