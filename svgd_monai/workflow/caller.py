"""Which of MONAI's workflows evaluates the configuration that called us, and what the user typed.

What the user typed is not in the configuration that MONAI hands on (a null is dropped, a mistyped key is merged), so it
is read where it still is: in the frame of ``monai.bundle.run`` or ``run_workflow`` that called us.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from monai.bundle import ConfigParser, ConfigWorkflow, run_workflow
from monai.bundle import run as bundle_run

from svgd_monai.workflow.tracking import Tracking


@dataclass
class Caller:
    """The MONAI workflow that evaluates the configuration.

    Attributes:
        workflow: it.
        typed: the key-value pairs of the command line (or of the call of ``monai.bundle.run`` or ``run_workflow``).
        files: the configuration files; empty when the workflow was made by none of these.
        tracking: what ``--tracking`` says.
    """

    workflow: ConfigWorkflow
    typed: dict[str, Any] = field(default_factory=dict)
    files: Any = ()
    tracking: Tracking = None


def calling_workflow() -> Caller:
    """Find the workflow that is evaluating the configuration which called us.

    Raises:
        RuntimeError: the caller is not a configuration.
    """
    workflow: ConfigWorkflow | None = None
    frame: FrameType | None = inspect.currentframe()
    called: object = None  # whose method the frame has called, be it through functions
    while frame is not None:
        candidate = frame.f_locals.get("self")
        if workflow is None and isinstance(candidate, ConfigWorkflow):
            workflow = candidate
        # A user's own class that `run_workflow` makes may hold our workflow, and has words of its own.
        ours = frame.f_code is bundle_run.__code__ or (frame.f_code is run_workflow.__code__ and called is workflow)
        if workflow is not None and ours:
            return Caller(workflow, *_typed(type(workflow), frame.f_locals))
        called, frame = called if candidate is None else candidate, frame.f_back
    if workflow is None:
        raise RuntimeError("svgd_monai.workflow is for configurations that `python -m monai.bundle run` evaluates.")
    return Caller(workflow)


def _typed(made: type[ConfigWorkflow], arguments: dict[str, Any]) -> tuple[dict[str, Any], Any, Tracking]:
    calls = (bundle_run, run_workflow, ConfigWorkflow, made)
    own = {name for call in calls for name in inspect.signature(call).parameters}
    defaults = ConfigParser.load_config_file(arguments["args_file"]) if arguments["args_file"] else {}
    given = {**defaults, **arguments["override" if "override" in arguments else "kwargs"]}  # of run, of run_workflow
    typed = {k: v for k, v in given.items() if k not in own}
    files, tracking = (arguments.get(name) or given.get(name) for name in ("config_file", "tracking"))
    return typed, files or (), tracking
