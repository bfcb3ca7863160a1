"""Several processes run the loop as one does, and when one of them dies they end with a sentence."""

import contextlib
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from command import words
from runs import CONFIG, KEYS, arguments, command, outcome, run

OVERLAY = CONFIG.parent / "multi_gpu.yaml"
TRAINING = ("svgd_monai.committee.posterior", "PosteriorStep", "__call__", 7, None)


def member(argv, output, deadly, rank, ranks, port):
    """One process, as torchrun starts it."""
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "localhost", "MASTER_PORT": str(port),
    }  # fmt: skip
    command(argv, output, deadly)


def run_together(argv, deadly=None, ranks=2, timeout=300):
    """Exit codes of the processes, and what each has written on stderr.

    Args:
        argv: the words of all.
        deadly: by rank, see :func:`runs.run`.
        ranks: how many.
        timeout: seconds.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["svgd_monai.rounds", "monai.bundle", "torch.utils.tensorboard"])
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        outputs = [Path(folder, str(rank)) for rank in range(ranks)]
        members = []
        for rank, output in enumerate(outputs):
            output.mkdir()
            given = (argv, output, (deadly or {}).get(rank), rank, ranks, port)
            members.append(context.Process(target=member, args=given))
        for process in members:
            process.start()
        until = time.monotonic() + timeout
        for process in members:
            process.join(max(0.0, until - time.monotonic()))
        codes = [process.exitcode for process in members]
        for process in members:
            process.kill()
        assert None not in codes, "a process hangs"
        return codes, [(output / "err").read_text().strip() for output in outputs]


def sentences(errors):
    """The lines on stderr of all processes that are no warnings of libraries'."""
    lines = [line for text in errors for line in text.splitlines()]
    return [line for line in lines if line.startswith(("Another", "Terminated", "rounds:", "oracle:"))]


