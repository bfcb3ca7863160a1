"""A team that labels, driven through the command line, and what its run leaves."""

import csv
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from command import TINY, run_bundle, words
from runs import CONFIG, Run, run

#: Rounds of two queries that take seconds; everything that draws random numbers in training is on.
KEYS = {
    **TINY,
    "oracle": "people",
    "rounds": 4,
    "steps_per_round": 4,
    "validations_per_round": 2,
    "queries_per_round": 2,
    "initial_labelled": 3,
    "validation_cases": "null",
    "min_validation": 5,
    "augmentation": "light",
}


class Team:
    """People with the truth of a phantom, and the command that they repeat.

    Args:
        dataset: a folder in MSD form; its labels are known to the team alone.
        folder: the run's.
        config: the bundle's configuration.
        keys: of the command.
    """

    def __init__(self, dataset, folder, *, config=CONFIG, **keys):
        self.config = config
        self.truth = Path(dataset) / "labelsTr"
        self.folder = Path(folder)
        self.keys = {**KEYS, "images": Path(dataset) / "imagesTr", "output_dir": folder, **keys}

    def command(self, deadly=None, **keys):
        """Run the command; with ``deadly``, in a process of its own, until it is killed there."""
        argv = words(self.config, **{**self.keys, **keys})
        if deadly is not None:
            return run(argv, deadly=deadly)
        done = run_bundle(*argv)
        return Run(done.exit_code, done.stdout, done.last_line)

    def works(self, **keys):
        """Run the command, which must end well; what it said."""
        result = self.command(**keys)
        assert result.code == 0, result.last_line
        return result.out

    @property
    def ledger(self):
        return json.loads((self.folder / "ledger.json").read_text())

    def worklist(self, number):
        """The cases of a worklist, in rank order."""
        return [entry["case"] for entry in self.ledger["worklists"][number]]

    def table(self, number):
        """The rows of ``worklist.csv``."""
        with (self.folder / f"worklist/round_{number:03d}/worklist.csv").open() as file:
            return list(csv.DictReader(file))

    def sheet(self, number):
        """The text of ``worklist.md``, without its escapes."""
        return (self.folder / f"worklist/round_{number:03d}/worklist.md").read_text().replace("\\", "")

    def label(self, *cases, slot=""):
        """Save the truth of cases."""
        for case in cases:
            target = self.folder / "labels" / slot / f"{case}.nii.gz"
            target.parent.mkdir(exist_ok=True)
            shutil.copy(self.truth / f"{case}.nii.gz", target)

    def save(self, case, change=lambda values, affine: (values, affine), name=None, **header):
        """Save a case's truth, changed."""
        truth = nib.load(self.truth / f"{case}.nii.gz")
        values, affine = change(np.asarray(truth.dataobj).copy(), truth.affine.copy())
        path = self.folder / "labels" / (name or f"{case}.nii.gz")
        nib.save(nib.Nifti1Image(values, affine), path)
        return path

    def note(self, name, *lines):
        """Add lines to one of the text files."""
        with (self.folder / "labels" / name).open("a") as file:
            file.writelines(f"{line}\n" for line in lines)


def curve(folder):
    """The learning curve, times apart."""
    with (folder / "learning_curve.csv").open() as file:
        return [{k: v for k, v in row.items() if not k.startswith("seconds")} for row in csv.DictReader(file)]


def datalist(folder, number, role="training"):
    """The case ids of a role in a round."""
    content = json.loads((folder / f"round_{number:03d}/datalist.json").read_text())
    return [item["case"] for item in content[role]]


def without_times(content):
    """Plain values without anything that depends on when it happened."""
    if isinstance(content, dict):
        return {key: without_times(value) for key, value in content.items() if key != "time"}
    return [without_times(value) for value in content] if isinstance(content, list) else content


def outcome(folder):
    """All of a run that must not depend on when it was stopped."""
    rounds, lists = sorted(folder.glob("round_*")), sorted(folder.glob("worklist/round_*"))
    names = ("datalist.json", "queries.json", "scores.csv", "cases.csv", "metrics.json", "agreement.csv", "advice.txt")
    files = [path for r in rounds for name in names if (path := r / name).is_file()]
    files += [path for w in lists for path in sorted(w.iterdir()) if path.name != "worklist.md"]
    files += sorted((folder / "labels_accepted").iterdir())
    return {
        "curve": curve(folder),
        "ranking": (folder / "ranking.csv").read_text(),
        "ledger": without_times(json.loads((folder / "ledger.json").read_text())),
        "files": {str(path.relative_to(folder)): path.read_bytes() for path in files},
        "particles": [torch.load(r / "committee.pt", weights_only=True)["values"].numpy().tobytes() for r in rounds],
    }
