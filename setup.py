"""Takes the bundles and the data lists, which stand beside the package, into the wheel: see svgd_monai/bundles.py."""

from pathlib import Path
from shutil import copytree, ignore_patterns, rmtree

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithBundles(build_py):
    """An editable installation has them where they stand."""

    def run(self) -> None:
        """Build, and copy."""
        super().run()
        if self.editable_mode:
            return
        for name in ("bundles", "data_lists"):
            place = Path(self.build_lib) / "svgd_monai" / "shipped" / name
            if place.exists():  # of an earlier build in this checkout, with files that it may no longer have
                rmtree(place)
            copytree(name, place, ignore=ignore_patterns("models", "eval", "__pycache__"))


setup(cmdclass={"build_py": BuildWithBundles})
