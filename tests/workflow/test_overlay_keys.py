"""A key of an overlay that nobody knows is told, and a misspelt one is refused before anything runs."""

import logging

import pytest

from svgd_monai.errors import SettingsError
from svgd_monai.workflow import meeting as meetings
from svgd_monai.workflow.overlays import check_overlays


@pytest.fixture
def loop(bundle):
    return bundle / "configs/active_learning.yaml"


def overlay(folder, content, name="mine.yaml"):
    path = folder / name
    path.write_text(content)
    return path


@pytest.mark.parametrize("suffix", ["yaml", "json"])
@pytest.mark.parametrize(
    ("key", "meant"),
    [("optimiser", "optimizer"), ("steps_per_rounds", "steps_per_round"), ("architectur#_target_", "architecture")],
)
def test_a_misspelt_key_is_refused_with_the_one_that_was_meant(key, meant, suffix, loop, tmp_path):
    path = overlay(tmp_path, f'{{"{key}": "SGD"}}', f"mine.{suffix}")
    name = key.partition("#")[0]
    sentence = f"{path}: no configuration has the key {name}, and nothing refers to it; did you mean {meant}?"
    for files in ([str(loop), str(path)], f"{loop},{path}"):
        with pytest.raises(SettingsError) as caught:
            check_overlays(files)
        assert str(caught.value) == sentence


def test_a_file_by_itself_and_a_content_that_a_program_gives_have_no_overlay(loop, caplog):
    for files in (str(loop), loop, [loop], {"optimiser": 1}):
        check_overlays(files)
    assert caplog.messages == []


@pytest.mark.parametrize("stage", ["active_learning", "train", "evaluate", "acquire", "inference", "study"])
def test_an_overlay_serves_every_configuration_of_its_bundle(stage, bundle, tmp_path, caplog):
    keys = ("loss", "optimizer", "architecture", "intensity", "stages", "rounds", "methods", "_note", "+imports")
    mine = overlay(tmp_path, "".join(f"{key}: x\n" for key in keys))
    check_overlays([str(bundle / f"configs/{stage}.yaml"), str(mine)])
    assert caplog.messages == []


def test_a_key_that_something_refers_to_is_known_and_another_is_told(loop, tmp_path, caplog):
    mine = overlay(
        tmp_path, "helper: 3\nother: '@helper'\nwhole: 1\nloss: {_target_: x, weight: '%whole::0', a: $@far * 2}\n"
    )
    stage = overlay(tmp_path, "batch: '@far_out'\n", "stage.yaml")
    further = overlay(tmp_path, "far: 1\nfar_out: 2\n", "further.yaml")
    files = [str(loop), str(mine), str(further)]
    check_overlays(files, {"train": ["train.yaml", str(stage)], "evaluate": "evaluate.yaml"})
    told = f"{mine}: no configuration has the key other, and nothing refers to it: it has no effect"
    assert caplog.messages == [told]
    caplog.clear()
    check_overlays(files, {"train": None, "evaluate": [3]})
    assert caplog.messages == [told, told.replace("other", "far_out").replace(str(mine), str(further))]


def test_the_first_of_several_processes_tells(loop, tmp_path, monkeypatch, caplog):
    mine = str(overlay(tmp_path, "other: 1\n"))
    for rank in (1, 0):
        assert caplog.messages == []
        monkeypatch.setattr(meetings, "_meetings", [meetings.Meeting(None, rank, 2)])
        check_overlays([str(loop), mine])
    assert len(caplog.messages) == 1


def test_a_key_is_not_removed_by_a_tilde(loop, tmp_path):
    with pytest.raises(SettingsError, match=r"mine\.yaml: ~loss: MONAI removes no keys; .* set it to null\."):
        check_overlays([str(loop), str(overlay(tmp_path, "~loss: null\n"))])


def test_what_else_lies_beside_a_configuration_does_no_harm(tmp_path, caplog):
    first = overlay(tmp_path, "a: 1\n", "first.yaml")
    for name, content in {"list.json": "[1]", "broken.yaml": "a: [", "twice.yaml": "a: 1\na: 2\n"}.items():
        overlay(tmp_path, content, name)
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe")
    caplog.set_level(logging.WARNING)
    check_overlays([str(first), str(overlay(tmp_path / "..", "zzz: 1\n", f"{tmp_path.name}.yaml"))])
    assert ["zzz" in text for text in caplog.messages] == [True]


