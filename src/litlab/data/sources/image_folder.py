import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np

from litlab.config.hyperparameters import Count
from litlab.data.inputs.images import (
    GREY_MODES,
    SUFFIXES,
    Form,
    Header,
    ImageFiles,
    count_conversions,
    decode,
    in_threads,
    read_header,
)
from litlab.data.prepare.source_files import user_path
from litlab.data.raw import Raw, Reading
from litlab.data.sources.unused import refuse_unused
from litlab.data.spec import Array
from litlab.utils.errors import DataError, EnvironmentFault

# Folders that are no classes: a publisher's splits, pictures beside their masks.


SPLIT = re.compile(
    r"(?P<prefix>.*[\W_])?(?:(?P<train>train|training)|(?P<val>val|valid|validation|dev|eval)"
    r"|(?P<test>test|testing|pred))(?:[\W_]?(?:set|data|images|imgs|split))?",
    re.IGNORECASE,
)
MASK = re.compile(r"(?:.*[\W_])?(masks?|annotations?|segmentations?|labels?|gt)", re.IGNORECASE)
ENDING = re.compile(r"[\W_]*(masks?|gt|label|seg(mentation)?)$", re.IGNORECASE)
ALIKE = 0.5  # of the pictures have a mask


def refuse_splits(names: Iterable[str], where: str) -> None:
    """Refuse class folders that are a publisher's splits, such as `training_set` and `test_set`.

    Raises:
        DataError: One is named like a train split and another one like val or test.
    """
    # What begins alike belongs together: seg_train, seg_test. seg_pred has no labels: last.
    found: dict[str, dict[str, list[str]]] = {}
    for name in sorted(names, key=lambda name: (name.lower().endswith("pred"), name)):
        match = SPLIT.fullmatch(name)
        if match:
            kind = next(kind for kind in ("train", "val", "test") if match[kind])
            found.setdefault(match["prefix"] or "", {}).setdefault(kind, []).append(name)
    for kinds in found.values():
        if "train" in kinds and len(kinds) > 1:
            raise _splits(kinds, where)


def _splits(kinds: Mapping[str, Sequence[str]], where: str) -> DataError:
    shown = ", ".join(f"'{name}'" for found in kinds.values() for name in found)
    renamed = ", ".join(f"{found[0]} to {kind}" for kind, found in kinds.items())
    others = ", ".join(name for found in kinds.values() for name in found[1:])
    fix = f"rename {renamed}" + (f"; move {others} away" if others else "")
    return DataError(f"folders named like splits would be read as classes: {shown}", where, fix)


def refuse_masks(names: Mapping[str, Sequence[str]], where: str) -> None:
    """Refuse pictures and their masks as two classes.

    Args:
        names: The files of each class folder.
        where: The folder that holds these.

    Raises:
        DataError: A folder named like masks has files named like those of another.
    """
    for mask in filter(MASK.fullmatch, names):
        masks = {_stem(name) for name in names[mask]}
        for other, files in names.items():
            same = masks & {_stem(name) for name in files}
            if not MASK.fullmatch(other) and len(same) > ALIKE * len(masks):
                what = f"'{mask}' has a file for each of '{other}', like masks of images"
                fix = f"segmentation is not supported; rename '{mask}' if it is a class"
                raise DataError(what, where, fix)


def _stem(name: str) -> str:
    return ENDING.sub("", PurePosixPath(name).stem)


# Which files lie in `root/class/`, or in `root/{train,val,test}/class/`.


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


SHOWN = 5  # names in a message

Headers = dict[str, list[Header]]


