import base64
import copy
import dataclasses
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hydra._internal.core_plugins.file_config_source import FileConfigSource

from litlab.cli import main
from litlab.config import compose as config
from litlab.utils.paths import find_project

CONF = Path(__file__).parents[1] / "conf"
# A PNG of one pixel.
BLANK = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGP4DwABAQEAsTj2FAAAAABJRU5ErkJggg=="
)
_composed: dict[Any, Any] = {}
_read: dict[Any, Any] = {}


@pytest.fixture(autouse=True)
def _compose_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Hydra compose each configuration once: it takes a third of a second.

    Tests have copies of conf/; one that was changed is composed by itself.
    """

    def once(compose: Callable[..., Any]) -> Callable[..., Any]:
        def composed(overrides: Sequence[str] = ()) -> Any:
            root = find_project()
            files = sorted((root / "conf").rglob("*.yaml")) if root else []
            stamps = [(f.relative_to(root), f.stat().st_mtime_ns, f.stat().st_size) for f in files]
            key = (compose.__name__, tuple(overrides), tuple(stamps))
            if key not in _composed:
                _composed[key] = compose(overrides)
            return copy.deepcopy(_composed[key])

        return composed

    for compose in (config.compose, config.choices):
        monkeypatch.setattr(config, compose.__name__, once(compose))


@pytest.fixture(autouse=True)
def _read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Hydra read each version of a file of conf/ once, which is a fifth of composing."""
    read = FileConfigSource.load_config

    def load_config(self: FileConfigSource, config_path: str) -> Any:
        try:
            file = Path(self.path, self._normalize_file_name(config_path)).stat()
        except OSError:
            return read(self, config_path)
        key = (config_path, file.st_mtime_ns, file.st_size)
        if key not in _read:
            _read[key] = read(self, config_path)
        where = f"{self.scheme()}://{self.path}"
        return dataclasses.replace(
            copy.deepcopy(_read[key]), path=where, provider=self.provider, defaults_list=None
        )

    monkeypatch.setattr(FileConfigSource, "load_config", load_config)


@pytest.fixture(autouse=True)
def _draw_nothing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let figures be put together but not drawn: drawing one takes a third of a second.

    They are drawn by tests/report and by tests marked `draws`, and in processes of their own.
    """
    if "report" not in request.path.parts and not request.node.get_closest_marker("draws"):
        monkeypatch.setattr("litlab.report.figures.png", lambda *_, **__: BLANK)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder with its own copy of conf/, and the working directory of the test."""
    shutil.copytree(CONF, tmp_path / "conf")
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith(("DVC_", "MLFLOW_")):
            monkeypatch.delenv(name)
    return tmp_path


@pytest.fixture
def litlab(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run a command line in this process; return its exit code, output and errors."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["litlab", *arguments])
        with pytest.raises(SystemExit) as stop:
            main.main()
        captured = capsys.readouterr()
        return int(stop.value.code or 0), captured.out, captured.err

    return run
