"""Puts conf/ of this checkout into the wheel, as litlab/conf; all else is in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConf(build_py):
    """An editable installation reads conf/ where it lies and needs no copy."""

    def run(self) -> None:
        """Copy the package, then conf/ into it."""
        super().run()
        if not self.editable_mode:
            folder = Path(self.build_lib, "litlab", "conf")
            shutil.rmtree(folder, ignore_errors=True)  # of an earlier build
            shutil.copytree("conf", folder)


setup(cmdclass={"build_py": BuildWithConf})
