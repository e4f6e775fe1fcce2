import sys
from pathlib import Path

import pytest

from litlab.utils import paths
from litlab.utils.errors import ConfigError


def test_root_is_found_from_within(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = project / "a" / "b"
    deep.mkdir(parents=True)
    monkeypatch.chdir(deep)
    assert paths.project_root() == project
    assert paths.prepared_folder("wine") == project / "data" / "prepared" / "wine"
    assert paths.runs_folder() == project / "runs"


def test_elsewhere_the_checkout_of_the_package_is_named_and_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    checkout = Path(paths.__file__).resolve().parents[3]
    assert paths.package_checkout() == checkout
    for place in (paths.project_root, paths.store_root, paths.runs_folder):
        with pytest.raises(ConfigError, match="this folder is in no project") as caught:
            place()
        assert f"cd {checkout}, or begin one here: cp -r {checkout}/conf ." in caught.value.fix
    before = sys.path[:]
    paths.make_importable()
    assert sys.path == before


def test_neither_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(paths, "__file__", str(tmp_path / "a" / "b" / "paths.py"))
    with pytest.raises(ConfigError, match="run litlab inside a litlab project"):
        paths.project_root()


def test_store_is_the_projects_own(project: Path) -> None:
    assert paths.store_root() == project


def test_store_of_a_temporary_copy_is_the_repository(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = project / ".dvc" / "tmp" / "exps" / "tmp123"
    (copy / "conf").mkdir(parents=True)
    (copy / "conf" / "config.yaml").touch()
    monkeypatch.chdir(copy)
    monkeypatch.setenv("DVC_ROOT", str(project))
    assert paths.project_root() == copy
    assert paths.store_root() == project


def test_store_ignores_another_repositorys_dvc(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_ROOT", "/somewhere/else")
    assert paths.store_root() == project


def test_users_modules_become_importable_once(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", sys.path[:])
    paths.make_importable()
    paths.make_importable()
    assert sys.path.count(str(project)) == 1
    assert sys.path[0] != str(project)  # last: it must not shadow installed packages
