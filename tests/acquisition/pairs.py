"""Mutual information of pairs from a table, as a pool gives it."""

import torch


def random_information(count, seed):
    """(N, N) symmetric, each value at most the entropies on the diagonal."""
    generator = torch.Generator().manual_seed(seed)
    half = torch.rand(count, count, generator=generator, dtype=torch.float64)
    diagonal = 1 + torch.rand(count, generator=generator, dtype=torch.float64)
    return torch.triu(half, 1) + torch.triu(half, 1).T + torch.diag(diagonal)


class Pairs:
    """``PoolView.pairs`` of the table, which keeps what it was asked for: unordered pairs, each once."""

    def __init__(self, table, cases):
        self.table = table
        self.cases = cases
        self.asked = set()

    def __call__(self, rows, columns):
        self.asked |= {frozenset((row, column)) for row in rows for column in columns}
        places = [[self.cases.index(case) for case in some] for some in (rows, columns)]
        return self.table[places[0]][:, places[1]]
