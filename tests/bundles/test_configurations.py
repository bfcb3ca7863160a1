"""The YAML of both bundles: keys, defaults, and the wiring that they share."""

import shutil
import warnings
from pathlib import Path

import pytest
import yaml
from monai.bundle import ConfigParser

from svgd_monai.workflow import KEYS, MACHINERY, check_setting
from svgd_monai.workflow.wire import MARKER, STAGES, main, wire, wiring

BUNDLES = sorted((Path(__file__).parents[2] / "bundles").iterdir())
#: What the loop itself sets for a stage.
OF_A_ROUND = {"round", "stage_dir", "datalist_file", "committee_file", "initial_committee", "model_file"}
OF_A_LOOP = ("train", "evaluate", "acquire")
#: What a publication fixes of a run, whatever a task's numbers are.
PROTOCOL = {
    "split_file", "initial_labelled", "validation_cases", "test_cases", "spacing", "roi_size", "num_particles",
    "learning_rate", "learning_rate_schedule", "batch_size", "rounds", "steps_per_round", "queries_per_round",
    "likelihood_scale", "prior_std", "augmentation", "acquisition", "keep_labelled", "normalise_over",
}  # fmt: skip


def config(bundle, stem):
    return ConfigParser.load_config_file(str(bundle / f"configs/{stem}.yaml"))


def is_computed(value):
    return isinstance(value, dict) or (isinstance(value, str) and value[:1] in "$@%")


def same(value, other):
    return value == other and type(value) is type(other)


@pytest.fixture(params=BUNDLES, ids=lambda path: path.name)
def each(request):
    """Each bundle's folder in turn."""
    return request.param


def test_there_are_two_bundles():
    assert [path.name for path in BUNDLES] == ["hippocampus_mri_svgd", "pancreas_ct_svgd"]


def test_the_configurations_are_read_in_every_locale(each):
    """MONAI opens them in the locale's encoding."""
    for path in (each / "configs").iterdir():
        assert path.read_text(encoding="utf-8").isascii(), path


def test_every_default_is_a_value_of_its_key(each):
    for path in sorted((each / "configs").glob("*.yaml")):
        content = config(each, path.stem)
        settings = {name: value for name, value in content.items() if name in KEYS and not is_computed(value)}
        assert settings or path.stem == "multi_gpu"  # whose only key is computed
        for name, value in settings.items():
            checked = check_setting(name, value)
            if not (isinstance(value, str) and KEYS[name].words and value in KEYS[name].words):
                assert same(checked, value), f"{path.name}: {name} is not written in its type"


def test_every_key_stands_in_a_configuration(each):
    assert set(KEYS) <= {name for stem in STAGES for name in config(each, stem)}


def test_a_key_has_the_same_value_in_every_configuration(each):
    """The stages run by themselves and in the loop alike; so do the network and the volumes of an inference."""
    shared = {*KEYS, "bundle_root", "architecture", "intensity", "pad_to", "network_def", "inferer"}
    values = {}
    for stem in set(STAGES) - {"study"}:  # whose numbers are its own
        for name, value in config(each, stem).items():
            # A training holds particles to move; all others a mean of networks.
            if name in shared and (stem, name) != ("train", "network_def"):
                values.setdefault(name, {})[stem] = value
    differing = {name: found for name, found in values.items() if len({repr(value) for value in found.values()}) > 1}
    assert differing == {}


@pytest.mark.parametrize("stage", OF_A_LOOP)
def test_the_loop_sets_every_key_of_a_stage(each, stage):
    unset = {name for name in config(each, stage) if name in KEYS} - set(config(each, "active_learning")) - OF_A_ROUND
    unset.discard("val_interval")  # a round makes all of its validations_per_round
    assert unset == set(), f"{stage}.yaml would stay at its own default"


def test_every_key_of_the_loop_is_its_own_or_a_stage_s(each):
    own = {*KEYS, *MACHINERY, "bundle_root", "stages", "hooks", "loop"}
    assert set(config(each, "active_learning")) - own == set()


