"""Files of the user's and of `prepare`: where they lie, whether they changed, who is at work."""

import hashlib
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from math import inf
from pathlib import Path

from litlab.utils.errors import DataError, EnvironmentFault
from litlab.utils.files import dumps, read_json
from litlab.utils.locks import locked
from litlab.utils.output import say
from litlab.utils.paths import not_a_file, project_root, relative, store_root
from litlab.utils.signals import cleaning_up

# What DVC knows of a file of the user's that is not here.


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


def user_path(path: str) -> Path:
    """Return a path of the user's, seen from the project's root where it is relative.

    Raises:
        EnvironmentFault: There is nothing there.
        DataError: It is neither a file nor a folder.
    """
    found = Path(path).expanduser()
    found = found if found.is_absolute() else project_root() / found
    if not found.exists():
        raise EnvironmentFault("there is no such file or folder", path, how_to_get(found))
    return found if found.is_dir() else require_file(found)


def require_file(path: Path) -> Path:
    """Return a path that is about to be opened, unless it is a folder, a pipe or a device.

    Every reader of a user's files asks here first: opening a named pipe waits for a writer that may
    never come, and reading a device may never end.

    Raises:
        DataError: It is one of these.
    """
    found = not_a_file(path)
    if found:
        fix = "name the file" if found == "a folder" else "give a regular file"
        raise DataError(f"is {found}, not a file", str(path), fix)
    return path


def require_files_below(folder: Path) -> None:
    """Refuse a folder that holds a pipe, a socket or a device, for readers that are not litlab's.

    Raises:
        DataError: It holds one.
    """
    for path in folder.rglob("*"):
        if not path.is_dir():
            require_file(path)


def fingerprints(paths: Iterable[Path]) -> dict[str, str]:
    """Return a SHA-256 for each file or folder: of names and contents, not of times."""
    return {str(relative(path)): _content(path) for path in paths}


def changed(recorded: Mapping[str, str], memo: Path) -> str | None:
    """Return the first of the recorded files that is no longer what it was.

    One that is not here is not missed: what was prepared from it can be used without it. Contents
    are read again only where a size or a time differs from those noted in `memo`.
    """
    try:
        seen = read_json(memo)
    except (OSError, ValueError):
        seen = {}
    seen = seen if isinstance(seen, dict) else {}
    now = {}
    for name, content in recorded.items():
        path = project_root() / name
        if not path.exists():
            continue
        now[name] = f"{content} {_state(path)}"
        if seen.get(name) != now[name] and _content(path) != content:
            return name
    if now != seen:
        with suppress(OSError):  # a folder that cannot be written to: contents are read next time
            memo.write_text(dumps(now))
    return None


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.is_file())
    return [require_file(path)]


def _content(path: Path) -> str:
    digest = hashlib.sha256()
    for file in _files(path):
        with file.open("rb") as opened:
            inner = hashlib.file_digest(opened, "sha256").digest()
        digest.update(file.relative_to(path).as_posix().encode() + b"\0" + inner)
    return digest.hexdigest()


def _state(path: Path) -> str:
    digest = hashlib.sha256()
    for file in _files(path):
        stat = file.stat()
        digest.update(f"{file.relative_to(path)} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def cannot_write(error: Exception, folder: Path) -> EnvironmentFault:
    """Return the user's view of a failed write."""
    fix = "free some space, or correct its permissions"
    return EnvironmentFault(f"cannot write: {error}", str(folder), fix)


@contextmanager
def staged_folder(folder: Path) -> Iterator[tuple[Path, Path]]:
    """Give an empty folder that takes another's place at the end, and a scratch folder beside it.

    Nothing is left of either when the block fails, and what a killed process left is swept away at
    the next start: call it while `alone`.

    Raises:
        EnvironmentFault: The place cannot be written to.
    """
    with ExitStack() as made:
        try:
            made.enter_context(cleaning_up())
            _sweep(folder)
            staged, scratch = (
                Path(tempfile.mkdtemp(prefix=_prefix(folder), dir=folder.parent)) for _ in range(2)
            )
            made.callback(shutil.rmtree, staged, ignore_errors=True)
            made.callback(shutil.rmtree, scratch, ignore_errors=True)
            staged.chmod(0o755)
        except OSError as error:
            raise cannot_write(error, folder) from None
        yield staged, scratch
        try:
            _replace(folder, staged)
        except OSError as error:
            raise cannot_write(error, folder) from None


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Let one process at a time make a folder of prepared data; the others wait.

    Raises:
        EnvironmentFault: The place cannot be written to.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = folder.parent / f".{folder.name}.lock"
        lock.touch()
    except OSError as error:
        raise cannot_write(error, folder) from None
    with locked(lock, inf, lambda _: say(f"waiting: another process prepares {folder.name}")):
        yield


def _sweep(folder: Path) -> None:
    """Remove what a killed process left; the lock says that nobody is at work on it."""
    old = _set_aside(folder)
    if old.exists() and not folder.exists():
        old.rename(folder)  # killed between the two renames
    for left in folder.parent.iterdir():
        if left.name.startswith(_prefix(folder)):
            shutil.rmtree(left, ignore_errors=True)


def _prefix(folder: Path) -> str:
    """What a folder's temporary ones begin with; no data set's name has a tilde.

    With a dot there, the folders of `a` and of `a.b` could not be told apart.
    """
    return f".{folder.name}~"


def _set_aside(folder: Path) -> Path:
    """Where the old data wait while the new ones take their place."""
    return folder.with_name(f"{_prefix(folder)}old")


def _replace(folder: Path, staged: Path) -> None:
    """Put the finished folder in its place; should that fail, the old one is put back."""
    old = _set_aside(folder)
    if folder.exists():
        folder.rename(old)
    try:
        staged.rename(folder)
    except OSError:
        if old.exists():
            old.rename(folder)
        raise
    if old.is_symlink():
        old.unlink()  # the place was a link: what it leads to stays
    shutil.rmtree(old, ignore_errors=True)
