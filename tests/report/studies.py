"""Run folders as the loop leaves them, without training anything."""

import csv

import numpy as np

from svgd_monai.acquisition.handler import COLUMNS
from svgd_monai.files import write_csv, write_json
from svgd_monai.report.__main__ import main
from svgd_monai.rounds.curve import write_curve

CLASSES = ("anterior", "posterior")
BINS = 10
POOL = 40
SPLIT = {
    "initial": [f"case_{i:03d}" for i in range(5)],
    "pool": [f"case_{i:03d}" for i in range(5, 5 + POOL)],
    "validation": [f"case_{i:03d}" for i in range(50, 60)],
    "test": [f"case_{i:03d}" for i in range(60, 72)],
}
#: Cases that can be labelled.
ALL = len(SPLIT["initial"]) + POOL


def settings(**keys):
    """The keys of a run that a report looks at."""
    return {
        "committee": "svgd", "acquisition": "random", "keep_labelled": True, "seed": 0, "rounds": 3,
        "steps_per_round": 150, "device": "cpu", "output_dir": "/elsewhere/run", **keys,
    }  # fmt: skip


def write_run(folder, dice, labels=None, finished=True, record=None, split=None, **keys):
    """A run with this test Dice after each round; five labels at first, three more a round where none are given."""
    labels = labels if labels is not None else [5 + 3 * number for number in range(len(dice))]
    content = {
        "settings": settings(rounds=len(dice) - 1, **keys),
        "components": {},
        "versions": {"torch": "2.13.0", "monai": "1.6.1", "svgd_monai": "0.1.0"},
        "dataset": {"name": "Phantom", "fingerprint": "f" * 64,
                    "classes": {"0": "background", "1": "anterior", "2": "posterior"}},
        "split": split or SPLIT,
        "finished": finished,
        **(record or {}),
    }  # fmt: skip
    write_json(folder / "run.json", content)
    rows = [
        {"round": number, "unique_labels": count, "training_items": 5 + 3 * number, "val_dice": value,
         "test_dice": value, **{f"test_dice_{name}": value for name in CLASSES}, "test_dice_grid": value,
         "seconds_train": 60.0, "seconds_score": 4.0}
        for number, (count, value) in enumerate(zip(labels, dice, strict=True))
    ]  # fmt: skip
    write_curve(folder / "learning_curve.csv", dict(enumerate(CLASSES, start=1)), rows)
    return folder


def write_round(folder, number, rng, count=3, labelled=5, redraws=0, taste=0.0, accuracy=0.9):
    """``scores.csv`` and ``cases.csv`` of a round: ``taste`` is the pull towards large structures."""
    cases = [*SPLIT["initial"], *SPLIT["pool"]]
    redraws = min(redraws, count)
    volume = np.asarray([2.0 + 0.1 * (i % 17) for i in range(len(cases))])
    uncertainty = rng.uniform(0.1, 0.3, len(cases))
    score = uncertainty + taste * volume + rng.normal(0, 0.05, len(cases))
    known = np.arange(len(cases)) < labelled
    free = [i for i in np.argsort(-score) if not known[i]]
    chosen = {*free[: count - redraws], *range(redraws)}
    rows = [
        {"case": cases[i], "uncertainty": uncertainty[i], "mutual_information": None, "score": score[i], "rank": rank,
         "labelled": bool(known[i]), "queried": int(i) in chosen, "foreground_ml": volume[i], "disagreement": 0.01}
        for rank, i in enumerate(np.argsort(-score), start=1)
    ]  # fmt: skip
    write_csv(folder / f"round_{number:03d}/scores.csv", COLUMNS, rows)
    write_json(folder / f"round_{number:03d}/training.json", training_record(rng))
    columns = ["case", "role", "uncertainty", "dice", "dice_grid"]
    columns += [f"bin_{b}_{what}" for b in range(BINS) for what in ("voxels", "confidence", "correct")]
    write_csv(folder / f"round_{number:03d}/cases.csv", columns, [case_row(c, r, rng, accuracy) for r in
              ("validation", "test") for c in SPLIT[r]])  # fmt: skip


def training_record(rng):
    """What a training leaves, as far as reports look."""
    balances = [
        dict(zip(("drive", "prior", "repulsion", "distance", "kernel", "norm"), rng.uniform(0.5, 2, 6), strict=True))
        for _ in range(3)
    ]
    return {"step": 100, "validations": [{"step": 50 * i, "balance": b} for i, b in enumerate(balances, start=1)]}


