"""What a user types on the command line, or writes into an overlay or args file, reaches the loop and its stages."""

import json

import monai.networks.nets
import pytest
from command import TINY, run_bundle, words
from monai.transforms import ScaleIntensityd, ScaleIntensityRanged

from svgd_monai.rounds import ActiveLearning


@pytest.fixture
def config(bundle):
    return bundle / "configs/active_learning.yaml"


@pytest.fixture
def loop_of(monkeypatch):
    """The loop that a command line would run."""

    def run(*arguments):
        loops = []

        def keep(loop):
            loops.append(loop)

        monkeypatch.setattr(ActiveLearning, "run", keep)
        result = run_bundle(*arguments)
        assert result.exit_code == 0, result.stderr
        assert result.stderr == ""
        return loops.pop()

    return run


@pytest.fixture
def settings_of(loop_of, config, tmp_path):
    """The loop's settings for some words."""

    def run(*arguments):
        return loop_of(*words(config, output_dir=tmp_path), *arguments).settings

    return run


UNDERSTOOD = [
    ("--keep_labelled False", "keep_labelled", False),
    ("--keep_labelled false", "keep_labelled", False),
    ("--keep_labelled=FALSE", "keep_labelled", False),
    ("--keep_labelled true", "keep_labelled", True),
    ("--prior_std flat", "prior_std", None),
    ("--prior_std None", "prior_std", None),
    ("--prior_std=null", "prior_std", None),
    ("--prior_std 2", "prior_std", 2.0),
    ("--augmentation None", "augmentation", "none"),
    ("--augmentation none", "augmentation", "none"),
    ("--augmentation Light", "augmentation", "light"),
    ("--mi_grid None", "mi_grid", None),
    ("--spacing 3", "spacing", [3.0, 3.0, 3.0]),
    ("--spacing [3,2,1.5]", "spacing", [3.0, 2.0, 1.5]),
    ("--spacing 3,2,1.5", "spacing", [3.0, 2.0, 1.5]),
    ("--roi_size 32", "roi_size", [32, 32, 32]),
    ("--features 8", "features", [8] * 6),
    ("--rounds 2.0", "rounds", 2),
    ("--seed 9007199254740993", "seed", 9007199254740993),
    ("--learning_rate 1e-4", "learning_rate", 1e-4),
    ("--learning_rate 1", "learning_rate", 1.0),
    ("--committee ENSEMBLE", "committee", "ensemble"),
]


@pytest.mark.parametrize(
    ("typed", "key", "value"), [("--prior_std None", "prior_std", None), ("--rounds 2.0", "rounds", 2)]
)
def test_run_workflow_understands_the_same(loop_of, config, tmp_path, typed, key, value):
    found = loop_of("run_workflow", *words(config, output_dir=tmp_path)[1:], *typed.split(" ")).settings[key]
    assert repr(found) == repr(value)


def test_run_workflow_refuses_a_mistyped_key(config, tmp_path):
    result = run_bundle("run_workflow", *words(config, output_dir=tmp_path)[1:], "--learning_ratee", "0.5")
    assert result.exit_code == 1
    assert result.last_line == f"--learning_ratee is not a key of {config}."


WRAP = """
from monai.bundle import BundleWorkflow, ConfigWorkflow

class Wrap(BundleWorkflow):
    def __init__(self, bundle, out, **_):
        super().__init__(workflow_type="train")
        self.held = ConfigWorkflow(config_file=bundle, output_dir=out, rounds=7)
    def initialize(self):
        self.held.initialize()
    def run(self):
        self.held.run()
    def finalize(self):
        self.held.finalize()
    def _get_property(self, name, property):
        return None
    def _set_property(self, name, property, value):
        pass
"""


