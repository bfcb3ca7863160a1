"""What a committee is worth: Dice, distances in mm, calibration, case by case."""

from svgd_monai.evaluation.cases import CaseResult, measure_case
from svgd_monai.evaluation.handler import CaseMetricsHandler
from svgd_monai.evaluation.transforms import UncertaintyMapd

__all__ = ["CaseMetricsHandler", "CaseResult", "UncertaintyMapd", "measure_case"]
