"""``python -m svgd_monai.report``: every table against numbers worked out from the run folders, odd studies, times."""

import base64
import csv
import io
import itertools
import json
import math
import re
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image
from scipy import stats
from studies import ALL, METHODS, POOL, SPLIT, report, rows, simulate_study, text, write_facts, write_round, write_run

from svgd_monai.files import write_json, write_text
from svgd_monai.report.__main__ import main
from svgd_monai.report.build import PICTURES
from svgd_monai.report.cells import mean_sd
from svgd_monai.report.quality import case_quality
from svgd_monai.report.queries import intensity_group
from svgd_monai.report.tables import FILES

SUMMARY = (
    "method,seeds,aubc_mean,aubc_sd,final_test_dice_mean,final_test_dice_sd,"
    "labels_to_90,labels_to_95,labels_to_99,labels_to_100"
)
PAIRWISE = "method_a,method_b,metric,seeds,mean_difference,p_value,p_holm"


@pytest.fixture(scope="module")
def timed(tmp_path_factory):
    """Nine methods of five seeds, as a study has them, reported; and the processor's seconds that took."""
    study = simulate_study(tmp_path_factory.mktemp("study"), METHODS)
    write_facts(study / "random/seed_0")
    began = time.process_time()
    main([str(study)])
    return study, time.process_time() - began


@pytest.fixture(scope="module")
def big(timed):
    return timed[0]


def test_the_tables_for_other_programs_have_their_columns(small):
    report(small)
    assert (small / "report/summary.csv").read_text().splitlines()[0] == SUMMARY
    assert (small / "report/pairwise.csv").read_text().splitlines()[0] == PAIRWISE


def test_the_summary_is_what_the_runs_say(small):
    report(small)
    full, ours, random = rows(small, "summary.csv")
    assert [row["method"] for row in (full, ours, random)] == ["full", "svgd/entropy_mi", "svgd/random"]
    areas = [(a + 2 * b + c) / 4 for a, b, c in ([0.60, 0.72, 0.80], [0.62, 0.71, 0.82], [0.58, 0.74, 0.79])]
    assert float(ours["aubc_mean"]) == pytest.approx(np.mean(areas))
    assert float(ours["aubc_sd"]) == pytest.approx(np.std(areas, ddof=1))
    assert float(ours["final_test_dice_mean"]) == pytest.approx((0.80 + 0.82 + 0.79) / 3)
    assert ours["seeds"] == "3"
    # 90 % of 0.80 is 0.72: the means are 0.60, 0.7233, 0.8033 and 0.60, 0.6833, 0.75.
    assert [ours[f"labels_to_{share}"] for share in (90, 95, 99, 100)] == ["8", "11", "11", "11"]
    assert [random[f"labels_to_{share}"] for share in (90, 95, 99, 100)] == ["11", "", "", ""]
    assert full["aubc_mean"] == full["labels_to_90"] == ""
    runs = [row for row in rows(small, "runs.csv") if row["method"] == "svgd/entropy_mi"]
    assert {row["full_data"] for row in rows(small, "runs.csv")} == {"true", "false"}
    assert [float(row["aubc"]) for row in runs] == pytest.approx(areas)
    assert [(row["seed"], row["first_labels"], row["last_labels"], row["final_test_dice"]) for row in runs] == [
        ("0", "5", "11", "0.8"), ("1", "5", "11", "0.82"), ("2", "5", "11", "0.79"),
    ]  # fmt: skip
    assert float(full["final_test_dice_mean"]) == pytest.approx(0.80)


def test_the_pairs_are_tested_on_their_areas(small):
    report(small)
    (pair,) = rows(small, "pairwise.csv")
    ours = np.array([[0.60, 0.72, 0.80], [0.62, 0.71, 0.82], [0.58, 0.74, 0.79]]) @ [0.25, 0.5, 0.25]
    random = np.array([[0.60, 0.69, 0.76], [0.62, 0.70, 0.74], [0.58, 0.66, 0.75]]) @ [0.25, 0.5, 0.25]
    assert (pair["method_a"], pair["method_b"], pair["metric"]) == ("svgd/entropy_mi", "svgd/random", "aubc")
    assert pair["seeds"] == "3"
    assert float(pair["mean_difference"]) == pytest.approx((ours - random).mean())
    assert float(pair["p_value"]) == pytest.approx(stats.ttest_rel(ours, random).pvalue)
    assert pair["p_holm"] == pair["p_value"]  # one pair only
    (more,) = rows(small, "differences.csv")
    between = stats.ttest_rel(ours, random).confidence_interval(0.95)
    assert [float(more[key]) for key in ("low", "high")] == pytest.approx([between.low, between.high])
    assert float(more["wilcoxon_p"]) == pytest.approx(stats.wilcoxon(ours, random, method="exact").pvalue)
    assert float(more["wilcoxon_least_p"]) == 0.25
    assert (more["labels_from"], more["labels_to"]) == ("5.0", "11.0")


def test_labels_are_counted_with_and_without_the_validation_cases(small):
    content = report(small)
    for row in rows(small, "labels_to_reach.csv"):
        for key in ("labels", "low", "high"):
            with_validation = row[f"{key}_with_validation"]
            assert with_validation == (str(int(row[key]) + len(SPLIT["validation"])) if row[key] else "")
    assert "by svgd/entropy_mi (n = 3): 11 of 45 (24 %) besides 10 validation cases, but only at the" in content


