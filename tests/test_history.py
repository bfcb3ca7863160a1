"""What runs of earlier versions worked by: without a line here, a key that has joined since would end such a run."""

from pathlib import Path

import pytest
from monai.bundle import ConfigParser

from svgd_monai.history import LATER_KEYS
from svgd_monai.workflow import check_setting

BUNDLES = sorted((Path(__file__).parents[1] / "bundles").iterdir())


def test_each_key_that_has_joined_stands_for_what_was_done_before():
    assert dict(LATER_KEYS) == {
        "learning_rate_schedule": "constant",
        "member_batches": "shared",
        "redraws": "score",
        "shuffle_scores": False,
        "deterministic": False,
        "on_bad_particle": "restore",
    }


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: path.name)
def test_the_same_command_goes_on_with_it_for_the_bundles_still_say_the_same(bundle):
    config = ConfigParser.load_config_file(str(bundle / "configs/active_learning.yaml"))
    assert {key: check_setting(key, config[key]) for key in LATER_KEYS} == dict(LATER_KEYS)