def test_a_workflow_of_the_users_own_that_holds_the_bundles_has_words_of_its_own(
    loop_of, config, tmp_path, monkeypatch
):
    (tmp_path / "wrap.py").write_text(WRAP)
    monkeypatch.syspath_prepend(tmp_path)
    words = ("--workflow_name", "wrap.Wrap", "--bundle", config, "--out", tmp_path / "out")
    assert loop_of("run_workflow", *words).settings["rounds"] == 7


@pytest.mark.parametrize(("typed", "key", "value"), UNDERSTOOD, ids=[typed for typed, _, _ in UNDERSTOOD])
def test_a_word_becomes_a_value_of_the_key_s_type(settings_of, typed, key, value):
    found = settings_of(*typed.split(" "))[key]
    assert repr(found) == repr(value)


@pytest.mark.parametrize(
    ("typed", "key", "value"),
    [
        ("--learning_rate=$2 * 0.001", "learning_rate", 0.002),
        ("--learning_rate=@mi_weight", "learning_rate", 1.0),
        ("--queries_per_round=%initial_labelled", "queries_per_round", 10),
        ("--spacing=$3", "spacing", [3.0, 3.0, 3.0]),
        ("--rounds=$4 / 2", "rounds", 2),
        ("--keep_labelled=$'false'", "keep_labelled", False),
        ("--output_dir=$__import__('pathlib').Path('here')", "output_dir", "here"),
    ],
)
def test_expressions_references_and_macros_are_resolved_into_the_key_s_type(settings_of, typed, key, value):
    assert repr(settings_of(typed)[key]) == repr(value)


def test_a_macro_may_come_from_another_file(settings_of, bundle):
    paper = bundle / "configs/paper.yaml"
    assert settings_of(f"--roi_size=%{paper}::roi_size")["roi_size"] == [64, 64, 64]


def test_what_is_not_typed_keeps_the_file_s_value(settings_of, bundle, tmp_path):
    settings = settings_of("--rounds", "3")
    assert settings["rounds"] == 3
    assert settings["output_dir"] == str(tmp_path)
    assert settings["cache_dir"] == f"{tmp_path}/cache"
    assert (settings["keep_labelled"], settings["split_file"], settings["prior_std"]) == (True, None, 1.0)


