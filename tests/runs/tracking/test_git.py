import subprocess

import pytest

from litlab.runs import environment
from litlab.runs.environment import git_state


def run(folder, *arguments):
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    command = ["git", "-C", str(folder), *who, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture(params=["", "projects/one"])
def checkout(tmp_path, request):
    """A project at the top of a repository, and one in a folder of it."""
    folder = tmp_path / request.param
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("params.yaml", "dvc.lock", "code.py"):
        (folder / name).write_text("1")
    run(tmp_path, "init", "-q", "-b", "main")
    run(tmp_path, "add", "-A")
    run(tmp_path, "commit", "-q", "-m", "start")
    return folder


def test_a_clean_checkout(checkout):
    commit = run(checkout, "rev-parse", "HEAD")
    assert git_state(checkout) == {"commit": commit, "dirty": "false", "branch": "main"}


def test_what_the_pipeline_writes_is_no_change(checkout):
    for name in ("params.yaml", "dvc.lock", "untracked.txt"):
        (checkout / name).write_text("2")
    assert git_state(checkout)["dirty"] == "false"


@pytest.mark.parametrize("staged", [False, True])
def test_changed_code_is_a_change(checkout, staged):
    (checkout / "code.py").write_text("2")
    if staged:
        run(checkout, "add", "code.py")
    assert git_state(checkout)["dirty"] == "true"


def test_deleted_code_is_a_change(checkout):
    (checkout / "code.py").unlink()
    assert git_state(checkout)["dirty"] == "true"


def test_no_repository_no_commit_no_git(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_state(tmp_path) == {}
    run(tmp_path, "init", "-q")
    assert git_state(tmp_path) == {}
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state(tmp_path) == {}


def test_a_git_that_does_not_answer_is_not_called_clean(checkout, monkeypatch):
    whole = environment._git
    monkeypatch.setattr(
        environment, "_git", lambda r, *a: None if a[0] == "status" else whole(r, *a)
    )
    assert git_state(checkout)["dirty"] == "unknown"
