"""``--tracking mlflow``: MONAI's own tracking, in a stage by itself and through the loop."""

from unittest import mock

import pytest
from command import TINY, run_bundle, words
from runs import CONFIG, KEYS, arguments, outcome, run

TRAIN = CONFIG.with_name("train.yaml")


def training(dataset, output, **keys):
    known = TRAIN.read_text()
    tiny = {k: v for k, v in TINY.items() if f"\n{k}:" in known}
    own = {"dataset_dir": dataset, "output_dir": output, "model_file": "none", "tracking": "mlflow"}
    return words(TRAIN, **{**tiny, **own, **keys})


def runs_of(output, experiment):
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
    database = output / "mlruns.db"  # MONAI 1.6.0 has a folder in its place
    client = mlflow.MlflowClient(f"sqlite:///{database}" if database.is_file() else (output / "mlruns").as_uri())
    found = client.search_runs(client.get_experiment_by_name(experiment).experiment_id)
    artifacts = {run.info.run_name: [a.path for a in client.list_artifacts(run.info.run_id)] for run in found}
    return {run.info.run_name: run for run in found}, artifacts


def test_a_training_is_tracked_with_its_configuration(phantom_mr, tmp_path):
    pytest.importorskip("mlflow", reason="mlflow is not installed")
    result = run(training(phantom_mr, tmp_path, run_name="mine"))
    assert result.code == 0, result.last_line
    found, artifacts = runs_of(tmp_path, "monai_experiment")
    assert list(found) == ["mine"]
    assert {"train_loss", "val_dice"} <= set(found["mine"].data.metrics)
    assert found["mine"].info.status == "FINISHED"
    # The executed configuration, although output_dir is a plain path and no expression.
    assert [name for name in artifacts["mine"] if name.startswith("config_")] != []


@pytest.mark.long
def test_every_stage_of_a_round_is_a_run_and_tracking_changes_no_result(phantom_mr, tmp_path):
    pytest.importorskip("mlflow", reason="mlflow is not installed")
    keys = {**KEYS, "rounds": 1}
    plain = run(arguments(phantom_mr, tmp_path / "plain", **keys))
    argv = arguments(phantom_mr, tmp_path / "tracked", **keys)
    tracked = run([*argv, "--tracking", "mlflow", "--experiment_name", "study"])
    assert (plain.code, tracked.code) == (0, 0), tracked.last_line
    assert outcome(tmp_path / "plain") == outcome(tmp_path / "tracked")
    found, _ = runs_of(tmp_path / "tracked", "study")
    assert set(found) == {f"round_00{n}_{stage}" for n in (0, 1) for stage in ("train", "evaluate", "acquire")}
    assert "dice_grid" in found["round_001_evaluate"].data.metrics
    # Whether a run is watched may change: it is finished with and without.
    assert "finished" in run(argv).out


@pytest.mark.parametrize("config", ["train", "loop"])
def test_without_mlflow_one_sentence_says_so_before_any_work(phantom_mr, tmp_path, config):
    argv = (
        training(phantom_mr, tmp_path)
        if config == "train"
        else [*arguments(phantom_mr, tmp_path), "--tracking", "mlflow"]
    )
    with mock.patch("svgd_monai.workflow.tracking.find_spec", return_value=None):
        result = run_bundle(*argv)
    assert result.exit_code == 1
    assert result.last_line == "tracking: mlflow is not installed; `pip install mlflow` brings it."
    assert not list(tmp_path.glob("**/*.pt"))
    assert not (tmp_path / "run.json").exists()


def test_a_key_of_tracking_is_refused_where_nothing_is_tracked(phantom_mr, tmp_path):
    result = run_bundle(*arguments(phantom_mr, tmp_path), "--experiment_name", "study")
    assert result.exit_code == 1
    assert result.last_line.startswith("--experiment_name is not a key of ")