def test_the_interval_is_that_of_the_share_and_what_is_never_reached_is_open(small):
    content = report(small)
    table = {(row["method"], row["share"]): row for row in rows(small, "labels_to_reach.csv")}

    def reached(method, share):
        row = table[method, share]
        return [row[key] for key in ("labels", "low", "high", "only_at_the_last_count")]

    assert reached("svgd/entropy_mi", "0.9") == ["8", "8", "11", "false"]
    assert reached("svgd/entropy_mi", "1.0") == ["11", "11", "", "true"]  # the third seed alone ends below the target
    assert reached("svgd/random", "1.0") == ["", "", "", "false"]
    assert float(table["svgd/entropy_mi", "0.9"]["share_of_pool"]) == pytest.approx(8 / ALL)
    lines = [line for line in content.splitlines() if line.startswith("| svgd/entropy_mi | 3 | ")]
    with_validation = next(line for line in lines if "| 18 (18 to 21) |" in line)
    assert with_validation.endswith("| 21† (21 to ∞) |")
    assert any("| 3 | 8 (8 to 11) |" in line and line.endswith("| 11† (11 to ∞) |") for line in lines)


def test_the_last_dice_is_compared_with_the_full_datas_at_the_same_seeds(small):
    write_run(small / "full_2", [0.83], [ALL], seed=2, method="full")
    write_run(small / "random_3", [0.6, 0.7, 0.9, 0.95], seed=3)  # a seed that the full data lack
    content = report(small)
    ours, random = rows(small, "full_data.csv")
    dice, full = np.array([0.80, 0.82, 0.79]), np.array([0.80, 0.80, 0.83])
    assert (ours["method"], ours["seeds"], ours["labels"], ours["full_data_labels"]) == (
        "svgd/entropy_mi", "3", "11", str(ALL),
    )  # fmt: skip
    between = stats.ttest_rel(dice, full).confidence_interval(0.95)
    keys = ("final_test_dice", "full_data_test_dice", "mean_difference", "low", "high")
    expected = [dice.mean(), full.mean(), (dice - full).mean(), between.low, between.high]
    assert [float(ours[key]) for key in keys] == pytest.approx(expected)
    assert (random["seeds"], random["labels"]) == ("3", "11")
    line = f"| svgd/entropy_mi | 3 | 11 | {ALL} | 0.8033 | 0.8100 | −0.0067 | −0.0826 to +0.0692 |"
    assert line in content


def test_validation_labels_that_differ_from_run_to_run_are_unknown(small):
    write_run(small / "ours_0", [0.6, 0.72, 0.8], acquisition="entropy_mi", split={**SPLIT, "validation": ["z"]})
    content = report(small)
    table = {(row["method"], row["share"]): row for row in rows(small, "labels_to_reach.csv")}
    assert table["svgd/entropy_mi", "0.9"]["labels"] == "8"
    assert table["svgd/entropy_mi", "0.9"]["labels_with_validation"] == ""
    assert table["svgd/random", "0.9"]["labels_with_validation"] == "21"
    assert "| svgd/entropy_mi | 3 | unknown | unknown | unknown | unknown |" in content
    assert "The runs have different validation cases" in content


def test_the_headline_is_the_method_that_takes_the_fewest_labels(tmp_path, sketched):
    for seed in range(2):
        write_run(tmp_path / f"bald{seed}", [0.6, 0.78, 0.79], seed=seed, acquisition="bald")
        write_run(tmp_path / f"mi{seed}", [0.6, 0.75, 0.78], seed=seed, acquisition="entropy_mi")
        write_run(tmp_path / f"random{seed}", [0.6, 0.7, 0.77], seed=seed)
        write_run(tmp_path / f"full{seed}", [0.8], [ALL], seed=seed, method="full")
    content = report(tmp_path)
    assert (
        "- 95 % of the full-data Dice was reached with the fewest labels by svgd/bald (n = 2): 8 of 45 (18 %) besides "
        "10 validation cases; svgd/random took 11 of 45 (24 %) besides 10 validation cases, but only at the curve's "
        "last label count. This describes these runs; it is not a test. No method reached 99 % within its labels."
        in content
    )


def test_a_curve_that_stops_early_is_not_said_to_have_failed(tmp_path, sketched):
    for seed in range(2):
        write_run(tmp_path / f"bald{seed}", [0.6, 0.7, 0.75, 0.79, 0.79], seed=seed, acquisition="bald")
        write_run(tmp_path / f"random{seed}", [0.6, 0.7], seed=seed)
        write_run(tmp_path / f"full{seed}", [0.8], [ALL], seed=seed, method="full")
    content = report(tmp_path)
    assert "svgd/bald (n = 2): 14 of 45" in content
    assert "; svgd/random had not reached it within its 8 labels." in content
    table = content.split("## Labels to reach")[1]
    assert "–: not within the labels of its runs" in table
    area = content.split("## Area under the budget curve")[1]
    assert "| svgd/bald | 2 | 0.6500 ± 0.0000 | 0.7900 ± 0.0000 | 17 |" in area


