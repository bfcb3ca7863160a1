"""Convert the committee of a run's round into a bundle's weights, which MONAI's own tools can load."""

from __future__ import annotations

import argparse

from svgd_monai.committee.checkpoint import convert_committee
from svgd_monai.errors import SvgdMonaiError


def main(arguments: list[str] | None = None) -> None:
    """Convert, or end with one sentence and exit status 1."""
    parser = argparse.ArgumentParser(prog="python -m svgd_monai.committee.convert", description=__doc__)
    parser.add_argument("committee", help="the committee to convert: round_NNN/committee.pt of a run")
    parser.add_argument("model", help="the file to write, e.g. bundles/hippocampus_mri_svgd/models/model.pt")
    chosen = parser.parse_args(arguments)
    try:
        convert_committee(chosen.committee, chosen.model)
    except SvgdMonaiError as error:
        raise SystemExit(str(error)) from error
    except OSError as error:
        raise SystemExit(f"{error.filename}: {error.strerror}.") from error


if __name__ == "__main__":
    main()
