"""Studies that the tests of the report share."""

import io

import pytest
from studies import ALL, write_run


@pytest.fixture
def sketched(monkeypatch):
    """Pictures are drawn, but roughly: for tests that do not look at them."""

    def sketch(figure):
        figure.set_layout_engine("none")
        figure.set_dpi(30)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
        return buffer.getvalue()

    monkeypatch.setattr("svgd_monai.report.build.png", sketch)


@pytest.fixture
def small(tmp_path, sketched):
    """Two methods of three seeds and the full data, with numbers that can be followed."""
    ours = [[0.60, 0.72, 0.80], [0.62, 0.71, 0.82], [0.58, 0.74, 0.79]]
    theirs = [[0.60, 0.69, 0.76], [0.62, 0.70, 0.74], [0.58, 0.66, 0.75]]
    for seed in range(3):
        write_run(tmp_path / f"ours_{seed}", ours[seed], seed=seed, acquisition="entropy_mi")
        write_run(tmp_path / f"random_{seed}", theirs[seed], seed=seed)
        write_run(tmp_path / f"full_{seed}", [0.80], [ALL], seed=seed, method="full")
    return tmp_path