def test_a_share_that_the_first_committee_has_is_marked(tmp_path, sketched):
    for seed in range(2):
        write_run(tmp_path / f"bald{seed}", [0.79, 0.80, 0.80], seed=seed, acquisition="bald")
        write_run(tmp_path / f"full{seed}", [0.8], [ALL], seed=seed, method="full")
    content = report(tmp_path)
    assert "| svgd/bald | 2 | ≤ 5 (5 to 5) | ≤ 5 (5 to 5) | 8 (8 to 8) | 8 (8 to 8) |" in content


def test_methods_on_other_test_cases_are_not_tested_against_one_another(tmp_path, sketched):
    for seed in range(4):
        write_run(tmp_path / f"random{seed}", [0.6, 0.7, 0.75 + 0.001 * seed], seed=seed)
        write_run(tmp_path / f"full{seed}", [0.8], [ALL], seed=seed, method="full")
        other = {"record": {"dataset": {"name": "b", "fingerprint": "0"}}} if seed % 2 else {}
        split = {**SPLIT, "test": SPLIT["test"][:-5]}
        write_run(tmp_path / f"a{seed}", [0.7, 0.8, 0.9], seed=seed, acquisition="bald", split=split, **other)
        write_run(tmp_path / f"b{seed}", [0.6, 0.7, 0.76], seed=seed, acquisition="variance", **other)
    content = report(tmp_path)
    assert "svgd/bald against svgd/random: no test: other data or test cases." in content
    pairs = {(row["method_a"], row["method_b"]): row for row in rows(tmp_path, "differences.csv")}
    assert pairs["svgd/bald", "svgd/random"]["p_value"] == ""
    assert pairs["svgd/random", "svgd/variance"]["seeds"] == "2"
    assert "Significantly" not in content
    assert {row["method"] for row in rows(tmp_path, "labels_to_reach.csv")} == {"svgd/random", "svgd/variance"}
    assert {row["method"]: row["seeds"] for row in rows(tmp_path, "full_data.csv")} == {
        "svgd/random": "4", "svgd/variance": "2"
    }  # fmt: skip


def test_full_data_of_other_seeds_and_other_test_cases_is_no_target(tmp_path, sketched):
    for seed in range(2):
        write_run(tmp_path / f"random{seed}", [0.6, 0.7, 0.75], seed=seed)
        split = {**SPLIT, "test": SPLIT["test"][:-5]}
        write_run(tmp_path / f"full{seed}", [0.5], [ALL], seed=7 + seed, method="full", split=split)
    content = report(tmp_path)
    assert "full-data Dice was reached" not in content
    assert rows(tmp_path, "labels_to_reach.csv") == []
    note = "The full-data runs of seed 7, 8 have other data or test cases than some of the others; what they cannot"
    assert note in content

    write_run(tmp_path / "full9", [0.75], [ALL], seed=9, method="full")
    report(tmp_path)
    assert {row["target_dice"] for row in rows(tmp_path, "labels_to_reach.csv") if row["share"] == "1.0"} == {"0.75"}


def test_methods_with_other_targets_are_not_ranked(tmp_path, sketched):
    for seed in range(4):
        write_run(tmp_path / f"full{seed}", [0.7 if seed < 2 else 0.8], [ALL], seed=seed, method="full")
    for seed in range(2):
        write_run(tmp_path / f"a{seed}", [0.6, 0.7, 0.8], seed=seed, acquisition="bald")
        write_run(tmp_path / f"b{seed}", [0.6, 0.7, 0.8], seed=2 + seed)
    content = report(tmp_path)
    assert "The labels to reach 100 % of the full-data Dice are not ranked" in content
    assert "and so have other targets: svgd/bald 0.7000 (n = 2), svgd/random 0.8000 (n = 2)." in content
    assert "fewest labels" not in content.split("##")[0]


def test_a_method_that_misses_another_target_is_not_ranked_either(tmp_path, sketched):
    for seed in range(4):
        write_run(tmp_path / f"full{seed}", [0.7 if seed < 2 else 0.8], [ALL], seed=seed, method="full")
    for seed in range(2):
        write_run(tmp_path / f"a{seed}", [0.6, 0.7, 0.75], seed=seed, acquisition="bald")
        write_run(tmp_path / f"b{seed}", [0.6, 0.7, 0.79], seed=2 + seed)
    content = report(tmp_path)
    assert "The labels to reach 100 % of the full-data Dice are not ranked" in content
    assert "had not reached it" not in content


def test_runs_of_people_name_no_data_set_and_are_compared(tmp_path, sketched):
    for seed in range(2):
        write_run(tmp_path / f"random{seed}", [0.6, 0.7, 0.75], seed=seed)
        other = {"dataset": {"name": "people", "fingerprint": None}}
        write_run(tmp_path / f"a{seed}", [0.6, 0.7, 0.7 + 0.1 * seed], seed=seed, acquisition="bald", record=other)
    assert "different data sets" not in report(tmp_path)
    (pair,) = rows(tmp_path, "differences.csv")
    assert pair["seeds"] == "2"


def test_a_last_round_without_a_test_dice_is_told(small):
    write_run(small / "ours_1", [0.6, 0.72, math.nan], seed=1, acquisition="entropy_mi")
    assert "ours_1 has no test Dice in its last round; its final one is that of 8 labels." in report(small)


