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
