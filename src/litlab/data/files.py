"""The user's own files: where they lie, and whether they have changed."""

from pathlib import Path

from litlab.errors import EnvironmentFault
from litlab.paths import project_root


def user_path(path: str) -> Path:
    """Return a path of the user's, seen from the project's root where it is relative.

    Raises:
        EnvironmentFault: There is nothing there.
    """
    found = Path(path).expanduser()
    found = found if found.is_absolute() else project_root() / found
    if not found.exists():
        raise EnvironmentFault(
            "there is no such file or folder", path, "put the data there (`dvc pull` if DVC has it)"
        )
    return found