def test_a_method_of_which_a_run_has_no_curve_has_no_area(small):
    write_run(small / "ours_1", [0.6], [5], seed=1, acquisition="entropy_mi")
    content = report(small)
    assert "A run with one label count has no curve and no area: svgd/entropy_mi." in content
    summary = {row["method"]: row for row in rows(small, "summary.csv")}
    assert summary["svgd/entropy_mi"]["aubc_mean"] == ""
    assert summary["svgd/random"]["aubc_mean"] != ""


def test_the_difference_that_a_study_finds_after_correction_is_stated(tmp_path, sketched):
    rng = np.random.default_rng(2)
    for seed in range(4):
        for name in ("random", "bald", "variance"):
            write_run(tmp_path / f"{name}{seed}", rng.normal(0.7, 0.01, 3).tolist(), seed=seed, acquisition=name)
    content = report(tmp_path)
    (pooled,) = (row for row in rows(tmp_path, "power.csv") if row["method"] == "(pooled)")
    spread = float(pooled["difference_sd"])

    def chance(difference, level):
        critical = stats.t.ppf(1 - level / 2, 3)
        return sum(stats.nct.sf(sign * critical, 3, 2 * difference / spread) if sign > 0
                   else stats.nct.cdf(-critical, 3, 2 * difference / spread) for sign in (1, -1))  # fmt: skip

    wanted = r"; it must be (0\.\d+) to survive it among 3 pairs as often, with n = 4\)\. Fix the number"
    found = re.search(wanted, content)
    assert chance(float(found[1]), 0.05 / 3) == pytest.approx(0.8, abs=0.01)
    assert float(found[1]) > float(pooled["detectable_difference"])


def test_seeds_without_a_full_data_run_do_not_change_the_labels_to_reach(small):
    def reached():
        return report(small).split("## Labels to reach")[1].split("##")[0], rows(small, "labels_to_reach.csv")

    before = reached()
    for seed in (3, 4):
        write_run(small / f"ours_{seed}", [0.80, 0.85, 0.90], seed=seed, acquisition="entropy_mi")
    assert reached() == before
    assert {row["seeds"] for row in before[1]} == {"3"}


def test_a_target_is_the_full_datas_at_the_seeds_of_the_method(small):
    shutil.rmtree(small / "ours_2")
    write_run(small / "full_2", [0.83], [ALL], seed=2, method="full")
    assert "(90 %: 0.7200 to 0.7290, " in report(small)
    table = {
        (r["method"], r["share"]): (r["seeds"], float(r["target_dice"])) for r in rows(small, "labels_to_reach.csv")
    }
    assert table["svgd/entropy_mi", "1.0"] == ("2", pytest.approx(0.80))
    assert table["svgd/random", "1.0"] == ("3", pytest.approx(0.81))


def test_methods_that_share_no_seed_with_the_full_data_are_compared_over_all_seeds(small):
    def reached():
        section = report(small).split("## Labels to reach")[1].split("##")[0]
        return section.split("Labels and test Dice of the last")[0].strip(), rows(small, "labels_to_reach.csv")

    before = reached()
    for seed in range(3):
        write_run(small / f"full_{seed}", [0.80], [ALL], seed=10 + seed, method="full")
    assert reached() == before
    assert rows(small, "full_data.csv") == []


def test_without_a_full_data_run_the_labels_are_blank(small):
    for seed in range(3):
        shutil.rmtree(small / f"full_{seed}")
    content = report(small)
    assert {row["labels_to_90"] for row in rows(small, "summary.csv")} == {""}
    assert rows(small, "labels_to_reach.csv") == []
    assert "no run on the full data" in content


def test_summary_and_pairs_are_on_the_range_that_each_shares(tmp_path, sketched):
    line = {5: 0.5, 8: 0.6, 11: 0.9, 14: 1.0}
    for name, last in (("entropy", 14), ("bald", 14), ("random", 8)):
        labels = [count for count in line if count <= last]
        for seed in range(2):
            dice = [line[count] - 0.01 * seed for count in labels]
            write_run(tmp_path / f"{name}_{seed}", dice, labels, seed=seed, acquisition=name)
    content = report(tmp_path)
    assert {round(float(row["aubc_mean"]), 9) for row in rows(tmp_path, "summary.csv")} == {0.545}
    spans = {
        (r["method_a"], r["method_b"]): (r["labels_from"], r["labels_to"]) for r in rows(tmp_path, "differences.csv")
    }
    assert spans["svgd/bald", "svgd/entropy"] == ("5.0", "14.0")
    assert spans["svgd/bald", "svgd/random"] == ("5.0", "8.0")
    assert "different lengths (they begin at 5 and end at 8 to 14 unique labels)" in content


def test_a_method_of_one_label_count_takes_no_range_from_the_others(small):
    report(small)
    before = {row["method"]: row["aubc_mean"] for row in rows(small, "summary.csv")}
    for seed in range(3):
        write_run(small / f"one_{seed}", [0.6], [5], seed=seed, acquisition="bald")
    report(small)
    after = {row["method"]: row["aubc_mean"] for row in rows(small, "summary.csv")}
    assert after == {**before, "svgd/bald": ""}


