"""A component that is not there, or takes other keywords, is refused before anything is made."""

import sys

import pytest
from monai.bundle import ConfigParser

from svgd_monai.errors import SettingsError
from svgd_monai.workflow.targets import check_targets


def check(content):
    parser = ConfigParser(content)
    parser.parse()
    check_targets(parser)


@pytest.mark.parametrize("name", ["hippocampus_mri_svgd", "pancreas_ct_svgd"])
@pytest.mark.parametrize("stage", ["train", "evaluate", "acquire", "inference", "active_learning", "study"])
def test_the_bundles_own_pass(name, stage, bundle):
    parser = ConfigParser()
    parser.read_config(str(bundle.parent / name / f"configs/{stage}.yaml"))
    parser.parse()
    check_targets(parser)


@pytest.mark.parametrize(
    ("component", "sentence"),
    [
        ({"_target_": "DiceLos"}, "_target_: 'DiceLos' is neither a component of MONAI's nor the path of one in"),
        ({"_target_": "torch.optim.Sgd"}, "_target_: 'torch.optim.Sgd' is neither"),
        ({"_target_": "no_module.Thing"}, "_target_: 'no_module.Thing' is neither"),
        ({"_target_": "DiceLoss", "softmaxx": True},
         "_target_: monai.losses.dice.DiceLoss() got an unexpected keyword argument 'softmaxx'."),
        ({"_target_": "CropForegroundd", "source_key": "image"},
         "_target_: monai.transforms.croppad.dictionary.CropForegroundd() missing a required argument: 'keys'."),
        ({"_target_": "Flipd", "source": "image"},
         "_target_: monai.transforms.spatial.dictionary.Flipd() got an unexpected keyword argument 'source'."),
        ({"_target_": "UNet", "_mode_": "callable", "spatial_dim": 3},
         "_target_: monai.networks.nets.unet.UNet() got an unexpected keyword argument 'spatial_dim'."),
    ],
)  # fmt: skip
def test_what_cannot_be_called_is_refused_however_deep(component, sentence):
    with pytest.raises(SettingsError) as caught:
        check({"handlers": [{"_target_": "builtins.dict", "a": 1}, {"_target_": "builtins.dict", "b": component}]})
    assert str(caught.value).startswith(sentence)


@pytest.mark.parametrize(
    "component",
    [
        {"_target_": "UNet", "_mode_": "callable", "channels": [4, 8]},
        {"_target_": "UNet", "_mode_": "callable", "act": "relluu"},  # a value
        {"_target_": "NoSuch", "_disabled_": True},
        {"_target_": "NoSuch", "_disabled_": "@flag"},
        {"_target_": "$@flag.no_such"},
        {"_target_": "@flag"},
        {"_target_": "torch.pi"},
        {"_target_": "DiceLoss", "_requires_": ["@flag"], "_desc_": "x", "softmax": "@flag"},
        {"_target_": "builtins.max", "anything": 1},  # written in C, with no signature
    ],
)
def test_what_is_computed_disabled_or_of_unknown_keywords_is_left_to_its_time(component):
    check({"flag": True, "a": component})


def test_a_component_is_not_made(tmp_path, monkeypatch):
    (tmp_path / "deadly_parts.py").write_text("def part(size):\n    raise AssertionError\n")
    monkeypatch.syspath_prepend(tmp_path)
    try:
        check({"a": {"_target_": "deadly_parts.part", "size": 1}})
    finally:
        sys.modules.pop("deadly_parts", None)
