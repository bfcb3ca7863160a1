import itertools
import logging
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from pairs import Pairs, random_information

from svgd_monai.acquisition import (
    AcquisitionHandler,
    PoolInformation,
    PoolView,
    ScoreOptions,
    get_strategy,
    pairwise_mutual_information,
    select,
)
from svgd_monai.acquisition.cover import greedy_cover
from svgd_monai.errors import SettingsError


def names(count):
    return [f"case_{number:03}" for number in range(count)]


def view_of(table, labelled=(), uncertainty=None, cases=None, pool=None):
    """A view of the pool, positions in the table; the table's other cases have left it."""
    cases = cases or names(len(table))
    pool = range(len(table)) if pool is None else pool
    values = torch.zeros(len(table)) if uncertainty is None else torch.as_tensor(uncertainty)
    return PoolView(
        cases=tuple(cases[place] for place in pool),
        uncertainty=values[list(pool)],
        information=None,
        foreground=torch.ones(len(pool)),
        labelled=torch.tensor([place in labelled for place in pool], dtype=torch.bool),
        rng=np.random.default_rng(0),
        pairs=Pairs(table, cases),
        labelled_cases=tuple(cases[place] for place in labelled),
    )


def chosen(view, count, keep_labelled=False, candidates=16):
    return select(get_strategy("max_cover"), view, ScoreOptions(candidates=candidates), count, keep_labelled)


def cover(table, unlabelled, chosen_places):
    """F(S) by its definition; S holds the labelled too."""
    total = 0.0
    for i in unlabelled:
        similar = [float(table[i, j]) / math.sqrt(float(table[i, i] * table[j, j])) for j in chosen_places]
        total += max(similar, default=0.0)
    return total


def reference(table, labelled, candidates, count):
    """Greedy choice, F computed anew for each candidate at each step."""
    unlabelled = [place for place in range(len(table)) if place not in labelled]
    picked = []
    for _ in range(count):
        left = [place for place in candidates if place not in picked]
        picked.append(max(left, key=lambda place: cover(table, unlabelled, [*labelled, *picked, place])))
    return picked


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("labelled", [(), (2, 5, 9)])
def test_greedy_is_that_of_the_definition(seed, labelled):
    table = random_information(14, seed)
    uncertainty = torch.rand(14, generator=torch.Generator().manual_seed(seed))
    free = [place for place in range(14) if place not in labelled]
    candidates = sorted(free, key=lambda place: -uncertainty[place])[:8]
    _, queried = chosen(view_of(table, labelled, uncertainty), 4, candidates=8)
    assert queried == [names(14)[place] for place in reference(table, labelled, candidates, 4)]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("labelled", [(), (0, 1)])
def test_greedy_gains_at_least_what_its_bound_says_of_the_best(seed, labelled):
    table = random_information(10, 100 + seed)
    free = [place for place in range(10) if place not in labelled]
    _, queried = chosen(view_of(table, labelled), 3)
    before = cover(table, free, labelled)
    gain = cover(table, free, [*labelled, *(names(10).index(case) for case in queried)]) - before
    best = max(cover(table, free, [*labelled, *some]) for some in itertools.combinations(free, 3)) - before
    assert (1 - 1 / math.e) * best <= gain <= best + 1e-12


#: a, b, c and l of entropies 1, 4, 1/4, 1; divided by √(H H): ab 0.8, ac 0.1, bc 0.5, al 0.6, bl 0.9, cl 0.2
TABLE = torch.tensor(
    [[1.0, 1.6, 0.05, 0.6], [1.6, 4.0, 0.5, 1.8], [0.05, 0.5, 0.25, 0.1], [0.6, 1.8, 0.1, 1.0]], dtype=torch.float64
)


def test_a_hand_worked_choice():
    # F: a 1 + 0.8 + 0.1, b 0.8 + 1 + 0.5, c 0.1 + 0.5 + 1; then a adds 0.2 and c 0.5
    scores, queried = chosen(view_of(TABLE[:3, :3], cases=["a", "b", "c"]), 2)
    assert queried == ["b", "c"]
    torch.testing.assert_close(scores, torch.tensor([4 / 3, 2.0, 5 / 3], dtype=torch.float64))


@pytest.mark.parametrize("pool", [(0, 1, 2, 3), (0, 1, 2)], ids=["kept", "left"])
def test_what_the_labelled_cover_is_covered(pool):
    # l covers 0.6, 0.9, 0.2. a adds 0.4, b 0.2 + 0.1 + 0.3, c 0.8; then a adds 0.4 and b 0.3
    view = view_of(TABLE, (3,), cases=["a", "b", "c", "l"], pool=pool)
    assert chosen(view, 3)[1] == ["c", "a", "b"]


