import os
import shutil
from pathlib import Path

import pytest

CONF = Path(__file__).parents[1] / "conf"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder with its own copy of conf/, and the working directory of the test."""
    shutil.copytree(CONF, tmp_path / "conf")
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith(("DVC_", "MLFLOW_")):
            monkeypatch.delenv(name)
    return tmp_path
