"""Where a project lies, whatever the working directory."""

import os
import stat
import sys
from pathlib import Path

from litlab.errors import ConfigError, DataError

MARK = Path("conf/config.yaml")


def project_root() -> Path:
    """Return the checkout whose conf/ is used: around the working directory, else the package's.

    Raises:
        ConfigError: There is no conf/config.yaml in either place.
    """
    here = Path.cwd()
    for folder in (here, *here.parents, Path(__file__).resolve().parents[2]):
        if (folder / MARK).is_file():
            return folder
    raise ConfigError(f"no {MARK} here or above", str(here), "run litlab inside a litlab project")


def store_root() -> Path:
    """Return the folder that tracking is anchored to.

    DVC runs queued experiments in a copy under `.dvc/tmp` and deletes it afterwards; a store there
    would be lost with it, so such a run records in the repository that DVC was called from.
    """
    root, repository = project_root(), os.environ.get("DVC_ROOT")
    if repository and root.is_relative_to(Path(repository) / ".dvc"):
        return Path(repository)
    return root


def make_importable() -> None:
    """Let `_target_` name a user's own modules, which lie beside conf/."""
    root = str(project_root())
    if root not in sys.path:
        sys.path.append(root)


def results_folder(run: Path) -> Path:
    """Return where a run's evaluation lies: in its folder; the pipeline's, in reports/.

    What DVC keeps of runs/pipeline would be changed by anything written into it.
    """
    root = project_root()
    pipeline = (root / "runs" / "pipeline").resolve()
    return root / "reports" if run.resolve() == pipeline else run / "report"


def relative(path: Path) -> Path:
    """Return a path as seen from the project's root, where it lies below it: records travel."""
    path = path.resolve()
    root = project_root().resolve()
    return path.relative_to(root) if path.is_relative_to(root) else path


def short(path: Path) -> str:
    """Return a path as one would type it from here."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def not_a_file(path: Path) -> str | None:
    """Return what a path is where opening it as a file would fail, wait or never end.

    None for a regular file, and where nothing is found: opening it says why.
    """
    kinds = {
        stat.S_ISDIR: "a folder",
        stat.S_ISFIFO: "a named pipe",
        stat.S_ISSOCK: "a socket",
        stat.S_ISCHR: "a device",
        stat.S_ISBLK: "a device",
    }
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return None
    return next((kind for is_kind, kind in kinds.items() if is_kind(mode)), None)


def prepared_folder(name: str) -> Path:
    """Return the folder of one data set's prepared arrays.

    Args:
        name: A `litlab.names.Name`.

    Raises:
        DataError: It is a link that leads elsewhere.
    """
    parent = project_root() / "data" / "prepared"
    folder = parent / name
    if folder.is_symlink() and not folder.resolve().is_relative_to(parent.resolve()):
        what = f"a link that leads out of {relative(parent)}"
        raise DataError(what, str(folder), "remove it; to use another disk, link data/prepared")
    return folder


def runs_folder() -> Path:
    """Return the folder that holds one folder a run."""
    return project_root() / "runs"