def test_labelled_cases_that_the_pool_marks_need_not_be_listed():
    view = view_of(TABLE, (3,), cases=["a", "b", "c", "l"])
    assert chosen(replace(view, labelled_cases=()), 3)[1] == ["c", "a", "b"]


def test_greedy_cover_orders_all_columns_and_ties_by_the_first():
    similarity = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.5]])
    assert greedy_cover(similarity, torch.zeros(2)) == [0, 2, 1]
    assert greedy_cover(similarity, torch.ones(2)) == [0, 1, 2]
    assert greedy_cover(torch.zeros(4, 0), torch.zeros(4)) == []


def test_only_the_most_uncertain_are_candidates_and_more_when_more_are_asked_for():
    table, uncertainty = random_information(30, 4), torch.arange(30.0)
    for count, expected in ((1, 5), (2, 5), (4, 8), (15, 30)):
        scores, queried = chosen(view_of(table, (), uncertainty), count, candidates=5)
        assert [place for place in range(30) if scores[place] > 1] == list(range(30 - expected, 30))
        assert {names(30).index(case) for case in queried} <= set(range(30 - expected, 30))


def test_cases_that_are_no_candidates_follow_by_uncertainty():
    scores, queried = chosen(view_of(random_information(12, 4), (), torch.arange(12.0)), 0, candidates=5)
    assert queried == []
    assert scores[:7].tolist() == sorted(scores[:7].tolist())
    assert 0 < scores[:7].min() < scores[:7].max() < 1
    assert sorted(scores[7:].tolist()) == pytest.approx([1.2, 1.4, 1.6, 1.8, 2.0])


def test_equal_gains_go_by_uncertainty_then_by_case_id():
    table = torch.eye(6, dtype=torch.float64)
    _, queried = chosen(view_of(table, (), [0.1, 0.3, 0.2, 0.3, 0.5, 0.3]), 6)
    assert queried == [names(6)[place] for place in (4, 1, 3, 5, 2, 0)]


def test_a_labelled_case_comes_after_every_candidate():
    table, labelled = random_information(10, 3), (0, 1, 2)
    uncertainty = [0.9, 0.8, 0.7, *torch.linspace(0.6, 0.1, 7).tolist()]
    _, queried = chosen(view_of(table, labelled, uncertainty), 10, keep_labelled=True)
    assert queried[7:] == names(3)
    assert chosen(view_of(table, range(10), uncertainty), 2, keep_labelled=True)[1] == names(2)


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_the_pool_and_a_repetition_change_no_bit(seed):
    table = random_information(20, seed)
    uncertainty = torch.rand(20, generator=torch.Generator().manual_seed(seed))
    first = chosen(view_of(table, (3, 4), uncertainty), 5)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(seed))
    view = view_of(table, (4, 3), uncertainty, pool=order.tolist())
    for _ in range(2):
        scores, queried = chosen(view, 5)
        assert queried == first[1]
        assert torch.equal(scores, first[0][order])


def test_no_pairs_are_asked_for_but_those_needed():
    table = random_information(40, 0)
    labelled = (0, 7, 8)
    view = view_of(table, labelled, torch.arange(40.0))
    chosen(view, 2, candidates=6)
    cases = names(40)
    free = [case for place, case in enumerate(cases) if place not in labelled]
    columns = [*(cases[place] for place in labelled), *cases[-6:]]
    expected = {frozenset((row, column)) for row in free for column in columns} | {frozenset((case,)) for case in cases}
    assert view.pairs.asked == expected
    assert len(expected) == 40 + 37 * 3 + 37 * 6 - 6 * 7 // 2  # of the 820 pairs that there are


def test_entropies_in_one_pass_are_taken_for_the_diagonal():
    table = random_information(12, 3)
    uncertainty = torch.rand(12, generator=torch.Generator().manual_seed(4))
    view = view_of(table, (0, 5), uncertainty)
    expected = chosen(view, 3)
    asked = []

    def entropies(cases):
        asked.append(list(cases))
        return table.diag()[[names(12).index(case) for case in cases]]

    other = replace(view_of(table, (0, 5), uncertainty), entropies=entropies)
    found = chosen(other, 3)
    assert torch.equal(found[0], expected[0])
    assert found[1] == expected[1]
    assert asked == [sorted(names(12))]
    assert frozenset((names(12)[5],)) in view.pairs.asked - other.pairs.asked


