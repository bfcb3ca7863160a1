"""Files of a stage's own: the example of docs/extending.md, and what may be wrong with them."""

import copy
import gc
import json
import re
import shutil
import time
import weakref

import pytest
import torch
from command import TINY, run_bundle, words
from printed import printed_commands, run_printed
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from svgd_monai.committee import CommitteeKeeper
from svgd_monai.errors import SettingsError
from svgd_monai.rounds.stages import Stages, stage_files
from svgd_monai.rounds.study.runner import Study

HEADING = "## Handlers, metrics and all else within a stage"


@pytest.fixture(scope="module")
def desk(bundle, phantom_mr, tmp_path_factory):
    """The current folder of someone who follows the page."""
    folder = tmp_path_factory.mktemp("desk")
    shutil.copy(bundle / "docs/examples/pictures.yaml", folder)
    (folder / "Task04_Hippocampus").symlink_to(phantom_mr)
    return folder


@pytest.fixture(scope="module")
def done(bundle, desk):
    """The printed commands, in their order; two validations in each of two rounds."""
    commands = printed_commands(bundle / "docs/extending.md", HEADING)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(desk)
        results = [run_printed(command, bundle, validations_per_round=2) for command in commands]
    assert [result.exit_code for result in results] == [0, 0], [result.last_line for result in results]
    return commands


@pytest.fixture
def at_desk(desk, done, monkeypatch):
    monkeypatch.chdir(desk)
    return desk


def pictures(folder):
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"images": 0})
    events.Reload()
    return {tag: [event.step for event in events.Images(tag)] for tag in events.Tags()["images"]}


def loop(bundle, out, *overlays, **keys):
    keys = {**TINY, "dataset_dir": "Task04_Hippocampus", "output_dir": out, **keys}
    return run_bundle(*words(bundle / "configs/active_learning.yaml", *overlays, **keys))


class TestPage:
    def test_the_loop_shows_pictures_of_every_validation(self, desk, done):
        found = pictures(desk / "runs/pictures")
        for tag in ("input_0_HWD/image", "input_1_HWD/image", "output_HWD/image/2"):
            assert found[tag] == [1, 2, 3, 4]

    def test_so_does_a_training_by_itself(self, desk, done):
        assert pictures(desk / "runs/pictures_by_itself")["output_HWD/image/0"] == [1, 2]

    def test_the_run_records_what_the_file_says(self, desk, done):
        (recorded,) = json.loads((desk / "runs/pictures/run.json").read_text())["components"]["stages#train"]
        assert recorded["+validate#handlers"][0]["_target_"] == "TensorBoardImageHandler"

    def test_the_same_command_goes_on(self, bundle, at_desk, done):
        result = run_printed(done[0], bundle, validations_per_round=2)
        assert result.exit_code == 0
        assert "is finished" in result.stdout

    @pytest.mark.parametrize("change", ["another content", "without it"])
    def test_a_run_is_not_mixed_with_another(self, bundle, at_desk, change, tmp_path):
        text = (at_desk / "pictures.yaml").read_text().replace("max_channels: 3", "max_channels: 1")
        (tmp_path / "pictures.yaml").write_text(text)
        more = {"stages#train": ["train.yaml", str(tmp_path / "pictures.yaml")]} if change == "another content" else {}
        result = loop(bundle, "runs/pictures", validations_per_round=2, **more)
        assert result.exit_code == 1
        assert result.last_line.startswith("stages#train: differs from the run in runs/pictures")


