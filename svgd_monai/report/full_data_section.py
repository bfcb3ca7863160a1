"""The section of a study's report on how near its methods come to having every label."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from svgd_monai.report import tables
from svgd_monai.report.analysis import Analysis
from svgd_monai.report.cells import full_data_row, ordered, reach_cell
from svgd_monai.report.evidence import Evidence
from svgd_monai.report.page import Block, Picture, Table
from svgd_monai.report.text import number, percent


def full_data_section(evidence: Evidence, pictures: Mapping[str, Picture]) -> Iterator[Block]:
    """Labels to reach shares of the full-data Dice, and what the last committees lack of it.

    Args:
        evidence: what the report rests on.
        pictures: by file name; this section has none.
    """
    analysis = evidence.analysis
    if not analysis.reach:
        return
    shares = sorted({share for _, share in analysis.reach})
    targets = ", ".join(f"{percent(share)}: {_target(analysis, share)}" for share in shares)
    captions = {
        False: "Number of labels from which on the seed-mean curve stays at or above a share of the full-data Dice "
        f"({targets}), with 95 % bootstrap intervals; validation cases are not counted. Both means are over the n "
        "seeds that the method and the full data share, or over all seeds if they share none. –: not within the "
        "labels of its runs; ∞: not reached in some bootstrap draws; †: reached at the curve's last count only, so "
        "nothing shows that it stays there; ≤: reached at the first count, so fewer may do. Methods with other last "
        "counts, seeds or targets are not ranked by this. File: labels_to_reach.csv.",
        True: "The same, with the validation cases counted as well, because their labels choose the checkpoint. "
        "File: labels_to_reach.csv.",
    }
    for validation, caption in captions.items():
        rows = []
        for name in analysis.by_area:
            reach = [analysis.reach.get((name, share)) for share in shares]
            n = "–" if reach[0] is None else str(reach[0].seeds)
            rows.append([name, n, *(reach_cell(each, validation) for each in reach)])
        yield Table(caption, ["method", "n", *(percent(share) for share in shares)], rows)
    against = ordered(evidence, tables.full_data(evidence))
    if against:
        yield Table(
            "Labels and test Dice of the last committees beside those of the full data, at the n seeds that both have. "
            "Difference: the method's Dice minus the full data's, with the 95 % t interval of the mean, not corrected "
            "for the number of methods. An interval that holds 0 does not show the two to be equal: its lower end says "
            "how much may be missing. File: full_data.csv.",
            ["method", "n", "labels", "of", "test Dice", "full data", "difference", "95 % interval"],
            [full_data_row(row) for row in against],
        )


def _target(analysis: Analysis, share: float) -> str:
    """The Dice to reach, from the least to the greatest where the methods share other seeds with the full data."""
    targets = sorted(reach.target for (_, s), reach in analysis.reach.items() if s == share)
    return " to ".join(dict.fromkeys(number(target) for target in (targets[0], targets[-1])))
