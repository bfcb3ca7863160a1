"""The room is optional: nothing imports it, and without MONAI Label it says what to install."""

import json
import subprocess
import sys

import pytest

SENTENCE = "MONAI Label is not installed: pip install svgd_monai[monailabel]"
# One process for all of it: the package takes seconds to import.
PROGRAM = """
import importlib, json, sys
import svgd_monai, svgd_monai.rounds
found = {"imported": [name for name in sys.modules if "monailabel" in name]}
sys.modules["monailabel"] = None  # as where it is not installed
from svgd_monai.monailabel import LeaseBook, PoolScorer
for name in ("CommitteeApp", "CommitteeScoring", "CommitteeStrategy"):
    try:
        getattr(svgd_monai.monailabel, name)
    except ImportError as error:
        found[name] = str(error)
try:
    importlib.import_module("svgd_monai.monailabel.app")
except ImportError as error:
    found["app"] = str(error)
print(json.dumps(found))
"""


def test_nothing_imports_the_room_and_without_monai_label_one_sentence_says_what_to_install(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=300, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "imported": [],
        "CommitteeApp": SENTENCE,
        "CommitteeScoring": SENTENCE,
        "CommitteeStrategy": SENTENCE,
        "app": SENTENCE,
    }


def test_a_name_that_is_not_there_is_an_ordinary_error():
    import svgd_monai.monailabel

    with pytest.raises(AttributeError, match="Nothing"):
        _ = svgd_monai.monailabel.Nothing
