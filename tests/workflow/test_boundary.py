"""An error that a user can mend ends the program with its sentence; any other stays what it is."""

import errno
import os
import re
import signal
import subprocess
import sys
import threading
import time

import monai
import pytest
import torch
import yaml
from monai.bundle import ConfigParser, ConfigWorkflow
from torch._utils import ExceptionWrapper

from svgd_monai.committee import CommitteeTrainer, LogDiceLoss, Particles, PosteriorStep
from svgd_monai.errors import CheckpointError, DataError, SvgdMonaiError
from svgd_monai.workflow import boundary, calling_workflow, enter, run_steps

#: A program that is reading batches with two workers.
LOADING = """
import time
import torch
from torch.utils.data import DataLoader
from svgd_monai.workflow import boundary

class Slow(list):
    def __getitem__(self, index):
        time.sleep(0.02)
        return index

work = torch.rand(1500, 1500)
with boundary():
    for number, _ in enumerate(DataLoader(Slow(range(3000)), num_workers=2)):
        if number == 3:
            print("ready", flush=True)
        for _ in range(number > 3 and 20):  # signals wait while torch computes
            work @ work
"""


def wrapped(error, times):
    """``error`` as MONAI hands it on: the cause of RuntimeErrors."""
    for number in range(times):
        outer = RuntimeError(f"Failed to instantiate component {number}")
        outer.__cause__ = error
        error = outer
    return error


def ending(error):
    """The sentence with which the boundary exits."""
    with pytest.raises(SystemExit) as caught, boundary():
        raise error
    assert isinstance(caught.value.code, str)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    return caught.value.code