def test_every_table_has_its_numbers(big):
    for name in FILES:
        assert rows(big, name), name
        assert name in text(big), name
    curve = [row for row in rows(big, "curves.csv") if row["method"] == "svgd/bald"]
    assert [row["unique_labels"] for row in curve] == ["5", "8", "11", "14", "17", "20", "23"]
    for index, row in enumerate(curve):
        values = [float(r["test_dice"]) for r in curve_rows(big / "bald", index)]
        assert float(row["test_dice_mean"]) == pytest.approx(np.mean(values))
        assert float(row["test_dice_sd"]) == pytest.approx(np.std(values, ddof=1))
    by_round = [row for row in rows(big, "rounds.csv") if row["method"] == "svgd/random"]
    for index, row in enumerate(by_round):
        found = curve_rows(big / "random", index)
        assert float(row["test_dice_mean"]) == pytest.approx(np.mean([float(r["test_dice"]) for r in found]))
        assert float(row["unique_labels_mean"]) == pytest.approx(np.mean([int(r["unique_labels"]) for r in found]))


def curve_rows(folder, index):
    found = []
    for path in sorted(folder.glob("*/learning_curve.csv")):
        with path.open() as file:
            found.append(list(csv.DictReader(file))[index])
    return found


def test_all_pairs_are_corrected_together(big):
    table = rows(big, "pairwise.csv")
    assert len(table) == 28
    p = np.array([float(row["p_value"]) for row in table])
    by_rank = np.sort(p) * np.arange(28, 0, -1)
    expected = np.minimum(np.maximum.accumulate(by_rank), 1)[np.argsort(np.argsort(p))]
    np.testing.assert_allclose([float(row["p_holm"]) for row in table], expected)


def test_between_counts_a_curve_is_a_line_that_nobody_tests(tmp_path):
    for seed, (labels, dice) in enumerate([([5, 8, 11], [0.5, 0.6, 0.7]), ([5, 9, 11], [0.51, 0.62, 0.7])]):
        write_run(tmp_path / f"a{seed}", dice, labels, seed=seed, method="a", acquisition="bald")
        write_run(tmp_path / f"b{seed}", [d - 0.1 - seed / 100 for d in dice], [5, 8, 11], seed=seed)
    report(tmp_path)
    found = [row for row in rows(tmp_path, "curves.csv") if row["method"] == "a"]
    assert [(row["unique_labels"], row["measured"]) for row in found] == [
        ("5", "2"), ("8", "1"), ("9", "1"), ("11", "2"),
    ]  # fmt: skip
    shares = {float(row["share_of_budgets"]) for row in rows(tmp_path, "penalties.csv")}
    assert shares <= {0.0, 0.5, 1.0}, "of the two counts at which all were measured"


def test_penalties_are_between_none_and_all_of_the_budgets(big):
    table = {(row["method"], row["beats"]): float(row["share_of_budgets"]) for row in rows(big, "penalties.csv")}
    assert len(table) == 56
    assert all(0 <= value <= 1 for value in table.values())
    assert max(table.values()) > 0
    assert all(table[a, b] + table[b, a] <= 1 for a, b in table)


def test_what_moved_the_committees_is_that_of_the_last_validated_steps(big):
    found = {row["method"]: row for row in rows(big, "balance.csv")}
    values = {"repulsion": [], "prior": [], "distance": [], "kernel": []}
    for seed in range(5):
        own = []
        for number in range(7):
            record = json.loads((big / f"bald/seed_{seed}/round_{number:03d}/training.json").read_text())
            own.append(record["validations"][-1]["balance"])
        values["repulsion"].append(np.median([b["repulsion"] / b["drive"] for b in own]))
        values["prior"].append(np.median([b["prior"] / b["drive"] for b in own]))
        values["distance"].append(np.median([b["distance"] for b in own]))
        values["kernel"].append(np.median([b["kernel"] for b in own]))
    row = found["svgd/bald"]
    assert (row["seeds"], row["trainings"]) == ("5", "35")
    for what, each in values.items():
        assert float(row[f"{what}_mean"]) == pytest.approx(np.mean(each))
        assert float(row[f"{what}_sd"]) == pytest.approx(np.std(each, ddof=1))
    assert "What moved the committees" in (big / "report/report.md").read_text()


def test_calibration_is_that_of_the_voxels_of_all_test_cases(big):
    found = {row["method"]: row for row in rows(big, "calibration.csv")}
    finals, every = [], []
    for seed in range(5):
        for number in range(7):
            with (big / f"bald/seed_{seed}/round_{number:03d}/cases.csv").open() as file:
                tested = [row for row in csv.DictReader(file) if row["role"] == "test"]
            gap, voxels = 0.0, 0.0
            for b in range(10):
                n, confidence, correct = (
                    sum(float(row[f"bin_{b}_{what}"]) for row in tested) for what in ("voxels", "confidence", "correct")
                )
                gap, voxels = gap + abs(correct - confidence), voxels + n
            uncertainty = [float(row["uncertainty"]) for row in tested]
            error = [1 - float(row["dice"]) for row in tested]
            every.append(np.corrcoef(stats.rankdata(uncertainty), stats.rankdata(error))[0, 1])
        finals.append((gap / voxels, every[-1]))
    own = [r for r in rows(big, "runs.csv") if r["method"] == "svgd/bald"]
    assert [(float(r["ece_final"]), float(r["correlation_final"])) for r in own] == [pytest.approx(f) for f in finals]
    row = found["svgd/bald"]
    assert float(row["ece_final_mean"]) == pytest.approx(np.mean([ece for ece, _ in finals]))
    assert float(row["correlation_final_mean"]) == pytest.approx(np.mean([rho for _, rho in finals]))
    assert float(row["correlation_final_sd"]) == pytest.approx(np.std([rho for _, rho in finals], ddof=1))
    assert float(row["correlation_all_rounds_mean"]) == pytest.approx(np.mean(every))
    assert row["test_cases"] == str(len(SPLIT["test"]))


