"""The first cases: as unlike one another as there are, by the images alone."""

import numpy as np
import pytest
import torch

from svgd_monai.acquisition.cold_start import farthest_first, random_order


class Table:
    """Mutual information by a table; counts what it is asked for."""

    def __init__(self, values, names):
        self.values = torch.as_tensor(values, dtype=torch.float64)
        self.place = {name: index for index, name in enumerate(names)}
        self.asked = 0

    def __call__(self, rows, columns):
        self.asked += len(rows) * len(columns)
        return self.values[[self.place[r] for r in rows]][:, [self.place[c] for c in columns]]


def symmetric(size, seed=0):
    values = np.random.default_rng(seed).uniform(0.1, 1.0, (size, size))
    values = (values + values.T) / 2
    np.fill_diagonal(values, 4.0)
    return values


@pytest.mark.parametrize("seed", range(5))
def test_each_case_is_the_one_whose_nearest_chosen_case_is_farthest(seed):
    names = [f"case_{n}" for n in range(9)]
    table = Table(symmetric(9, seed), names)
    chosen = farthest_first(names, table, 5, seed)
    cases = [case for case, _ in chosen]
    assert len(set(cases)) == 5
    assert chosen[0][1] is None
    for place in range(1, 5):
        before = cases[:place]
        nearest = {
            name: max(float(table.values[table.place[name], table.place[other]]) for other in before)
            for name in names
            if name not in before
        }
        assert cases[place] == min(nearest, key=lambda name: (nearest[name], name))
        assert chosen[place][1] == pytest.approx(nearest[cases[place]])


@pytest.mark.parametrize("seed", range(5))
def test_known_cases_count_as_chosen_before(seed):
    names = [f"case_{n}" for n in range(9)]
    values = symmetric(9, seed)
    values[8, :] = values[:, 8] = np.nan  # a known one that is constant has no say
    table = Table(values, names)
    chosen = farthest_first(names[:5], table, 3, seed, known=names[5:])
    before = names[5:8]
    for case, shared in chosen:
        left = [name for name in names[:5] if name not in before]
        nearest = {n: max(float(table.values[table.place[n], table.place[other]]) for other in before) for n in left}
        assert case == min(nearest, key=lambda name: (nearest[name], name))
        assert shared == pytest.approx(nearest[case])
        before.append(case)
    assert farthest_first(names[:5], table, 3, seed, known=names[8:]) == farthest_first(names[:5], table, 3, seed)
    assert farthest_first([], table, 3, seed, known=names[5:]) == []


def test_two_groups_are_both_represented():
    values = np.full((6, 6), 0.1)
    values[:3, :3] = values[3:, 3:] = 2.0
    names = list("abcdef")
    for seed in range(6):
        first, second = (case for case, _ in farthest_first(names, Table(values, names), 2, seed))
        assert {first in "abc", second in "abc"} == {True, False}


def test_the_order_of_the_pool_does_not_matter_and_the_seed_does():
    names = [f"case_{n}" for n in range(9)]
    table = Table(symmetric(9), names)
    first = farthest_first(names, table, 4, 0)
    assert farthest_first(names[::-1], table, 4, 0) == first
    assert any(farthest_first(names, table, 4, seed) != first for seed in range(1, 6))


def test_a_constant_image_comes_last():
    names = list("abcd")
    values = symmetric(4)
    values[1, :] = values[:, 1] = np.nan
    for seed in range(8):
        chosen = [case for case, _ in farthest_first(names, Table(values, names), 4, seed)]
        assert chosen[-1] == "b"


def test_k_cases_cost_k_columns_and_not_all_pairs():
    names = [f"case_{n:03d}" for n in range(50)]
    table = Table(symmetric(50), names)
    farthest_first(names, table, 4, 0)
    assert table.asked <= 4 * 50 + 1


def test_no_more_cases_come_back_than_there_are():
    names = list("ab")
    assert len(farthest_first(names, Table(symmetric(2), names), 5, 0)) == 2
    assert farthest_first([], Table(symmetric(2), names), 5, 0) == []


def test_a_random_order_depends_on_ids_and_seed_alone():
    names = [f"case_{n}" for n in range(30)]
    assert random_order(names, 1) == random_order(names[::-1], 1)
    assert sorted(random_order(names, 1)) == sorted(names)
    assert random_order(names, 1) != random_order(names, 2)
