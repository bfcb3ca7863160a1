"""A scripted team drives the loop through the command line alone, in bits, with mistakes, and with kills in between."""

import shutil
import signal
from types import MappingProxyType

import nibabel as nib
import numpy as np
import pytest
from labelling import Team, curve, datalist, outcome

from svgd_monai.data import make_phantom
from svgd_monai.data.roles import read_datalist
from svgd_monai.files import read_csv
from svgd_monai.rounds import run_lock
from svgd_monai.rounds.people import loop, state

LAST = 4


def grown(values, affine):
    """The same label with a corner more: another opinion."""
    values[2:5, 2:5, 2:5] = 1
    return values, affine


#: Where each killed command dies: (module, class, function, n-th call, text among its arguments).
DEATHS = {
    "between a label's copy and the ledger": ("pathlib", "Path", "replace", 1, "ledger.json"),
    "in training": ("svgd_monai.committee.posterior", "PosteriorStep", "__call__", 3, None),
    "in pre-segmenting": ("svgd_monai.evaluation.writer", "CaseWriter", "write", 2, None),
    "between a round's beginning and the ledger": ("svgd_monai.rounds.people.loop", None, "write_json", 2, None),
    "between a worklist and the ledger": ("svgd_monai.rounds.people.worklists", None, "write_json", 1, None),
    "between the table and its folder's end": ("pathlib", "Path", "replace", 1, "worklist.csv"),
    "between queries and worklist": ("svgd_monai.rounds.people.worklists", "Worklists", "follow", 1, None),
}


def labels_in_bits(team, killed=MappingProxyType({})):
    """Five trained rounds; a command named in ``killed`` dies once and is then given again."""

    def command(name):
        for deadly in killed.get(name, ()):
            assert team.command(deadly).code == -signal.SIGKILL, name
        return team.works()

    command("cold start")
    first, second, third = team.worklist(0)
    team.label(first, second)
    assert "2 labelled, 0 declined, 1 to do" in command("two of three")
    team.save(third, lambda values, affine: (values[1:], affine))
    assert "has the shape" in command("a wrong shape")
    team.label(third)
    command("round 0")
    kept, declined = team.worklist(1)
    team.label(kept)
    team.note("declined.txt", f"{declined}: motion")
    command("round 1")
    late, other = team.worklist(2)
    team.save(first, grown)
    team.label(late)
    assert "in place of the one before" in command("a changed label")
    team.label(other)
    command("round 2")
    team.label(*team.worklist(3))
    command("round 3")
    team.label(*team.worklist(4))
    assert "complete" in command("round 4")
    return first, declined


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    return make_phantom(tmp_path_factory.mktemp("data") / "fourteen", "mr", 14)


@pytest.fixture(scope="module")
def finished(pool, tmp_path_factory):
    team = Team(pool, tmp_path_factory.mktemp("finished"))
    team.changed, team.declined = labels_in_bits(team)
    return team


def test_five_rounds_train_on_what_people_gave(finished):
    assert [row["round"] for row in curve(finished.folder)] == ["0", "1", "2", "3", "4"]
    labels = [int(row["unique_labels"]) for row in curve(finished.folder)]
    assert labels == [3, 4, 6, 8, 10]
    for number in range(LAST + 1):
        used = {*datalist(finished.folder, number), *datalist(finished.folder, number, "validation")}
        assert len(used) == labels[number]


def test_a_declined_case_leaves_the_pool(finished):
    assert finished.ledger["cases"][finished.declined]["declined"]["reason"] == "motion"
    assert finished.declined in datalist(finished.folder, 0, "unlabeled")
    for number in range(1, LAST + 1):
        assert finished.declined not in datalist(finished.folder, number, "unlabeled")
    assert all(finished.declined not in finished.worklist(number) for number in range(2, LAST + 1))


def test_a_case_with_a_label_is_on_no_worklist_and_each_list_is_full(finished):
    labelled = set()
    for number in range(LAST + 1):
        asked = finished.worklist(number)
        assert len(asked) == (3 if number == 0 else 2)
        assert not labelled & set(asked)
        labelled |= set(asked) - {finished.declined}


