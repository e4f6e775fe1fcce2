import sys
from pathlib import Path

import pytest

from litlab.utils import paths


def test_root_is_found_from_within(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = project / "a" / "b"
    deep.mkdir(parents=True)
    monkeypatch.chdir(deep)
    assert paths.project_root() == project
    assert paths.prepared_folder("wine") == project / "data" / "prepared" / "wine"
    assert paths.runs_folder() == project / "runs"


def test_outside_of_any_project_it_is_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert paths.find_project() is None
    assert paths.project_root() == paths.store_root() == tmp_path
    assert paths.conf_folders() == [paths.package_conf()]
    before = sys.path[:]
    paths.make_importable()
    assert sys.path == before  # modules of a folder that is no project are not imported


@pytest.mark.parametrize("mark", ["params.yaml", "dvc.yaml", "pyproject.toml", "conf/model/a.yaml"])
def test_a_project_without_a_main_file_is_known_by_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mark: str
) -> None:
    (tmp_path / mark).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / mark).touch()
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    monkeypatch.chdir(deep)
    assert paths.project_root() == tmp_path


def test_a_main_file_further_up_goes_before_other_marks(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "part").mkdir()
    (project / "part" / "pyproject.toml").touch()
    monkeypatch.chdir(project / "part")
    assert paths.project_root() == project


def test_an_installed_package_has_its_own_conf(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "__file__", str(tmp_path / "litlab" / "utils" / "paths.py"))
    (tmp_path / "litlab" / "conf").mkdir(parents=True)
    assert paths.package_conf() == tmp_path / "litlab" / "conf"


def test_choices_of_the_project_hide_those_of_litlab(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "conf" / "model" / "mlp.yaml"
    own.parent.mkdir(parents=True)
    own.touch()
    monkeypatch.chdir(tmp_path)
    found = paths.choice_files("model")
    assert found["mlp"] == own
    assert found["cnn"] == paths.package_conf() / "model" / "cnn.yaml"
    assert paths.is_group("model")
    assert not paths.is_group("modle")


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


def test_packages_in_src_become_importable(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", sys.path[:])
    (project / "src").mkdir()
    paths.make_importable()
    assert sys.path[-2:] == [str(project), str(project / "src")]
