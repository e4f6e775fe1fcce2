"""The machine and versions a run was made with."""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

PACKAGES = ("litlab", "torch", "lightning", "torchmetrics", "numpy")


def describe() -> dict[str, str]:
    """Return versions and hardware, as recorded with every run."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # run from a checkout that is not installed
            found[package] = "unknown"
    found["cpu"] = (
        f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
    )
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


# Written by the pipeline while it runs, and recorded with every run in full: a change in them is no
# change of the code.
RECORDED = ("params.yaml", "dvc.lock")


def git_state(root: Path) -> dict[str, str]:
    """Return the commit of a project and whether its tracked files differ from it.

    Empty where there is no git, no repository, or no commit yet. `dirty` is "true", "false", or
    "unknown" where git does not answer.
    """
    commit = _git(root, "rev-parse", "HEAD")
    if commit is None:
        return {}
    excluded = [f":(exclude){name}" for name in RECORDED]
    changed = _git(root, "status", "--porcelain", "--untracked-files=no", "--", ".", *excluded)
    dirty = "unknown" if changed is None else str(bool(changed)).lower()
    branch = _git(root, "rev-parse", "--abbrev-ref", "HEAD") or "HEAD"
    return {"commit": commit, "dirty": dirty, "branch": branch}


def _git(root: Path, *arguments: str) -> str | None:
    try:
        answer = subprocess.run(
            ["git", "-C", str(root), *arguments],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None
