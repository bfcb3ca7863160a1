"""The overlay of docs/extending.md, another network, likelihood, strategy and hook, by the commands printed there."""

import csv
import json
import os
import re
import shutil
import sys

import monai.losses
import nibabel as nib
import pytest
import torch
import yaml
from command import TINY, run_bundle, run_bundle_subprocess, words
from monai.bundle import ConfigParser
from printed import printed_commands, printed_files, run_printed
from runs import outcome

from svgd_monai import LogDiceLoss, Particles
from svgd_monai.acquisition import get_strategy
from svgd_monai.committee import PosteriorStep, committee_mean, convert_committee, load_committee, save_committee
from svgd_monai.errors import SettingsError

HEADING = "## Another network, likelihood, strategy and hook"
LOOP = {"validations_per_round": 2}  # of two steps, so that a training can be cut off between them


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def page(bundle):
    return bundle / "docs/extending.md"


@pytest.fixture(scope="module")
def desk(bundle, phantom_mr, tmp_path_factory):
    """The current folder of someone who follows the page: the files it prints, and scans."""
    folder = tmp_path_factory.mktemp("desk")
    for name in ("segresnet.yaml", "my_parts.py"):
        shutil.copy(bundle / "docs/examples" / name, folder)
    (folder / "Task04_Hippocampus").symlink_to(phantom_mr)
    (folder / "my_scans").mkdir()
    for path in sorted((phantom_mr / "imagesTr").iterdir())[:2]:
        shutil.copy(path, folder / "my_scans")
    return folder


@pytest.fixture
def at_desk(desk, monkeypatch):
    monkeypatch.chdir(desk)
    monkeypatch.syspath_prepend(str(desk))  # as the interpreter does for `python -m`
    yield desk
    sys.modules.pop("my_parts", None)


