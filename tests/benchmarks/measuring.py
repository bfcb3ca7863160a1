"""What several benchmarks need: the memory of a process, and a table that is printed and kept."""

import sys
from pathlib import Path

from svgd_monai.files import write_csv


def peak_mib() -> float:
    """Greatest resident memory of this process so far; on Linux only."""
    status = Path("/proc/self/status").read_text(encoding="ascii").split()
    return int(status[status.index("VmHWM:") + 1]) / 1024


def table(path: Path, rows: list[dict[str, object]]) -> None:
    """Write rows as CSV, and print them."""
    sys.stdout.write(write_csv(path, list(rows[0]), rows).read_text(encoding="utf-8") + "\n")
    sys.stdout.flush()