class TestSentence:
    @pytest.mark.parametrize("times", [0, 1, 5])
    def test_of_the_user_s_error_however_deep(self, times):
        assert ending(wrapped(DataError("scan.nii.gz is empty."), times)) == "scan.nii.gz is empty."

    @pytest.mark.parametrize("kind", SvgdMonaiError.__subclasses__())
    def test_of_every_kind_of_user_s_error(self, kind):
        assert ending(kind("It is so.")) == "It is so."

    def test_is_one_line(self):
        assert ending(DataError("first\n  second\t third.\n")) == "first second third."

    def test_of_an_error_that_another_one_followed_while_it_was_handled(self):
        follower = RuntimeError("the engine could not stop")
        follower.__context__ = DataError("scan.nii.gz is empty.")  # not its cause
        assert ending(follower) == "scan.nii.gz is empty."

    def test_of_the_outermost_when_one_user_s_error_caused_another(self):
        inner = DataError("inner.")
        outer = CheckpointError("outer.")
        outer.__cause__ = inner
        assert ending(wrapped(outer, 2)) == "outer."

    @pytest.mark.parametrize("times", [0, 1])
    def test_of_a_worker_that_loads_data(self, times):
        """As itself or within MONAI's error it is handed on as a traceback."""

        try:
            raise wrapped(wrapped_in_ours(OSError(errno.ENOENT, "No such file or directory", "scan.nii.gz")), times)
        except (DataError, RuntimeError):
            caught = ExceptionWrapper(where="in DataLoader worker process 0")
        with pytest.raises((DataError, RuntimeError), match=r"^Caught ") as raised:
            caught.reraise()
        assert ending(raised.value) == "scan cannot be read."

    def test_of_the_file_system_names_the_file(self):
        error = OSError(errno.ENOSPC, "No space left on device", "/runs/a/ledger.json")
        assert ending(wrapped(error, 3)) == "/runs/a/ledger.json: No space left on device."

    def test_of_the_file_system_stands_back_behind_ours(self):
        system = OSError(errno.ENOENT, "No such file or directory", "/data/scan.nii.gz")
        assert ending(wrapped(wrapped_in_ours(system), 2)) == "scan cannot be read."

    def test_of_an_error_that_is_raised_again_while_what_it_caused_is_handled(self):
        error = OSError(errno.ENOSPC, "No space left on device")
        outer = wrapped(error, 2)
        error.__context__ = outer  # as TensorBoard's writer does at its close
        assert "No space left" in ending(error)

    def test_an_error_in_a_circle_that_is_not_the_user_s_passes(self):
        error = KeyError("a mistake of ours")
        outer = wrapped(error, 1)
        error.__context__ = outer
        with pytest.raises(KeyError) as caught, boundary():
            raise error
        assert caught.value is error

    def test_of_a_real_refusal_of_the_file_system(self, tmp_path):
        with pytest.raises(SystemExit) as caught, boundary():
            (tmp_path / "nowhere/file").write_text("")
        assert caught.value.code == f"{tmp_path / 'nowhere/file'}: No such file or directory."

    @pytest.mark.parametrize(
        ("component", "sentence"),
        [
            ({"_target_": "DiceLoss", "sigmoid": True, "softmax": True}, "DiceLoss.__init__(): Incompatible values: "),
            ({"_target_": "torch.optim.SGD", "params": [torch.zeros(1)], "lr": -1.0}, "SGD.__init__(): Invalid learn"),
        ],
    )
    def test_of_a_value_that_a_component_of_a_library_refuses(self, component, sentence):
        with pytest.raises(RuntimeError, match=r"^Failed to instantiate") as caught:
            ConfigParser({"component": component}).get_parsed_content("component")
        assert ending(caught.value).startswith(f"_target_: {sentence}")

    @pytest.mark.parametrize(
        "component",
        [
            {"_target_": "their_loss.Own", "classes": 1},
            {"_target_": "their_loss.wrapped", "reduction": "meen"},
            {"_target_": "monai.utils.look_up_option", "opt_str": "a", "supported": ["b"]},
        ],
        ids=["their own check", "a library within", "no constructor"],
    )
    def test_any_other_wrong_value_stays_and_tells_where(self, component, tmp_path, monkeypatch):
        (tmp_path / "their_loss.py").write_text(
            "import monai\nclass Own:\n    def __init__(self, classes):\n        raise ValueError('too few')\n"
            "def wrapped(reduction):\n    return monai.losses.DiceLoss(reduction=reduction)\n"
        )
        monkeypatch.syspath_prepend(tmp_path)
        with pytest.raises(RuntimeError, match=r"^Failed to instantiate") as caught:
            ConfigParser({"component": component}).get_parsed_content("component")
        with pytest.raises(RuntimeError) as raised, boundary():
            raise caught.value
        assert raised.value is caught.value

    @pytest.mark.parametrize(
        ("loss", "sentence"),
        [
            (monai.losses.DiceLoss(softmax=True), "DiceLoss.forward(): ground truth has different shape "),
            (torch.nn.CrossEntropyLoss(), "CrossEntropyLoss.forward(): Expected "),
            (LogDiceLoss(softmax=True), "LogDiceLoss.forward(): target has the shape (2, 1, 4, 4, 4), input (2, 3, "),
        ],
    )
    def test_of_a_loss_that_does_not_fit_what_it_is_given(self, loss, sentence):
        told = ending(wrapped(self._of_training(loss), 2))
        assert told.startswith(f"loss: {sentence}")
        assert told.endswith("; a bundle gives it logits (B, C, ...) and classes (B, 1, ...).")

    def test_of_a_users_own_loss_stays_and_tells_where(self):
        class Own(monai.losses.DiceLoss):
            def forward(self, input, target):
                return super().forward(input, target)

        error = self._of_training(Own(softmax=True))
        with pytest.raises(AssertionError) as raised, boundary():
            raise error
        assert raised.value is error

    @staticmethod
    def _of_training(loss):
        """The error of a first step with classes that stand in one channel."""
        network = Particles(torch.nn.Conv3d(1, 3, 1), 2)
        batch = {"image": torch.zeros(2, 1, 4, 4, 4), "label": torch.ones(2, 1, 4, 4, 4)}
        optimizer = torch.optim.SGD([network.values], lr=0.1)
        trainer = CommitteeTrainer("cpu", 1, [batch], network, optimizer, loss, PosteriorStep())
        with pytest.raises((AssertionError, RuntimeError, ValueError)) as caught:
            trainer.run()
        return caught.value

    @pytest.mark.parametrize(
        ("error", "begin"),
        [
            (MemoryError(), "The memory does not suffice"),
            (
                RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"),
                "The memory",
            ),
            (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), "The memory of the GPU"),
            (OSError(errno.ENOMEM, "Cannot allocate memory"), "The memory does not suffice"),
            (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "), "A worker"),
            (RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly"), "A worker"),
            (OSError(errno.ENOSPC, "No space left on device"), "A file cannot be written: No space left on device"),
        ],
    )
    def test_of_a_machine_that_has_too_little(self, error, begin):
        sentence = ending(wrapped(error, 2))
        assert sentence.startswith(begin)
        assert "the same command goes on" in sentence

    def test_of_a_thread_that_the_file_system_ended_is_a_line(self, monkeypatch, caplog):
        others = []
        monkeypatch.setattr(threading, "excepthook", lambda ended: others.append(ended.exc_type))
        before = threading.excepthook

        def write():
            raise OSError(errno.ENOSPC, "No space left on device", "/runs/a/tensorboard/events")

        def stumble():
            raise ZeroDivisionError

        with boundary():
            for work in (write, stumble):
                thread = threading.Thread(target=work)
                thread.start()
                thread.join()
        assert [record.getMessage() for record in caplog.records] == [
            "/runs/a/tensorboard/events: No space left on device."
        ]
        assert others == [ZeroDivisionError]
        assert threading.excepthook is before

    def test_of_a_termination_says_how_to_go_on_and_the_signal_is_given_back(self):
        def terminated():
            with boundary():
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(60)  # the signal comes at once

        with pytest.raises(SystemExit) as caught:
            terminated()
        assert caught.value.code == "Terminated; the same command goes on where this one stopped."
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL

    def test_of_a_termination_of_the_whole_group_says_nothing_of_a_loaders_workers(self):
        with subprocess.Popen(
            [sys.executable, "-c", LOADING], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True,
        ) as process:  # fmt: skip
            process.stdout.readline()  # the workers are at work
            os.killpg(process.pid, signal.SIGTERM)
            _, said = process.communicate(timeout=120)
        assert process.returncode == 1
        assert said == "Terminated; the same command goes on where this one stopped.\n"

    def test_a_use_that_somebody_else_has_for_the_signal_is_left_alone(self):
        got = []
        before = signal.signal(signal.SIGTERM, lambda *_: got.append("theirs"))
        try:
            with boundary():
                os.kill(os.getpid(), signal.SIGTERM)
        finally:
            signal.signal(signal.SIGTERM, before)
        assert got == ["theirs"]

    def test_of_an_interrupt_says_how_to_go_on(self):
        sentence = ending(KeyboardInterrupt())
        assert len(sentence.splitlines()) == 1
        assert "same command" in sentence


def wrapped_in_ours(system):
    error = DataError("scan cannot be read.")
    error.__cause__ = system
    return error


class TestPassingThrough:
    @pytest.mark.parametrize(
        "error",
        [ValueError("a bug"), wrapped(TypeError("a bug"), 2), OSError("no file named"), SystemExit(3)],
        ids=lambda error: type(error).__name__,
    )
    def test_of_what_the_user_cannot_mend(self, error):
        with pytest.raises(type(error)) as caught, boundary():
            raise error
        assert caught.value is error

    @pytest.mark.parametrize("again", [True, False])
    def test_the_line_behind_the_traceback_tells_what_it_began_with(self, again, monkeypatch, capsys):
        told = []
        monkeypatch.setattr(sys, "excepthook", lambda *error: told.append(error[1]))
        before = sys.excepthook

        def begin():
            try:
                raise KeyError("relluu")
            except KeyError:
                raise ValueError("did you mean\n'relu'?")  # noqa: B904  (as MONAI does)

        with pytest.raises(ValueError, match="did you") as first:
            begin()
        outer = wrapped(first.value, 2)
        first.value.__cause__ = outer if again else None  # in a circle, or not
        with pytest.raises(RuntimeError) as caught, boundary():
            raise outer
        last = RuntimeError("MONAI's last word")
        last.__cause__ = caught.value
        sys.excepthook(RuntimeError, last, None)
        assert told == [last]
        line = capsys.readouterr().err
        assert re.fullmatch(r"It began with \w+: .+\n", line)
        if not again:
            assert line.startswith("It began with ValueError: did you mean 'relu'? (")
            assert re.search(rf"\({re.escape(__file__)}, line \d+\)\.$", line.rstrip())
        assert sys.excepthook is before

    @pytest.mark.parametrize("other", [True, False])
    def test_no_line_follows_another_error_or_one_that_is_its_own_cause(self, other, monkeypatch, capsys):
        monkeypatch.setattr(sys, "excepthook", lambda *_: None)
        error = ValueError("a bug")
        with pytest.raises(ValueError, match="a bug"), boundary():
            raise error
        sys.excepthook(ValueError, ValueError("another") if other else error, None)
        assert capsys.readouterr().err == ""

    def test_of_a_block_without_error(self):
        with boundary():
            value = 1
        assert value == 1


@pytest.fixture
def workflow(tmp_path):
    """A MONAI workflow of a configuration given as a dictionary."""

    def make(keys, bundle="a_bundle", **options):
        folder = tmp_path / bundle / "configs"
        folder.mkdir(parents=True)
        (folder / "metadata.json").write_text("{}")
        (folder / "config.yaml").write_text(yaml.safe_dump(keys))
        return ConfigWorkflow(str(folder / "config.yaml"), logging_file=False, **options)

    return make


RUN = {"run": [{"_target_": "svgd_monai.workflow.run_steps"}]}
ENTER = {"initialize": [{"_target_": "svgd_monai.workflow.enter"}]}


class TestConfiguration:
    @pytest.mark.parametrize("function", [calling_workflow, enter, run_steps])
    def test_outside_of_one_our_entries_are_programming_errors(self, function):
        with pytest.raises(RuntimeError, match=r"monai\.bundle run"):
            function()

    def test_that_calls_is_found(self, workflow):
        found = workflow({"run": [{"_target_": "svgd_monai.workflow.calling_workflow"}]})
        found.initialize()
        [caller] = found.run()
        assert caller.workflow is found
        assert caller.typed == {}

    def test_that_is_run_twice_does_its_steps_twice(self, workflow, tmp_path):
        steps = ["$open(@file, 'a').write('x')"]
        opened = workflow({"file": str(tmp_path / "log"), "steps": steps, **RUN})
        opened.initialize()
        for number in (1, 2):
            opened.run()
            assert (tmp_path / "log").read_text() == "x" * number

    def test_of_our_own_error_in_a_step_exits_with_the_sentence(self, workflow):
        steps = ["$svgd_monai.data.read_dataset('/nowhere')"]
        opened = workflow({"imports": ["$import svgd_monai"], "steps": steps, **RUN})
        opened.initialize()
        with pytest.raises(SystemExit, match=r"^The data set's folder /nowhere .*\.$"):
            opened.run()

    def test_of_a_bug_in_a_step_keeps_monai_s_traceback(self, workflow):
        opened = workflow({"steps": ["$1 / 0"], **RUN})
        opened.initialize()
        with pytest.raises(RuntimeError, match="Failed to"):
            opened.run()

    @pytest.mark.parametrize(
        ("keys", "words"),
        [
            ({}, "the same command begins anew"),  # as inference.yaml
            ({"train": {}}, "the same command goes on where this one stopped"),
            ({"stages": {}}, "the same command goes on where this one stopped"),
        ],
    )
    @pytest.mark.parametrize(
        ("step", "before"),
        [
            ("$os.kill(os.getpid(), 15), time.sleep(60)", "Terminated; "),
            (
                "$(_ for _ in ()).throw(KeyboardInterrupt)",
                "Interrupted; ",
            ),  # a shell's background may ignore the signal
        ],
    )
    def test_that_is_stopped_says_what_the_same_command_does(self, workflow, keys, words, step, before):
        opened = workflow({"imports": ["$import os", "$import time"], "steps": [step], **keys, **RUN})
        opened.initialize()
        with pytest.raises(SystemExit) as caught:
            opened.run()
        assert caught.value.code == f"{before}{words}."

    def test_steps_are_evaluated_in_their_order_and_share_what_they_refer_to(self, workflow):
        made = {"_target_": "collections.deque"}
        opened = workflow({"made": made, "steps": [f"$@made.append({number})" for number in range(12)], **RUN})
        opened.initialize()
        opened.run()
        assert list(opened.parser.get_parsed_content("made")) == list(range(12))

    def test_in_a_folder_that_would_become_another_one_exits(self, workflow):
        where = r"the bundle's folder /.*/bundle#2 holds a #, which MONAI turns into ::; move the bundle, or set "
        keys = {"output_dir": "$@bundle_root + '/eval'", "model_file": "$@bundle_root + '/models/model.pt'"}
        with pytest.raises(SystemExit, match=f"^output_dir: {where}output_dir and model_file\\.$"):
            workflow(keys | ENTER, bundle="bundle#2").initialize()

    def test_in_a_folder_that_no_path_depends_on_goes_on(self, workflow):
        workflow({"output_dir": "elsewhere", **ENTER}, bundle="bundle#2").initialize()

    def test_of_a_bad_value_exits_before_the_run(self, workflow):
        with pytest.raises(SystemExit, match=r"^batch_size: 0 is below 1\.$"):
            workflow({"batch_size": 0, **ENTER}).initialize()

    def test_values_are_put_into_their_types(self, workflow):
        opened = workflow({"spacing": 2, "keep_labelled": "False", "prior_std": "flat", "own": "False", **ENTER})
        opened.initialize()
        parsed = {
            key: opened.parser.get_parsed_content(key) for key in ("spacing", "keep_labelled", "prior_std", "own")
        }
        assert parsed == {"spacing": [2.0, 2.0, 2.0], "keep_labelled": False, "prior_std": None, "own": "False"}

    def test_computed_values_are_checked_and_put_into_their_types(self, workflow):
        opened = workflow({"rounds": "$6 / 2", "spacing": "@rounds", "seed": "$-1 + 1", **ENTER})
        opened.initialize()
        assert repr(opened.parser.get_parsed_content("rounds")) == "3"
        assert opened.parser.get_parsed_content("spacing") == [3.0, 3.0, 3.0]

    def test_a_computed_value_out_of_range_exits(self, workflow):
        with pytest.raises(SystemExit, match=r"^seed: -1 is below 0\.$"):
            workflow({"seed": "$0 - 1", **ENTER}).initialize()

    def test_a_computed_path_that_fits_still_follows_what_it_refers_to(self, workflow):
        opened = workflow({"output_dir": "here", "stage_dir": "@output_dir", **ENTER})
        opened.initialize()
        opened.parser["output_dir"] = "there"
        assert opened.parser.get_parsed_content("stage_dir") == "there"

    def test_the_bundle_s_root_is_the_folder_above_the_configuration_s(self, workflow, tmp_path):
        opened = workflow({"bundle_root": ".", "output_dir": "$@bundle_root + '/eval'", **ENTER})
        opened.initialize()
        assert opened.parser.get_parsed_content("output_dir") == str(tmp_path.resolve() / "a_bundle/eval")

    def test_a_root_that_was_given_is_kept(self, workflow):
        opened = workflow({"bundle_root": ".", **ENTER}, bundle_root="/elsewhere")
        opened.initialize()
        assert opened.parser["bundle_root"] == "/elsewhere"
