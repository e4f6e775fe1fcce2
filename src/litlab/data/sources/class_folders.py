"""Which files lie in `root/class/`, or in `root/{train,val,test}/class/`."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from litlab.data.inputs.images import SUFFIXES
from litlab.data.sources.folder_names import refuse_masks, refuse_splits
from litlab.utils.errors import DataError, EnvironmentFault

PARTS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
Entry = os.DirEntry[str]


@dataclass
class ClassFolders:
    """Pictures by part and class.

    Attributes:
        root: What the names are relative to.
        names: Of the pictures, by part; sorted within their class, the classes sorted too.
        labels: The class of each, by part.
        others: How many files are no pictures, by suffix.
    """

    root: Path
    names: dict[str, list[str]] = field(default_factory=dict)
    labels: dict[str, list[str]] = field(default_factory=dict)
    others: Counter[str] = field(default_factory=Counter)

    def add(self, folder: str, part: str) -> None:
        """Take in the classes of one part, with what lies in folders below them.

        Raises:
            DataError: There are none, one is empty, or a link leads out of the root.
        """
        entries = _entries(folder, self.root)
        classes = [entry for entry in entries if entry.is_dir()]
        if not classes:
            fix = "put the images of each class into a folder of its own"
            raise DataError("the folder has no class folders", folder, fix)
        self._note_others(entry for entry in entries if not entry.is_dir())
        names, labels = self.names.setdefault(part, []), self.labels.setdefault(part, [])
        for of_class in classes:
            files = list(_walk(of_class.path, self.root))
            pictures = sorted(self._name(file) for file in files if _is_picture(file))
            if not pictures:
                fix = f"remove the folder, or put some there: {', '.join(SUFFIXES)}"
                raise DataError(f"no images of class '{of_class.name}'", of_class.path, fix)
            self._note_others(file for file in files if not _is_picture(file))
            names += pictures
            labels += [of_class.name] * len(pictures)

    def folders(self) -> dict[str, str]:
        """Return the folder of each part, seen from the root's parent."""
        top = {part: self.root / Path(names[0]).parts[0] for part, names in self.names.items()}
        folders = {part: self.root if part == "all" else folder for part, folder in top.items()}
        return {
            part: f"{p.relative_to(self.root.parent).as_posix()}/" for part, p in folders.items()
        }

    def _name(self, entry: Entry) -> str:
        return Path(entry.path).relative_to(self.root).as_posix()

    def _note_others(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            self.others[os.path.splitext(entry.name)[1].lower() or entry.name] += 1


def find_pictures(root: Path) -> ClassFolders:
    """Look through a folder of pictures.

    The part is "all" where the root holds the classes, else the parts are those it holds. Links
    may not lead out of the root; what is hidden is passed over.

    Raises:
        DataError: There are no pictures, an empty class, a link that leads out of the root, or
            folders that are splits or masks and not classes.
        EnvironmentFault: A folder cannot be read.
    """
    found = ClassFolders(root)
    try:
        folders = [entry for entry in _entries(str(root), root) if entry.is_dir()]
        parts = {entry.path: PARTS.get(entry.name.lower(), "") for entry in folders}
        if "train" not in parts.values():
            refuse_splits((entry.name for entry in folders), str(root))
            found.add(str(root), "all")
        else:
            _check_parts(parts, root)
            for part in ("train", "val", "test"):
                for path in (path for path, name in parts.items() if name == part):
                    found.add(path, part if len(parts) > 1 else "all")
    except OSError as error:
        what = f"cannot be read: {error.strerror}"
        raise EnvironmentFault(what, str(error.filename), "correct its permissions") from None
    for part, names in found.names.items():
        by_class: dict[str, list[str]] = {}
        for label, name in zip(found.labels[part], names, strict=True):
            by_class.setdefault(label, []).append(name)
        refuse_masks(by_class, str(root))
    return found


def _check_parts(parts: dict[str, str], root: Path) -> None:
    """Refuse what is neither classes nor parts, and a part that appears twice."""
    seen: dict[str, str] = {}
    for path, part in parts.items():
        name = os.path.basename(path)
        if not part:
            what = f"the folder '{name}' next to train/, val/ or test/ is not a split"
            raise DataError(what, str(root), "move it elsewhere, or into train/, val/ or test/")
        if part in seen:
            what = f"the folders '{seen[part]}' and '{name}' are both {part}"
            raise DataError(what, str(root), "keep one of them")
        seen[part] = name


def _is_picture(entry: Entry) -> bool:
    return entry.name.lower().endswith(SUFFIXES)


def _walk(folder: str, root: Path, above: tuple[str, ...] = ()) -> Iterator[Entry]:
    """All files below a folder."""
    here = os.path.realpath(folder)
    if here in above:
        raise DataError("a link that points back to its own folder", folder, "remove it")
    for entry in _entries(folder, root):
        if entry.is_dir():
            yield from _walk(entry.path, root, (*above, here))
        else:
            yield entry


def _entries(folder: str, root: Path) -> list[Entry]:
    """What lies in a folder and is not hidden, sorted by name.

    A link out of the root could bring in any file of the machine's.
    """
    with os.scandir(folder) as found:
        entries = sorted((e for e in found if not e.name.startswith(".")), key=lambda e: e.name)
    for entry in entries:
        if entry.is_symlink() and not _stays(entry.path, root):
            fix = "put the file itself there (of DVC's: cache.type=copy, dvc checkout --relink)"
            raise DataError(
                f"a link that points outside of '{root.name}', or to itself", entry.path, fix
            )
        try:
            entry.name.encode()
        except UnicodeEncodeError:
            shown = os.fsencode(entry.path).decode("utf-8", "backslashreplace")
            raise DataError("a name that is not UTF-8", shown, "rename it") from None
    return entries


def _stays(link: str, root: Path) -> bool:
    try:
        return Path(link).resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError):  # a circle
        return False
