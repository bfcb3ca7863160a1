"""The handler scores a pool as its options say, and its files hold what was measured."""

import json

import numpy as np
import pytest
import torch
from ignite.engine import Engine

from svgd_monai import acquisition_score, bald, entropy, variance
from svgd_monai.acquisition import AcquisitionHandler, PoolView, ScoreOptions, get_strategy, handler, reduce_map, select
from svgd_monai.errors import RunFolderError
from svgd_monai.files import read_csv
from svgd_monai.seeding import derive_seed
from svgd_monai.statistics import summarise

CASES = [f"scan_{number}" for number in range(9)]
LABELLED = ["scan_1", "scan_4", "scan_6"]
FREE = torch.tensor([case not in LABELLED for case in CASES])


def members(number):
    """(M, B, C, ...) probabilities of the committee of 3, of some case."""
    generator = torch.Generator().manual_seed(number)
    logits = (1 + number) * torch.randn(3, 1, 3, 4, 5, 6, generator=generator)
    return logits.softmax(2)


def information(cases, labelled):
    assert labelled == LABELLED
    numbers = torch.rand(len(CASES), generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    return torch.stack([numbers[CASES.index(case)] for case in cases])


def scored(folder, acquisition="entropy_mi", count=4, **options):
    """The rows of all cases, in their own order, and the queries."""
    taken = AcquisitionHandler(folder, acquisition, LABELLED, information, count, **options)
    engine = Engine(lambda _, batch: [{"statistics": summarise(members(CASES.index(i["case"])))[0]} for i in batch])
    taken.attach(engine)
    engine.run([[{"case": case, "affine": torch.eye(4)}] for case in CASES])
    queries = folder / "queries.json"
    rows = {row["case"]: row for row in read_csv(folder / "scores.csv")}
    return [rows[case] for case in CASES], json.loads(queries.read_text()) if queries.exists() else None


def column(rows, name):
    return torch.tensor([float(row[name]) for row in rows], dtype=torch.float64)


@pytest.mark.parametrize("reduction", ["mean", "sum", "foreground", "top"])
@pytest.mark.parametrize(("acquisition", "voxels"), [("entropy_mi", entropy), ("bald", bald), ("variance", variance)])
def test_a_case_has_its_strategys_uncertainty_and_the_members_disagreement(acquisition, voxels, reduction, tmp_path):
    rows, _ = scored(tmp_path, acquisition, reduction=reduction)
    maps = [voxels(members(number).double())[0] for number in range(len(CASES))]
    inside = [members(number).mean(0)[0].argmax(0) > 0 for number in range(len(CASES))]
    expected = [reduce_map(values[None], mask[None], reduction) for values, mask in zip(maps, inside, strict=True)]
    torch.testing.assert_close(column(rows, "uncertainty"), torch.cat(expected), rtol=1e-4, atol=1e-6)
    apart = [bald(members(number).double()).mean() for number in range(len(CASES))]
    torch.testing.assert_close(column(rows, "disagreement"), torch.stack(apart), rtol=1e-4, atol=1e-6)
    assert column(rows, "foreground_ml").tolist() == pytest.approx([int(mask.sum()) / 1000 for mask in inside])


@pytest.mark.parametrize(
    ("options", "terms"),
    [
        ({}, {"reference": FREE}),
        ({"mi_weight": 0.25}, {"mi_weight": 0.25, "reference": FREE}),
        ({"normalise": "rank"}, {"normalise": "rank", "reference": FREE}),
        ({"normalise_over": "all"}, {"reference": None}),
    ],
)
def test_the_terms_of_the_score_are_weighed_as_the_options_say(options, terms, tmp_path):
    rows, queried = scored(tmp_path, **options)
    expected = acquisition_score(column(rows, "uncertainty"), information(CASES, LABELLED), **terms)
    torch.testing.assert_close(column(rows, "score"), expected)
    best = sorted(rows, key=lambda row: (-float(row["score"]), row["labelled"] == "true", row["case"]))
    assert [int(row["rank"]) for row in best] == list(range(1, 10))
    assert queried == [row["case"] for row in best[:4]]
    assert {row["case"] for row in rows if row["queried"] == "true"} == set(queried)


@pytest.mark.parametrize("options", [{"keep_labelled": False}, {"redraws": "random"}, {"shuffle_scores": True}])
def test_the_choice_is_the_one_of_the_options(options, tmp_path):
    rows, queried = scored(tmp_path, **options)
    view = PoolView(
        tuple(CASES), column(rows, "uncertainty"), information(CASES, LABELLED), column(rows, "foreground_ml"), ~FREE,
        np.random.default_rng(derive_seed(0, "acquisition")),
    )  # fmt: skip
    call = {"keep_labelled": True, **options}
    assert queried == select(get_strategy("entropy_mi"), view, ScoreOptions(), 4, **call)[1]
    assert queried != scored(tmp_path)[1]


def test_the_ranking_is_of_the_cases_that_have_no_label(tmp_path):
    rows, _ = scored(tmp_path, ranking_file=tmp_path / "ranking.csv")
    ranking = read_csv(tmp_path / "ranking.csv")
    free = sorted((row for row in rows if row["labelled"] == "false"), key=lambda row: int(row["rank"]))
    assert [row["case"] for row in ranking] == [row["case"] for row in free]
    assert [row["rank"] for row in ranking] == [str(rank) for rank in range(1, 7)]
    assert [row["score"] for row in ranking] == [row["score"] for row in free]


def test_a_pool_that_is_only_ranked_leaves_no_queries(tmp_path):
    rows, queried = scored(tmp_path, count=0)
    assert queried is None
    assert {row["queried"] for row in rows} == {"false"}


def test_a_pool_that_is_only_ranked_leaves_no_queries_of_an_earlier_command(tmp_path, caplog):
    assert scored(tmp_path)[1]
    with caplog.at_level("INFO"):
        rows, queried = scored(tmp_path, count=0)
    assert queried is None
    assert {row["queried"] for row in rows} == {"false"}
    assert f"{len(CASES)} cases scored" in caplog.messages


def test_of_several_processes_the_first_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(handler, "is_first", lambda: False)
    with pytest.raises(RunFolderError, match=r"scores\.csv cannot be read"):
        scored(tmp_path)
    assert not list(tmp_path.iterdir())


class Twins:
    """scan_0 and scan_2 are much like the labelled scan_1, scan_3 and scan_5 a little like one another."""

    def __init__(self):
        self.shared = torch.eye(len(CASES), dtype=torch.float64)
        for one, other, value in ((0, 1, 0.9), (2, 1, 0.9), (0, 2, 0.9), (3, 5, 0.5)):
            self.shared[one, other] = self.shared[other, one] = value

    def pairs(self, rows, columns):
        return self.shared[[CASES.index(case) for case in rows]][:, [CASES.index(case) for case in columns]]

    def __call__(self, cases, labelled):
        return self.pairs(cases, labelled).mean(1)


def test_what_a_labelled_case_covers_needs_no_other_though_it_has_left_the_pool(tmp_path):
    taken = AcquisitionHandler(tmp_path, "max_cover", LABELLED, Twins(), 1, keep_labelled=False)
    engine = Engine(lambda _, batch: [{"statistics": summarise(members(0))[0]} for _ in batch])
    taken.attach(engine)
    engine.run([[{"case": case} for case in CASES if case not in LABELLED]])
    assert json.loads((tmp_path / "queries.json").read_text()) == ["scan_3"]


def test_nothing_of_the_last_case_is_held_while_the_pool_is_ranked(tmp_path):
    """Mutual information reads volumes of its own."""
    held = []

    def look(cases, labelled):
        held.extend([engine.state.batch, engine.state.output])
        return information(cases, labelled)

    engine = Engine(lambda _, batch: [{"statistics": summarise(members(0))[0]} for _ in batch])
    AcquisitionHandler(tmp_path, "entropy_mi", LABELLED, look, 1).attach(engine)
    engine.run([[{"case": case}] for case in CASES])
    assert held == [None, None]


def test_processes_that_share_an_empty_pool_rank_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(handler, "processes", lambda: (0, 2))
    monkeypatch.setattr(handler, "gathered", dict)
    AcquisitionHandler(tmp_path, "random").write(Engine(lambda *_: None))
    assert read_csv(tmp_path / "scores.csv") == []
    assert json.loads((tmp_path / "queries.json").read_text()) == []
