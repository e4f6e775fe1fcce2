"""What DVC knows of a file of the user's that is not here."""

from pathlib import Path

from litlab.utils.paths import project_root, store_root


def how_to_get(path: Path) -> str:
    """Return what to do about a missing file or folder, by what DVC has of it."""
    note = _note_of(path)
    if note is None and _is_in_original(path):
        return (
            "let DVC keep it (`dvc add`): a queued experiment runs in a copy of the repository, "
            "which has only what git or DVC knows"
        )
    if note is None:
        return "put the data there (`dvc pull` if DVC has it)"
    name = note.relative_to(project_root())
    if _has_remote():
        return f"DVC keeps it: `dvc pull {name}`"
    return (
        f"DVC keeps it ({name}), but no remote is configured to pull it from: `dvc remote add -d "
        f"NAME ADDRESS` with the address its owner pushes to, then `dvc pull {name}`"
    )


def _note_of(path: Path) -> Path | None:
    """The `.dvc` file of a path, or of the folder that it lies in."""
    root = project_root()
    if not path.is_relative_to(root):
        return None
    for place in (path, *path.parents):
        note = place.with_name(f"{place.name}.dvc")
        if place == root:
            break
        if note.is_file():
            return note
    return None


def _is_in_original(path: Path) -> bool:
    """Whether this is DVC's copy of a repository, which lacks what the original has."""
    root, original = project_root(), store_root()
    if root == original or not path.is_relative_to(root):
        return False
    return (original / path.relative_to(root)).exists()


def _has_remote() -> bool:
    """Whether DVC knows a remote, be it by a configuration of the project's or of the user's."""
    from dvc.config import Config, ConfigError

    root = project_root()
    folder = next((f / ".dvc" for f in (root, *root.parents) if (f / ".dvc").is_dir()), None)
    try:
        return folder is not None and bool(Config(dvc_dir=str(folder))["remote"])
    except ConfigError:  # `dvc pull` says better what is wrong with it
        return True