def test_the_queries_are_counted_and_ranked(big):
    found = {row["method"]: row for row in rows(big, "queries.csv")}
    asked = again = 0
    ranks, unsure = {seed: [] for seed in range(5)}, {seed: [] for seed in range(5)}
    for seed, number in itertools.product(range(5), range(7)):
        with (big / f"random/seed_{seed}/round_{number:03d}/scores.csv").open() as file:
            table = list(csv.DictReader(file))
        queried = [row for row in table if row["queried"] == "true"]
        asked, again = asked + len(queried), again + sum(row["labelled"] == "true" for row in queried)
        free = [row for row in table if row["labelled"] == "false"]
        for column, found_ranks in (("foreground_ml", ranks), ("uncertainty", unsure)):
            values = [float(row[column]) for row in free]
            for row in queried:
                if row["labelled"] == "false":
                    found_ranks[seed].append(stats.percentileofscore(values, float(row[column]), "mean") / 100)
    row = found["svgd/random"]
    assert (int(row["queries"]), int(row["redraws"])) == (asked, again)
    assert again > 0
    assert float(row["redraw_share"]) == pytest.approx(again / asked)
    for key, each in (("predicted_volume_rank_mean", ranks), ("uncertainty_rank_mean", unsure)):
        assert float(row[key]) == pytest.approx(np.mean([np.mean(values) for values in each.values()]))
    assert found["svgd/bald"]["redraws"] == "0"


def test_true_volumes_and_intensities_come_from_a_cache_where_a_run_still_has_one(big, small):
    table = {(row["method"], row["of"]): row for row in rows(big, "queried_cases.csv")}
    row = table["svgd/random", "anterior"]
    pool = 1.5 + 0.01 * np.arange(5, 5 + POOL).mean()
    assert float(row["pool_mean"]) == pytest.approx(pool)
    assert float(row["queried_mean"]) != pytest.approx(pool)
    assert {r["of"] for r in table.values() if r["what"] == "volume_ml"} == {"anterior", "posterior"}
    groups = [r for (method, of), r in table.items() if method == "svgd/random" and of.startswith("intensities")]
    assert sum(float(r["pool_mean"]) for r in groups) == pytest.approx(1)
    assert sum(float(r["queried_mean"]) for r in groups) == pytest.approx(1)
    write_round(small / "ours_0", 0, np.random.default_rng(0))
    assert "no run's folder holds cache/case_checks.json" in report(small)


def test_what_is_known_of_cases_is_known_of_their_own_data_set(tmp_path, sketched):
    for name, fingerprint in (("bald", "a"), ("random", "b")):
        folder = write_run(
            tmp_path / name, [0.6, 0.7], acquisition=name, record={"dataset": {"fingerprint": fingerprint}}
        )
        write_round(folder, 0, np.random.default_rng(0))
    write_facts(tmp_path / "bald")
    report(tmp_path)
    assert {row["method"] for row in rows(tmp_path, "queried_cases.csv")} == {"svgd/bald"}


@pytest.mark.parametrize(
    ("greatest", "group"),
    [(255, "up to 255"), (256, "256 to 65535"), (65535, "256 to 65535"), (65536, "above 65535")],
)
def test_images_are_grouped_by_what_their_greatest_intensity_takes(greatest, group):
    assert intensity_group(greatest) == f"intensities {group}"


def test_a_round_without_measurements_and_two_cases_say_nothing_of_calibration(small):
    write_round(small / "ours_0", 0, np.random.default_rng(0))
    report(small)
    row = {row["method"]: row for row in rows(small, "calibration.csv")}["svgd/entropy_mi"]
    assert row["test_cases"] == str(len(SPLIT["test"]))
    assert row["ece_final_mean"] == "", "of the last round"
    assert 0 < float(row["ece_all_rounds_mean"]) < 1
    pairs = [{"uncertainty": "0.1", "dice": "0.9"}, {"uncertainty": "0.2", "dice": "0.8"}]
    assert case_quality(pairs) == (pytest.approx(math.nan, nan_ok=True), pytest.approx(math.nan, nan_ok=True), 2)


def test_a_training_without_a_drive_has_distances_and_no_ratios(small):
    balance = {"drive": 0.0, "prior": 1.0, "repulsion": 2.0, "distance": 3.0, "kernel": 0.25}
    write_json(small / "ours_0/round_000/training.json", {"validations": [{"balance": balance}]})
    content = report(small)
    row = {row["method"]: row for row in rows(small, "balance.csv")}["svgd/entropy_mi"]
    assert [row[f"{what}_mean"] for what in ("repulsion", "prior", "distance", "kernel")] == ["", "", "3.0", "0.25"]
    assert "is damaged" not in content


