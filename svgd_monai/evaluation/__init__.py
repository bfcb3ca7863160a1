"""What a committee is worth (Dice, distances in mm, calibration, case by case), and what it says of new images."""

from svgd_monai.evaluation.cases import CaseResult, measure_case
from svgd_monai.evaluation.handler import CaseMetricsHandler
from svgd_monai.evaluation.inputs import inference_images, named_classes
from svgd_monai.evaluation.metric import CaseDice
from svgd_monai.evaluation.transforms import UncertaintyMapd
from svgd_monai.evaluation.writer import CaseWriter, volume_like

__all__ = [
    "CaseDice",
    "CaseMetricsHandler",
    "CaseResult",
    "CaseWriter",
    "UncertaintyMapd",
    "inference_images",
    "measure_case",
    "named_classes",
    "volume_like",
]
