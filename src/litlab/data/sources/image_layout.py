"""Which pictures lie in a folder, of which class and split: by the names of the folders."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from litlab.config.quoting import typed
from litlab.data.inputs.images import SUFFIXES, passed_over
from litlab.data.raw import Decision
from litlab.data.spec import Array
from litlab.utils.errors import ConfigError, DataError, LitlabError, nearest, refuse

Entry = os.DirEntry[str]
PARTS = ("train", "val", "test")
SPLIT = re.compile(
    r"(?P<prefix>.*[\W_])?(?:(?P<train>train|training)|(?P<val>val|valid|validation|dev|eval)"
    r"|(?P<test>test|testing)|(?P<pred>pred|predict|unlabeled|unlabelled))"
    r"(?:[\W_]?(?:set|data|images|imgs|split))?",
    re.IGNORECASE,
)
MASK = re.compile(r"(?:.*[\W_])?(masks?|annotations?|segmentations?|labels?|gt)", re.IGNORECASE)
ENDING = re.compile(r"[\W_]*(masks?|gt|label|seg(mentation)?)$", re.IGNORECASE)
ALIKE = 0.5  # of the pictures have a mask
SHOWN = 5  # names in a message
# What people have in the place of pictures, and what to do about it.
_HEIC = "convert them, e.g. `magick mogrify -format jpg *.heic`"
_RAW = "convert them to JPEG or TIFF"
_VIDEO = "videos are not supported: take frames, e.g. `ffmpeg -i a.mp4 -vf fps=1 a_%04d.jpg`"
_VOLUME = "volumes are not supported: save slices as an array (N, H, W) in an .npz, for data=npz"
_ARRAY = "save all in one array (N, H, W) or (N, C, H, W) in an .npz, for data=npz"
OTHERS = {
    **dict.fromkeys((".heic", ".heif"), _HEIC),
    **dict.fromkeys((".cr2", ".nef", ".arw", ".dng", ".psd", ".svg", ".jxl"), _RAW),
    **dict.fromkeys((".mp4", ".avi", ".mov", ".mkv", ".webm", ".mpg"), _VIDEO),
    **dict.fromkeys((".dcm", ".nii", ".nrrd", ".mha", ".mhd"), _VOLUME),
    **dict.fromkeys((".npy", ".npz", ".mat", ".h5", ".hdf5"), _ARRAY),
}


@dataclass
class Pictures:
    """Pictures by part, with the class of each.

    Attributes:
        root: What the names are relative to.
        names: Of the pictures, by part; sorted within their class, the classes sorted too.
        labels: The class of each, by part.
        others: How many files are no pictures, by suffix.
        folders: Where each part is from, for people.
        columns: More of each picture, by part and name.
        decisions: What was settled that the user left open.
        left_out: Folders that were not read, with the reason.
        notes: What else the user should know.
        target: The column of the labels, if they are one.
    """

    root: Path
    names: dict[str, list[str]] = field(default_factory=dict)
    labels: dict[str, list[str]] = field(default_factory=dict)
    others: Counter[str] = field(default_factory=Counter)
    folders: dict[str, str] = field(default_factory=dict)
    columns: dict[str, dict[str, Array]] = field(default_factory=dict)
    decisions: list[Decision] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    target: str = ""

    def add(self, folder: Path, part: str, without: Sequence[Path] = ()) -> None:
        """Take in the classes of one part, with what lies in folders below them.

        Args:
            folder: The one that holds the class folders.
            part: all, train, val or test.
            without: Folders that are no classes.

        Raises:
            LitlabError: There are no classes, one is empty, or a link leads out of the root: all
                that is wrong, at once.
        """
        entries = entries_of(folder, self.root)
        classes = [e for e in entries if e.is_dir() and Path(e.path) not in without]
        self.folders[part] = f"{folder.relative_to(self.root.parent).as_posix()}/"
        if not classes:
            fix = "put the images of each class into a folder of its own, or give a table of labels"
            what = "the folder has no class folders"
            raise DataError(what, str(folder), f"{fix}: data.source.labels=labels.csv")
        self.count_others(entry for entry in entries if not entry.is_dir())
        names, labels = self.names.setdefault(part, []), self.labels.setdefault(part, [])
        problems: list[LitlabError] = []
        for of_class in classes:
            files = list(walk(of_class.path, self.root))
            pictures = sorted(self.name(file) for file in files if is_picture(file.name))
            if not pictures:
                problems.append(_no_pictures(of_class, files))
            self.count_others(file for file in files if not is_picture(file.name))
            names += pictures
            labels += [of_class.name] * len(pictures)
        refuse(problems)

    def name(self, entry: Entry) -> str:
        """Return a file's path below the root."""
        return Path(entry.path).relative_to(self.root).as_posix()

    def count_others(self, entries: Iterable[Entry]) -> None:
        """Remember files that are no pictures."""
        for entry in entries:
            self.others[os.path.splitext(entry.name)[1].lower() or entry.name] += 1