class ImageFolder:
    """Pictures, those of each class in a folder: `root/class/`, or `root/{train,val,test}/class/`.

    They are decoded when they are asked for, in parallel, and need not fit in memory.

    Args:
        path: The root; relative to the project's.
        size: Height and width of what the model sees, in pixels, or one number for both; null: all
            pictures are of one size, which is kept.
        fit: What is done with a picture of another size. resize: it is squashed; crop: it is scaled
            to cover the size, then cut around its centre.
        color: rgb, gray, or auto: gray if all pictures are.
        on_error: What is done with a picture that cannot be decoded: refuse, or skip, which decodes
            every one twice.
        group_pattern: A regular expression, looked for in the file's name; what its first group
            matches is the column `group`, for `data.group`: `^(patient[0-9]+)_`.
        licence: Of the data, for the records.
        origin: Where they come from, for the records; null: the path.
    """

    def __init__(
        self,
        *,
        path: str,
        size: Count | tuple[Count, Count] | None = None,
        fit: Literal["resize", "crop"] = "resize",
        color: Literal["rgb", "gray", "auto"] = "auto",
        on_error: Literal["refuse", "skip"] = "refuse",
        group_pattern: str | None = None,
        licence: str = "not stated",
        origin: str | None = None,
    ) -> None:
        if size is None:
            refuse_unused(ImageFolder, locals(), ["fit"], "images keep their size without size")
        self.path, self.fit, self.color, self.on_error = path, fit, color, on_error
        self.size = (size, size) if isinstance(size, int) else size
        self.group = None if group_pattern is None else _compiled(group_pattern)
        self.licence, self.origin = licence, origin or path

    def read(self) -> Raw:
        """Look at every picture's header, and with `on_error: skip` at its pixels.

        Raises:
            DataError: A picture cannot be read, sizes differ, a class is empty, there is only one,
                or a link leads out of the root.
            EnvironmentFault: There is no such folder, or it cannot be read.
        """
        root = user_path(self.path)
        if not root.is_dir():
            raise DataError("is a file", self.path, "name the folder that holds the class folders")
        found = find_pictures(root)
        headers, notes = self._look(found)
        classes = sorted(set().union(*found.labels.values()))
        if len(classes) < 2:
            fix = "name the folder that holds a folder for each class"
            raise DataError(f"there is a single class, '{classes[0]}'", self.path, fix)
        form = self._form(found, headers)
        modes = (header.mode for part in headers.values() for header in part)
        notes += filter(None, [count_conversions(modes, form.channels)])
        numbers = {name: number for number, name in enumerate(classes)}
        return Raw(
            kind="image",
            task="classification",
            parts={
                part: (
                    ImageFiles(root, names, form),
                    np.array([numbers[label] for label in found.labels[part]], dtype=np.int64),
                )
                for part, names in found.names.items()
            },
            classes=classes,
            columns={part: self._columns(names) for part, names in found.names.items()},
            image_fit=self.fit if self.size else None,
            licence=self.licence,
            origin=self.origin,
            files=[root],
            notes=lambda: notes,
            reading=Reading(parts=found.folders()),
        )

    def _look(self, found: ClassFolders) -> tuple[Headers, list[str]]:
        """Return the headers by part, and notes; what is skipped is taken out of `found`."""
        look = partial(_look_at, found.root, self.on_error == "skip")
        headers: Headers = {}
        bad: list[DataError] = []
        for part, names in found.names.items():
            seen = in_threads(look, names)
            bad += [header for header in seen if isinstance(header, DataError)]
            kept = [row for row, header in enumerate(seen) if isinstance(header, Header)]
            lost = set(found.labels[part])
            headers[part] = [header for header in seen if isinstance(header, Header)]
            found.names[part] = [names[row] for row in kept]
            found.labels[part] = [found.labels[part][row] for row in kept]
            lost -= set(found.labels[part])
            if lost and self.on_error == "skip":
                what = f"no readable images of class '{min(lost)}'"
                raise DataError(what, self.path, "repair them, or remove the folder")
        if bad and self.on_error == "refuse":
            more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
            fix = "repair or remove it, or set data.source.on_error=skip"
            raise DataError(f"{bad[0].what}{more}", bad[0].where, fix)
        notes = []
        if bad:
            where = [os.path.relpath(error.where, found.root) for error in bad]
            notes.append(f"{len(bad)} images left out that cannot be decoded: {_listed(where)}")
        if found.others:
            suffixes = [f"{count} {suffix}" for suffix, count in sorted(found.others.items())]
            notes.append(f"{found.others.total()} other files left out: {_listed(suffixes)}")
        return headers, notes

    def _form(self, found: ClassFolders, headers: Mapping[str, list[Header]]) -> Form:
        together = [header for part in headers.values() for header in part]
        gray = self.color == "gray" or (
            self.color == "auto" and all(header.mode in GREY_MODES for header in together)
        )
        channels = 1 if gray else 3
        if self.size:
            return Form(channels, *self.size, self.fit)
        first, *others = [name for names in found.names.values() for name in names]
        height, width = together[0].height, together[0].width
        differing = [
            f"{name} {header.width}x{header.height}"
            for name, header in zip(others, together[1:], strict=True)
            if (header.height, header.width) != (height, width)
        ]
        if differing:
            raise DataError(
                f"{first} is {width}x{height} pixels, {len(differing)} others are not: "
                + _listed(differing),
                self.path,
                f"set data.source.size: one number, or [{height},{width}] for height and width",
            )
        return Form(channels, height, width)

    def _columns(self, names: list[str]) -> dict[str, Array]:
        """What a split may go by: the files' names without suffix, and the pattern's matches."""
        files = [PurePosixPath(name) for name in names]
        columns = {"file": np.array([file.stem for file in files])}
        if self.group is not None:
            matches = [self.group.search(file.name) for file in files]
            groups = [match.group(1) if match else None for match in matches]
            unmatched = [str(f) for f, group in zip(files, groups, strict=True) if group is None]
            if unmatched:
                what = f"{len(unmatched)} names do not match '{self.group.pattern}'"
                fix = "change data.source.group_pattern, or rename them"
                raise DataError(f"{what}: {_listed(unmatched)}", self.path, fix)
            columns["group"] = np.array(groups)
        return columns


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ValueError(
            f"group_pattern '{pattern}' is not a regular expression: {error}"
        ) from None
    if not compiled.groups:
        raise ValueError(f"group_pattern '{pattern}' has no group: put it in parentheses ( )")
    return compiled


def _look_at(root: Path, whole: bool, name: str) -> Header | DataError:
    """Return a picture's header, or what is wrong with it; `whole` decodes its pixels too."""
    try:
        header = read_header(root / name)
        if whole:
            decode(root / name, Form(3, header.height, header.width))
    except DataError as error:
        return error.with_traceback(None)  # which would keep the picture in memory
    return header


def _listed(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