def test_a_worklist_tells_each_cases_place_among_the_unlabelled_by_uncertainty(finished):
    for number in range(LAST):
        scored = read_csv(finished.folder / f"round_{number:03d}/scores.csv")
        free = {row["case"]: float(row["uncertainty"]) for row in scored if row["labelled"] == "false"}
        for row in finished.table(number + 1):
            place = 1 + sum(value > free[row["case"]] for value in free.values())
            assert f" (number {place} of {len(free)} unlabelled cases);" in row["why"]


def test_a_changed_label_is_used_from_the_next_round_and_the_old_one_is_kept(finished):
    before, after = finished.ledger["cases"][finished.changed]["labels"]
    files = [
        next(line for line in text.splitlines() if "labels_accepted" in line and finished.changed in line)
        for text in ((finished.folder / f"round_00{number}/datalist.json").read_text() for number in (1, 2))
    ]
    assert before["file"] in files[0]
    assert after["file"] in files[1]
    values = [np.asarray(nib.load(finished.folder / each["file"]).dataobj) for each in (before, after)]
    assert (values[0] != values[1]).any()


def test_a_validation_case_stays_one_and_never_trains_again(finished):
    sets = [datalist(finished.folder, number, "validation") for number in range(LAST + 1)]
    assert [len(each) for each in sets] == [0, 0, 1, 1, 2]
    for number in range(1, LAST + 1):
        assert sets[number - 1] == sets[number][: len(sets[number - 1])]
        assert not set(sets[number]) & set(datalist(finished.folder, number))
    table = curve(finished.folder)
    assert [row["val_dice"] != "" for row in table] == [False, False, True, True, True]
    assert all(row["test_dice"] == "" for row in table)


def test_a_case_drawn_again_gains_weight_at_no_label(pool, tmp_path):
    team = Team(pool, tmp_path, rounds=2, acquisition="random", queries_per_round=6)
    team.works()
    team.label(*team.worklist(0))
    team.works()
    again = set(datalist(team.folder, 0)) & set(team.ledger["rounds"][0]["queries"])
    assert again, "random has drawn no labelled case; choose another seed"
    queried = team.ledger["rounds"][0]["queries"]
    rows = team.table(1)
    assert len(rows) == 6
    assert ["added as the next best" in row["why"] for row in rows] == [row["case"] not in queried for row in rows]
    assert not set(team.worklist(1)) & set(datalist(team.folder, 0))
    team.label(*team.worklist(1))
    team.works()
    trained = datalist(team.folder, 1)
    assert all(trained.count(case) == 2 for case in again - set(datalist(team.folder, 1, "validation")))
    assert team.ledger["rounds"][1]["unique_labels"] == 9


def test_the_ledger_tells_cost_hash_and_time(finished):
    case = finished.worklist(1)[0]
    label = finished.ledger["cases"][case]["labels"][0]
    assert label["corrected_voxels"] > 0
    assert label["corrected_surface_voxels"] > 0
    assert 0 <= label["presegmentation_dice"] < 1
    assert sum(label["volume_ml"].values()) > 1
    assert label["sha256"][:12] in label["file"]
    assert label["time"].endswith("+00:00")
    refused = finished.ledger["refused"]
    assert [record["file"] for record in refused] == [f"labels/{finished.worklist(0)[2]}.nii.gz"]


def test_a_finished_run_makes_a_lost_ranking_again_and_takes_more_rounds(finished, tmp_path):
    folder = tmp_path / "more"
    shutil.copytree(finished.folder, folder, symlinks=True)
    (folder / "ranking.csv").unlink()
    team = Team(finished.truth.parent, folder)
    before = sorted(folder.glob("tensorboard/*"))
    assert team.works().rstrip().endswith("is finished; a higher number of rounds continues it.")
    assert sorted(folder.glob("tensorboard/*")) == before, "nothing is recorded twice"
    assert outcome(folder)["ranking"] == outcome(finished.folder)["ranking"]
    assert "Worklist 5, 2 cases" in team.works(rounds=LAST + 1)


