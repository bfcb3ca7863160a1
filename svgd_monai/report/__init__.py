"""Everything that draws."""

from svgd_monai.report.panels import case_panel
from svgd_monai.report.recorders import PoolRecorder, RoundRecorder

__all__ = ["PoolRecorder", "RoundRecorder", "case_panel"]
