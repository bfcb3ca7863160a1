"""A study through the command line: its runs, what they share, what stops it, and how it goes on."""

import csv
import json
import shutil
import subprocess
from pathlib import Path

import filelock
import pytest
import yaml
from command import TINY, run_bundle, words

from svgd_monai.data import make_phantom
from svgd_monai.errors import RunFolderError
from svgd_monai.rounds.study import Study, study_cells
from svgd_monai.rounds.study.state import DONE, ELSEWHERE, FAILED

METHODS = {
    "entropy": {"acquisition": "entropy"},
    "random": {"acquisition": "random", "keep_labelled": False},
    "full": {"initial_labelled": "all", "rounds": 0},
}


def rows(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def command(bundle, overlay, folder, **keys):
    return run_bundle(*words(bundle / "configs/study.yaml", overlay, output_dir=folder, threads=1, **keys))


@pytest.fixture(scope="module")
def overlay(tmp_path_factory):
    root = tmp_path_factory.mktemp("study overlay")
    dataset = make_phantom(root / "phantom", "mr", 10)
    keys = {**TINY, "surface_distances": False, "dataset_dir": str(dataset), "initial_labelled": 2, "test_cases": 3}
    file = root / "small.yaml"
    file.write_text(yaml.safe_dump({**keys, "queries_per_round": 1, "methods": METHODS, "seeds": [3]}, sort_keys=False))
    return file


@pytest.fixture(scope="module")
def finished(bundle, overlay, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    result = command(bundle, overlay, folder, workers=2)
    assert result.exit_code == 0, result.last_line
    return folder, result


def test_every_run_is_a_runs_folder_like_any_other(finished):
    folder, _ = finished
    for name in METHODS:
        record = json.loads((folder / f"runs/{name}/seed_3/run.json").read_text())
        assert record["finished"] is True
        assert record["settings"]["method"] == name
        assert record["settings"]["seed"] == 3
        assert (folder / f"runs/{name}/seed_3/cache/case_checks.json").is_file()  # reports read nothing else


def test_the_table_says_that_all_is_done_and_the_report_stands(finished):
    folder, result = finished
    table = rows(folder / "study.csv")
    assert [(row["method"], row["state"], row["rounds_done"]) for row in table] == [
        ("entropy", "done", "2"), ("random", "done", "2"), ("full", "done", "1"),
    ]  # fmt: skip
    assert all(float(row["seconds"]) > 0 for row in table)
    found = {row["method"] for row in rows(folder / "report/summary.csv")}
    assert found == {"entropy", "random/delete", "full"}
    assert "3 of 3 runs are done, 0 are left." in result.stdout + result.stderr


def test_a_first_committee_is_trained_once_for_methods_that_differ_in_their_queries(finished):
    folder, _ = finished
    particles = {name: (folder / f"runs/{name}/seed_3/round_000/committee.pt").read_bytes() for name in METHODS}
    assert particles["entropy"] == particles["random"] != particles["full"]
    trained = [
        name
        for name in ("entropy", "random")
        if "train" in json.loads((folder / f"runs/{name}/seed_3/round_000/times.json").read_text())
    ]
    assert len(trained) == 1


def test_the_overlay_beside_a_run_makes_the_same_run_again(bundle, finished, tmp_path):
    folder, _ = finished
    keys = {"output_dir": tmp_path / "again", "cache_dir": tmp_path / "cache", "first_committees": "null"}
    result = run_bundle(
        *words(bundle / "configs/active_learning.yaml", folder / "runs/random/seed_3.yaml", **keys, device="cpu")
    )
    assert result.exit_code == 0, result.last_line
    times = ("seconds_train", "seconds_score")
    again, first = (
        [{k: v for k, v in row.items() if k not in times} for row in rows(path / "learning_curve.csv")]
        for path in (tmp_path / "again", folder / "runs/random/seed_3")
    )
    assert again == first


def test_a_finished_study_starts_nothing_and_mends_what_its_report_reads(bundle, overlay, finished, monkeypatch):
    folder, _ = finished
    checks = (folder / "cache/case_checks.json").read_bytes()
    missing, torn = (folder / f"runs/{name}/seed_3/cache/case_checks.json" for name in ("entropy", "random"))
    missing.unlink()
    torn.write_bytes(checks[:-10])
    monkeypatch.setattr("subprocess.Popen", None)
    result = command(bundle, overlay, folder)
    assert result.exit_code == 0, result.last_line
    assert missing.read_bytes() == torn.read_bytes() == checks
    assert "case_checks.json" not in (folder / "report/report.md").read_text()


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"only": "entropy,bald"}, "only: 'bald' is not a method of this study, which has entropy, random, full."),
        ({"seeds": "0,x"}, "seeds: 'x' is not a whole number."),
        ({"workers": 0}, "workers: 0 is below 1."),
    ],
)
def test_nonsense_is_refused_before_anything_is_written(bundle, overlay, tmp_path, keys, sentence):
    result = command(bundle, overlay, tmp_path / "study", **keys)
    assert (result.exit_code, result.last_line) == (1, sentence)
    assert not (tmp_path / "study").exists()