@pytest.mark.parametrize("overlay", ["paper", "phantom"])
def test_an_overlay_sets_only_what_some_configuration_knows(each, overlay):
    known = {name for stem in STAGES for name in config(each, stem)}
    assert set(config(each, overlay)) - known == set()


def test_the_papers_overlay_sets_all_of_the_protocol_whatever_stands_before_it(each):
    overlay = config(each, "paper")
    assert PROTOCOL - set(overlay) == set()
    assert overlay["learning_rate_schedule"] == "constant"


@pytest.mark.parametrize("stage", STAGES)
def test_the_wiring_is_the_packages_in_both_bundles(each, stage):
    assert (each / f"configs/{stage}.yaml").read_text().endswith(f"\n\n{MARKER}\n{wiring(stage)}")


@pytest.mark.parametrize("stage", ["train", "acquire"])
def test_a_stage_s_own_writer_is_the_package_s_which_never_holds_up_the_end(each, stage):
    assert config(each, stage)["summary_writer"]["_target_"] == "svgd_monai.report.summary_writer"


def test_both_bundles_offer_the_same_keys():
    for stage in set(STAGES) - {"study"}:  # what is compared, and at which size, is a study's own
        first, second = (set(config(bundle, stage)) for bundle in BUNDLES)
        assert first == second


