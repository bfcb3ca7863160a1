"""What the pictures of a report show, against its tables."""

import numpy as np
import pytest
from matplotlib.collections import PolyCollection
from studies import report, rows, write_round, write_run

from svgd_monai.report import figures
from svgd_monai.report.analysis import analyse
from svgd_monai.report.curve_figures import overview, small_multiples
from svgd_monai.report.figures import Panel, dot_plot, pairwise
from svgd_monai.report.study import read_study


@pytest.fixture
def three(small):
    """A third method, whose name stands behind its reference's: better by about 0.05, surely so."""
    random = [[0.60, 0.69, 0.76], [0.62, 0.70, 0.74], [0.58, 0.66, 0.75]]
    for seed, dice in enumerate(random):
        gain = 0.05 + 0.001 * seed
        write_run(small / f"variance_{seed}", [dice[0], *(value + gain for value in dice[1:])], seed=seed,
                  acquisition="variance")  # fmt: skip
    return small


def test_the_matrices_say_by_how_much_and_how_often_the_row_is_better_than_the_column(three):
    report(three)
    left, right = pairwise(analyse(read_study(three))).axes[:2]
    names = [label.get_text() for label in left.get_yticklabels()]
    assert names == [label.get_text() for label in left.get_xticklabels()]
    area = {row["method"]: row["aubc_mean"] for row in rows(three, "summary.csv")}
    share = {(row["method"], row["beats"]): float(row["share_of_budgets"]) for row in rows(three, "penalties.csv")}
    assert share["svgd/variance", "svgd/random"] == pytest.approx(2 / 3)
    for row, a in enumerate(names):
        for column, b in enumerate(names):
            if a != b:
                difference = 1000 * (float(area[a]) - float(area[b]))
                assert left.images[0].get_array()[row, column] == pytest.approx(difference)
                assert right.images[0].get_array()[row, column] == pytest.approx(share[a, b])


def test_dots_are_the_seeds_and_the_bar_is_their_mean():
    panel = Panel("x", {"a": np.array([0.1, 0.2, 0.6]), "b": np.array([0.5, np.nan])}, {"a": (0.0, 0.7)})
    (axis,) = dot_plot(["a", "b"], {"a": 3, "b": 2}, [panel]).axes
    interval, dots, bar, other, _ = axis.lines
    assert list(interval.get_xdata()) == [0.0, 0.7]
    assert list(dots.get_xdata()) == [0.1, 0.2, 0.6]
    assert list(bar.get_xdata()) == pytest.approx([0.3])
    assert list(other.get_xdata()) == [0.5]
    at = dict(zip(axis.get_yticks(), (label.get_text() for label in axis.get_yticklabels()), strict=True))
    assert [at[line.get_ydata()[0]] for line in (dots, other)] == ["a (n = 3)", "b (n = 2)"]
    assert dots.get_ydata()[0] > other.get_ydata()[0], "the first is the uppermost"


def test_a_methods_curve_is_its_mean_between_its_standard_deviations(small):
    axis = small_multiples(analyse(read_study(small))).axes[0]
    assert axis.get_title() == "svgd/entropy_mi, n = 3"
    values = np.array([[0.60, 0.72, 0.80], [0.62, 0.71, 0.82], [0.58, 0.74, 0.79]])
    mean, spread = values.mean(0), values.std(0, ddof=1)
    thick = max(axis.lines, key=lambda line: line.get_linewidth())
    assert list(thick.get_xdata()) == [5, 8, 11]
    assert list(thick.get_ydata()) == pytest.approx(mean)
    (shade,) = (each for each in axis.collections if isinstance(each, PolyCollection))
    corners = {tuple(np.round(corner, 9)) for corner in shade.get_paths()[0].vertices}
    ends = [*zip((5, 8, 11), mean - spread, strict=True), *zip((5, 8, 11), mean + spread, strict=True)]
    assert {tuple(np.round(end, 9)) for end in ends} <= corners


def test_methods_with_other_seeds_are_drawn_at_those_that_all_have(small):
    write_run(small / "ours_3", [0.70, 0.85, 0.90], seed=3, acquisition="entropy_mi")
    figure = overview(analyse(read_study(small)))
    drawn = {line.get_label(): list(line.get_ydata()) for line in figure.axes[0].lines}
    means = [0.60, (0.72 + 0.71 + 0.74) / 3, (0.80 + 0.82 + 0.79) / 3]
    assert drawn["svgd/entropy_mi (3 of 4)"] == pytest.approx(means)
    assert "svgd/random (3)" in drawn
    report(small)
    text = (small / "report" / "report.md").read_text()
    assert "mean over the seeds that all methods have (0, 1, 2)" in text
    assert "File: curves.csv, with the means over all seeds of a method." in text


