"""A training that was cut off goes on with the loss, optimiser and network that it began with, or begins anew."""

import pytest
from command import TINY, run_bundle, words

from svgd_monai.committee import PosteriorStep


def keys(phantom_mr, folder):
    kept = ("num_particles", "features", "spacing", "roi_size", "batch_size", "validation_cases", "test_cases")
    return {**{key: TINY[key] for key in kept}, "device": "cpu", "steps_per_round": 4, "validations_per_round": 2,
            "initial_labelled": 3, "model_file": "none", "dataset_dir": phantom_mr, "output_dir": folder}  # fmt: skip


@pytest.mark.parametrize(
    "part",
    [
        {},
        {"loss": "{_target_: DiceCELoss, to_onehot_y: true, softmax: true}"},
        {"optimizer#betas": "[0.5, 0.5]"},
        {"architecture#act": "relu"},
        {"crop": "{_target_: svgd_monai.data.foreground_crop, roi_size: '@roi_size', num_classes: '@num_classes'}"},
    ],
    ids=lambda part: next(iter(part), "the same"),
)
def test_another_part_begins_anew_and_the_same_goes_on(bundle, phantom_mr, tmp_path, monkeypatch, part):
    step, calls = PosteriorStep.__call__, []

    def interrupt(*arguments):
        calls.append(arguments)
        if len(calls) == 4:  # behind the first validation
            raise KeyboardInterrupt
        return step(*arguments)

    overlay = tmp_path / "part.yaml"
    overlay.write_text("".join(f"'{key}': {value}\n" for key, value in part.items()) or "{}\n")
    config = bundle / "configs/train.yaml"
    with monkeypatch.context() as patch:
        patch.setattr(PosteriorStep, "__call__", interrupt)
        assert run_bundle(*words(config, **keys(phantom_mr, tmp_path / "run"))).last_line.startswith("Interrupted")
    result = run_bundle(*words(config, overlay, **keys(phantom_mr, tmp_path / "run")))
    assert result.exit_code == 0, result.last_line
    said = result.stdout + result.stderr
    assert ("training continues at step 2" in said) == (not part)
    assert ("was written with other settings; the training begins anew" in said) == bool(part)