def test_the_bundle_s_folder_is_found_from_anywhere(loop_of, config, bundle, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    loop = loop_of(*words(config))
    assert loop.settings["output_dir"] == f"{bundle.resolve()}/eval"
    assert loop.data_lists == bundle.resolve().parents[1] / "data_lists"


def test_null_on_the_command_line_wins_over_an_overlay(loop_of, config, bundle, tmp_path):
    paper = bundle / "configs/paper.yaml"
    loop = loop_of(*words(config, paper, output_dir=tmp_path), "--pad_to=None", "--split_file=None")
    assert loop.settings["split_file"] is None
    assert loop.settings["pad_to"] is None
    assert loop.settings["roi_size"] == [64, 64, 64]


def test_an_args_file_sets_values_that_the_command_line_overrides(loop_of, config, tmp_path):
    arguments = tmp_path / "args.yaml"
    arguments.write_text(f"config_file: {config}\noutput_dir: {tmp_path}\nkeep_labelled: 'False'\nrounds: 7\nseed: 2\n")
    settings = loop_of("run", "--args_file", arguments, "--rounds", "5").settings
    assert (settings["keep_labelled"], settings["rounds"], settings["seed"]) == (False, 5, 2)


def test_the_arguments_of_monai_s_own_workflow_are_no_keys(settings_of):
    assert settings_of("--workflow_type", "train", "--rounds", "4")["rounds"] == 4


def test_the_loop_s_settings_hold_in_every_stage(loop_of, config, tmp_path):
    loop = loop_of(*words(config, **{**TINY, "output_dir": tmp_path}), "--prior_std=flat", "--num_classes=4")
    train, evaluate, acquire = (loop.stages.parser(stage) for stage in ("train", "evaluate", "acquire"))
    assert train.get_parsed_content("network_def").num_particles == TINY["num_particles"]
    assert train["prior_std"] is None
    assert train["steps_per_round"] == TINY["steps_per_round"]
    for parser in (train, evaluate, acquire):
        assert parser.get_parsed_content("architecture")().final_conv.out_channels == 4
        assert parser.get_parsed_content("cache_dir") == f"{tmp_path}/cache"
        assert parser.get_parsed_content("preprocessing").transforms
    assert evaluate.get_parsed_content("surface_distances") is False


OVERLAY = """
architecture:
  _target_: UNet
  _mode_: callable
  spatial_dims: 3
  in_channels: '@in_channels'
  out_channels: '@num_classes'
  channels: '@channels'
  strides: [2]
channels: [4, 8]
intensity:
  _target_: ScaleIntensityd
  keys: image
  minv: 0.0
loss:
  _target_: svgd_monai.LogDiceLoss
  to_onehot_y: true
  softmax: true
  include_background: false
"""


@pytest.fixture
def overlay(tmp_path):
    path = tmp_path / "overlay.yaml"
    path.write_text(OVERLAY)
    return path


def test_an_overlay_s_components_and_new_keys_reach_every_stage(loop_of, config, overlay, tmp_path):
    loop = loop_of(*words(config, overlay, output_dir=tmp_path))
    for stage in ("train", "evaluate", "acquire"):
        parser = loop.stages.parser(stage)
        network = parser.get_parsed_content("architecture")()
        assert type(network) is monai.networks.nets.UNet
        assert network.channels == [4, 8]
        kinds = [type(transform) for transform in parser.get_parsed_content("preprocessing").transforms]
        assert ScaleIntensityd in kinds
    train = loop.stages.parser("train")
    assert train.get_parsed_content("loss").include_background is False
    assert train.get_parsed_content("network_def").values.shape[0] == 5


def test_the_command_line_may_set_what_an_overlay_added(loop_of, config, overlay, tmp_path):
    loop = loop_of(*words(config, overlay, output_dir=tmp_path), "--channels=[2,6]", "--intensity#minv=-1")
    parser = loop.stages.parser("train")
    assert parser.get_parsed_content("architecture")().channels == [2, 6]
    assert parser.get_parsed_content("intensity").scaler.minv == -1


def test_the_paper_s_clip_replaces_the_default_in_every_stage(loop_of, config, bundle, tmp_path):
    loop = loop_of(*words(config, bundle / "configs/paper.yaml", output_dir=tmp_path))
    for stage in ("train", "evaluate", "acquire"):
        parser = loop.stages.parser(stage)
        intensity = parser.get_parsed_content("intensity")
        assert type(intensity) is ScaleIntensityRanged
        assert (intensity.scaler.a_min, intensity.scaler.a_max) == (0.0, 2048.0)
        assert parser.get_parsed_content("pad_to") == [64, 64, 64]
    assert loop.settings["prior_std"] is None
    assert loop.settings["split_file"] == "task04_hippocampus"


def test_a_tiny_run_is_recorded_as_it_was_typed(config, phantom_mr, tmp_path):
    typed = {
        **TINY,
        "dataset_dir": phantom_mr,
        "output_dir": tmp_path,
        "rounds": 0,
        "spacing": 3,
        "roi_size": "16,32,16",
    }
    result = run_bundle(*words(config, **typed), "--keep_labelled", "False", "--prior_std", "None")
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    record = json.loads((tmp_path / "run.json").read_text())
    settings = record["settings"]
    assert settings["keep_labelled"] is False
    assert settings["prior_std"] is None
    assert settings["surface_distances"] is False
    assert settings["spacing"] == [3.0, 3.0, 3.0]
    assert settings["roi_size"] == [16, 32, 16]
    assert [len(record["split"][role]) for role in ("initial", "pool", "validation", "test")] == [3, 13, 2, 2]
    assert (tmp_path / "round_000/scores.csv").read_text().count("\n") == 1 + 13
    assert "complete" in result.stdout