def _no_pictures(folder: Entry, files: Sequence[Entry]) -> DataError:
    """Say of a class without pictures what is there instead."""
    found = Counter(os.path.splitext(file.name)[1].lower() or file.name for file in files)
    held = ", ".join(f"{number} {suffix}" for suffix, number in sorted(found.items())[:SHOWN])
    what = f"no images of class '{folder.name}'" + (f": it holds {held}" if held else "")
    advice = [OTHERS[suffix] for suffix in sorted(found) if suffix in OTHERS]
    fix = advice[0] if advice else f"remove the folder, or put some there: {', '.join(SUFFIXES)}"
    return DataError(what, folder.path, fix)


# Which folders hold the classes of train, val and test.


@dataclass
class Layout:
    """The folder of each part, "all" where there is one; what was decided; what is left out."""

    folders: dict[str, Path]
    decisions: list[Decision] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)


def given_layout(root: Path, given: Mapping[str, str | None]) -> Layout:
    """Return the folders that the user named.

    Args:
        root: What they are relative to.
        given: By part; "." is the root.

    Raises:
        ConfigError: Train is not among them.
        DataError: One is not there, or lies outside of the root.
    """
    if given["train"] is None:
        setting = next(f"data.source.{part}" for part in PARTS if given[part] is not None)
        what = f"{setting} is set, but the folder of the train split is not"
        raise ConfigError(what, "data.source.train", "set it, or '.' for the root itself")
    found: dict[str, Path] = {}
    problems: list[LitlabError] = []
    top = [entry.name for entry in entries_of(root, root) if entry.is_dir()]
    for part, name in given.items():
        folder = root / (name or "")
        if name is None:
            continue
        if not folder.is_dir() or not _stays(str(folder), root):
            what = f"there is no folder '{name}' in it"
            fix = f"set data.source.{part}: {nearest(name, top)}"
            problems.append(DataError(what, str(root), fix))
        found[part] = folder
    refuse(problems)
    used = {folder.relative_to(root).parts[:1] for folder in found.values()}
    others = [] if () in used else [name for name in top if (name,) not in used]
    reason = "not named in data.source.train, val or test"
    folders = found if len(found) > 1 else {"all": found["train"]}
    return Layout(folders, [], {f"{name}/": reason for name in others})


def find_layout(root: Path) -> Layout:
    """Return which folders hold the classes, by their names.

    One folder that holds everything is entered. Folders named like splits are taken for splits
    where one is for training; what has no class folders is for `litlab predict`.

    Raises:
        LitlabError: Folders that are splits have others beside them, or two are the same split.
    """
    base = descended(root, root)
    folders = [entry for entry in entries_of(base, root) if entry.is_dir()]
    named = _named_splits([entry.name for entry in folders])
    if not _is_split(base, root, named, folders):
        layout = Layout({"all": base})
        if base != root:
            why = "the one folder in it that holds others"
            layout.decisions.append(_decision("train", base, root, why))
        return layout
    return _by_names(base, root, named, folders)


def _named_splits(names: Iterable[str]) -> dict[str, list[str]]:
    """Names by the split that they are named like; those that begin alike belong together."""
    groups: dict[str, dict[str, list[str]]] = {}
    for name in names:
        match = SPLIT.fullmatch(name)
        if match:
            kind = next(kind for kind in (*PARTS, "pred") if match[kind])
            groups.setdefault((match["prefix"] or "").lower(), {}).setdefault(kind, []).append(name)
    return max((g for g in groups.values() if "train" in g), key=len, default={})


def refuse_splits(names: Iterable[str], where: str) -> None:
    """Refuse class folders that are a publisher's splits, such as `training_set` and `test_set`.

    Raises:
        DataError: One is named like a train split and another one like val or test.
    """
    named = _named_splits(sorted(names))
    if len(named) < 2:
        return
    shown = ", ".join(f"'{name}'" for found in named.values() for name in found)
    renamed = ", ".join(f"{found[0]} to {part}" for part, found in named.items() if part in PARTS)
    others = [name for part, found in named.items() for name in found[part in PARTS :]]
    fix = f"rename {renamed}" + (f"; move {', '.join(others)} away" if others else "")
    raise DataError(f"folders named like splits would be read as classes: {shown}", where, fix)


def _is_split(
    base: Path, root: Path, named: Mapping[str, list[str]], folders: Sequence[Entry]
) -> bool:
    """Whether these are splits: train/ beside others, or alone; a class may be called train too."""
    if not named:
        return False
    if len(named) > 1:
        return True
    inside = entries_of(base / named["train"][0], root)
    return len(folders) == 1 or any(entry.is_dir() for entry in inside)


