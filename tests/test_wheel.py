"""What setup.py takes into a wheel beside the package; setuptools itself is where a wheel is built, not here."""

import runpy
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

SETUP = Path(__file__).parents[1] / "setup.py"


class BuildPy:
    """Stands in for setuptools' command, which copies the modules."""

    def run(self):
        self.ran = True


@pytest.fixture
def build(monkeypatch, tmp_path):
    """Builds a project in the current folder; to be called with whether the installation is editable."""
    found = SimpleNamespace()
    names = ("setuptools", "setuptools.command", "setuptools.command.build_py")
    setuptools, command, build_py = (ModuleType(name) for name in names)
    setuptools.setup = lambda cmdclass: setattr(found, "command", cmdclass["build_py"])
    build_py.build_py = BuildPy
    for name, module in zip(names, (setuptools, command, build_py), strict=True):
        monkeypatch.setitem(sys.modules, name, module)
    runpy.run_path(str(SETUP))

    def run(editable=False):
        step = found.command()
        step.build_lib, step.editable_mode = str(tmp_path / "build"), editable
        step.run()
        assert step.ran

    project = tmp_path / "project"
    for place in ("bundles/a/configs/x.yaml", "bundles/a/models/model.pt", "bundles/a/eval/y", "data_lists/z.json"):
        (project / place).parent.mkdir(parents=True, exist_ok=True)
        (project / place).write_text(place)
    monkeypatch.chdir(project)
    return run


def built(tmp_path):
    shipped = tmp_path / "build/svgd_monai/shipped"
    return {str(path.relative_to(shipped)) for path in shipped.rglob("*") if path.is_file()}


def test_the_bundles_and_the_lists_travel_without_what_runs_leave(build, tmp_path):
    build()
    assert built(tmp_path) == {"bundles/a/configs/x.yaml", "data_lists/z.json"}


def test_what_the_checkout_no_longer_has_is_not_taken_from_an_earlier_build(build, tmp_path):
    """``pip install .`` leaves its folder build/ in the checkout."""
    build()
    Path("bundles/a/configs/x.yaml").rename("bundles/a/configs/renamed.yaml")
    build()
    assert built(tmp_path) == {"bundles/a/configs/renamed.yaml", "data_lists/z.json"}


def test_an_editable_installation_has_them_where_they_stand(build, tmp_path):
    build(editable=True)
    assert built(tmp_path) == set()
