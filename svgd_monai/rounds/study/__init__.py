"""Studies: strategies, committees, controls and seeds, each a run of its own."""

from svgd_monai.rounds.study.cells import Cell, study_cells
from svgd_monai.rounds.study.entry import study
from svgd_monai.rounds.study.runner import Study

__all__ = ["Cell", "Study", "study", "study_cells"]