def case_row(case, role, rng, accuracy):
    """A case whose Dice error goes with its uncertainty, and whose confidence is off by a little."""
    uncertainty = rng.uniform(0.1, 0.3)
    dice = float(np.clip(accuracy - uncertainty + rng.normal(0, 0.04), 0, 1))
    row = {"case": case, "role": role, "uncertainty": uncertainty, "dice": dice, "dice_grid": dice}
    for b in range(BINS):
        voxels = int(rng.integers(50, 100)) * (b + 1)
        correct = round(voxels * float(np.clip((b + 0.5) / BINS - 0.06, 0, 1)))
        row |= {
            f"bin_{b}_voxels": voxels,
            f"bin_{b}_confidence": voxels * (b + 0.5) / BINS,
            f"bin_{b}_correct": correct,
        }
    return row


def learning_curve(labels, top=0.83, start=0.72, pace=8.0):
    """Test Dice that saturates with labels, as on the real volumes."""
    return top - (top - start) * np.exp(-(np.asarray(labels, float) - 5) / pace)


def noise(rng, methods, seeds, points, shared=0.01, wobble=0.012, memory=0.5, skewed=False):
    """Errors (methods, seeds, points) of a study's test Dice.

    A seed's luck (its initial set) is shared by the methods and fades with the labels; each method's rounds wobble, and
    a round is like the one before. The first round is the same run for all methods. Skewed: bad rounds are worse than
    good ones are good.
    """
    luck = rng.normal(0, shared, (1, seeds, 1)) * np.exp(-np.arange(points) / 4)
    shape = (methods, seeds, points)
    own = wobble * (1 - rng.exponential(1, shape) if skewed else rng.normal(0, 1, shape))
    for point in range(1, points):
        own[..., point] += memory * own[..., point - 1]
    own[..., 0] = own[:1, :, 0]
    return luck + own


def simulate_study(root, methods, seeds=5, rounds=6, full=True, rng=None, details=True):
    """A whole study.

    Args:
        root: its folder.
        methods: name of the folder -> (settings, what the method adds to the Dice from the second round on).
    """
    rng = rng or np.random.default_rng(0)
    errors = noise(rng, len(methods), seeds, rounds + 1)
    for index, (name, (keys, gain)) in enumerate(methods.items()):
        for seed in range(seeds):
            redraw = keys.get("keep_labelled", True) and "random" in keys["acquisition"]
            labels = 5 + np.cumsum([0, *(3 - (redraw and rng.random() < 0.4) for _ in range(rounds))])
            dice = learning_curve(labels) + errors[index, seed] + gain * (np.arange(rounds + 1) > 0)
            folder = write_run(root / name / f"seed_{seed}", dice.tolist(), labels.tolist(), seed=seed, **keys)
            for number in range(rounds + 1 if details else 0):
                new = int(labels[number + 1] - labels[number]) if number < rounds else 3
                count = 3 if number < rounds else 0
                write_round(folder, number, rng, count, int(labels[number]), 3 - new, keys.get("taste", 0.0))
    if full:
        for seed in range(seeds):
            dice = float(0.835 + rng.normal(0, 0.004))
            write_run(root / f"full/seed_{seed}", [dice], [len(SPLIT["initial"]) + POOL], seed=seed, method="full",
                      acquisition="random", committee="svgd")  # fmt: skip
    return root


#: About eight methods that differ from the paper's in one factor each, as a study has them.
METHODS = {
    "entropy_mi": ({"acquisition": "entropy_mi", "taste": 0.02}, 0.006),
    "entropy": ({"acquisition": "entropy", "taste": 0.03}, 0.002),
    "bald": ({"acquisition": "bald"}, 0.004),
    "random": ({"acquisition": "random"}, 0.0),
    "random_foreground": ({"acquisition": "random_foreground"}, 0.002),
    "delete": ({"acquisition": "entropy_mi", "keep_labelled": False}, 0.005),
    "ensemble": ({"acquisition": "entropy_mi", "committee": "ensemble"}, -0.01),
    "shuffled": ({"acquisition": "entropy_mi", "method": "shuffled scores"}, 0.0),
}


def write_facts(run, volumes=(1.5, 1.2)):
    """The checks of the cases, as they lie in a run's own cache."""
    cases = {
        case: {"files": {}, "facts": {"image_max": [[200.0, 900.0, 70000.0][i % 3]],
               "volume_ml": {"0": 40.0, "1": volumes[0] + 0.01 * i, "2": volumes[1]}}}
        for i, case in enumerate([*SPLIT["initial"], *SPLIT["pool"]])
    }  # fmt: skip
    write_json(run / "cache/case_checks.json", {"format": 1, "classes": [0, 1, 2], "cases": cases})


def report(study):
    """Write a study's report; its Markdown."""
    main([str(study)])
    return text(study)


def rows(study, name):
    """Rows of a CSV of its report."""
    with (study / "report" / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def text(study, name="report.md"):
    """A text of its report."""
    return (study / "report" / name).read_text(encoding="utf-8")