def undefined(table, places):
    table = table.clone()
    table[list(places)] = math.nan
    table[:, list(places)] = math.nan
    return table


def test_a_constant_image_is_neither_chosen_before_others_nor_covered():
    table = random_information(12, 6)
    uncertainty = torch.linspace(0, 1, 12)
    labelled, constant = (0, 1), (1, 5, 11)  # a labelled one, and the most uncertain of all
    scores, queried = chosen(view_of(undefined(table, constant), labelled, uncertainty), 10)
    assert queried[-2:] == ["case_005", "case_011"]
    assert scores[[1, 5, 11]].tolist() == [-math.inf] * 3
    defined = [place for place in range(12) if place not in constant]
    alone = view_of(table[defined][:, defined], (0,), uncertainty[defined], [names(12)[place] for place in defined])
    assert chosen(alone, 8)[1] == queried[:8]


def test_uncertainty_decides_where_every_image_is_constant(caplog):
    view = view_of(undefined(random_information(4, 0), range(4)), (), [0.1, 0.4, 0.2, 0.3])
    with caplog.at_level(logging.WARNING):
        assert chosen(view, 2)[1] == ["case_001", "case_003"]
    assert "Every image of the pool is constant" in caplog.text


def test_needs_pairs_and_finite_uncertainty():
    view = view_of(random_information(3, 0), (), [0.1, math.nan, 0.2])
    with pytest.raises(ValueError, match="uncertainty of a case is not finite"):
        chosen(view, 1)
    view = PoolView(view.cases, torch.ones(3), None, view.foreground, view.labelled, view.rng)
    with pytest.raises(ValueError, match="needs the mutual information of pairs"):
        chosen(view, 1)


class Images:
    """A data set of small images; the last is constant."""

    def __init__(self, count):
        generator = torch.Generator().manual_seed(1)
        common = torch.rand(1, 12, 14, 12, generator=generator)
        weights = torch.linspace(0.2, 0.8, count)
        own = [torch.rand(1, 12, 14, 12, generator=generator) for _ in range(count)]
        self.images = [weight * common + (1 - weight) * noise for weight, noise in zip(weights, own, strict=True)]
        self.images[-1] = torch.full((1, 12, 14, 12), 0.3)
        self.data = [
            {"case": case, "image": f"{case}.nii.gz", "fingerprint": case.encode().hex()} for case in names(count)
        ]

    def __getitem__(self, index):
        return {"image": self.images[index]}


@pytest.fixture
def images():
    return Images(16)


def information(images, folder):
    return PoolInformation(images, folder / "pairs.npz", grid=None, bins=16)


@pytest.mark.parametrize("content", ["volume", "foreground"])
def test_an_image_of_one_value_but_for_a_few_voxels_has_no_information(images, tmp_path, content):
    """Whose frame would hold little beside these voxels."""
    places = torch.stack(torch.meshgrid(*[torch.arange(24.0)] * 3, indexing="ij"))
    images.images[-1] = torch.where((places - 10).square().sum(0) < 5, 0.4, 1.0)[None]
    found = PoolInformation(images, tmp_path / "pairs.npz", (12, 12, 12), content=content)(names(16), names(2))
    assert found[-1].isnan()
    assert found[:-1].isfinite().all()


@pytest.mark.parametrize(
    ("content", "low", "high", "defined"),
    [
        ("foreground", 0.2, 1.0, True),  # its frame is what the foreground is compared for
        ("volume", 0.2, 1.0, False),  # where it is nearly nothing
        ("foreground", 0.6, 0.6, False),  # of one value
        ("foreground", 0.01, 0.01, False),  # hardly brighter than the air, but for a voxel
    ],
)
def test_a_small_body_in_much_air_is_an_image_where_the_foreground_is_compared(
    images, tmp_path, content, low, high, defined
):
    places = torch.stack(torch.meshgrid(*[torch.arange(24.0)] * 3, indexing="ij"))
    texture = torch.rand(1, 24, 24, 24, generator=torch.Generator().manual_seed(3))
    images.images[-1] = torch.where((places - 10).square().sum(0) < 5, low + (high - low) * texture, 0.0)
    if high == 0.01:
        images.images[-1][0, 10, 10, 10] = 0.8
    found = PoolInformation(images, tmp_path / "pairs.npz", (12, 12, 12), content=content)(names(16), names(2))
    assert found[:-1].isfinite().all()
    assert bool(found[-1].isfinite()) == defined