def test_minutes_and_their_spread_are_in_one_unit():
    assert mean_sd({"x_mean": 120.0, "x_sd": 30.0}, "x", 1, 60.0) == "2.0 ± 0.5"


def test_compute_adds_up(big):
    table = {row["method"]: row for row in rows(big, "compute.csv")}
    assert float(table["svgd/bald"]["seconds_train_per_run_mean"]) == 7 * 60
    assert float(table["svgd/bald"]["seconds_score_per_run_mean"]) == 7 * 4
    assert "| svgd/bald | 5 | 7.0 ± 0.0 | 0.5 ± 0.0 | cpu |" in text(big)
    assert float(table["svgd/bald"]["seconds_all_runs"]) == 5 * 7 * 64
    assert "5.07 hours in all" in text(big)  # 8 methods of 5 runs of 7 rounds and 5 runs of one, 64 s each


def test_the_text_says_what_is_not_significant_and_every_figure_its_n(big, small):
    content = text(big)
    significant = sum(float(row["p_holm"]) < 0.05 for row in rows(big, "pairwise.csv"))
    assert content.count("| not significant |") == 28 - significant > 0
    assert "does not show them to be equal" in content
    for name in PICTURES:
        caption = content.split(f"]({name})\n\n")[1].split("\n")[0]
        assert "n = 5" in caption, name
    report(small)
    (pair,) = rows(small, "pairwise.csv")
    sentence = f"svgd/entropy_mi against svgd/random: +{float(pair['mean_difference']):.4f} in area (95 % interval "
    assert sentence in text(small)


def test_a_difference_that_is_not_significant_is_told_how_large_it_may_be(tmp_path, sketched):
    # The first is the worse one and sorts behind its reference: its interval is that of the pair turned about.
    above = {"variance": [-0.09, -0.01, -0.02], "bald": [0.01, 0.0, 0.02], "random": [0.0, 0.0, 0.0]}
    for name, gains in above.items():
        for seed, gain in enumerate(gains):
            write_run(tmp_path / f"{name}{seed}", [0.6, 0.7 + gain, 0.75 + gain], seed=seed, acquisition=name)
    content = report(tmp_path)
    between = stats.ttest_1samp([0.75 * gain for gain in above["variance"]], 0).confidence_interval(0.95)
    interval = f"{between.low:+.4f} to {between.high:+.4f}".replace("-", "−")
    assert f"svgd/variance against svgd/random: −0.0300 in area (95 % interval {interval}, n = 3), p = " in content
    assert f"their 95 % intervals reach differences of up to {-between.low:.4f} Dice." in content
    p = {(row["method_a"], row["method_b"]): row for row in rows(tmp_path, "pairwise.csv")}["svgd/bald", "svgd/random"]
    line = next(line for line in content.splitlines() if line.startswith("| svgd/bald | svgd/random |"))
    assert f"| {float(p['p_value']):.4f} | {float(p['p_holm']):.4f} |" in line
    assert p["p_value"] != p["p_holm"]


def test_a_significant_difference_is_said_to_be_one(tmp_path, sketched):
    rng = np.random.default_rng(0)
    for seed in range(5):
        wobble = rng.normal(0, 0.001, 3)
        write_run(tmp_path / f"a{seed}", (np.array([0.6, 0.75, 0.8]) + wobble).tolist(), seed=seed, acquisition="bald")
        write_run(tmp_path / f"b{seed}", [0.6, 0.7, 0.75], seed=seed)
    content = report(tmp_path)
    assert "Of 1 pair of methods, 1 differs significantly" in content
    assert "Significantly larger area than svgd/random: svgd/bald by 0.037" in content
    assert "svgd/bald is better" in content
    penalties = {
        (row["method"], row["beats"]): float(row["share_of_budgets"]) for row in rows(tmp_path, "penalties.csv")
    }
    assert penalties["svgd/bald", "svgd/random"] == pytest.approx(2 / 3)  # the first committee is the same
    assert penalties["svgd/random", "svgd/bald"] == 0
    table = content.split("## Area under the budget curve")[1].split("## Differences")[0]
    lines = {line.split(" | ")[0]: line for line in table.splitlines()}
    assert lines["| svgd/random"].endswith("| 0.67 |")
    assert lines["| svgd/bald"].endswith("| 0.00 |")
    assert "not significant" not in content.split("## How to read this")[0]


def test_the_html_is_one_file_that_shows_all(big):
    html = text(big, "report.html")
    pictures = re.findall(r'<img src="data:image/png;base64,([^"]+)"', html)
    assert [base64.b64decode(p) for p in pictures] == [(big / "report" / name).read_bytes() for name in PICTURES]
    for content in pictures:
        image = Image.open(io.BytesIO(base64.b64decode(content)))
        image.load()
        assert len(image.convert("L").getcolors(256)) > 10  # something is drawn
    assert "http" not in html.replace("http-equiv", "")


def test_the_same_runs_give_the_same_files(small):
    report(small)
    first = {path.name: path.read_bytes() for path in (small / "report").iterdir()}
    report(small)
    assert {path.name: path.read_bytes() for path in (small / "report").iterdir()} == first
    assert set(first) == {*FILES, "report.md", "report.html", *PICTURES[:5]}  # no cases.csv, no scores.csv


