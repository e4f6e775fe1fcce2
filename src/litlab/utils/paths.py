"""Where a project lies, whatever the working directory."""

import os
import stat
import sys
from pathlib import Path
from shlex import quote

from litlab.utils.errors import ConfigError, DataError

MARK = Path("conf/config.yaml")
# What the stages of dvc.yaml write into, in data/prepared and in runs: DVC empties these folders
# before a stage runs, so no setting may name another, and no data set or study has this name.
PIPELINE = "pipeline"


def find_project() -> Path | None:
    """Return the project around the working directory, None outside of any."""
    here = Path.cwd()
    return next((f for f in (here, *here.parents) if (f / MARK).is_file()), None)


def project_root() -> Path:
    """Return the project around the working directory: its conf/ is used, and it is written to.

    Raises:
        ConfigError: The working directory is in no project. The checkout of the package is not
            taken instead: runs would be written to where nobody looks for them.
    """
    root = find_project()
    if root is not None:
        return root
    checkout = package_checkout()
    fix = "run litlab inside a litlab project"
    if checkout is not None:
        cd, conf = quote(str(checkout)), quote(str(checkout / MARK.parent))
        fix += f": cd {cd}, or begin one here: cp -r {conf} ."
    what = f"this folder is in no project: no {MARK} here or above"
    raise ConfigError(what, str(Path.cwd()), fix)


def package_checkout() -> Path | None:
    """Return the checkout that the package is run from, None where it was installed elsewhere."""
    checkout = Path(__file__).resolve().parents[3]
    return checkout if (checkout / MARK).is_file() else None


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
    root = find_project()
    if root is not None and str(root) not in sys.path:
        sys.path.append(str(root))


def results_folder(run: Path) -> Path:
    """Return where a run's evaluation lies: in its folder; the pipeline's, in reports/.

    What DVC keeps of runs/pipeline would be changed by anything written into it.
    """
    root = project_root()
    pipeline = (root / "runs" / PIPELINE).resolve()
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
        name: A `litlab.utils.names.Name`.

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