def test_with_one_seed_in_common_each_method_is_drawn_at_all_of_its_own(small):
    for seed in (1, 2):
        for file in (small / f"random_{seed}").iterdir():
            file.unlink()
    figure = overview(analyse(read_study(small)))
    drawn = {line.get_label(): list(line.get_ydata()) for line in figure.axes[0].lines}
    assert drawn["svgd/entropy_mi (3)"][0] == pytest.approx(0.60)
    assert "svgd/random (1)" in drawn
    report(small)
    assert "mean over seeds (n = 1 to 3 seeds per method)" in (small / "report" / "report.md").read_text()


def test_against_rounds_a_mean_is_over_the_rounds_that_all_seeds_have(small):
    write_run(small / "ours_2", [0.58, 0.74], seed=2, acquisition="entropy_mi")
    axis = small_multiples(analyse(read_study(small)), rounds=True).axes[0]
    thick = max(axis.lines, key=lambda line: line.get_linewidth())
    assert list(thick.get_xdata()) == [0, 1]
    assert list(thick.get_ydata()) == pytest.approx([0.60, (0.72 + 0.71 + 0.74) / 3])


def test_the_dots_of_a_report_are_the_numbers_of_its_runs(three, monkeypatch):
    for number in (0, 2):
        for folder in three.glob("[orv]*_?"):
            write_round(folder, number, np.random.default_rng([number, *folder.name.encode()]), redraws=1)
    panels = {}
    draw = figures.dot_plot

    def keep(names, counts, given):
        panels.update({panel.label.replace("\n", " "): panel for panel in given})
        return draw(names, counts, given)

    monkeypatch.setattr(figures, "dot_plot", keep)
    report(three)
    runs = rows(three, "runs.csv")
    for label, column in (
        ("area under the budget curve (Dice)", "aubc"),
        ("expected calibration error, last round", "ece_final"),
        ("Spearman correlation of uncertainty with Dice error, last round", "correlation_final"),
    ):
        for method in ("svgd/entropy_mi", "svgd/random", "svgd/variance"):
            expected = [float(row[column] or "nan") for row in runs if row["method"] == method]
            assert panels[label].values[method] == pytest.approx(expected, nan_ok=True), (label, method)
    queried = {row["method"]: row for row in rows(three, "queries.csv")}
    for label, column in (
        ("share of redraws", "redraw_share"),
        ("rank of predicted volume", "predicted_volume_rank_mean"),
        ("rank of uncertainty", "uncertainty_rank_mean"),
    ):
        for method, values in panels[label].values.items():
            assert values.mean() == pytest.approx(float(queried[method][column])), (label, method)
    against = panels["area − area of svgd/random"]
    area = {method: values.mean() for method, values in panels["area under the budget curve (Dice)"].values.items()}
    assert set(against.values) == {"svgd/entropy_mi", "svgd/variance"}
    for method, values in against.values.items():
        low, high = against.intervals[method]
        assert values.mean() == pytest.approx(area[method] - area["svgd/random"])
        assert low < values.mean() < high


def test_a_reference_with_one_label_count_is_seen(tmp_path, sketched):
    for seed in range(2):
        write_run(tmp_path / f"random_{seed}", [0.7 + 0.1 * seed], [20], seed=seed)
        write_run(tmp_path / f"bald_{seed}", [0.6, 0.8], [17, 20], seed=seed, acquisition="bald")
    lines = {line.get_label(): line for line in overview(analyse(read_study(tmp_path))).axes[0].lines}
    point = lines["svgd/random (2)"]
    assert (list(point.get_xdata()), list(point.get_ydata())) == ([20], [0.75])
    assert point.get_marker() == "o"


def test_a_panel_says_how_many_values_it_has_where_these_are_fewer_than_the_seeds():
    panel = Panel("x", {"a": np.array([0.1, np.nan, 0.6]), "b": np.array([0.5, 0.4])})
    (axis,) = dot_plot(["a", "b"], {"a": 3, "b": 2}, [panel]).axes
    assert [each.get_text() for each in axis.texts] == ["n = 2"]


def test_captions_count_what_their_figures_show(small):
    other = {"dataset": {"name": "b", "fingerprint": "0"}}
    write_run(small / "random_2", [0.58, 0.66, 0.75], seed=2, record=other)
    content = report(small)
    assert "row's method is better than the column's. n = 2, the seeds that both have." in content
    assert "n = 2\n" in pairwise(analyse(read_study(small))).axes[0].get_title()


def test_a_single_method_of_a_single_seed_has_captions_of_its_own(tmp_path, sketched):
    write_run(tmp_path / "random_0", [0.6, 0.7, 0.8])
    content = report(tmp_path)
    assert (
        "Areas under the budget curve by method (n = 1 seed per method). Dots: seeds; bars: their mean. File: "
        "runs.csv." in content
    )
