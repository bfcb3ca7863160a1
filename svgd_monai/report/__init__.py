"""Everything that draws."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from svgd_monai.report.panels import case_panel
    from svgd_monai.report.recorders import PoolRecorder, RoundRecorder, summary_writer

__all__ = ["PoolRecorder", "RoundRecorder", "case_panel", "summary_writer"]


def __getattr__(name: str) -> Any:
    """Import what watches a run when it is first asked for: a report on finished runs needs neither it nor MONAI."""
    if name in __all__:
        home = "panels" if name == "case_panel" else "recorders"
        return getattr(import_module(f"svgd_monai.report.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