# Without the command line: what a study makes of its processes


class Process:
    """Ends at once, as told."""

    def __init__(self, code, deed):
        self.code, self.deed = code, deed

    def poll(self):
        self.deed()
        return self.code

    def terminate(self):
        pass

    def wait(self):
        return self.code


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A study whose processes do what ``deeds`` says: method -> (exit status, function of the run's folder)."""
    cells = study_cells({"a": {}, "b": {}, "c": {"batch_size": 2}}, None, [0], {}, frozenset())
    made = Study(tmp_path / "study", "active_learning.yaml", {"rounds": 1}, cells, report=False)
    made.deeds, made.started = {}, []

    def start(words, stdout, **_options):
        overlay = Path(words[-1].split("'")[-2])
        folder = overlay.parent / overlay.name.partition(".")[0]
        method = folder.parent.name
        made.started.append(method)
        code, deed = made.deeds.get(method, (0, finish))
        return Process(code, lambda: deed(folder, stdout))

    monkeypatch.setattr("subprocess.Popen", start)
    monkeypatch.setattr("svgd_monai.rounds.study.runner._POLL", 0)
    return made


def finish(folder, _log=None):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps({"settings": {"rounds": 1}, "finished": True}))
    (folder / "learning_curve.csv").write_text("round,val_dice,test_dice\n0,0.1,0.1\n1,0.2,0.3\n")


def fail(folder, _log=None):
    folder.with_name("seed_0.log").write_text("working\nlearning_rate: it burns.\n\n")


def test_a_run_that_fails_stops_no_other_and_is_named_in_the_end(study):
    study.deeds["a"] = (1, fail)
    with pytest.raises(Exception, match=r"1 of 3 runs failed, the first \(a, seed 0\) with: learning_rate: it burns\."):
        study.run()
    assert [study.states[cell] for cell in study.cells] == [FAILED, DONE, DONE]
    assert [row["state"] for row in rows(study.folder / "study.csv")] == ["failed", "done", "done"]


def test_of_a_run_that_was_killed_the_signal_is_told(study):
    study.deeds["a"] = (-9, fail)
    with pytest.raises(RunFolderError, match=r"\(a, seed 0\) with: Ended by signal 9 .*, often for want of memory; "):
        study.run()


def test_a_run_that_ends_well_but_unfinished_has_failed(study):
    study.deeds["b"] = (0, lambda folder, log: fail(folder))
    with pytest.raises(Exception, match="1 of 3 runs failed"):
        study.run()


def test_what_is_done_is_not_started_again_unless_its_keys_have_changed(study):
    study.run()
    study.run()
    assert study.started == ["a", "b", "c"]
    study.common["learning_rate"] = 0.5  # the run itself decides whether it may go on
    study.run()
    assert study.started == ["a", "b", "c"] * 2


