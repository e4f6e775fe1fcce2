import subprocess
from pathlib import Path

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