def test_the_page_s_scheduler_sets_the_rates_and_is_saved(bundle, phantom_mr, tmp_path):
    tiny = {key: value for key, value in TINY.items() if key not in ("mi_grid", "rounds", "surface_distances")}
    keys = {**tiny, "dataset_dir": phantom_mr, "output_dir": tmp_path, "model_file": "none", "steps_per_round": 4}
    overlay = tmp_path / "keeper.yaml"
    overlay.write_text("schedule#step_size: 1\ntrain#handlers#3#every: 0\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CommitteeKeeper, "finish", lambda *_: None)  # which removes the progress
        result = run_bundle(
            *words(bundle / "configs/train.yaml", bundle / "docs/examples/schedule.yaml", overlay, **keys)
        )
    assert result.exit_code == 0, result.last_line
    saved = torch.load(tmp_path / "training.pt", weights_only=True)
    assert saved["state"]["schedule"]["last_epoch"] == 4
    assert saved["optimizer"]["param_groups"][0]["lr"] == pytest.approx(0.001 / 16)


def test_the_page_s_handler_that_is_given_its_trainer_serves_the_loop(bundle, at_desk, tmp_path):
    section = (bundle / "docs/extending.md").read_text().partition("\n+initialize:\n")
    example = f"{section[0].rpartition('```yaml')[2]}{section[1]}{section[2].partition('```')[0]}"
    (tmp_path / "stop.yaml").write_text(
        re.sub("score_function: .*", "score_function: '$lambda evaluator: 0.0'", example).replace("ce: 3", "ce: 1")
    )
    files = {"stages#train": ["train.yaml", str(tmp_path / "stop.yaml")]}
    result = loop(bundle, tmp_path / "out", rounds=0, steps_per_round=4, validations_per_round=4, **files)
    assert result.exit_code == 0, result.last_line
    assert "step 2: loss" in result.stdout
    assert "step 3: loss" not in result.stdout


class TestOverlay:
    def test_hands_the_files_on_to_the_runs_of_a_study(self, bundle, at_desk, tmp_path, monkeypatch):
        (tmp_path / "overlay.yaml").write_text("stages#train: [train.yaml, pictures.yaml]\n")
        studies = []

        def run(study):
            studies.append(study)

        monkeypatch.setattr(Study, "run", run)
        for overlays in ([], [tmp_path / "overlay.yaml"]):
            keys = {"dataset_dir": "Task04_Hippocampus", "output_dir": tmp_path / "study", "device": "cpu"}
            result = run_bundle(*words(bundle / "configs/study.yaml", *overlays, **keys))
            assert result.exit_code == 0, result.last_line
        plain, changed = (study.overlay(study.cells[0]) for study in studies)
        assert "stages" not in plain, "runs of studies that have begun know no such key"
        assert changed["stages"]["train"] == ["train.yaml", "pictures.yaml"]
        assert changed["stages"]["acquire"] == "acquire.yaml"


class TestMistakes:
    @pytest.mark.parametrize(
        ("content", "why"),
        [
            ("+validate#handler: [{_target_: Handler}]\n", "Can't merge entry ['+validate#handler']"),
            ("validate#evaluators#amp: false\n", "query key: evaluators"),
            ("+validate#handlers: {_target_: Handler}\n", "config must be dict or list for key `+validate#handlers`"),
            ("- a\n- b\n", "AttributeError"),
            ("a: b: c\n", "mapping values are not allowed here"),
            ("\x00", "ReaderError"),
        ],
    )
    def test_a_file_that_makes_no_configuration_is_named(self, bundle, at_desk, content, why, tmp_path):
        path = tmp_path / "mine.yaml"
        path.write_text(content)
        result = loop(bundle, tmp_path / "out", **{"stages#train": ["train.yaml", str(path)]})
        assert result.exit_code == 1
        assert result.last_line.startswith("stages: ")
        assert f"{path} cannot be read as the configuration of train (" in result.last_line
        assert why in result.last_line
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize(
        "key",
        ["learning_rate: 0.5", "loss#softmax: false", "~loss: null", "+loss: {batch: true}", "initial_committee: x.pt"],
    )
    def test_what_the_loop_sets_in_all_stages_is_refused_in_the_file_of_one(self, bundle, at_desk, key, tmp_path):
        for name, content in (("mine.yaml", key), ("overlay.yaml", "loss: {_target_: svgd_monai.LogDiceLoss}")):
            (tmp_path / name).write_text(content)
        files = {"stages#train": ["train.yaml", str(tmp_path / "mine.yaml")]}
        result = loop(bundle, tmp_path / "out", tmp_path / "overlay.yaml", **files)
        assert result.exit_code == 1
        name = key.lstrip("+~").partition("#")[0].partition(":")[0]
        assert result.last_line.startswith(f"stages#train: {tmp_path / 'mine.yaml'} sets {name}, which the loop itself")
        assert not (tmp_path / "out").exists()

    def test_a_training_that_keeps_no_committee_is_told_what_it_lacks(self, bundle, at_desk, tmp_path):
        (tmp_path / "mine.yaml").write_text("train#handlers: []\n")
        files = {"stages#train": ["train.yaml", str(tmp_path / "mine.yaml")]}
        result = loop(bundle, tmp_path / "out", **files)
        assert result.exit_code == 1
        assert result.last_line.startswith("stages#train: the training has left no committee; train#handlers needs")

    @pytest.mark.parametrize(
        "stage", ["train", "evaluate", pytest.param("acquire", marks=pytest.mark.long), "inference"]
    )
    @pytest.mark.parametrize(
        ("component", "sentence"),
        [
            ("{_target_: NoHandler}", "_target_: 'NoHandler' is neither"),
            ("{_target_: StatsHandler, nam: x}", "_target_: "),
        ],
    )
    def test_a_component_that_cannot_be_is_refused_before_anything_is_made(
        self, bundle, at_desk, stage, component, sentence, tmp_path
    ):
        handlers = "+train#handlers" if stage == "train" else "+handlers"
        (tmp_path / "mine.yaml").write_text(f"{handlers}: [{component}]\n")
        result = loop(bundle, tmp_path / "out", **{f"stages#{stage}": [f"{stage}.yaml", str(tmp_path / "mine.yaml")]})
        assert result.exit_code == 1
        assert result.last_line.startswith(sentence)
        assert not (tmp_path / "out").exists()

    def test_a_file_that_fails_behind_the_training_is_mended(self, bundle, at_desk, tmp_path):
        mine = tmp_path / "mine.yaml"
        files = {"stages#evaluate": ["evaluate.yaml", str(mine)]}
        mine.write_text("+handlers: [{_target_: builtins.dict}]\n")  # which cannot be attached
        assert loop(bundle, tmp_path / "out", **files).exit_code == 1
        committee = tmp_path / "out/round_000/committee.pt"
        trained = committee.stat().st_mtime_ns
        mine.write_text("+handlers: [{_target_: NoHandler}]\n")
        assert loop(bundle, tmp_path / "out", **files).last_line.startswith("_target_: 'NoHandler' is neither")
        mine.write_text("+handlers: [{_target_: StatsHandler}]\n")
        assert loop(bundle, tmp_path / "out", **files).exit_code == 0
        assert committee.stat().st_mtime_ns == trained

    @pytest.mark.parametrize(
        ("content", "told"),
        [
            (
                "max_norn: 0.001\n",
                "no configuration has the key max_norn, and nothing refers to it; did you mean max_n",
            ),
            ("train#inferrer: {_target_: SimpleInferer}\n", "no configuration has the key train#inferrer, and nothing"),
            ("~step: null\n", "~step: MONAI removes no keys; to leave a component out, set it to null."),
        ],
    )
    def test_a_misspelt_key_is_refused_before_anything_is_made(self, bundle, at_desk, content, told, tmp_path):
        (tmp_path / "mine.yaml").write_text(content)
        result = loop(bundle, tmp_path / "out", **{"stages#train": ["train.yaml", str(tmp_path / "mine.yaml")]})
        assert result.exit_code == 1
        assert result.last_line.startswith(f"{tmp_path / 'mine.yaml'}: {told}")
        assert not (tmp_path / "out").exists()

    def test_a_stage_that_sets_a_key_twice_is_refused_before_anything_is_made(self, bundle, at_desk, tmp_path):
        mine = tmp_path / "mine.yaml"
        mine.write_text("architecture: {_target_: SegResNet}\n" + (bundle / "configs/train.yaml").read_text())
        result = loop(bundle, tmp_path / "out", **{"stages#train": str(mine)})
        assert result.exit_code == 1
        assert result.last_line.startswith(f"{mine} sets architecture twice, and only the lower one would count")
        assert not (tmp_path / "out").exists()

    def test_a_missing_file_is_named(self, bundle, at_desk, tmp_path):
        result = loop(bundle, tmp_path / "out", **{"stages#train": ["train.yaml", "nowhere.yaml"]})
        assert result.exit_code == 1
        assert result.last_line.startswith("stages: there is no nowhere.yaml for train, neither in ")
        assert not (tmp_path / "out").exists()


class TestFiles:
    def test_of_the_bundle_come_before_those_of_the_current_folder(self, tmp_path, monkeypatch):
        bundle, desk = tmp_path / "configs", tmp_path / "desk"
        for path, text in {
            bundle / "train.yaml": "a: {b: [1]}\nc: 1\n",
            desk / "train.yaml": "wrong: 1\n",
            desk / "mine.yaml": "+a#b: [2]\n",
        }.items():
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        monkeypatch.chdir(desk)
        files = stage_files({"train": ["train.yaml", "mine.yaml"], "acquire": "train.yaml"}, bundle)
        assert [path.resolve() for path in files["train"]] == [bundle / "train.yaml", desk / "mine.yaml"]
        stages = Stages(files, {"c": 3})
        parser = stages.parser("train")
        assert (parser["a"]["b"], parser["c"]) == ([1, 2], 3)
        assert stages.parser("acquire")["a"]["b"] == [1]
        assert stages.changes() == {"stages#train": [{"+a#b": [2]}]}

    def test_a_first_one_that_is_not_the_bundles_own_is_a_change_too(self, tmp_path):
        bundle, own = tmp_path / "configs", tmp_path / "own.yaml"
        bundle.mkdir()
        (bundle / "train.yaml").write_text("a: 1\n")
        own.write_text("a: 2\n")
        ours = bundle / "../configs/train.yaml"
        for name, expected in (("train.yaml", {}), (str(ours), {}), (str(own), {"stages#train": [{"a": 2}]})):
            stages = Stages(stage_files({"train": name}, bundle), {}, folder=bundle)
            assert stages.changes() == expected


class TestRun:
    def test_a_stage_changes_no_setting_takes_its_time_and_leaves_no_memory_taken(self, tmp_path):
        class Cycle:
            def __init__(self):
                self.me = self
                made.append(weakref.ref(self))

        path, made = tmp_path / "train.yaml", []
        path.write_text("steps: [$@part#make()]\npart: {}\n")
        overrides = {"part": {"make": Cycle, "other": "@#make"}, "names": ["@part#make"]}
        stages = Stages({"train": [path]}, copy.deepcopy(overrides))
        frozen, began = gc.get_freeze_count(), time.monotonic()
        seconds = stages.run("train")
        assert 0 <= seconds <= time.monotonic() - began
        assert stages.overrides == overrides
        assert len(made) == 1
        assert made[0]() is None
        assert gc.get_freeze_count() == frozen

    ENTER = "{_target_: svgd_monai.workflow.enter}"
    STEPS = "{_target_: svgd_monai.workflow.run_steps}"

    @pytest.mark.parametrize(
        ("sections", "expected"),
        [
            ({"steps": "[$@note(1), $@note(2)]"}, [1, 2]),
            ({"finalize": "[$@note(3)]", "initialize": f"[{ENTER}, $@note(0)]", "run": f"[{STEPS}]",
              "steps": "[$@note(1)]"}, [0, 1, 3]),
            ({"initialize": "$@note(0)", "run": "[$@note(1), $@note(1)]", "steps": "[$@note(9)]"}, [0, 1, 1]),
            ({"run": f"[$@note(1), {STEPS}, {{_target_: '@note', value: 3}}]", "steps": "[$@note(2)]"}, [1, 2, 3]),
            ({"initialize": "[{_target_: svgd_monai.workflow.join}, {_target_: svgd_monai.workflow.enter},"
              "{_target_: svgd_monai.workflow.connect}]", "finalize": "[{_target_: svgd_monai.workflow.leave}]",
              "steps": "[$@note(1)]"}, [1]),
            ({"initialize": "[$svgd_monai.workflow.enter()]", "run": "[$svgd_monai.workflow.run_steps( ), $@note(2)]",
              "steps": "[$@note(1)]"}, [1, 2]),
        ],
    )  # fmt: skip
    def test_a_stage_runs_as_its_configuration_by_itself(self, sections, expected, tmp_path):
        path, noted = tmp_path / "train.yaml", []
        path.write_text("".join(f"{section}: {content}\n" for section, content in sections.items()))

        def note(value):
            noted.append(value)

        stages = Stages({"train": [path]}, {"note": note})
        for _ in range(2):
            stages.run("train")
        assert noted == 2 * expected

    @pytest.mark.parametrize("content", ["a: 1\n", f"run: [{STEPS}]\n", "steps: $print()\n"])
    def test_a_stage_that_does_not_say_what_to_run_is_told_so(self, content, tmp_path):
        path = tmp_path / "train.yaml"
        path.write_text(content)
        with pytest.raises(SettingsError) as caught:
            Stages({"train": [path]}, {}).run("train")
        sentence = f"stages#train: {path} must say under run, or in a list under steps, what to run."
        assert str(caught.value) == sentence