@pytest.fixture(scope="module")
def alone(phantom_mr, tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    assert run(arguments(phantom_mr, folder)).code == 0
    return folder


def test_two_processes_go_on_with_the_run_of_one_and_end_as_one(alone, phantom_mr, tmp_path):
    assert run(arguments(phantom_mr, tmp_path, rounds=1)).code == 0
    codes, errors = run_together(arguments(phantom_mr, tmp_path, OVERLAY))
    assert codes == [0, 0], errors
    assert outcome(tmp_path) == outcome(alone)
    assert len(list((tmp_path / "tensorboard").iterdir())) == 2, "one writer a command"


@pytest.mark.parametrize("dead", [0, pytest.param(1, marks=pytest.mark.long)])
def test_a_process_that_dies_ends_the_run_with_a_sentence_and_one_process_goes_on(dead, alone, phantom_mr, tmp_path):
    codes, errors = run_together(arguments(phantom_mr, tmp_path, OVERLAY), {dead: TRAINING}, timeout=60)
    assert codes[dead] == -signal.SIGKILL
    assert codes[1 - dead] == 1
    assert len(sentences(errors)) == 1
    assert errors[1 - dead].splitlines()[-1].startswith("Another process of this run has ended")
    assert (tmp_path / "round_000/committee.pt").exists() != (tmp_path / "round_000/training.pt").exists()
    assert run(arguments(phantom_mr, tmp_path)).code == 0
    assert outcome(tmp_path) == outcome(alone)


def test_a_hook_that_exits_in_one_process_ends_all_with_a_sentence(phantom_mr, tmp_path):
    """With status 0, which tells a launcher to wait for the others."""
    overlay = tmp_path / "leave.yaml"
    leave = "$lambda run, number: __import__('sys').exit(0)"
    overlay.write_text(f'hooks: [{{_target_: types.SimpleNamespace, before_round: "{leave}"}}]\n')
    codes, errors = run_together(arguments(phantom_mr, tmp_path / "run", OVERLAY, overlay), timeout=60)
    assert codes == [1, 1]
    assert errors[0].splitlines()[-1].startswith("A part of the configuration, such as a hook or a handler, has ended")
    assert "A part of the configuration" not in errors[1]


@pytest.mark.long
def test_two_processes_go_on_with_a_training_that_had_but_to_write_its_end(alone, phantom_mr, tmp_path):
    """The first is done at once, and removes what the other has yet to read."""
    argv = arguments(phantom_mr, tmp_path, OVERLAY)
    codes, _ = run_together(argv, {0: ("svgd_monai.committee.keeper", None, "write_json", 1, None)}, timeout=60)
    assert codes[0] == -signal.SIGKILL
    assert (tmp_path / "round_000/training.pt").exists()
    codes, errors = run_together(argv, timeout=200)
    assert codes == [0, 0], errors
    assert outcome(tmp_path) == outcome(alone)


@pytest.mark.parametrize("mistake", [{"rounds": -1}, {"oracle": "people", "images": "."}])
def test_a_mistake_is_told_once(mistake, phantom_mr, tmp_path):
    codes, errors = run_together(arguments(phantom_mr, tmp_path, OVERLAY, **mistake))
    assert codes == [1, 1]
    assert len(sentences(errors)) == 1, errors
    assert not any("Traceback" in text for text in errors)


@pytest.mark.long
def test_the_overlay_alone_starts_one_process_that_ends_as_without(alone, phantom_mr, tmp_path):
    assert run(arguments(phantom_mr, tmp_path, OVERLAY)).code == 0
    assert outcome(tmp_path) == outcome(alone)


def stage(name, dataset, output, committee):
    """The words of a stage by itself."""
    config = CONFIG.parent / f"{name}.yaml"
    known = config.read_text()
    keys = {key: value for key, value in KEYS.items() if f"\n{key}:" in known}
    return words(config, OVERLAY, **keys, dataset_dir=dataset, output_dir=output, committee_file=committee)


@pytest.mark.parametrize(("name", "files"), [("acquire", ("scores.csv", "queries.json")), ("evaluate", ("cases.csv",))])
def test_a_stage_by_itself_is_shared_out(name, files, alone, phantom_mr, tmp_path):
    committee = alone / "round_000/committee.pt"
    assert run(stage(name, phantom_mr, tmp_path / "one", committee)).code == 0
    codes, errors = run_together(stage(name, phantom_mr, tmp_path / "three", committee), ranks=3)
    assert codes == [0, 0, 0], errors
    for file in files:
        assert (tmp_path / "three" / file).read_text() == (tmp_path / "one" / file).read_text()


def test_what_cannot_be_shared_out_is_refused(alone, phantom_mr, tmp_path):
    argv = words(CONFIG.parent / "inference.yaml", OVERLAY, dataset_dir=phantom_mr / "imagesTr", output_dir=tmp_path)
    codes, errors = run_together(argv)
    assert codes == [1, 1]
    # One process says it, the other may say nothing.
    assert any("multi_gpu.yaml is for" in line for text in errors for line in text.splitlines()[-1:]), errors
    assert not list(tmp_path.iterdir())


def test_several_processes_without_the_overlay_are_refused(phantom_mr, tmp_path):
    codes, errors = run_together(arguments(phantom_mr, tmp_path))
    assert codes == [1, 1]
    assert all("multi_gpu.yaml" in text.splitlines()[-1] for text in errors)
    assert not list(tmp_path.iterdir())


@pytest.mark.long
def test_torchrun_starts_the_processes_and_watches_them(alone, phantom_mr, tmp_path):
    folder = tmp_path / "run"
    # Ten steps a second at the most, in a training of many: time enough to find the process and end it.
    keys = {**KEYS, "steps_per_round": 2000, "validations_per_round": 100}
    log = tmp_path / "log"
    with started(log, arguments(phantom_mr, folder, OVERLAY, **keys)) as process:
        kill_one_in_training(process, folder, log)
        assert process.wait(60) == 1
    assert log.read_text().count("the same command goes on") == 1

    with started(log, arguments(phantom_mr, tmp_path / "whole", OVERLAY)) as process:
        assert process.wait(300) == 0, log.read_text()
    assert outcome(tmp_path / "whole") == outcome(alone)


@pytest.mark.long
def test_torchrun_begins_again_when_it_may(phantom_mr, tmp_path):
    keys = {**KEYS, "steps_per_round": 200, "validations_per_round": 20}
    alone, shared, log = tmp_path / "alone", tmp_path / "shared", tmp_path / "log"
    assert run(arguments(phantom_mr, alone, **keys)).code == 0
    with started(log, arguments(phantom_mr, shared, OVERLAY, **keys), "--max_restarts=1") as process:
        kill_one_in_training(process, shared, log)
        assert process.wait(600) == 0, log.read_text()
    assert outcome(shared) == outcome(alone)


@contextlib.contextmanager
def started(log, argv, *options):
    """torchrun with two processes, its output in a file."""
    start = [str(Path(sys.executable).with_name("torchrun")), "--nproc_per_node=2", *options, "-m", "monai.bundle"]
    with log.open("w") as file:
        process = subprocess.Popen([*start, *argv], stdout=file, stderr=file)
        try:
            yield process
        finally:
            process.kill()


def kill_one_in_training(launcher, folder, log):
    """SIGKILL to rank 1 as soon as the first training has written its progress."""
    until = time.monotonic() + 240
    while not (folder / "round_000/training.pt").exists():
        assert launcher.poll() is None, log.read_text()
        assert time.monotonic() < until
        time.sleep(0.1)
    os.kill(_process_of_rank(launcher.pid, 1), signal.SIGKILL)


def _process_of_rank(launcher, rank):
    for child in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split():
        environment = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        if f"RANK={rank}".encode() in environment:
            return int(child)
    raise AssertionError(f"torchrun has no process of rank {rank}")