def test_what_an_earlier_report_drew_and_this_one_does_not_is_removed(small):
    report(small)
    for folder in [*small.glob("ours*"), *small.glob("random*")]:
        shutil.rmtree(folder)
    content = report(small)
    assert not list((small / "report").glob("*.png"))
    assert "There is no finished run that queries" in content


def test_an_empty_folder_ends_in_one_sentence(tmp_path):
    (tmp_path / "sub").mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "svgd_monai.report", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.strip() == (f"No run lies below {tmp_path}: no folder holds run.json and learning_curve.csv.")
    assert done.stdout == ""
    assert not (tmp_path / "report").exists()


def test_a_missing_folder_and_one_that_cannot_be_written_end_in_one_sentence(small):
    with pytest.raises(SystemExit, match="is not a folder"):
        main([str(small / "missing")])
    write_text(small / "report", "a file where the folder belongs")
    with pytest.raises(SystemExit, match="report"):
        main([str(small)])


def test_the_command_says_what_it_did(small, capsys):
    main([str(small)])
    assert capsys.readouterr().out == f"{small}/report/report.html: 9 finished runs of 3 methods, 3 notes.\n"


def test_a_report_on_forty_runs_takes_less_than_twenty_seconds(timed):
    assert timed[1] < 20


def test_a_browser_shows_the_page(big, tmp_path):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium is installed")
    shot = tmp_path / "shot.png"
    subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1100,3000",
         f"--user-data-dir={tmp_path / 'profile'}", f"--screenshot={shot}", (big / "report/report.html").as_uri()],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    shown = np.asarray(Image.open(shot).convert("RGB")).astype(int)
    blue = (np.abs(shown - np.array([0, 114, 178])).max(2) < 12).sum()
    assert blue > 500  # the curves of the pictures, so these are not broken
    assert math.isclose(shown.shape[1], 1100)


def test_methods_that_share_a_single_label_count_have_no_range(tmp_path, sketched):
    for seed in range(3):
        write_run(tmp_path / f"random{seed}", [0.7 + 0.01 * seed], [20], seed=seed)
        write_run(tmp_path / f"bald{seed}", [0.6, 0.8], [17, 20], seed=seed, acquisition="bald")
        write_run(tmp_path / f"full{seed}", [0.7], [ALL], seed=seed, method="full")
    content = report(tmp_path)
    assert "svgd/bald against svgd/random: no test: a single label count, 20, in common." in content
    # at a single count, fewer labels may do and nothing shows that it stays
    assert "| svgd/random | 3 | ≤ 20† (20 to 20) |" in content


def test_means_are_told_to_be_over_the_runs_that_have_a_value(small):
    generator = np.random.default_rng(0)
    for folder in small.glob("[orf]*_?"):
        for number in range(1 if folder.name.startswith("full") else 3):
            write_round(folder, number, generator)
    for number in range(3):
        for name in ("cases.csv", "training.json", "scores.csv"):
            (small / f"ours_1/round_{number:03d}" / name).unlink()
    (small / "random_0/round_001/cases.csv").unlink()
    content = report(small)
    for name in ("calibration.csv", "balance.csv", "queries.csv"):
        seeds = {row["method"]: row["seeds"] for row in rows(small, name)}
        assert (seeds["svgd/entropy_mi"], seeds["svgd/random"]) == ("2", "3"), name
    assert "1 of 9 runs has no usable cases.csv; calibration and correlations leave it out." in content
    assert "1 of 9 runs has no usable training.json; what moved the committees leaves it out." in content
    assert "1 of 9 runs has no usable cases.csv in some rounds, of which nothing is told: random_0." in content


def test_a_queried_cases_table_counts_the_seeds_that_it_is_made_of(small):
    generator = np.random.default_rng(0)
    for folder in small.glob("[or]*_?"):
        for number in range(3):
            write_round(folder, number, generator)
    write_facts(small / "random_0")
    for number in range(3):
        (small / f"ours_1/round_{number:03d}/scores.csv").unlink()
    content = report(small)
    (line,) = {row["seeds"] for row in rows(small, "queried_cases.csv") if row["method"] == "svgd/entropy_mi"}
    table = content.split("File: queried_cases.csv.")[1]
    assert line == "2"
    assert "| svgd/entropy_mi | 2 |" in table


def test_a_run_of_people_ends_where_no_case_is_left_to_label(small):
    cases = {f"c{number}": {"labelled": number < 8, "declined": None} for number in range(8)}
    cases["c8"] = {"labelled": False, "declined": {"reason": "motion"}}
    people = {"dataset": {"name": "people", "fingerprint": None}, "split": {}}
    folder = write_run(small / "people", [0.6, 0.7], [5, 8], record=people, method="people")
    record = json.loads((folder / "run.json").read_text())
    record["settings"]["rounds"] = 6
    write_json(folder / "run.json", record)
    write_json(folder / "ledger.json", {"oracle": "people", "cases": cases})
    assert "says that it is finished" not in report(small)
    cases["c9"] = {"labelled": False, "declined": None}
    write_json(folder / "ledger.json", {"oracle": "people", "cases": cases})
    assert "people says that it is finished, but its curve holds 2 of 7 rounds." in report(small)
