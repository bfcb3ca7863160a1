"""Which full-data runs a method is measured by, and over which seeds."""

import itertools

import numpy as np
import pytest
from studies import ALL, report, rows, write_run

from svgd_monai.report.analysis import analyse
from svgd_monai.report.budget import reach_interval
from svgd_monai.report.curve_figures import overview, small_multiples
from svgd_monai.report.study import read_study


@pytest.fixture
def lengths(small):
    """Beside `small`, whose trainings are short: a method and the full data with three times the steps."""
    for seed in range(3):
        write_run(small / f"long_{seed}", [0.70, 0.80, 0.85], seed=seed, method="long", steps_per_round=450)
        write_run(small / f"full_long_{seed}", [0.90], [ALL], seed=seed, method="full_long", steps_per_round=450)
    return small


def targets(study):
    return {row["method"]: float(row["target_dice"]) for row in rows(study, "labels_to_reach.csv")
            if row["share"] == "1.0"}  # fmt: skip


def dashed(axis):
    """Heights of the lines that go from side to side, by their label."""
    return {line.get_label(): line.get_ydata()[0] for line in axis.lines if list(line.get_xdata()) == [0, 1]}


def test_a_method_is_measured_by_the_full_data_that_are_trained_as_it_is(lengths):
    content = report(lengths)
    assert targets(lengths) == pytest.approx({"svgd/entropy_mi": 0.80, "svgd/random": 0.80, "long": 0.90})
    against = {row["method"]: float(row["mean_difference"]) for row in rows(lengths, "full_data.csv")}
    assert against["long"] == pytest.approx(-0.05)
    assert "or are measured by other full data, and so have other targets" in content
    assert "The methods are not trained alike (steps_per_round), so a difference between two of them may be" in content
    study = read_study(lengths)
    assert dashed(overview(analyse(study)).axes[0]) == pytest.approx(
        {"full data: full (3)": 0.80, "full data: full_long (3)": 0.90}
    )
    axes = {axis.get_title(): dashed(axis) for axis in small_multiples(analyse(study)).axes if axis.get_title()}
    assert list(axes["long, n = 3"].values()) == pytest.approx([0.90])
    assert list(axes["svgd/random, n = 3"].values()) == pytest.approx([0.80])


def test_full_data_of_another_training_are_no_target(small):
    for seed in range(3):
        write_run(small / f"long_{seed}", [0.70, 0.80, 0.85], seed=seed, method="long", steps_per_round=450)
    content = report(small)
    assert set(targets(small)) == {"svgd/entropy_mi", "svgd/random"}
    assert "which are not compared with it: long (other steps_per_round)." in content
    assert {row["method"] for row in rows(small, "full_data.csv")} == {"svgd/entropy_mi", "svgd/random"}


def test_another_network_is_another_training_and_another_committee_is_none(small):
    for seed in range(3):
        keys = {"seed": seed, "acquisition": "bald"}
        unet = {"components": {"architecture": {"_target_": "UNet"}}}
        write_run(small / f"unet_{seed}", [0.6, 0.7, 0.8], record=unet, method="unet", **keys)
        write_run(small / f"ensemble_{seed}", [0.6, 0.7, 0.8], method="ensemble", committee="ensemble", **keys)
    assert "unet (other architecture)." in report(small)
    assert set(targets(small)) == {"svgd/entropy_mi", "svgd/random", "ensemble"}


def test_a_key_that_joined_later_is_the_same_training_as_before(small):
    for seed in range(3):
        write_run(small / f"full_{seed}", [0.80], [ALL], seed=seed, method="full", learning_rate_schedule="constant")
    assert "not trained alike" not in report(small)
    assert set(targets(small)) == {"svgd/entropy_mi", "svgd/random"}


def test_the_dashed_line_is_over_the_seeds_of_the_curves(small):
    for seed, dice in ((2, 0.71), (3, 0.95)):
        write_run(small / f"full_{seed}", [dice], [ALL], seed=seed, method="full")
    for file in (small / "random_2").iterdir():
        file.unlink()
    content = report(small)
    figure = overview(analyse(read_study(small)))
    assert dashed(figure.axes[0]) == {"full data (2 of 4)": 0.80}  # the curves are drawn at the seeds 0 and 1
    assert "Dashed: mean of the full-data runs (n = 2)." in content
    assert "The full-data runs have other seeds than those of svgd/entropy_mi, svgd/random" in content


def test_a_line_over_other_seeds_than_the_curves_is_told(small):
    for seed in (1, 2):
        for file in (small / f"full_{seed}").iterdir():
            file.unlink()
    assert (
        "Dashed: mean of the full-data runs (n = 1), which are not the seeds of the curves: compare by the table of "
        "labels to reach." in report(small)
    )


def test_other_methods_stand_grey_at_the_seeds_of_the_methods_own_plot(small):
    write_run(small / "random_3", [0.1, 0.1, 0.1], seed=3)
    axis = small_multiples(analyse(read_study(small))).axes[0]
    assert axis.get_title() == "svgd/entropy_mi, n = 3"
    grey = next(line for line in axis.lines if line.get_color() == "#c9cfd6")
    assert list(grey.get_ydata()) == pytest.approx([0.60, (0.69 + 0.70 + 0.66) / 3, 0.75])


def test_a_seed_is_drawn_with_its_run_on_the_full_data():
    """Every seed reaches 99 % at 11 labels and 100 % never, and so does every draw of seeds."""
    grid, full = np.array([5.0, 8, 11, 14]), np.array([0.70, 0.75, 0.80, 0.85, 0.90])
    curves = full[:, None] * np.array([0.93, 0.97, 0.993, 0.998])
    assert reach_interval(grid, curves, full, 0.99, paired=True) == (11, 11)
    assert reach_interval(grid, curves, full, 1.00, paired=True) == (np.inf, np.inf)
    assert reach_interval(grid, curves, full, 0.99)[1] == np.inf


def test_the_paired_interval_is_that_of_all_draws_enumerated():
    grid = np.array([5.0, 8, 11, 14])
    curves = np.array([[0.5, 0.7, 0.8, 0.85], [0.5, 0.65, 0.7, 0.8], [0.4, 0.6, 0.78, 0.79]])
    full = np.array([0.86, 0.80, 0.81])
    reached = []
    for draw in itertools.product(range(3), repeat=3):
        mean, target = curves[list(draw)].mean(0), 0.95 * full[list(draw)].mean()
        stays = [all(mean[place:] >= target - 1e-12) for place in range(4)]
        reached.append(grid[stays.index(True)] if True in stays else np.inf)
    for level in (0.5, 0.8, 0.95):
        ends = np.quantile(reached, [(1 - level) / 2, (1 + level) / 2], method="inverted_cdf")
        assert reach_interval(grid, curves, full, 0.95, level, paired=True) == tuple(ends)


def test_a_reports_interval_is_paired_where_the_seeds_are_shared(tmp_path, sketched):
    for seed, full in enumerate([0.70, 0.75, 0.80, 0.85, 0.90]):
        write_run(tmp_path / f"mi{seed}", [full * each for each in (0.93, 0.97, 0.993, 0.998)], seed=seed)
        write_run(tmp_path / f"full{seed}", [full], [ALL], seed=seed, method="full")
    assert "| 11 (11 to 11) | – |" in report(tmp_path)
