import os
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from statistics import median
from typing import Any, Literal

import numpy as np

from litlab.config.hyperparameters import Count
from litlab.data.inputs.images import (
    DEEP_MODES,
    GREY_MODES,
    Form,
    Header,
    ImageFiles,
    count_conversions,
    decode,
    in_threads,
    read_header,
)
from litlab.data.prepare.source_files import user_path
from litlab.data.raw import Decision, Raw, Reading
from litlab.data.sources.image_layout import (
    OTHERS,
    SHOWN,
    Pictures,
    find_layout,
    given_layout,
    is_picture,
    refuse_masks,
    walk,
)
from litlab.data.sources.label_file import JOINT, Asked, Labelled, find_table
from litlab.data.spec import Array
from litlab.utils.errors import ConfigError, DataError, EnvironmentFault, LitlabError, refuse
from litlab.utils.output import counted

ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")
SIDE = 64  # pixels, of pictures of several sizes where the user sets none
Headers = dict[str, list[Header]]
Task = Literal["classification", "multi_label", "regression"]


class ImageFolder:
    """Pictures, those of each class in a folder: `root/class/`, or `root/{train,val,test}/class/`.

    Or with their labels in a table beside them. They are decoded when they are asked for, in
    parallel, and need not fit in memory.

    Args:
        path: The root; relative to the project's.
        size: Height and width of what the model sees, in pixels, or one number for both; null: the
            size that all pictures have, else 64 or less.
        fit: What is done with a picture of another size. resize: it is squashed; crop: it is scaled
            to cover the size, then cut around its centre.
        color: rgb, gray, or auto: gray if all pictures are.
        dtype: uint8: pixels from 0 to 255, 16 bits are scaled to 8; float32: the values as they are
            stored; null: float32 where all pictures have 16 bits or floats.
        train: The folder of the train split's class folders, below the root; "." is the root, whose
            folders are classes, whatever their names; null: by the folders' names.
        val: The folder of the validation split's class folders.
        test: The folder of the test split's class folders.
        labels: A table of labels, below the root: CSV or JSON; null: where there are no class
            folders, the one whose rows name pictures.
        file_column: Its column of file names; null: the one whose cells name pictures.
        label_column: Its column of labels; null: one named like labels, or the only one.
        split_column: Its column of splits: train, val, test; null: one named like that.
        task: classification; multi_label: any number of labels an image, `a|b` in the table;
            regression: labels of the table are numbers; auto: by the labels.
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
        dtype: Literal["uint8", "float32"] | None = None,
        train: str | None = None,
        val: str | None = None,
        test: str | None = None,
        labels: str | None = None,
        file_column: str | None = None,
        label_column: str | None = None,
        split_column: str | None = None,
        task: Literal["auto", "classification", "multi_label", "regression"] = "auto",
        on_error: Literal["refuse", "skip"] = "refuse",
        group_pattern: str | None = None,
        licence: str = "not stated",
        origin: str | None = None,
    ) -> None:
        self.path, self.fit, self.color, self.on_error = path, fit, color, on_error
        self.dtype, self.task = dtype, task
        self.size = (size, size) if isinstance(size, int) else size
        self.group = None if group_pattern is None else _compiled(group_pattern)
        self.folders = {"train": train, "val": val, "test": test}
        self.asked = Asked(labels, file_column, label_column, split_column)
        self.licence, self.origin = licence, origin or path

    def read(self) -> Raw:
        """Look at every picture's header, and with `on_error: skip` at its pixels.

        Raises:
            DataError: A picture cannot be read, a class is empty, there is only one, it is not
                clear what the folders are, or a link leads out of the root.
            ConfigError: A setting has no effect.
            EnvironmentFault: There is no such folder, or it cannot be read.
        """
        root = user_path(self.path)
        if not root.is_dir():
            fix = "name the folder that holds the class folders"
            if root.suffix.lower() in ARCHIVES:
                fix = "unpack the archive, and name the folder that it makes"
            raise DataError("is a file", self.path, fix)
        try:
            found, table = self._find(root)
        except OSError as error:
            what = f"cannot be read: {error.strerror}"
            raise EnvironmentFault(what, str(error.filename), "correct its permissions") from None
        headers, notes = self._look(found)
        form, form_decisions, suggestions = self._form(found, headers)
        modes = [header.mode for part in headers.values() for header in part]
        kept = DEEP_MODES if form.dtype == "float32" else ()
        converted = count_conversions((m for m in modes if m not in kept), form.channels)
        task, classes, numbers = self._targets(found, table)
        return Raw(
            kind="image",
            task=task,
            parts={
                part: (ImageFiles(root, names, form), numbers[part])
                for part, names in found.names.items()
            },
            classes=classes,
            targets=[] if classes else [found.target],
            columns={part: self._columns(found, part) for part in found.names},
            image_fit=form.fit,
            licence=self.licence,
            origin=self.origin,
            files=[root],
            place=lambda part, row: found.names[part][row],
            notes=lambda: [*found.notes, *notes, *filter(None, [converted])],
            reading=Reading(
                decisions=(*found.decisions, *form_decisions),
                suggestions=tuple(suggestions),
                target=found.target,
                parts=found.folders,
                left_out=found.left_out,
                doubts=tuple(self._doubts(found, headers)),
            ),
        )

    def _find(self, root: Path) -> tuple[Pictures, Labelled | None]:
        """The pictures of each part with their labels, and the table that these are from."""
        given = any(name is not None for name in self.folders.values())
        tabled = [name for name, value in vars(self.asked).items() if value is not None]
        if given and tabled:
            what = f"data.source.{tabled[0]} and folders of splits are both set"
            fix = "name the splits in a column of the table: data.source.split_column"
            raise ConfigError(what, f"data.source.{tabled[0]}", fix)
        problem: LitlabError | None = None
        if self.asked.labels is None:
            try:
                found = self._find_folders(root, given)
                if len(set().union(*found.labels.values())) > 1 or given:
                    self._refuse_unused_table(tabled)
                    return found, None
                single = min(set().union(*found.labels.values()))
                fix = "name the folder that holds a folder for each class"
                fix += ", or a table of labels: data.source.labels=labels.csv"
                problem = DataError(f"there is a single class, '{single}'", self.path, fix)
            except LitlabError as error:
                problem = error
                if given:
                    raise
        files = list(walk(str(root), root))
        pictures = Pictures(root)
        names = sorted(pictures.name(file) for file in files if is_picture(file.name))
        table = find_table(root, names, self.asked)
        if table is None:
            assert problem is not None
            raise problem
        return self._find_labelled(pictures, files, table), table

    def _refuse_unused_table(self, tabled: Sequence[str]) -> None:
        unused = [*tabled, *(["task"] if self.task != "auto" else [])]
        if unused:
            setting = f"data.source.{unused[0]}"
            what = f"{setting} has no effect: the images lie in class folders"
            raise ConfigError(what, setting, "leave it out, or set data.source.labels")

    def _find_folders(self, root: Path, given: bool) -> Pictures:
        layout = given_layout(root, self.folders) if given else find_layout(root)
        found = Pictures(root, decisions=layout.decisions, left_out=layout.left_out)
        problems: list[LitlabError] = []
        for part, folder in layout.folders.items():
            try:
                found.add(folder, part, [f for f in layout.folders.values() if f != folder])
            except LitlabError as error:
                problems.append(error)
        refuse(problems)
        for part, names in found.names.items() if not given else ():
            by_class: dict[str, list[str]] = {}
            for label, name in zip(found.labels[part], names, strict=True):
                by_class.setdefault(label, []).append(name)
            refuse_masks(by_class, str(root))
        return found

    def _find_labelled(
        self, pictures: Pictures, files: Sequence["os.DirEntry[str]"], table: Labelled
    ) -> Pictures:
        own = table.path.relative_to(pictures.root).as_posix()
        pictures.count_others(
            f for f in files if not is_picture(f.name) and f.path != str(table.path)
        )
        split = table.parts
        if split and set(split.values()) == {"train"}:
            split = {}
        # By class, then by name, as class folders are read.
        for name in sorted(table.labels, key=lambda name: (table.labels[name], name)):
            part = split[name] if split else "all"
            pictures.names.setdefault(part, []).append(name)
            pictures.labels.setdefault(part, []).append(table.labels[name])
        for part, names in pictures.names.items():
            pictures.folders[part] = own
            pictures.columns[part] = {
                column: np.array([cells[name] for name in names])
                for column, cells in table.columns.items()
            }
        pictures.decisions += table.decisions
        pictures.notes += table.notes
        pictures.target = table.target
        return pictures

    def _targets(
        self, found: Pictures, table: Labelled | None
    ) -> tuple[Task, list[str], dict[str, Array]]:
        """The task, the classes, none of a regression, and each part's targets."""
        several = any(JOINT in label for labels in found.labels.values() for label in labels)
        if self.task == "multi_label" or (self.task == "auto" and several):
            return "multi_label", *self._several(found)
        amounts = self.task == "regression" or (
            self.task == "auto" and table is not None and table.amounts
        )
        if not amounts:
            classes = sorted(set().union(*found.labels.values()))
            if len(classes) < 2:
                fix = "name the folder that holds a folder for each class"
                raise DataError(f"there is a single class, '{classes[0]}'", self.path, fix)
            numbers = {name: number for number, name in enumerate(classes)}
            names = [name.replace(JOINT, "|") for name in classes]
            return (
                "classification",
                names,
                {
                    part: np.array([numbers[label] for label in labels], dtype=np.int64)
                    for part, labels in found.labels.items()
                },
            )
        if self.task == "auto":
            example = next(iter(found.labels.values()))[0]
            why = f"the labels of '{found.target}' are amounts, such as {example}"
            found.decisions.append(
                Decision(setting="data.source.task", value="regression", why=why)
            )
        try:
            return (
                "regression",
                [],
                {
                    part: np.array([[float(label)] for label in labels], dtype=np.float32)
                    for part, labels in found.labels.items()
                },
            )
        except ValueError as error:
            fix = "set data.source.task=classification, or correct the table"
            raise DataError(f"a label is no number: {error}", self.path, fix) from None

    def _several(self, found: Pictures) -> tuple[list[str], dict[str, Array]]:
        """The classes, and 0 or 1 for each of them `(N, K)`, uint8, by part."""
        lists = {p: [set(label.split(JOINT)) for label in x] for p, x in found.labels.items()}
        classes = sorted(set().union(*(labels for x in lists.values() for labels in x)))
        if self.task == "auto":
            many = sum(len(labels) > 1 for x in lists.values() for labels in x)
            why = f"{many:,} images have several labels in '{found.target}'"
            task = Decision(setting="data.source.task", value="multi_label", why=why)
            found.decisions.append(task)
        return classes, {
            part: np.array([[c in labels for c in classes] for labels in x], dtype=np.uint8)
            for part, x in lists.items()
        }

    def _look(self, found: Pictures) -> tuple[Headers, list[str]]:
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
            more = found.columns.get(part, {})
            found.columns[part] = {name: cells[kept] for name, cells in more.items()}
            lost -= set(found.labels[part])
            if lost and self.on_error == "skip":
                what = f"no readable images of class '{min(lost)}'"
                raise DataError(what, self.path, "repair them, or remove the folder")
        if bad and self.on_error == "refuse":
            more_bad = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
            fix = "repair or remove it, or set data.source.on_error=skip"
            fix = bad[0].fix if bad[0].fix not in fix else fix
            raise DataError(f"{bad[0].what}{more_bad}", bad[0].where, fix)
        notes = []
        if bad:
            where = [os.path.relpath(error.where, found.root) for error in bad]
            notes.append(f"{len(bad)} images left out that cannot be decoded: {_listed(where)}")
        if found.others:
            suffixes = [f"{count} {suffix}" for suffix, count in sorted(found.others.items())]
            notes.append(
                f"{counted(found.others.total(), 'other file')} left out: {_listed(suffixes)}"
            )
        return headers, notes

    def _form(
        self, found: Pictures, headers: Mapping[str, list[Header]]
    ) -> tuple[Form, list[Decision], list[Decision]]:
        """What every picture becomes, with decisions and suggestions."""
        together = [header for part in headers.values() for header in part]
        names = [name for part in found.names.values() for name in part]
        decisions: list[Decision] = []
        suggestions: list[Decision] = []

        def decide(setting: str, value: Any, why: str, into: list[Decision] = decisions) -> None:
            into.append(Decision(setting=f"data.source.{setting}", value=value, why=why))

        many = len(together)
        grey = sum(header.mode in GREY_MODES for header in together)
        gray = self.color == "gray" or (self.color == "auto" and grey == many)
        if self.color == "auto" and 0 < grey < many:
            decide("color", "rgb", f"{many - grey:,} of {many:,} images are in colour")
        deep = sum(header.mode in DEEP_MODES for header in together)
        floats = sum(header.mode == "F" for header in together)
        dtype = self.dtype or ("float32" if deep == many or floats else "uint8")
        if self.dtype is None and dtype == "float32":
            what = "floats" if floats else "16 bits"
            decide("dtype", dtype, f"{floats or deep:,} of {many:,} images hold {what} a pixel")
        elif self.dtype is None and deep:
            why = f"{deep:,} of {many:,} images hold 16 bits a pixel, and are scaled to 8"
            decide("dtype", "float32", why, suggestions)
        sizes = {(header.height, header.width) for header in together}
        height, width = self.size or (together[0].height, together[0].width)
        fit = self.fit if self.size or len(sizes) > 1 else None
        if self.size is None and fit:
            height = width = min(SIDE, int(median(min(sides) for sides in sizes)))
            by_area = sorted(sizes, key=lambda sides: (sides[0] * sides[1], sides))
            smallest, largest = (f"{w}x{h}" for h, w in (by_area[0], by_area[-1]))
            why = f"the images have {len(sizes)} sizes, from {smallest} to {largest} pixels"
            decide("size", height, why)
        elif fit is None and self.fit != "resize":
            what = f"all images are {width}x{height} pixels, and keep this size"
            raise ConfigError(what, f"data.source.fit={self.fit}", "leave it out, or set a size")
        if dtype == "uint8" and floats:
            at = next(i for i, header in enumerate(together) if header.mode == "F")
            what = f"{floats} images hold floats, which have no range that becomes 0 to 255"
            raise DataError(what, str(found.root / names[at]), "set data.source.dtype=float32")
        form = Form(1 if gray else 3, height, width, fit, dtype)
        return form, decisions, suggestions

    def _doubts(self, found: Pictures, headers: Mapping[str, list[Header]]) -> list[str]:
        """What is lost of what people may have meant to be read."""
        doubts = []
        advice: dict[str, list[str]] = {}
        for suffix, number in sorted(found.others.items()):
            if suffix in OTHERS:
                advice.setdefault(OTHERS[suffix], []).append(f"{number:,} {suffix}")
        for fix, files in advice.items():
            doubts.append(f"{', '.join(files)} files are left out: {fix}")
        together = [header for part in headers.values() for header in part]
        stacks = sum(header.pages > 1 for header in together)
        if stacks:
            doubts.append(
                f"{stacks:,} TIFF files hold several pages, of which only the first is used: save "
                "stacks as an array (N, pages, H, W) in an .npz, for data=npz"
            )
        colour = sum(header.mode.endswith(";16") and "RGB" in header.mode for header in together)
        if colour:
            doubts.append(
                f"{colour:,} images of 16-bit colour are read with 8 bits: save them as an array "
                "(N, H, W, 3) in an .npz, for data=npz, to keep all"
            )
        return doubts

    def _columns(self, found: Pictures, part: str) -> dict[str, Array]:
        """What a split may go by: the files' names without suffix, and the pattern's matches."""
        files = [PurePosixPath(name) for name in found.names[part]]
        columns = {**found.columns.get(part, {}), "file": np.array([file.stem for file in files])}
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
