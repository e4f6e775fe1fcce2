import os
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np

from litlab.config.hyperparameters import Count
from litlab.data.inputs.images import (
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
from litlab.data.raw import Raw, Reading
from litlab.data.sources.class_folders import ClassFolders, find_pictures
from litlab.data.sources.unused import refuse_unused
from litlab.data.spec import Array
from litlab.utils.errors import DataError

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