def test_a_complete_run_that_refuses_other_settings_is_not_passed_off_as_one_of_them(study):
    study.run()
    before = (study.folder / "runs/a/seed_0.yaml").read_text()
    study.common["learning_rate"] = 0.5
    study.deeds["a"] = (1, fail)  # its files are as they were
    for _ in range(2):
        with pytest.raises(RunFolderError, match="1 of 3 runs failed"):
            study.run()
        assert study.states[study.cells[0]] == FAILED
    assert study.started == ["a", "b", "c"] * 2 + ["a"]
    assert (study.folder / "runs/a/seed_0.yaml").read_text() == before
    assert "learning_rate: 0.5" in (study.folder / "runs/b/seed_0.yaml").read_text()
    assert not list(study.folder.glob("runs/*/*.asked.yaml"))


@pytest.mark.parametrize("name", ["run.json", "learning_curve.csv", "round_000/times.json"])
def test_a_damaged_file_of_a_run_stops_no_other_and_may_be_mended_by_the_run(study, name):
    study.run()
    file = study.folder / "runs/a/seed_0" / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("[]" if name.endswith("times.json") else "round,val_dice\n0" if name.endswith("csv") else "")
    whole = {path.name: path.read_text() for path in (study.folder / "runs/b/seed_0").iterdir()}

    def mend(folder, _log):
        file.unlink()
        finish(folder)

    study.deeds["a"] = (0, mend)
    study.run()
    assert study.started == ["a", "b", "c", "a"]
    assert [row["state"] for row in rows(study.folder / "study.csv")] == ["done"] * 3
    assert {path.name: path.read_text() for path in (study.folder / "runs/b/seed_0").iterdir()} == whole


def test_a_run_that_another_process_has_finished_meanwhile_is_done_in_the_end(study):
    held = study.folder / "runs/b/seed_0"
    held.mkdir(parents=True)
    lock = filelock.FileLock(held / ".lock")
    lock.acquire()

    def other_process_finishes(folder, log):
        if folder.parent.name == "c" and lock.is_locked:
            finish(held)
            held.with_name("seed_0.yaml").write_text(study._text(study.cells[1]))
            lock.release()
        finish(folder, log)

    study.deeds["c"] = (0, other_process_finishes)
    study.run()
    assert study.started == ["a", "c"]
    assert [row["state"] for row in rows(study.folder / "study.csv")] == ["done"] * 3


def test_what_a_killed_run_has_left_in_the_shared_cache_goes(study, left):
    folder = study.folder / "cache/first_committees/x"
    folder.mkdir(parents=True)
    half = left(folder / "committee.pt")
    held = study.folder / "runs/b/seed_0"
    held.mkdir(parents=True)
    with filelock.FileLock(held / ".lock"):
        study.run()
    assert half.exists(), "a run that another process is at work in may be writing it"
    study.run()
    assert not half.exists()


def test_what_a_killed_study_has_half_written_goes(study, left):
    halves = []
    for name in ("study.csv", "runs/a/seed_0.yaml", "report/report.md"):
        (study.folder / name).parent.mkdir(parents=True, exist_ok=True)
        halves.append(left(study.folder / name))
    study.run()
    assert not any(half.exists() for half in halves)


def test_what_a_study_that_was_stopped_had_asked_of_a_run_is_forgotten(study):
    stale = study.folder / "runs/a/seed_0.asked.yaml"
    stale.parent.mkdir(parents=True)
    stale.write_text("rounds: 1\nnum_workers: 1\n")
    study.run()
    assert [row["state"] for row in rows(study.folder / "study.csv")] == ["done"] * 3
    assert "num_workers" not in (study.folder / "runs/a/seed_0.yaml").read_text()
    assert not stale.exists()


def test_a_methods_keys_go_before_the_studys(study):
    study.common |= {"rounds": 1, "batch_size": 8, "learning_rate": 0.5}
    keys = {cell.method: study.overlay(cell) for cell in study.cells}
    assert {method: each["batch_size"] for method, each in keys.items()} == {"a": 8, "b": 8, "c": 2}
    assert {each["learning_rate"] for each in keys.values()} == {0.5}