def test_the_highest_information_with_a_labelled_case_counts_on_demand(images, tmp_path):
    pool = PoolInformation(images, tmp_path / "pairs.npz", grid=None, bins=16, aggregation="max")
    rows, columns = names(16)[:6], names(16)[6:9]
    assert torch.equal(pool(rows, columns), pool.pairs(rows, columns).amax(1))


def test_volumes_of_other_shapes_are_not_compared_as_they_are(images, tmp_path):
    """Also of as many voxels, of which none would lie at its place."""
    images.images[1] = images.images[1].transpose(2, 3)
    sentence = r"^mi_grid: null needs volumes of one shape, the pool has \(12, 12, 14\) and \(12, 14, 12\)\.$"
    with pytest.raises(SettingsError, match=sentence):
        information(images, tmp_path).pairs(names(16)[:1], names(16)[1:2])


def test_a_pool_gives_pairs_in_nats_through_its_store(images, tmp_path):
    pool = information(images, tmp_path)
    rows, columns = names(16)[:6], names(16)[4:8]
    values = torch.stack(images.images)
    torch.testing.assert_close(pool.pairs(rows, columns), pairwise_mutual_information(values[:6], values[4:8], 16))
    # One of the two pairs of cases 4 and 5; and the entropies of all but these two, which are among the pairs.
    assert pool.store.computed == 6 * 4 - 1 + 6
    assert torch.equal(pool(rows, columns), pool.pairs(rows, columns).mean(1))
    assert pool.store.computed == 29
    assert pool.pairs([names(16)[-1]], rows).isnan().all()
    several = names(16)[3:9]
    assert torch.equal(pool.entropies(several), pool.pairs(several, several).diag())
    assert pool.entropies([names(16)[-1]]).isnan().all()


@pytest.mark.parametrize("keep_labelled", [True, False])
def test_the_handler_writes_the_choice_as_a_ranking_and_computes_each_pair_once(images, tmp_path, keep_labelled):
    cases, labelled, candidates = names(16), names(3), 5
    pool = cases if keep_labelled else cases[3:]
    uncertainty = torch.rand(16, generator=torch.Generator().manual_seed(2), dtype=torch.float64) / 2

    def statistics(_engine, batch):
        """Two classes, of which the mean probability has the case's own entropy; the rest is not looked at."""
        values = torch.tensor([uncertainty[cases.index(item["case"])] for item in batch])
        return [{"statistics": torch.stack([p, 1 - p, p, p])[:, None, None, None]} for p in values]

    source = information(images, tmp_path)
    handler = AcquisitionHandler(
        tmp_path,
        "max_cover",
        labelled,
        source,
        2,
        keep_labelled,
        candidates=candidates,
        ranking_file=tmp_path / "r.csv",
    )
    engine = Engine(statistics)
    handler.attach(engine)
    engine.run([[{"case": case}] for case in pool])

    table = pairwise_mutual_information(torch.stack(images.images[:-1]), torch.stack(images.images[:-1]), 16)
    uncertain = sorted(range(3, 15), key=lambda place: -uncertainty[place])[:candidates]  # entropy rises up to p = 1/2
    expected = [cases[place] for place in reference(table, (0, 1, 2), uncertain, candidates)]
    rows = [line.split(",") for line in (tmp_path / "scores.csv").read_text().splitlines()[1:]]
    assert [row[0] for row in rows][:candidates] == expected
    assert [row[0] for row in rows if row[6] == "true"] == expected[:2]
    assert rows[-1][0] == cases[-1]
    assert sorted((float(row[3]) for row in rows), reverse=True) == [float(row[3]) for row in rows]

    diagonal, with_labelled, with_candidates = 16, 13 * 3, 12 * 5 - 5 * 6 // 2
    among_labelled = 3 if keep_labelled else 0
    assert source.store.computed == diagonal + with_labelled + with_candidates + among_labelled
    engine.run([[{"case": case}] for case in pool])
    assert information(images, tmp_path).store.computed == 0
    assert source.store.computed == diagonal + with_labelled + with_candidates + among_labelled


def test_the_handler_refuses_what_makes_no_sense(tmp_path):
    with pytest.raises(SettingsError, match="max_cover needs the mutual information"):
        AcquisitionHandler(tmp_path, "max_cover")
    with pytest.raises(SettingsError, match="candidates must be 1 or more"):
        AcquisitionHandler(tmp_path, "entropy", candidates=0)
