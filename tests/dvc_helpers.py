"""The pipeline in a repository of its own, for tests."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import forked

ROOT = Path(__file__).resolve().parents[1]
CARRIED = (
    "src",
    "conf",
    ".dvc/config",
    ".dvc/.gitignore",
    ".dvcignore",
    ".gitignore",
    "data/raw/README.md",
    "dvc.yaml",
)


def environment():
    """This process's, with the interpreter's folder first and without orders for DVC and MLflow."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "MLFLOW_"))}
    return {**kept, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"}


def run(*command, cwd, check=True):
    env = environment()
    start = subprocess.run
    if command[0] == sys.executable:
        start = forked.run
        env["PATH"] = f"{forked.python_folder()}{os.pathsep}{env['PATH']}"
    settings = {"cwd": cwd, "env": env, "timeout": 600, "check": False}
    done = start(command, capture_output=True, text=True, **settings)
    assert done.returncode == 0 or not check, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def repository(folder, *overrides):
    """A commit of this checkout's files, with the order of these overrides in params.yaml."""
    for name in CARRIED:
        source, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.egg-info"))
        else:
            shutil.copy(source, target)
    run("git", "init", "-q", "-b", "main", cwd=folder)
    run("git", "config", "user.name", "Test", cwd=folder)
    run("git", "config", "user.email", "test@example.org", cwd=folder)
    run(sys.executable, "src/litlab", "params", *overrides, cwd=folder)
    run("git", "add", "-A", cwd=folder)
    run("git", "commit", "-q", "-m", "start", cwd=folder)
    return folder


def dvc(*arguments, cwd):
    return run(sys.executable, "-m", "dvc", *arguments, cwd=cwd)
