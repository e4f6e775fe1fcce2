"""Where a project and its configuration lie, whatever the working directory."""

import os
import stat
import sys
from pathlib import Path

from litlab.utils.errors import DataError

MARK = Path("conf/config.yaml")
# Without conf/config.yaml around, the nearest folder with one of these is the project.
OTHER_MARKS = (
    *("conf/data", "conf/experiment", "conf/model"),
    *("params.yaml", "dvc.yaml", "pyproject.toml"),
)
# What the stages of dvc.yaml write into, in data/prepared and in runs: DVC empties these folders
# before a stage runs, so no setting may name another, and no data set or study has this name.
PIPELINE = "pipeline"


def find_project() -> Path | None:
    """Return the project around the working directory, None outside of any."""
    here = Path.cwd()
    around = (here, *here.parents)
    for marks in ((MARK,), OTHER_MARKS):
        found = next((f for f in around if any((f / mark).exists() for mark in marks)), None)
        if found is not None:
            return found
    return None


def project_root() -> Path:
    """Return the folder that is written to, and whose conf/ comes first.

    The project around the working directory; outside of any, the working directory itself.
    """
    return find_project() or Path.cwd()


def package_conf() -> Path:
    """Return litlab's own conf/: in the installed package, or at the top of its checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "conf"
    return installed if installed.is_dir() else package.parents[1] / "conf"


def conf_folders() -> list[Path]:
    """Return where the choices lie: the project's conf/ if it has one, then litlab's own."""
    own, package = project_root() / "conf", package_conf()
    if not own.is_dir() or (package.is_dir() and own.samefile(package)):
        return [package]
    return [own, package]


def choice_files(group: str) -> dict[str, Path]:
    """Return the files of a group of conf/ by the name of the choice; the project's come first."""
    found: dict[str, Path] = {}
    for folder in conf_folders():
        for path in sorted((folder / group).glob("*.yaml")):
            found.setdefault(path.stem, path)
    return found


def is_group(name: str) -> bool:
    """Return whether conf/ has a group of this name."""
    return any((folder / name).is_dir() for folder in conf_folders())


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
    """Let `_target_` name a user's own modules, which lie beside conf/ or in src/."""
    root = find_project()
    if root is None:
        return
    for folder in (root, root / "src"):
        if folder.is_dir() and str(folder) not in sys.path:
            sys.path.append(str(folder))


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


def seen_by_dvc(path: str) -> bool:
    """Whether the pipeline's first stage depends on a path: it lies in data/raw."""
    root = project_root()
    place = Path(os.path.normpath(root / Path(path).expanduser()))
    return place.is_relative_to(root / "data" / "raw")


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
        what = f"a link that points outside of {relative(parent)}"
        raise DataError(what, str(folder), "remove it; to use another disk, link data/prepared")
    return folder


def runs_folder() -> Path:
    """Return the folder that holds one folder a run."""
    return project_root() / "runs"
