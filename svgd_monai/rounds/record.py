"""What ``run.json`` records of a run, and what of it a command that goes on must share."""

from __future__ import annotations

import json
import logging
import platform
from collections.abc import Collection, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from svgd_monai import __version__
from svgd_monai.data import Split, TaskData
from svgd_monai.errors import RunFolderError
from svgd_monai.history import LATER_KEYS

logger = logging.getLogger(__name__)

#: What concerns the people who label may change from command to command; the ledger says what held when.
PEOPLE_KEYS = frozenset(
    {"images", "labels", "validation", "test", "classes", "annotators", "annotator", "double_annotated",
     "min_new_labels", "min_validation", "cold_start", "stop_gain"}
)  # fmt: skip
#: Settings that may differ between a run and its continuation: where it runs, how it is watched, where things lie.
#: The data set may move as long as its content, whose fingerprint is compared, is the same.
MAY_CHANGE = frozenset(
    {"output_dir", "dataset_dir", "cache_dir", "device", "num_workers", "log_every", "download", "split_file",
    "committee_file", "first_committees", "on_bad_case", "on_bad_particle",
    "allow_outside", "deterministic",
     "stage_dir", "datalist_file", "bundle_root"}
) | PEOPLE_KEYS  # fmt: skip
#: Keys that decide how a committee is trained and nothing before it. Like an overlay's components, such as the network,
#: they may change until a training is saved: where people have labelled and the first training wants more memory than
#: there is, their run goes on with a smaller one.
TRAINING_KEYS = frozenset(
    {"augmentation", "batch_size", "checkpoint", "committee", "features", "learning_rate", "learning_rate_schedule",
     "likelihood_scale", "max_norm", "member_batches", "num_particles", "prior_std", "repulsion", "roi_size",
     "steps_per_round", "validations_per_round"}
)  # fmt: skip
_PACKAGES = ("torch", "monai", "numpy", "nibabel", "pytorch-ignite")


def run_record(
    settings: Mapping[str, Any], components: Mapping[str, Any], split: Split, task: TaskData
) -> dict[str, Any]:
    """What ``run.json`` holds: settings, the overlay's components, versions, split, and what the data set is."""
    dataset = task.dataset
    return _record(settings, components, split.as_dict(), dataset.name, dataset.root, task.fingerprint, dataset.classes)


def people_record(
    settings: Mapping[str, Any], components: Mapping[str, Any], classes: Mapping[int, str]
) -> dict[str, Any]:
    """Likewise where people label: the ledger holds the images, which may become more, and who plays which role."""
    return _record(settings, components, {}, "people", Path(settings["images"]).absolute(), None, classes)


def _record(
    settings: Mapping[str, Any],
    components: Mapping[str, Any],
    split: Mapping[str, Any],
    name: str,
    root: Path,
    fingerprint: str | None,
    classes: Mapping[int, str],
) -> dict[str, Any]:
    record = {
        "settings": dict(settings),
        "components": {key: value for key, value in components.items() if key not in MAY_CHANGE},
        "seed": settings["seed"],
        "versions": {
            "python": platform.python_version(),
            "svgd_monai": __version__,  # its own word: it may run from a source tree that is not installed
            **{name: version(name) for name in _PACKAGES},
        },
        "dataset": {
            "name": name,
            "root": str(root),
            "fingerprint": fingerprint,
            "classes": {str(value): label for value, label in classes.items()},
        },
        "split": dict(split),
    }
    # As it will read back, so that a continuation compares like with like.
    content: dict[str, Any] = json.loads(json.dumps(record, default=str))
    return content


def continued_record(
    found: Mapping[str, Any], record: Mapping[str, Any], root: Path, trained: bool, unused: Collection[str] = ()
) -> dict[str, Any]:
    """The record of a run that a command goes on with.

    Args:
        found: the run's record.
        record: the command's.
        root: the folder, for the sentences.
        trained: whether anything of a training has been saved. If not, its keys and an overlay's components may differ.
        unused: components that may differ even so, for nothing has been made with them.

    Returns:
        ``found`` with what the command may change and has changed: ``rounds``, which may rise, components that have
        made nothing, and, if nothing was trained, the keys of the training and all components.

    Raises:
        RunFolderError: they differ in more than may change; the sentence names the key.
    """
    begun = found.get("versions", {}).get("svgd_monai")
    if begun != __version__:
        logger.warning(
            "The run in %s was begun with svgd_monai %s, this is %s: see CHANGELOG.md for what may differ.",
            root, begun, __version__,
        )  # fmt: skip
    before, now = found["settings"], record["settings"]
    if now["rounds"] < before["rounds"]:
        raise RunFolderError(
            f"rounds: {root} is a run of {before['rounds']} rounds; they can be raised, not lowered to "
            f"{now['rounds']}; give another output_dir."
        )
    taken = {"rounds"} if trained else {"rounds", *TRAINING_KEYS}
    for key in sorted((set(before) | set(now)) - MAY_CHANGE - taken):
        started, asked = (settings.get(key, LATER_KEYS.get(key)) for settings in (before, now))
        if started != asked:
            raise RunFolderError(
                f"{key}: the run in {root} was started with {started!r}, this command says {asked!r}; give "
                "another output_dir."
            )
    if found["dataset"].get("classes") != record["dataset"]["classes"]:
        raise RunFolderError(
            f"classes: the run in {root} has {found['dataset'].get('classes')}, not "
            f"{record['dataset']['classes']}; give another output_dir."
        )
    if found["dataset"]["fingerprint"] != record["dataset"]["fingerprint"]:
        raise RunFolderError(
            f"dataset_dir: the volumes of {record['dataset']['root']} are not those that the run in {root} "
            "was started with."
        )
    if found["split"] != record["split"]:
        raise RunFolderError(f"split_file: it is not the split that the run in {root} was started with.")
    components = record["components"]
    if trained:
        for key in sorted(set(found["components"]) | set(components)):
            if key not in unused and found["components"].get(key) != components.get(key):
                raise RunFolderError(f"{key}: differs from the run in {root}; give another output_dir.")
    settings = {**before, **{key: value for key, value in now.items() if key in taken}}
    return {**found, "settings": settings, "components": components}