@pytest.mark.parametrize("workers", [1, 2])
def test_no_more_runs_go_at_a_time_than_there_are_workers(study, monkeypatch, workers):
    going, most = set(), []

    class Slow(Process):
        """Ends at the second look."""

        looks = 0

        def poll(self):
            self.looks += 1
            if self.looks < 2:
                return None
            going.discard(self)
            return super().poll()

    fast = subprocess.Popen

    def start(*arguments, **options):
        process = fast(*arguments, **options)
        slow = Slow(process.code, process.deed)
        going.add(slow)
        most.append(len(going))
        return slow

    monkeypatch.setattr("subprocess.Popen", start)
    study.workers = workers
    study.run()
    assert sorted(study.started) == ["a", "b", "c"]
    assert max(most) == workers


def test_an_interrupted_study_ends_its_runs(study, monkeypatch):
    ended = []

    class Going(Process):
        def poll(self):
            raise KeyboardInterrupt

        def terminate(self):
            ended.append("told")

        def wait(self):
            ended.append("ended")

    monkeypatch.setattr("subprocess.Popen", lambda *_, **__: Going(0, None))
    with pytest.raises(KeyboardInterrupt):
        study.run()
    assert ended == ["told", "ended"]
    assert "waiting" in {row["state"] for row in rows(study.folder / "study.csv")}


def test_a_run_in_another_process_is_left_to_it(study):
    held = study.folder / "runs/b/seed_0"
    held.mkdir(parents=True)
    with filelock.FileLock(held / ".lock"):
        study.run()
    assert study.started == ["a", "c"]
    assert study.states[study.cells[1]] == ELSEWHERE
    study.run()
    assert study.started == ["a", "c", "b"]


def test_a_first_committee_that_is_being_trained_is_waited_for_by_running_another_method(study):
    study.workers = 2
    study.run()
    assert study.started[:2] == ["a", "c"]  # b would train the same as a


def test_the_table_holds_the_whole_study_whatever_a_command_runs_of_it(study):
    study.run()

    def of(only, seeds):
        cells = study_cells({"a": {}, "b": {}, "d": {}}, None, seeds, {}, frozenset())
        return Study(study.folder, "active_learning.yaml", {"rounds": 1}, cells, only=only, report=False)

    of({"a"}, [0, 1]).run()
    held = study.folder / "runs/b/seed_1"
    held.mkdir(parents=True)
    with filelock.FileLock(held / ".lock"):
        of({"d"}, [1]).run()
    assert study.started == ["a", "b", "c", "a", "d"]
    table = {(row["method"], row["seed"]): row["state"] for row in rows(study.folder / "study.csv")}
    assert table == {
        ("a", "0"): "done", ("b", "0"): "done", ("c", "0"): "done",  # c is of another configuration
        ("a", "1"): "done", ("b", "1"): "elsewhere", ("d", "1"): "done",
    }  # fmt: skip


def test_rows_without_a_run_leave_the_table(study):
    study.run()
    cells = study_cells({"x": {}}, None, [0], {}, frozenset())
    shutil.rmtree(study.folder / "runs/c/seed_0")
    Study(study.folder, "active_learning.yaml", {"rounds": 1}, cells, report=False).run()
    assert [row["method"] for row in rows(study.folder / "study.csv")] == ["x", "a", "b"]


def test_a_table_that_is_none_is_named(study):
    study.folder.mkdir()
    (study.folder / "study.csv").write_text("method,seed\na,first\n")
    with pytest.raises(RunFolderError, match=r"study\.csv is not the table of a study"):
        study.run()
    assert study.started == []


def test_a_run_that_finds_its_folder_held_is_tried_again(study):
    def busy(folder, _log):
        folder.with_name("seed_0.log").write_text(f"output_dir: another process is at work in {folder}.\n")
        study.deeds["a"] = (0, finish)

    study.deeds["a"] = (1, busy)
    study.run()
    assert study.started.count("a") == 2
    assert set(study.states.values()) == {DONE}
