"""A sample of the sweep of faults; all of it is `pytest -m long tests/faults`, or the command that sweep.py prints."""

import errno
import re

import pytest
import trials
from injection import Fault, Point
from lab import Finding, Lab
from sweep import GROUPS
from table import write_table


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    return Lab(tmp_path_factory.mktemp("lab"))


#: One write of each kind of file, and one fault of each kind of machine.
SAMPLE = {
    "killed in the middle of a committee's file": ("kill", r"round_000/committee.pt \(1\)"),
    "terminated at the queries": ("term", r"round_000/queries.json \(1\)"),
    "no space for a file of a round": ("no-space", r"round_00"),
    "no space for TensorBoard within a training": ("no-space", r"tensorboard/events"),
    "a bit of the record of checks is flipped": ("damaged", r"cache/case_checks.json"),
    "the volume that was queried changes": ("inputs", r"image \(pool case\)"),
    "the volume of a pool case disappears": ("inputs", r"image \(pool case\)"),
    "out of memory": ("machine", r"address space, step 4"),
    "a loader worker dies": ("machine", r"item 1"),
}


@pytest.mark.parametrize("what", SAMPLE)
def test_nothing_is_lost_and_nobody_left_without_a_word(lab, what):
    group, place = SAMPLE[what]
    found = [trial for trial in GROUPS[group](lab) if re.search(place, trial.place)]
    changes = "disappears" if "disappears" in what else "changes"
    wanted = {"damaged": "bit flipped file", "inputs": f"a volume {changes} between rounds"}.get(group)
    trial = next(trial for trial in found if wanted in (None, trial.fault))
    finding = trial.happen(trial.fault, trial.place)
    assert finding.sound, finding.trouble


@pytest.mark.long
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("group", GROUPS)
def test_the_whole_group_is_sound(lab, group):
    found = [trial.happen(trial.fault, trial.place) for trial in GROUPS[group](lab)]
    assert not [finding for finding in found if not finding.sound]


def test_a_run_is_struck_at_more_than_forty_distinct_writes(lab):
    for signal in ("SIGKILL", "SIGTERM"):
        places = [trial.place for trial in trials.killed(lab, signal)]
        assert len(set(places)) == len(places) >= 40


def test_a_query_that_is_lost_or_made_twice_is_seen(lab):
    """The judge itself: what it must not let pass."""
    folder = lab.fresh()

    def another_query():
        end = trials.run(lab.argv(folder), folder)
        (folder / "round_000/queries.json").write_text('["phantom_mr_001"]')
        return end

    finding = lab.judge("none", "nowhere", folder, None, another_query)
    assert not finding.sound
    assert "queries" in finding.trouble


def test_the_table_counts_what_was_found(tmp_path):
    rows = [
        Finding("a fault", f"place {n}", "It said so.", "goes on", n != 2, "why" if n == 2 else "") for n in range(3)
    ]
    write_table(tmp_path / "faults.md", rows, "versions")
    text = (tmp_path / "faults.md").read_text()
    assert "3 trials, 1 bad" in text
    assert "| a fault | 3 | 2 | It said so. (3) | goes on (3) |" in text
    assert "- a fault, place 2: why" in text


def test_an_injected_refusal_reaches_the_command(lab):
    """The harness itself: a fault that never struck would look like a run that copes."""
    folder = lab.fresh()
    end = trials.run(lab.argv(folder), folder, Fault("refuse", Point("open", "run.json", 1), errno.ENOSPC))
    assert end.code == 1
    assert end.last_line == f"{folder}/run.json: No space left on device."
