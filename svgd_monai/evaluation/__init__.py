"""What a committee is worth: Dice, distances in mm, calibration, case by case."""

from svgd_monai.evaluation.cases import CaseResult, measure_case
from svgd_monai.evaluation.handler import CaseMetricsHandler

__all__ = ["CaseMetricsHandler", "CaseResult", "measure_case"]