@pytest.fixture(scope="module")
def done(bundle, page, desk):
    """All printed commands, in their order."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(desk)
        patch.syspath_prepend(str(desk))
        results = {}
        for command in printed_commands(page, HEADING):
            stage = re.search(r"configs/(\w+)\.yaml", command).group(1)
            results[stage] = run_printed(command, bundle, **(LOOP if stage == "active_learning" else {}))
            assert results[stage].exit_code == 0, f"{command}: {results[stage].stderr}"
    sys.modules.pop("my_parts", None)
    return results


class TestPage:
    def test_prints_every_example_as_it_is(self, bundle, page):
        files = {path.name: path.read_text() for path in (bundle / "docs/examples").iterdir() if path.is_file()}
        assert printed_files(page) == files

    def test_prints_a_command_for_the_loop_and_for_each_use_of_its_committee(self, done):
        assert list(done) == ["active_learning", "evaluate", "acquire", "inference"]


class TestLoop:
    def test_records_the_components(self, desk, done):
        record = json.loads((desk / "runs/segresnet/run.json").read_text())
        overlay = yaml.safe_load((desk / "segresnet.yaml").read_text())
        for key in ("architecture", "loss"):
            assert record["components"][key] == overlay[key]
        assert record["settings"]["acquisition"] == "my_parts.small_and_disputed"
        assert record["finished"] is True

    def test_trains_the_network(self, desk, done):
        saved = torch.load(desk / "runs/segresnet/round_001/committee.pt", weights_only=True)
        assert "convInit.conv.weight" in dict(saved["layout"])
        assert saved["values"].shape[0] == TINY["num_particles"]

    def test_asks_what_the_strategy_wants(self, desk, done):
        table = rows(desk / "runs/segresnet/round_000/scores.csv")
        for row in table:
            per_ml = float(row["uncertainty"]) / (float(row["foreground_ml"]) + 1)
            assert float(row["score"]) == pytest.approx(per_ml, rel=1e-9)
        chosen = json.loads((desk / "runs/segresnet/round_000/queries.json").read_text())
        assert chosen == [max(table, key=lambda row: float(row["score"]))["case"]]

    def test_calls_the_hook_and_keeps_the_bundles_own(self, desk, done):
        notes = (desk / "runs/segresnet/notes.txt").read_text().splitlines()
        curve = rows(desk / "runs/segresnet/learning_curve.csv")
        assert notes == [f"{row['unique_labels']} labels: test Dice {row['test_dice']}" for row in curve]
        assert len(notes) == 2
        events = b"".join(p.read_bytes() for p in (desk / "runs/segresnet/tensorboard").iterdir())
        assert b"dice_test/mean" in events

    @pytest.mark.long
    def test_interrupted_and_started_again_equals_an_uninterrupted_one(self, bundle, page, at_desk, done, monkeypatch):
        command = printed_commands(page, HEADING)[0].replace("runs/segresnet", "runs/interrupted")
        step, calls = PosteriorStep.__call__, []

        def interrupt(*arguments):
            calls.append(arguments)
            if len(calls) == 4:  # round 1, behind its first validation
                raise KeyboardInterrupt
            return step(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(PosteriorStep, "__call__", interrupt)
            assert run_printed(command, bundle, **LOOP).last_line.startswith("Interrupted")
        assert (at_desk / "runs/interrupted/round_001/training.pt").is_file()
        result = run_printed(command, bundle, **LOOP)
        assert result.exit_code == 0
        assert "training continues at step 1" in result.stdout
        assert outcome(at_desk / "runs/interrupted") == outcome(at_desk / "runs/segresnet")
        assert (at_desk / "runs/interrupted/notes.txt").read_text() == (
            at_desk / "runs/segresnet/notes.txt"
        ).read_text()

    @pytest.mark.parametrize(("key", "line"), [("architecture", "init_filters: 8"), ("loss", "my_parts.Categ")])
    def test_another_component_in_the_same_folder_is_refused_by_name(self, bundle, at_desk, done, key, line, tmp_path):
        other = {"architecture": "init_filters: 16", "loss": "svgd_monai.Categ"}[key]
        text = (at_desk / "segresnet.yaml").read_text()
        assert text.count(line) == 1
        (tmp_path / "other.yaml").write_text(text.replace(line, other))
        keys = {**TINY, **LOOP, "dataset_dir": "Task04_Hippocampus", "output_dir": "runs/segresnet"}
        result = run_bundle(*words(bundle / "configs/active_learning.yaml", tmp_path / "other.yaml", **keys))
        assert result.exit_code == 1
        assert result.last_line.startswith(f"{key}: differs from the run in runs/segresnet")


class TestUse:
    def test_measures_what_the_run_measured(self, desk, done):
        measured = json.loads((desk / "runs/measured/metrics.json").read_text())
        known = json.loads((desk / "runs/segresnet/round_001/metrics.json").read_text())
        for role in ("validation", "test"):
            assert measured[role]["dice_grid"] == pytest.approx(known[role]["dice_grid"], abs=1e-6)

    def test_ranks_the_pool(self, desk, done):
        assert len(json.loads((desk / "runs/ranked/queries.json").read_text())) == 1

    def test_segments_in_the_images_own_geometry(self, desk, done):
        paths = sorted((desk / "my_scans").iterdir())
        for path in paths:
            mask = nib.load(desk / "segmented" / path.name.replace(".nii.gz", "_seg.nii.gz"))
            assert mask.shape == nib.load(path).shape
        assert len(paths) == 2

    def test_without_the_overlay_the_committee_is_refused(self, bundle, at_desk, done):
        command = "run --config_file $BUNDLE/configs/evaluate.yaml --dataset_dir Task04_Hippocampus --output_dir other"
        result = run_printed(command, bundle, committee_file="runs/segresnet/round_001/committee.pt")
        assert result.exit_code == 1
        assert result.last_line.startswith("runs/segresnet/round_001/committee.pt holds another network than ")
        assert not (at_desk / "other/metrics.json").exists()

    @pytest.mark.parametrize("place", ["the current folder", "PYTHONPATH"])
    def test_the_python_file_is_found(self, place, bundle, phantom_mr, desk, tmp_path, monkeypatch):
        if place == "PYTHONPATH":
            monkeypatch.setenv("PYTHONPATH", str(desk), prepend=os.pathsep)
        known = (bundle / "configs/train.yaml").read_text()
        keys = {key: value for key, value in TINY.items() if f"\n{key}:" in known}
        keys |= {"dataset_dir": phantom_mr, "output_dir": tmp_path / "out", "model_file": "none"}
        argv = words(bundle / "configs/train.yaml", desk / "segresnet.yaml", **keys)
        result = run_bundle_subprocess(*argv, cwd=tmp_path if place == "PYTHONPATH" else desk)
        assert result.exit_code == 0, result.last_line
        assert (tmp_path / "out/committee.pt").is_file()

    def test_a_python_file_elsewhere_is_missed_by_name(self, bundle, phantom_mr, desk, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        keys = {**TINY, "dataset_dir": phantom_mr, "output_dir": tmp_path / "out"}
        result = run_bundle(*words(bundle / "configs/active_learning.yaml", desk / "segresnet.yaml", **keys))
        assert result.exit_code == 1
        assert "there is no module my_parts in the current folder or on PYTHONPATH" in result.last_line
        assert not (tmp_path / "out").exists()


#: Of the networks that the page names: arguments that make a small one.
FIT = {
    "BasicUNet": {"features": [4, 4, 4, 4, 4, 4]},
    "DynUNet": {"kernel_size": [3] * 3, "strides": [1, 2, 2], "upsample_kernel_size": [2, 2], "filters": [4, 8, 8]},
    "MedNeXt": {"init_filters": 4},
    "SegResNet": {"init_filters": 8, "blocks_down": [1, 1], "blocks_up": [1]},
    "UNet": {"channels": [4, 8], "strides": [2]},
}
REFUSED = {
    "AttentionUnet": {"channels": [4, 8], "strides": [2]},
    "FlexibleUNet": {"backbone": "efficientnet-b0"},
    "HighResNet": {},
    "RegUNet": {"num_channel_initial": 4, "depth": 1},
    "SegResNetDS": {"init_filters": 4, "blocks_down": [1, 1]},
    "SwinUNETR": {"feature_size": 12},
    "VNet": {},
}


def architecture(name, **options):
    config = {"_target_": name, "_mode_": "callable", "spatial_dims": 3, "in_channels": 2, "out_channels": 4}
    return ConfigParser({"architecture": {**config, **options}}).get_parsed_content("architecture")


class TestNetworks:
    def test_the_page_names_those_that_are_tested(self, page):
        text = " ".join(page.read_text().split())
        fit = re.search(r"Of MONAI's networks (.*?) fit as they are", text).group(1)
        refused = re.search(r"\(without deep supervision\); (.*?) hold buffers", text).group(1)
        assert re.findall(r"`(\w+)`", fit) == list(FIT)
        assert re.findall(r"`(\w+)`", refused) == list(REFUSED)

    @pytest.mark.parametrize("name", FIT)
    def test_that_fit_are_trained(self, name):
        particles = Particles(architecture(name, **FIT[name]), 2, seed=1)
        image = torch.rand(1, 2, 32, 32, 32)
        logits = particles(image)
        assert logits.shape == (2, 1, 4, 32, 32, 32)
        assert not torch.equal(logits[0], logits[1]), "each member is made anew"
        particles.zero_grad()
        LogDiceLoss(softmax=True, to_onehot_y=True)(particles.member(1, image), torch.ones(1, 1, 32, 32, 32)).backward()
        assert particles.values.grad[1].abs().sum() > 0
        assert particles.values.grad[0].abs().sum() == 0

    @pytest.mark.parametrize("name", FIT)
    def test_that_fit_are_used_again(self, name, tmp_path):
        made = architecture(name, **FIT[name])
        particles = Particles(made, 2, seed=1)
        file = save_committee(tmp_path / "committee.pt", particles)
        model = convert_committee(file, tmp_path / "model.pt")
        image = torch.rand(1, 2, 32, 32, 32)
        expected = particles(image)
        for path in (file, model):
            again, mean = Particles(made, 2, seed=9), committee_mean(made, 2)
            load_committee(path, again)
            load_committee(path, mean)
            with torch.no_grad():
                torch.testing.assert_close(again(image), expected, rtol=0, atol=0)
                torch.testing.assert_close(mean.eval()(image), torch.softmax(expected, 2).mean(0), rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("name", REFUSED)
    def test_with_buffers_are_refused_by_name(self, name):
        with pytest.raises(SettingsError, match=rf"^architecture: {name} has buffers \(.*\), which particles cannot"):
            Particles(architecture(name, **REFUSED[name]), 2)

    @pytest.mark.parametrize(("name", "argument"), [("HighResNet", "norm_type"), ("SegResNetDS", "norm")])
    def test_with_another_norm_fit(self, page, name, argument):
        assert f"`{name}` with `{argument}: instance`" in " ".join(page.read_text().split())
        options = {**REFUSED[name], argument: "instance"}
        Particles(architecture(name, **options), 2, window=[2, 32, 32, 32], num_classes=4)

    @pytest.mark.parametrize(
        ("name", "options", "window", "begin"),
        [
            (
                "SegResNet",
                {"init_filters": 8},
                [20, 32, 16],
                "roi_size: SegResNet cannot process a window of (20, 32, 16) voxels",
            ),
            (
                "BasicUNet",
                {},
                [16, 16, 16],
                "roi_size: BasicUNet cannot process a window of (16, 16, 16) voxels with 2 channels",
            ),
            (
                "BasicUNetPlusPlus",
                {},
                [32, 32, 32],
                "architecture: BasicUNetPlusPlus must give logits of the shape (1, 4, ",
            ),
            (
                "UNet",
                {**FIT["UNet"], "out_channels": 3},
                [16, 16, 16],
                "architecture: UNet must give logits of the shape",
            ),
            ("UNet", {**FIT["UNet"], "in_channels": 1}, [16, 16, 16], "roi_size: UNet cannot process a window of"),
            (
                "UNet",
                FIT["UNet"],
                [15, 15, 15],
                "architecture: UNet must give logits of the shape (1, 4, 15, 15, 15), but gives (1, 4, 16, 16, 16); "
                "choose a roi_size whose sides its halvings divide.",
            ),
        ],
    )
    def test_that_do_not_fit_the_window_or_the_task_are_refused(self, name, options, window, begin):
        with pytest.raises(SettingsError, match="^" + re.escape(begin)):
            Particles(architecture(name, **options), 2, window=[2, *window], num_classes=4)

    @pytest.mark.parametrize("name", FIT)
    def test_that_fit_are_not_refused_for_their_window(self, name):
        plain = Particles(architecture(name, **FIT[name]), 2, seed=1)
        tried = Particles(architecture(name, **FIT[name]), 2, seed=1, window=[2, 32, 32, 32], num_classes=4)
        assert torch.equal(plain.values, tried.values)
        image = torch.rand(1, 2, 32, 32, 32)
        assert torch.equal(plain(image), tried(image))

    def test_with_batch_normalisation_end_the_command_in_a_sentence(self, bundle, at_desk, tmp_path):
        (tmp_path / "batch.yaml").write_text((at_desk / "segresnet.yaml").read_text().replace(
            "  init_filters: 8\n", "  init_filters: 8\n  norm: batch\n"
        ))  # fmt: skip
        keys = {**TINY, "dataset_dir": "Task04_Hippocampus", "output_dir": tmp_path / "out"}
        result = run_bundle(*words(bundle / "configs/active_learning.yaml", tmp_path / "batch.yaml", **keys))
        assert result.exit_code == 1
        assert result.last_line.startswith("architecture: SegResNet has buffers (")
        assert not list((tmp_path / "out").glob("round_*/committee.pt"))


class TestParts:
    @pytest.fixture
    def my_parts(self, at_desk):
        import my_parts

        return my_parts

    def test_the_likelihood_is_that_of_a_categorical(self, my_parts):
        logits = torch.randn(2, 3, 4, 5, 6, dtype=torch.float64)
        label = torch.randint(0, 3, (2, 1, 4, 5, 6), dtype=torch.uint8)
        drawn = torch.distributions.Categorical(logits=logits.movedim(1, -1)).log_prob(label[:, 0])
        assert float(my_parts.CategoricalLoss()(logits, label)) == pytest.approx(-float(drawn.mean()), rel=1e-6)

    def test_the_strategy_is_one_of_disagreement(self, my_parts):
        found = get_strategy("my_parts.small_and_disputed")
        assert (found.uncertainty_map, found.uses_information) == ("bald", False)

    def test_a_loss_of_monai_s_does_what_the_page_says(self, page):
        printed = re.search(r"`loss: (\{_target_: DiceCELoss.*?\})`", page.read_text()).group(1)
        loss = ConfigParser({"loss": yaml.safe_load(printed)}).get_parsed_content("loss")
        assert type(loss) is monai.losses.DiceCELoss
        particles = Particles(architecture("UNet", **FIT["UNet"]), 2, seed=1)
        particles.zero_grad()
        label = torch.randint(0, 4, (1, 1, 8, 8, 8), dtype=torch.uint8)
        loss(particles.member(0, torch.rand(1, 2, 8, 8, 8)), label).backward()
        assert particles.values.grad[0].abs().sum() > 0


class TestMistakes:
    def end(self, bundle, at_desk, tmp_path, overlay):
        (tmp_path / "overlay.yaml").write_text(overlay)
        keys = {**TINY, "dataset_dir": "Task04_Hippocampus", "output_dir": tmp_path / "out"}
        result = run_bundle(*words(bundle / "configs/active_learning.yaml", tmp_path / "overlay.yaml", **keys))
        assert result.exit_code == 1
        assert not list((tmp_path / "out").glob("round_*/committee.pt"))
        return result.last_line

    def test_a_missing_overlay_is_named(self, bundle, tmp_path):
        result = run_bundle(
            *words(bundle / "configs/active_learning.yaml", "nowhere.yaml", output_dir=tmp_path / "out")
        )
        assert result.exit_code == 1
        assert result.last_line.endswith("Cannot find the config file: nowhere.yaml.")

    def test_a_macro_of_a_missing_file_is_named(self, bundle, at_desk, tmp_path):
        assert "nowhere.yaml" in self.end(bundle, at_desk, tmp_path, "mi_weight: '%nowhere.yaml::mi_weight'\n")

    @pytest.mark.parametrize(
        ("strategy", "why"),
        [
            ("their_parts.small", "there is no module their_parts in the current folder or on PYTHONPATH"),
            ("my_parts.smal_and_disputed", "the module my_parts has no smal_and_disputed"),
        ],
    )
    def test_a_strategy_that_is_not_there_is_named(self, bundle, at_desk, tmp_path, strategy, why):
        line = self.end(bundle, at_desk, tmp_path, f"acquisition: {strategy}\n")
        assert line == f"acquisition: {strategy} cannot be used, {why}."

    @pytest.mark.parametrize(
        ("overlay", "begin"),
        [
            ("architecture: {_target_: SegResNett, _mode_: callable}", "_target_: 'SegResNett' is neither a component"),
            (
                "loss: {_target_: my_parts.CategoricLoss}",
                "_target_: 'my_parts.CategoricLoss' is neither a component of",
            ),
            (
                "loss: {_target_: their_parts.Loss}",
                "_target_: 'their_parts.Loss' is neither a component of MONAI's nor",
            ),
            ("loss: {_target_: half_written.Loss}", "_target_: problem in "),
            ("loss: {_target_: DiceCELoss, soft_max: true}", "_target_: DiceCELoss.__init__() got an unexpected "),
            ("loss: {_target_: DiceCELoss, reduction: meen}", "_target_: DiceCELoss.__init__(): By 'meen', did you "),
            ("architecture: {_target_: UNet, _mode_: callable}", "architecture: UNet.__init__() missing "),
            (
                "architecture: {_target_: UNet, _mode_: callable, spatial_dims: 3, in_channels: 1, out_channels: 3, "
                "channels: [8, 16], strides: [2], act: relux}",
                "_target_: UNet.__init__(): By 'RELUX', did you mean 'RELU",
            ),
            (
                "architecture: {_target_: VNet, _mode_: callable, acti: relu}",
                "architecture: got an unexpected keyword ",
            ),
            ("handlers: []", "handlers: set on the loop, it would replace those of evaluate.yaml"),
            ("loss: {_target_: DiceCELoss, softmax: '@soft'}", "The referring item `@soft` is not defined"),
        ],
    )
    def test_a_component_that_cannot_be_made_is_named(self, bundle, at_desk, tmp_path, overlay, begin):
        (at_desk / "half_written.py").write_text("class Loss(:\n")
        line = self.end(bundle, at_desk, tmp_path, f"{overlay}\n")
        assert line.startswith(begin)
        assert line.endswith(".")
        assert "Failed to" not in line

    @pytest.mark.parametrize(
        ("overlay", "begin"),
        [
            ("optimizer#_target_: torch.optim.AdamW", "optimizer: AdamW has a weight_decay of 0.01, but the prior is "),
            ("optimizer#_target_: torch.optim.RMSprop", "_target_: RMSprop.__init__() got an unexpected keyword "),
            ("loss: {_target_: DiceCELoss, soft_max: true}", "_target_: DiceCELoss.__init__() got an unexpected "),
        ],
    )
    def test_what_cannot_train_is_refused_before_a_run_begins(self, bundle, at_desk, tmp_path, overlay, begin):
        (tmp_path / "train.yaml").write_text(f"{overlay}\n")
        stages = ["train.yaml", str(tmp_path / "train.yaml")]
        assert self.end(bundle, at_desk, tmp_path, json.dumps({"stages#train": stages})).startswith(begin)
        assert not (tmp_path / "out/run.json").exists()

    def test_an_architecture_that_cannot_be_made_is_named_where_a_committee_is_used(self, bundle, at_desk, tmp_path):
        (tmp_path / "overlay.yaml").write_text("architecture: {_target_: UNet, _mode_: callable}\n")
        places = {"dataset_dir": "my_scans", "output_dir": tmp_path / "out", "device": "cpu"}
        result = run_bundle(*words(bundle / "configs/inference.yaml", tmp_path / "overlay.yaml", **places))
        assert result.exit_code == 1
        assert result.last_line.startswith("architecture: UNet.__init__() missing ")

    def test_other_classes_than_the_data_set_s_are_named(self, bundle, at_desk, tmp_path):
        assert self.end(bundle, at_desk, tmp_path, "num_classes: 5\n").startswith("num_classes: 5 does not fit ")
