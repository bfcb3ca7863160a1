"""Studies as they come: incomplete, damaged, unlike, hostile. Each gets a sentence and a whole report."""

import re
import shutil

import numpy as np
import pytest
from studies import ALL, SPLIT, report, rows, text, write_round, write_run

from svgd_monai.files import write_text
from svgd_monai.report.tables import FILES


def drop(*places):
    """Remove runs of the small study."""
    return lambda study: [shutil.rmtree(study / place) for place in places]


def ours(dice=(0.6, 0.7, 0.8), labels=None, seeds=(0,), **keys):
    """Write runs of the first method anew."""
    return lambda study: [
        write_run(study / f"ours_{seed}", list(dice), labels, seed=seed, acquisition="entropy_mi", **keys)
        for seed in seeds
    ]


def file(place, content):
    """Write a file of a run."""
    return lambda study: write_text(study / place, content)


def constant(study):
    for seed in range(3):
        write_run(study / f"ours_{seed}", [0.6, 0.7, 0.8], seed=seed, acquisition="entropy_mi")
        write_run(study / f"random_{seed}", [0.5, 0.6, 0.7], seed=seed)


def other_seeds(study):
    for seed in range(3):
        write_run(study / f"ours_{seed}", [0.6, 0.7, 0.8], seed=9 + seed, acquisition="entropy_mi")


def nothing_finished(study):
    for place in study.iterdir():
        write_run(place, [0.6], [5], finished=False)


def bare(study):
    for name, seed in ((name, seed) for name in ("ours", "random") for seed in range(3)):
        keys = f'"settings": {{"committee": "svgd", "acquisition": "{name}", "seed": {seed}}}'
        odd = '"split": 3, "dataset": [], "components": 1, "versions": null'
        write_text(study / f"{name}_{seed}/run.json", f"{{{keys}, {odd}}}")


ALL_SEEDS = (0, 1, 2)
OURS, RANDOM = ([f"{name}_{seed}" for seed in ALL_SEEDS] for name in ("ours", "random"))
CASES = "case,role,uncertainty\na,test,high\n"
SCORES = "case,queried,labelled,uncertainty\na,true,false,x\n"
ODD = {
    "a single seed": (
        drop("ours_1", "ours_2", "random_1", "random_2"),
        "These methods have a single seed, which shows no spread and allows no test: svgd/entropy_mi, svgd/random.",
    ),
    "one method": (drop(*OURS), "There is one method only, svgd/random; nothing can be compared."),
    "unequal seeds": (
        drop("ours_1"),
        "different seeds: a table's mean is over all seeds of its method, a difference over the seeds that both "
        "methods have (svgd/entropy_mi: 0, 2; svgd/random: 0, 1, 2).",
    ),
    "no seed in common": (other_seeds, "no test: no seed in common"),
    "unfinished": (ours([0.6, 0.7], seeds=(1,), finished=False), "Left out: ours_1: the run is not finished"),
    "damaged": (file("ours_1/learning_curve.csv", "a,b\n1\n"), "Left out: ours_1: learning_curve.csv"),
    "one label count": (ours([0.6], [5], ALL_SEEDS), "A run with one label count has no curve and no area"),
    "apart": (ours([0.6, 0.7], [30, 33], ALL_SEEDS), "The curves share no range of label counts"),
    "apart within a method": (ours([0.6, 0.7], [30, 33]), "The curves share no range of label counts"),
    "damaged cases": (
        file("ours_0/round_000/cases.csv", CASES),
        "ours_0: cases.csv of round 0 is damaged and not used",
    ),
    "damaged training": (file("ours_0/round_000/training.json", "[]"), "ours_0: training.json of round 0 is damaged"),
    "odd training": (
        file("ours_0/round_000/training.json", '{"validations": ["x"]}'),
        "ours_0: training.json of round 0 is damaged",
    ),
    "damaged scores": (file("ours_0/round_000/scores.csv", SCORES), "ours_0: scores.csv of round 0 is damaged"),
    "damaged cache": (
        file("ours_0/cache/case_checks.json", '{"cases": 3}'),
        "case_checks.json is damaged or of another",
    ),
    "another data set": (
        ours(record={"dataset": {"name": "b", "fingerprint": "0"}}),
        "The runs are on different data sets",
    ),
    "other test cases": (ours(split={**SPLIT, "test": ["z"]}), "The runs have different test cases"),
    "other initial sets": (
        ours(split={**SPLIT, "initial": ["z"]}),
        "At seed 0 the methods start from different initial sets",
    ),
    "other settings": (
        ours(steps_per_round=9),
        "The runs of svgd/entropy_mi differ in more than their seed: steps_per_round.",
    ),
    "other versions": (
        ours(record={"versions": {"torch": "2.6.0"}}),
        "The runs were made with different versions of torch: 2.13.0, 2.6.0.",
    ),
    "a constant difference": (constant, "no test: the differences do not vary"),
    "nothing but full data": (drop(*OURS, *RANDOM), "There is no finished run that queries"),
    "nothing finished": (nothing_finished, "Left out: full_0"),
    "full data of two lengths": (
        lambda study: write_run(study / "full_0", [0.8], [ALL - 3], method="full"),
        "2 methods and the full data, 9 finished runs",
    ),
    "bare records": (bare, "svgd/ours against svgd/random"),
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_study_gets_a_sentence_and_a_whole_report(small, name):
    change, sentence = ODD[name]
    change(small)
    assert sentence in report(small)
    assert text(small, "report.html").endswith("</html>\n")
    for table in FILES:
        assert (small / "report" / table).is_file()


NAMES = [
    "<script>alert(1)</script>",
    "a|b",
    "two\nlines",
    "$\\frac{",
    "=1+1",
    "@x",
    "-x",
    "x" * 300,
    "标注",
    "a/../b",
    "%s{0}",
]


def test_hostile_names_reach_every_file_as_texts(tmp_path, sketched):
    for index, name in enumerate(NAMES):
        for seed in range(2):
            dice = [0.6, 0.7 + 0.001 * index, 0.8 + 0.01 * seed]
            folder = write_run(tmp_path / f"{index}_{seed}", dice, seed=seed, method=name, loss=f"{name}")
            write_round(folder, 0, np.random.default_rng(index))
    content = report(tmp_path)
    html = text(tmp_path, "report.html")
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "<script" not in content
    assert "a&#124;b" in content
    methods = [row["method"] for row in rows(tmp_path, "summary.csv")]
    assert {"'=1+1", "'@x", "'-x", "two lines", "a|b", "x" * 300} <= set(methods)
    for file in FILES:
        for row in rows(tmp_path, file):
            assert not any(re.match(r"[=+@]|-(?!\d)", cell) for cell in row.values()), (file, row)