def test_files_of_an_earlier_round_that_are_lost_are_made_again(finished, tmp_path):
    outcomes = []
    for name in ("whole", "damaged"):
        folder = tmp_path / name
        shutil.copytree(finished.folder, folder, symlinks=True)
        team = Team(finished.truth.parent, folder, rounds=LAST + 1)
        if name == "damaged":
            for lost in ("round_000/scores.csv", "round_003/queries.json"):
                (folder / lost).write_bytes(b"")  # the advice would say that nothing was predicted
                said = team.command().last_line
                assert f"{lost} " in said
                assert said.endswith("Remove it, and the same command makes it again.")
                (folder / lost).unlink()
            # Whatever the strategy would choose now, the ledger knows what was asked.
            for lost in ("round_001/queries.json", "round_001/training.json", "round_002/metrics.json"):
                (folder / lost).unlink()
        team.works()
        outcomes.append(outcome(folder))
    for part in outcomes[0]:
        assert outcomes[1][part] == outcomes[0][part], part


@pytest.mark.parametrize(
    "lost", ["ledger.json", "round_000/datalist.json", "round_004/datalist.json", "round_002", "round_004"]
)
def test_what_nothing_else_tells_is_not_made_up_where_it_is_lost(lost, finished, tmp_path):
    """A round that began anew would work on the labels that there are by now."""
    folder = tmp_path / "run"
    shutil.copytree(finished.folder, folder, symlinks=True)
    place = folder / lost
    if place.is_dir():
        shutil.rmtree(place)
        place /= "datalist.json"
    else:
        place.unlink()
    team = Team(finished.truth.parent, folder, rounds=LAST + 1)
    before = {path: path.read_bytes() for path in folder.rglob("*.csv")}
    result = team.command()
    assert (result.code, result.last_line) == (
        1, f"{place} is gone, and nothing else says what it held; put it back from a backup, or begin anew in another "
        "output_dir."
    )  # fmt: skip
    assert {path: path.read_bytes() for path in folder.rglob("*.csv")} == before


def test_a_command_reads_each_rounds_list_once_and_the_newest_again(finished, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    shutil.copytree(finished.folder, folder, symlinks=True)
    team = Team(finished.truth.parent, folder, rounds=LAST + 1)
    team.works()
    read = []

    def noted(path, dataset):
        read.append(path.parent.name)
        return read_datalist(path, dataset)

    for module in (state, loop):
        monkeypatch.setattr(module, "read_datalist", noted)
    assert "2 to do" in team.works()
    assert read == [f"round_{number:03d}" for number in (*range(LAST + 1), LAST)]


def test_a_command_that_is_killed_on_its_way_through_earlier_rounds_leaves_their_curve(finished, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished.folder, folder, symlinks=True)
    team = Team(finished.truth.parent, folder, rounds=LAST + 1)
    assert team.command(("svgd_monai.rounds.people.loop", None, "curve_row", 2, None)).code == -signal.SIGKILL
    assert curve(folder) == curve(finished.folder)


KILLS = {
    "two of three": ["between a label's copy and the ledger"],
    "round 0": ["between a round's beginning and the ledger", "in training", "between queries and worklist"],
    "round 1": ["in pre-segmenting", "between a worklist and the ledger"],
    "round 2": ["between the table and its folder's end"],
    "round 3": ["in training"],
}


def test_a_run_that_is_killed_again_and_again_ends_as_one_of_the_same_decisions_that_is_not(finished, pool, tmp_path):
    team = Team(pool, tmp_path)
    deaths = {name: [DEATHS[each] for each in places] for name, places in KILLS.items()}
    labels_in_bits(team, deaths)
    ours, theirs = outcome(tmp_path), outcome(finished.folder)
    for part in ours:
        assert ours[part] == theirs[part], part
    assert not list(tmp_path.rglob("*.tmp")), "temporary files of the killed processes stay behind"
    assert not list(tmp_path.glob("labels_accepted/.*"))


def test_a_second_process_on_the_same_folder_is_refused(pool, tmp_path):
    with run_lock(tmp_path):
        result = Team(pool, tmp_path).command()
    assert result.code == 1
    assert "another process" in result.last_line
    assert not (tmp_path / "worklist").exists()
