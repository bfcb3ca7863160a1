"""What the tests of MONAI Label and of the room that serves it share."""

import importlib.metadata
import importlib.util
import os
import sys
from pathlib import Path

import pytest
from label_data import CASES, NAMES, make_studies, small_bundle

from svgd_monai.data import make_phantom

STANDIN = Path(__file__).parent / "standin"


def installed():
    """Whether MONAI Label itself is there; the folder of these tests is importable by the same name."""
    try:
        importlib.metadata.version("monailabel")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


if installed():
    # MONAI Label imports two functions of torchvision and calls them for debugging alone. Its wheels fit one build of
    # torch each, so requirements.txt leaves it out.
    if importlib.util.find_spec("torchvision") is None:
        sys.path.append(str(STANDIN))
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(STANDIN)]))
    # Read when MONAI Label is imported. In these processes there is no server that could be asked for scores, and no
    # thread watches the folders; the tests of a real server leave both on.
    os.environ["MONAI_LABEL_AUTO_UPDATE_SCORING"] = "false"
    os.environ["MONAI_LABEL_DATASTORE_AUTO_RELOAD"] = "false"


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory):
    """The phantom of each task; to be read only."""
    root = tmp_path_factory.mktemp("phantoms")
    return {task: make_phantom(root / task, task, CASES) for task in NAMES}


@pytest.fixture
def studies(phantoms, tmp_path):
    """A datastore's folder of MR images."""
    return make_studies(phantoms["mr"], tmp_path / "studies")


@pytest.fixture
def small(tmp_path):
    """A small hippocampus bundle."""
    return small_bundle("mr", tmp_path / "bundles")