def _by_names(
    base: Path, root: Path, named: Mapping[str, list[str]], folders: Sequence[Entry]
) -> Layout:
    problems: list[LitlabError] = []
    found: dict[str, Path] = {}
    layout = Layout(found)
    train = descended(base / named["train"][0], root)
    classes = {entry.name for entry in entries_of(train, root) if entry.is_dir()}
    for part in PARTS:
        names = named.get(part, [])
        if len(names) > 1:
            what = f"the folders '{names[0]}' and '{names[1]}' are both {part}"
            fix = f"set data.source.train=... data.source.{part}={names[0]}, or keep one of them"
            problems.append(DataError(what, str(base), fix.replace("...", named["train"][0])))
        if names:
            folder = descended(base / names[0], root, classes)
            number = _unlabelled(folder, root)
            if number and part != "train":
                layout.left_out[_shown(base / names[0], root)] = _to_predict(number)
            else:
                found[part] = folder
    known = {name for names in named.values() for name in names}
    beside = [entry for entry in folders if entry.name not in known]
    for entry in [e for e in folders if e.name in named.get("pred", ())] + beside:
        number = _unlabelled(Path(entry.path), root)
        pictures = any(is_picture(file.name) for file in walk(entry.path, root))
        if not pictures or entry.name in known:
            reason = _to_predict(number) if pictures else "no images in it"
            layout.left_out[_shown(Path(entry.path), root)] = reason
            beside = [other for other in beside if other is not entry]
    settings = [typed(f"data.source.{p}={_relative(f, root)}") for p, f in found.items()]
    if beside:
        shown = ", ".join(f"'{entry.name}'" for entry in beside)
        of = ", ".join(f"{name}/" for name in known)
        what = f"next to {of} there are folders that are not a split: {shown}"
        fix = f"leave them out with {' '.join(settings)}; if all are classes, data.source.train=."
        problems.append(DataError(what, str(base), fix))
    refuse(problems)
    if any(folder != root / part for part, folder in found.items()):
        why = "folders named like splits"
        layout.decisions += [_decision(part, folder, root, why) for part, folder in found.items()]
    if len(found) == 1:
        layout.folders = {"all": found["train"]}
    return layout


def descended(folder: Path, root: Path, classes: Iterable[str] = ()) -> Path:
    """Return the folder, or the one below it that holds all there is: seg_train/seg_train/...

    A folder of pictures only is a class, and so is one of these names.
    """
    while True:
        entries = entries_of(folder, root)
        inner = [entry for entry in entries if entry.is_dir()]
        if len(inner) != 1 or inner[0].name in classes or inner[0].is_symlink():
            return folder
        if any(is_picture(entry.name) for entry in entries):
            return folder
        below = entries_of(Path(inner[0].path), root)
        alike = inner[0].name == folder.name and any(is_picture(entry.name) for entry in below)
        if not alike and not any(entry.is_dir() for entry in below):
            return folder
        folder = Path(inner[0].path)


def _unlabelled(folder: Path, root: Path) -> int:
    """How many pictures lie in a folder that has no class folders; 0 if it has some."""
    folder = descended(folder, root)
    entries = entries_of(folder, root)
    if any(entry.is_dir() for entry in entries):
        return 0
    return sum(is_picture(entry.name) for entry in entries)


def _to_predict(number: int) -> str:
    why = f"{number:,} images without class folders" if number else "named as what is to predict"
    return f"{why}: label them with `litlab predict`"


def _decision(part: str, folder: Path, root: Path, why: str) -> Decision:
    return Decision(setting=f"data.source.{part}", value=_relative(folder, root), why=why)


def _relative(folder: Path, root: Path) -> str:
    return folder.relative_to(root).as_posix()


def _shown(folder: Path, root: Path) -> str:
    return f"{_relative(folder, root)}/"


# Pictures beside their masks.


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
                fix = "segmentation is not supported; if both are classes, set data.source.train=."
                raise DataError(what, where, fix)


def _stem(name: str) -> str:
    return ENDING.sub("", PurePosixPath(name).stem)


# Files and folders, sorted; what is hidden or left behind by a system is passed over.


def is_picture(name: str) -> bool:
    """Whether a file is named like a picture."""
    return name.lower().endswith(SUFFIXES)


def walk(folder: str, root: Path, above: tuple[str, ...] = ()) -> Iterator[Entry]:
    """Give all files below a folder."""
    here = os.path.realpath(folder)
    if here in above:
        raise DataError("a link that points back to its own folder", folder, "remove it")
    for entry in entries_of(Path(folder), root):
        if entry.is_dir():
            yield from walk(entry.path, root, (*above, here))
        else:
            yield entry


def entries_of(folder: Path, root: Path) -> list[Entry]:
    """Return what lies in a folder, sorted by name.

    A link out of the root could bring in any file of the machine's.

    Raises:
        DataError: There is such a link, or a name that is not UTF-8.
    """
    with os.scandir(str(folder)) as found:
        entries = sorted((e for e in found if not passed_over(e.name)), key=lambda e: e.name)
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
