"""From the configuration that the user runs to the loop."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from monai.utils import ensure_tuple

from svgd_monai.errors import SettingsError
from svgd_monai.processes import is_first
from svgd_monai.rounds.hooks import AfterRound, AfterRun, BeforeRound, Hook
from svgd_monai.rounds.loop import ActiveLearning
from svgd_monai.rounds.people.loop import PeopleLearning
from svgd_monai.rounds.shared import Follower, SharedStages
from svgd_monai.rounds.stages import stage_files
from svgd_monai.workflow import KEYS, MACHINERY, calling_workflow, tracking_keys, tracking_of

#: Keys of ``active_learning.yaml`` that are the loop's own and not handed on to the stages.
_LOOP = ("loop", "hooks", "stages")
#: Folders that the data set's own oracle would leave unread without a word.
_PEOPLE_ONLY = ("images", "labels", "validation", "test")


def active_learning(
    stages: Mapping[str, str | Sequence[str]], hooks: Sequence[Hook] | None = ()
) -> ActiveLearning | Follower:
    """The loop of the configuration that calls this, made from all its top-level keys.

    Of several processes only the first runs it; the others get a follower, which takes part in the shared stages.

    Those of :data:`svgd_monai.workflow.KEYS` are resolved; all others, which overlay files may have added or replaced
    (a network, an intensity transform), go to the stages as they are written, to be resolved there.

    Args:
        stages: configuration file of each stage, or several, see :func:`~svgd_monai.rounds.stages.stage_files`.
        hooks: called around the rounds.

    Raises:
        SettingsError: a stage's files make no configuration, a hook is none, or keys contradict one another.
    """
    caller = calling_workflow()
    workflow = caller.workflow
    parser, folder = workflow.parser, Path(workflow.config_root_path)
    settings, components = {}, {}
    own = {*MACHINERY, *_LOOP, *tracking_keys(caller.tracking)}
    for key, value in parser.config.items():
        if key in KEYS:
            settings[key] = parser.get_parsed_content(key)
        elif key not in own:
            components[key] = copy.deepcopy(value)
    hooks = ensure_tuple(hooks or ())
    for hook in hooks:
        if not isinstance(hook, (BeforeRound, AfterRound, AfterRun)):
            shown = re.sub(" at 0x[0-9a-f]+", "", repr(hook))  # where it lies in memory
            raise SettingsError(f"hooks: {shown} has none of before_round, after_round and after_run.")
    if settings["oracle"] == "people" and settings["initial_labelled"] is None:
        raise SettingsError("initial_labelled: 'all' needs oracle: dataset; with oracle: people give a number.")
    if settings["oracle"] != "people" and (given := [key for key in _PEOPLE_ONLY if settings.get(key) is not None]):
        raise SettingsError(f"{given[0]}: this key is for oracle: people; set that as well, or leave this key out.")
    files = stage_files(stages, folder)
    imports = parser.get("imports", [])
    if not is_first():
        return Follower(SharedStages(files, {**components, **settings}, imports, folder=folder))
    learning = PeopleLearning if settings["oracle"] == "people" else ActiveLearning
    return learning(
        settings=settings,
        components=components,
        stages=files,
        hooks=hooks,
        imports=imports,
        tracking=tracking_of(parser, caller.tracking),
        stages_folder=folder,
        data_lists=Path(components["bundle_root"]).parent.parent / "data_lists",
    )