class TestWire:
    @pytest.fixture
    def copy(self, tmp_path):
        return Path(shutil.copytree(BUNDLES[0], tmp_path / "mine"))

    def test_writes_what_is_stale_and_keeps_the_bundles_own_part(self, copy):
        path = copy / "configs/train.yaml"
        before = path.read_text()
        own = before.partition(MARKER)[0].replace("batch_size: 8", "batch_size: 3")
        path.write_text(own)
        assert wire(copy, check=True) == [path]
        assert path.read_text() == own
        assert wire(copy) == [path]
        assert path.read_text() == before.replace("batch_size: 8", "batch_size: 3", 1)
        assert wire(copy) == []

    def test_a_change_in_the_wiring_part_is_undone(self, copy):
        path = copy / "configs/acquire.yaml"
        before = path.read_text()
        path.write_text(before.replace("grid: '@mi_grid'", "grid: null"))
        assert wire(copy) == [path]
        assert path.read_text() == before

    def test_a_key_above_the_line_is_the_bundles_own_and_left_out_of_the_wiring(self, copy, capsys):
        path = copy / "configs/train.yaml"
        head, _, rest = path.read_text().partition(MARKER)
        own = "architecture: {_target_: SegResNet, norm: &norm [a]}\nloss: {_target_: Loss, norm: *norm}\nseed: 7\n"
        path.write_text(f"{own}{head}{MARKER}{rest}")
        main([str(copy)])
        main([str(copy), "--check"])
        assert capsys.readouterr().out == ""  # nothing was replaced that the package does not know
        text = path.read_text()
        assert text.startswith(own + head)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # MONAI's, of a key that stands there twice
            content = config(copy, "train")
        assert (content.pop("architecture"), content.pop("loss"), content.pop("seed")) == (
            {"_target_": "SegResNet", "norm": ["a"]}, {"_target_": "Loss", "norm": ["a"]}, 7
        )  # fmt: skip
        theirs = config(BUNDLES[0], "train")
        assert content == {key: value for key, value in theirs.items() if key not in ("architecture", "loss", "seed")}
        path.write_text(text.partition(MARKER)[0].removeprefix(own) + MARKER)
        wire(copy)
        assert path.read_text() == f"{head}{MARKER}{rest}"

    def test_a_key_that_the_wiring_sets_is_refused_for_it_would_be_lost(self, copy):
        """Where no line tells what the bundle's own keys are."""
        path = copy / "configs/train.yaml"
        before = path.read_text().replace(MARKER, "")
        path.write_text(before)
        with pytest.raises(SystemExit, match=r"train\.yaml sets imports, which the wiring sets too, and has no line"):
            main([str(copy)])
        path.write_text("seed: 7\n" + before.partition("imports:")[0])
        with pytest.raises(SystemExit, match=r"train\.yaml sets seed, "):
            main([str(copy)])

    @pytest.mark.parametrize("stage", STAGES)
    def test_what_is_left_out_takes_nothing_else_along(self, stage):
        text = wiring(stage)
        content = yaml.safe_load(text)
        comments = [line for line in text.splitlines() if line.startswith("#")]
        for key in content:
            less = wiring(stage, [key])
            assert yaml.safe_load(less) == {name: value for name, value in content.items() if name != key}
            assert [line for line in less.splitlines() if line.startswith("#")] == comments
            assert set(less.splitlines()) <= set(text.splitlines())

    def test_what_is_replaced_below_the_line_is_shown(self, copy, capsys):
        path = copy / "configs/train.yaml"
        before = path.read_text()
        changed = before.replace("_target_: BasicUNet", "_target_: SegResNet").replace(
            "\nseed: 0", "\nmine: 3\nseed: 0"
        )
        path.write_text(changed)
        with pytest.raises(SystemExit, match=r"Not up to date: \S+/train\.yaml \(mine, architecture\)\."):
            main([str(copy), "--check"])
        assert path.read_text() == changed
        main([str(copy)])
        assert path.read_text() == before
        told, *lines = capsys.readouterr().out.splitlines()
        assert told.startswith(f"{path}: replaced below the line: mine, architecture.")
        assert {"-mine: 3", "-  _target_: SegResNet", "+  _target_: BasicUNet"} <= set(lines)

    def test_a_comment_below_the_line_is_nothing_of_the_users_own(self, copy, capsys):
        """As an upgrade changes them: nobody is to keep a default of ours for its comment."""
        path = copy / "configs/train.yaml"
        before = path.read_text()
        path.write_text(before.replace("# or cosine", "# or a cosine"))
        assert path.read_text() != before
        main([str(copy)])
        assert path.read_text() == before
        assert capsys.readouterr().out == ""

    @pytest.mark.parametrize(
        ("head", "sentence"),
        [
            ("batch_size: 3\n", r"train\.yaml sets batch_size twice above the line of the wiring; leave one "),
            ("train#trainer#amp: false\n", r"train\.yaml: train#trainer#amp has no effect above train; set the whole"),
            ("+imports: [$import os]\n", r"train\.yaml: \+imports has no effect above imports; set the whole"),
            ("crop#roi_size: [8, 8, 8]\n", r"train\.yaml: crop#roi_size has no effect above crop; set the whole"),
            ("a: b: c\n", r"train\.yaml is not YAML"),
        ],
    )
    def test_what_would_be_lost_above_the_line_is_refused_and_no_file_written(self, copy, head, sentence):
        path, other = copy / "configs/train.yaml", copy / "configs/active_learning.yaml"
        path.write_text(head + path.read_text())
        other.write_text(other.read_text() + "more: 1\n")
        with pytest.raises(SystemExit, match=sentence):
            main([str(copy)])
        assert other.read_text().endswith("more: 1\n")

    def test_a_check_of_a_stale_bundle_ends_with_its_name(self, copy):
        main([str(copy), "--check"])
        path = copy / "configs/inference.yaml"
        path.write_text(path.read_text() + "more: 1\n")
        with pytest.raises(SystemExit, match=r"inference\.yaml"):
            main([str(copy), "--check"])

    def test_a_missing_file_is_named(self, copy):
        (copy / "configs/evaluate.yaml").unlink()
        with pytest.raises(SystemExit, match=r"evaluate\.yaml cannot be read"):
            main([str(copy)])

    def test_the_wiring_is_a_configuration_of_its_own_keys_only(self):
        for stage in STAGES:
            keys = yaml.safe_load(wiring(stage))
            assert {"initialize", "steps", "run"} <= set(keys)