@pytest.mark.parametrize("suffix", ["yaml", "json"])
@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        (["loss", "seed", "loss"], " sets loss twice, and only the lower one would count; leave one of them out."),
        (
            ["loss#softmax", "loss#softmax"],
            " sets loss#softmax twice, and only the lower one would count; leave one of",
        ),
        (["+loss", "loss"], ": +loss has no effect above loss; set the whole of it, or the part in an overlay file."),
        (
            ["loss::a", "loss"],
            ": loss::a has no effect above loss; set the whole of it, or the part in an overlay file",
        ),
    ],
)
def test_a_key_that_is_set_anew_below_it_is_refused(keys, sentence, suffix, loop, tmp_path):
    path = overlay(tmp_path, "{" + ", ".join(f'"{key}": [{{"b": 1}}]' for key in keys) + "}", f"mine.{suffix}")
    for files in ([str(loop), str(path)], str(path), f"{loop},{path}"):
        with pytest.raises(SettingsError) as caught:
            check_overlays(files)
        assert str(caught.value).startswith(f"{path}{sentence}")


def test_a_part_below_its_key_and_equal_keys_deeper_down_are_no_fault(loop, tmp_path):
    mine = overlay(tmp_path, "loss: {a: 1, b: {a: 2}}\nloss#a: 3\n+loss: {c: 4}\nloss#b#a: {a: 2}\n")
    check_overlays([str(loop), str(mine)])


def test_a_key_above_the_wiring_that_stands_in_it_too_is_refused_with_the_command_that_mends_it(bundle, tmp_path):
    path = tmp_path / "mine/configs/train.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("architecture: {_target_: SegResNet}\n" + (bundle / "configs/train.yaml").read_text())
    mended = f"python -m svgd_monai.workflow.wire {tmp_path / 'mine'} takes it out of the wiring."
    with pytest.raises(SettingsError) as caught:
        check_overlays(str(path))
    assert str(caught.value) == f"{path} sets architecture twice, and only the lower one would count; {mended}"


@pytest.mark.parametrize(
    ("key", "meant"), [("train#inferrer", "train#inferer"), ("+validate::handler", "validate#handlers")]
)
def test_an_entry_that_nobody_refers_to_is_refused_where_it_is_misspelt(key, meant, bundle, tmp_path):
    mine = overlay(tmp_path, f"{key}: [x]\n")
    name = key.removeprefix("+").replace("::", "#")
    with pytest.raises(SettingsError) as caught:
        check_overlays([str(bundle / "configs/train.yaml"), str(mine)])
    assert str(caught.value).endswith(f"has the key {name}, and nothing refers to it; did you mean {meant}?")


def test_other_entries_are_known_referred_to_or_told(bundle, tmp_path, caplog):
    keys = {
        "train#trainer#amp": "true",
        "train#handlers#3#state": "{a: '@schedule'}",
        "schedule": "{_target_: x}",
        "validate#postprocess": "[]",
        "validate#evaluator#postprocessing": "'@validate#postprocess'",
        "train#datasets": "[]",
        "train#dataset#data": "'@##datasets'",
        "loss#softmaxx": "true",  # a component's, which says so itself
        "stages#calibrate": "mine.yaml",  # for a hook; the mapping is handed on as a whole
        "train#odd": "1",
    }
    mine = overlay(tmp_path, "".join(f"{key}: {value}\n" for key, value in keys.items()))
    check_overlays([str(bundle / "configs/train.yaml"), str(mine)])
    assert caplog.messages == [
        f"{mine}: no configuration has the key train#odd, and nothing refers to it: it has no effect"
    ]


def test_a_stage_of_one_s_own_is_compared_with_the_bundle_s_configurations(bundle, tmp_path):
    own = overlay(tmp_path, "steps: ['@mine']\nmine: 1\n", "own.yaml")
    with pytest.raises(SettingsError, match="did you mean max_norm"):
        check_overlays([own, overlay(tmp_path, "max_norn: 1\n")], folder=bundle / "configs")
