"""Compare the finished runs of a study, and write the report into the folder ``report`` inside the study's folder."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from svgd_monai.errors import SvgdMonaiError
from svgd_monai.report.build import FOLDER, HTML_FILE, write_report
from svgd_monai.report.text import one_line
from svgd_monai.words import count


def main(arguments: list[str] | None = None) -> None:
    """Write the report, or end with one sentence and exit status 1."""
    parser = argparse.ArgumentParser(prog="python -m svgd_monai.report", description=__doc__)
    parser.add_argument("study", help="the study's folder; run folders are found at any depth below it")
    chosen = parser.parse_args(arguments)
    try:
        evidence = write_report(chosen.study)
    except (SvgdMonaiError, OSError) as error:
        raise SystemExit(one_line(error)) from error
    found = f"{count(len(evidence.study.runs), 'finished run')} of {count(len(evidence.study.methods), 'method')}"
    noted = f", {count(len(evidence.notes), 'note')}" if evidence.notes else ""
    sys.stdout.write(f"{one_line(Path(chosen.study) / FOLDER / HTML_FILE)}: {found}{noted}.\n")


if __name__ == "__main__":
    main()
