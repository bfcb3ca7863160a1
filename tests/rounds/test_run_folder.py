"""What a run's folder notices of its own files before it goes on."""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
import torch

import svgd_monai
from svgd_monai.errors import RunFolderError
from svgd_monai.files import read_json, write_csv, write_json, write_torch
from svgd_monai.rounds import RunFolder, record
from svgd_monai.rounds import round as rounds
from svgd_monai.rounds.round import Round
from svgd_monai.rounds.stages import ROUND_KEYS, Stages


@pytest.fixture
def folder(tmp_path):
    """A folder with one complete round, as far as files tell."""
    place = tmp_path / "round_000"
    write_torch(place / "committee.pt", {"values": torch.arange(1000.0)})
    write_csv(place / "cases.csv", ["case", "dice"], [{"case": f"scan_{n}", "dice": 0.5} for n in range(9)])
    write_csv(place / "scores.csv", ["case", "score"], [{"case": f"scan_{n}", "score": 0.5} for n in range(9)])
    for name in ("training.json", "metrics.json", "queries.json"):
        (place / name).write_text("[]")
    return RunFolder(tmp_path)


def damage(path, kind):
    content = bytearray(path.read_bytes())
    if kind == "flipped":
        content[len(content) // 2] ^= 1
    short = bytes(content[: content.rfind(b",")]) + b"\n"
    kinds = {"flipped": content, "truncated": content[: 2 * len(content) // 3], "emptied": b"", "a field short": short}
    path.write_bytes(kinds[kind])


def test_sound_files_pass(folder):
    folder.check_files()


@pytest.mark.parametrize(
    ("name", "kind"),  # another digit in a table is not noticed
    [("committee.pt", "truncated"), ("committee.pt", "emptied"), ("committee.pt", "flipped"),
     ("cases.csv", "truncated"), ("cases.csv", "emptied"), ("cases.csv", "a field short"),
     ("scores.csv", "truncated"), ("scores.csv", "emptied"), ("scores.csv", "a field short"),
     ("training.json", "emptied"), ("metrics.json", "emptied")],
)  # fmt: skip
def test_a_damaged_file_is_named_with_what_helps(folder, name, kind):
    damage(folder.round(0) / name, kind)
    with pytest.raises(RunFolderError, match=rf"{name}.* Remove it, and the same command makes it again\."):
        folder.check_files()


def test_damaged_times_are_named_and_not_promised_again(folder):
    (folder.round(0) / "times.json").write_bytes(b"")
    with pytest.raises(RunFolderError, match=r"times\.json.* Remove it, and the same command goes on without it\."):
        folder.check_files()


@pytest.mark.parametrize(
    "name", ["committee.pt", "training.json", "metrics.json", "cases.csv", "queries.json", "scores.csv"]
)
def test_a_round_that_lacks_a_file_is_not_complete(folder, name):
    stages = Stages({}, {})
    assert Round(folder, stages, 0).complete(final=False)
    (folder.round(0) / name).unlink()
    assert not Round(folder, stages, 0).complete(final=False)


def test_scores_made_again_change_neither_the_queries_nor_a_later_round_s_ranking(folder):
    """On a GPU the same committee may score a digit otherwise."""
    number = Round(folder, Stages({}, {}), 0)
    scores, kept = number.folder / "scores.csv", [number.folder / "queries.json", folder.ranking_file]
    scores.unlink()
    folder.ranking_file.write_text("of a later round")

    def acquire(stage, **keys):
        assert (stage, keys["query"]) == ("acquire", True)
        for path in (scores, *kept):
            path.write_text("another one")
        return 0.0

    number.stages.run = acquire
    number.score(final=False)
    assert scores.read_text() == "another one"
    assert [path.read_text() for path in kept] == ["[]", "of a later round"]
    for path in (scores, folder.ranking_file):
        path.unlink()
    number.score(final=False)
    assert [path.read_text() for path in kept] == ["[]", "another one"], "a ranking that is lost is made again"


def test_where_there_is_nothing_to_measure_and_to_score_a_round_is_complete(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path)
    number, written = Round(folder, Stages({}, {}), 0), []

    for name in ("write_csv", "write_ranking"):
        original = getattr(rounds, name)

        def write(path, *content, original=original):
            written.append(path)
            return original(path, *content)

        monkeypatch.setattr(rounds, name, write)
    number.measure_nothing({0: "background", 1: "organ"})
    number.score_nothing()
    assert (number.measured, number.scored(final=True)) == (True, True)
    nothing = {"dice": None, "dice_grid": None, "dice_per_class": {"organ": None}}
    for measured in read_json(number.folder / "metrics.json").values():
        assert {key: measured[key] for key in nothing} == nothing
    assert written[1:] == [folder.ranking_file, number.folder / "scores.csv"], "the scores say that all of it is done"


@pytest.mark.parametrize("content", ['{"scan_1": 1}', '["scan_1", 2]', '"scan_1"'])
def test_queries_that_are_no_list_of_cases_are_refused_by_name(folder, content):
    (folder.round(0) / "queries.json").write_text(content)
    with pytest.raises(RunFolderError, match=r"round_000/queries\.json is not a list of case ids\."):
        Round(folder, Stages({}, {}), 0).queries()


def test_what_a_round_sets_in_its_stages_is_known_to_be_its_own(folder):
    """A stage's file that sets one of these would have no effect, and is refused."""
    number = Round(folder, Stages({}, {}), 0)
    set_by_it = []

    def run(stage, **keys):
        set_by_it.extend(keys)
        if stage == "train":
            folder.committee(0).touch()
        return 0.0

    number.stages.run = run
    for path in (folder.committee(0), number.folder / "metrics.json", number.folder / "queries.json"):
        path.unlink()
    number.train(warm_start=False)
    number.measure()
    number.score(final=False)
    assert set(set_by_it) == ROUND_KEYS


def test_a_warm_start_is_from_the_round_before_and_every_stage_leaves_its_time(folder):
    stages, given = Stages({}, {}), {}

    def run(stage, **keys):
        given[stage] = keys
        if stage == "train":
            committee = Path(keys["committee_file"])
            committee.parent.mkdir(parents=True, exist_ok=True)
            for file in (committee, committee.with_name("training.json")):
                file.touch()
        return 1.5

    stages.run = run
    for number, initial in ((0, None), (2, str(folder.committee(1)))):
        other = Round(RunFolder(folder.root / "other") if number == 0 else folder, stages, number)
        other.train(warm_start=True)
        other.measure()
        other.score(final=True)
        assert given["train"]["initial_committee"] == initial
        assert [given[stage]["round"] for stage in ("train", "evaluate", "acquire")] == [number] * 3
        assert given["acquire"]["query"] is False
        assert read_json(other.folder / "times.json") == {"train": 1.5, "evaluate": 1.5, "acquire": 1.5}


RECORD = {
    "settings": {"rounds": 2, "seed": 0},
    "components": {"loss": {"_target_": "X"}},
    "split": {"initial": ["a"]},
    "dataset": {"fingerprint": "f", "classes": {"1": "organ"}, "root": "d"},
    "versions": {"svgd_monai": svgd_monai.__version__},
}


@pytest.mark.parametrize(
    ("part", "change", "named"),
    [
        ("settings", {"rounds": 1}, "rounds: .* not lowered to 1"),
        ("settings", {"new_key": 1}, "new_key: .* started with None"),
        ("settings", {"seed": None}, "seed: .* started with 0"),
        ("components", {"loss": {"_target_": "Y"}}, "loss: differs from the run"),
        ("components", {"network_def": {}}, "network_def: differs from the run"),
        ("components", {"loss": None}, "loss: differs from the run"),
        ("split", {"initial": ["b"]}, "split_file: it is not the split"),
        ("dataset", {"fingerprint": "g"}, "dataset_dir: the volumes of d are not those"),
        ("dataset", {"classes": {"1": "tumour"}}, "classes: the run .* has {'1': 'organ'}"),
    ],
)
def test_a_run_is_not_mixed_with_another(tmp_path, part, change, named):
    folder = RunFolder(tmp_path)
    folder.open(RECORD)
    folder.curve_file.touch()
    before = folder.run_file.read_bytes()
    changed = {key: value for key, value in {**RECORD[part], **change}.items() if value is not None}
    with pytest.raises(RunFolderError, match=f"^{named}"):
        folder.open({**RECORD, part: changed})
    assert folder.run_file.read_bytes() == before


OTHER = {**RECORD, "settings": {"rounds": 1, "seed": 1}, "split": {"initial": ["b"]}}


def test_a_run_that_has_made_nothing_takes_other_settings(tmp_path):
    folder = RunFolder(tmp_path)
    assert not folder.begun
    folder.open(RECORD)
    for file in (folder.ledger_file, folder.round(0) / "datalist.json"):
        write_json(file, {"rounds": []})
    assert not folder.begun
    assert folder.open(OTHER) is False
    assert read_json(folder.run_file) == {**OTHER, "finished": False}
    assert sorted(path.name for path in tmp_path.rglob("*.json")) == ["run.json"]  # those followed from its split


@pytest.mark.parametrize(
    "made",
    ["round_000/training.pt", "round_001/committee.pt", "learning_curve.csv", "ranking.csv", "worklist/round_000",
     "labels_accepted/a.0.nii.gz"],
)  # fmt: skip
def test_what_a_run_has_made_binds_it_to_its_settings(tmp_path, made):
    folder = RunFolder(tmp_path)
    folder.open(RECORD)
    (tmp_path / made).parent.mkdir(exist_ok=True)
    (tmp_path / made).touch()
    with pytest.raises(RunFolderError, match=r"^rounds: "):
        folder.open(OTHER)


def test_before_a_training_is_saved_its_keys_and_the_components_bind_nobody(tmp_path):
    folder = RunFolder(tmp_path)
    folder.open(RECORD)
    (tmp_path / "worklist/round_000").mkdir(parents=True)
    smaller = {**RECORD, "settings": {"rounds": 3, "seed": 0, "batch_size": 1}, "components": {"loss": 1, "new": 2}}
    for _ in range(2):
        assert folder.open(smaller) is False
        assert read_json(folder.run_file) == {**smaller, "finished": False}
    folder.curve_file.touch()
    with pytest.raises(RunFolderError, match=r"^loss: differs from the run"):
        folder.open({**smaller, "components": RECORD["components"]})
    with pytest.raises(RunFolderError, match=r"^batch_size: .* started with 1, this command says 2"):
        folder.open({**smaller, "settings": {**smaller["settings"], "batch_size": 2}})


@pytest.mark.parametrize(
    ("stage", "result"),
    [
        ("evaluate", "round_000/metrics.json"),
        ("acquire", "round_000/scores.csv"),
        ("inference", "worklist/round_001/case_seg.nii.gz"),  # as it suggests labels to people
    ],
)
def test_a_stage_that_has_left_nothing_may_be_mended_behind_a_training(tmp_path, stage, result):
    """A mistake in a file of its own shows when the round's training is there already."""
    folder, key = RunFolder(tmp_path), f"stages#{stage}"
    wrong, right, none = ({**RECORD, "components": {**RECORD["components"], **c}} for c in ({key: [1]}, {key: [2]}, {}))
    folder.open(wrong)
    (tmp_path / "round_000").mkdir()
    (tmp_path / "round_000/committee.pt").touch()
    for asked in (right, none, right):
        assert folder.open(asked) is False
        assert read_json(folder.run_file) == {**asked, "finished": False}
    with pytest.raises(RunFolderError, match=r"^loss: differs from the run"):
        folder.open({**right, "components": {key: [2]}})
    with pytest.raises(RunFolderError, match=r"^stages#train: differs from the run"):
        folder.open({**right, "components": {**right["components"], "stages#train": [1]}})
    (tmp_path / result).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / result).touch()
    for asked in (wrong, none):
        with pytest.raises(RunFolderError, match=rf"^{key}: differs from the run"):
            folder.open(asked)


@pytest.mark.parametrize(
    "content", ['{"rounds": [{"queries": ["a"]}]}', '{"worklists": [[]]}', '{"refused": ["x"]}', "["]
)
def test_a_ledger_that_knows_something_or_cannot_be_read_binds_a_run_to_its_settings(tmp_path, content):
    folder = RunFolder(tmp_path)
    folder.open(RECORD)
    folder.ledger_file.write_text(content)
    with pytest.raises(RunFolderError, match=r"^rounds: "):
        folder.open(OTHER)
    assert folder.ledger_file.read_text() == content


def test_a_lost_record_takes_no_ledger_with_it_and_another_record_stays(tmp_path):
    folder = RunFolder(tmp_path)
    write_json(folder.ledger_file, {"worklists": [[]]})
    folder.open(RECORD)
    assert folder.ledger_file.is_file()
    write_json(folder.run_file, {"of": "another program"})
    with pytest.raises(RunFolderError, match="is not the record of a run"):
        folder.open(RECORD)
    assert read_json(folder.run_file) == {"of": "another program"}


def test_a_finished_run_of_which_more_rounds_are_asked_is_not_finished(tmp_path):
    folder, more = RunFolder(tmp_path), {**RECORD, "settings": {"rounds": 5, "seed": 0}}
    assert folder.open(RECORD) is False
    folder.curve_file.touch()
    folder.finish()
    assert folder.open(RECORD) is True
    assert [folder.open(more), folder.open(more)] == [False, False]  # also where the first one was killed
    folder.finish()
    assert folder.open(more) is True
    with pytest.raises(RunFolderError, match=r"^rounds: .* is a run of 5 rounds"):
        folder.open(RECORD)


def test_what_a_kill_has_half_written_is_no_training(tmp_path, left):
    folder = RunFolder(tmp_path)
    folder.round(0).mkdir()
    for name in ("datalist.json", "training.pt"):
        left(folder.round(0) / name)
    assert not folder.holds_training
    (folder.round(0) / "training.pt").touch()
    assert folder.holds_training


def test_the_record_needs_no_installed_package(tmp_path, monkeypatch):
    def of_a_source_tree(name):
        if name == "svgd_monai":
            raise PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(record, "version", of_a_source_tree)
    found = record.people_record({"seed": 0, "images": str(tmp_path)}, {}, {1: "a"})
    assert found["versions"]["svgd_monai"] == svgd_monai.__version__
    assert found["versions"]["torch"] == version("torch")


def test_a_run_of_a_version_without_a_key_goes_on_with_what_it_worked_by(tmp_path):
    record = {"settings": {"rounds": 1, "seed": 0, "redraws": "score"}, "components": {}, "split": {},
              "dataset": {"fingerprint": "f", "classes": {}, "root": "d"}}  # fmt: skip
    older = {**record, "settings": {"rounds": 1, "seed": 0}}
    folder = RunFolder(tmp_path)
    assert folder.open(older) is False
    folder.curve_file.touch()
    assert folder.open(record) is False
    with pytest.raises(RunFolderError, match=r"redraws: .* started with 'score', this command says 'random'"):
        folder.open({**record, "settings": {**record["settings"], "redraws": "random"}})
    with pytest.raises(
        RunFolderError, match=r"rounds: .* a run of 1 rounds; .* not lowered to 0; give another output_dir"
    ):
        folder.open({**record, "settings": {**record["settings"], "rounds": 0}})


def test_a_run_of_another_version_goes_on_with_a_warning(tmp_path, caplog):
    record = {"settings": {"rounds": 1}, "components": {}, "split": {}, "versions": {"svgd_monai": "0.0.9"},
              "dataset": {"fingerprint": "f", "classes": {}, "root": "d"}}  # fmt: skip
    folder, now = RunFolder(tmp_path), {**record, "versions": {"svgd_monai": svgd_monai.__version__}}
    assert folder.open(record) is False
    folder.curve_file.touch()
    assert folder.open(now) is False
    assert "was begun with svgd_monai 0.0.9, this is" in caplog.text


def test_progress_beside_a_committee_is_removed(folder):
    (folder.round(0) / "training.pt").write_bytes(b"x")
    open_round = folder.round(1)
    open_round.mkdir()
    (open_round / "training.pt").write_bytes(b"x")
    folder.remove_temporaries()
    assert not (folder.round(0) / "training.pt").exists()
    assert (open_round / "training.pt").exists()
