"""Where a bundle's configuration enters the package: the check of its keys, and the boundary for errors."""

from svgd_monai.workflow.boundary import MACHINERY, boundary, enter, evaluate_steps, run_steps
from svgd_monai.workflow.caller import calling_workflow
from svgd_monai.workflow.keys import KEYS
from svgd_monai.workflow.pace import Pace, duration
from svgd_monai.workflow.parts import note_parts
from svgd_monai.workflow.settings import check_setting
from svgd_monai.workflow.together import connect, join, leave, own_device
from svgd_monai.workflow.tracking import track, tracking_keys, tracking_of

__all__ = [
    "KEYS",
    "MACHINERY",
    "Pace",
    "boundary",
    "calling_workflow",
    "check_setting",
    "connect",
    "duration",
    "enter",
    "evaluate_steps",
    "join",
    "leave",
    "note_parts",
    "own_device",
    "run_steps",
    "track",
    "tracking_keys",
    "tracking_of",
]
