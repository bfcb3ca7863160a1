"""Small bundles with committees, and datastores of phantom images."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from monai.bundle import ConfigParser

from svgd_monai.files import write_torch

# A side of 16 voxels needs another of 32: the network halves four times.
SMALL = {
    "device": "cpu",
    "num_particles": 2,
    "features": [2, 2, 2, 2, 4, 2],
    "roi_size": [16, 32, 16],
    "mi_grid": [8, 8, 8],
    "batch_size": 2,
    "steps_per_round": 4,
    "validations_per_round": 2,
    "learning_rate": 0.05,
    "log_every": 100,
}
NAMES = {"mr": "hippocampus_mri_svgd", "ct": "pancreas_ct_svgd"}
SPACING = {"mr": [3.0, 3.0, 3.0], "ct": [6.0, 6.0, 6.0]}
CASES = 9
LABELLED = 4


def small_bundle(task, folder, committee_seed=0):
    """A copy of a bundle, its own keys made small, with a committee nobody has trained."""
    bundle = Path(shutil.copytree(Path(__file__).parents[2] / "bundles" / NAMES[task], folder / NAMES[task]))
    for file in (bundle / "configs").glob("*.yaml"):
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        small = {**SMALL, "spacing": SPACING[task]}
        content.update({key: small[key] for key in small.keys() & content.keys()})
        file.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    new_committee(bundle, committee_seed)
    return bundle


def new_committee(bundle, seed):
    """Another committee in ``models/model.pt``."""
    parser = ConfigParser()
    parser.read_config(str(bundle / "configs/inference.yaml"))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        committee = parser.get_parsed_content("network_def")
    write_torch(bundle / "models/model.pt", committee.state_dict())


@dataclass(frozen=True)
class Studies:
    """A folder of images as a local datastore lays them out, some of them with final labels."""

    root: Path
    phantom: Path
    unlabelled: dict[str, str]
    labelled: dict[str, str]


def make_studies(phantom, root):
    """The first cases of a phantom labelled, the others not."""
    (root / "labels/final").mkdir(parents=True)
    unlabelled, labelled = {}, {}
    for number, image in enumerate(sorted((phantom / "imagesTr").glob("*.nii.gz"))[:CASES]):
        shutil.copy(image, root)
        case = image.name.removesuffix(".nii.gz")
        if number < LABELLED:
            shutil.copy(phantom / "labelsTr" / image.name, root / "labels/final")
        (labelled if number < LABELLED else unlabelled)[case] = str(root / image.name)
    return Studies(root, phantom, unlabelled, labelled)
