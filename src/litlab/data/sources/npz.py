import math
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.lib import format as npy

from litlab.data.prepare.source_files import require_file, user_path
from litlab.data.raw import Raw, Reading, number_classes
from litlab.data.spec import Array
from litlab.utils.errors import ConfigError, DataError, nearest

# The arrays of an `.npz` file: memory-mapped where they are stored as they are.


HEADERS: dict[tuple[int, int], Any] = {
    (1, 0): npy.read_array_header_1_0,
    (2, 0): npy.read_array_header_2_0,
}
LOCAL_HEADER = 30  # bytes before a member's name; its last four are the lengths of what follows
BLOCK = 2**20


class NpzFile:
    """Arrays by name, each read when it is asked for.

    Those that numpy.savez wrote are memory-mapped, once their checksum is found right; those of
    numpy.savez_compressed are unpacked into memory. Python objects (pickles) are refused.

    Raises:
        DataError: It is no such file, or no file at all.
    """

    def __init__(self, path: Path) -> None:
        self.path = require_file(path)
        try:
            with zipfile.ZipFile(path) as archive:
                members = archive.infolist()
        except Exception as error:  # a damaged archive makes zipfile raise nearly anything
            raise self._unreadable(str(error)) from None
        self.members = {member.filename.removesuffix(".npy"): member for member in members}

    def __contains__(self, name: object) -> bool:
        return name in self.members

    def __getitem__(self, name: str) -> Array:
        """Return one array.

        Raises:
            DataError: It is damaged, or holds Python objects.
        """
        member = self.members[name]
        try:
            with zipfile.ZipFile(self.path) as archive:
                stored = member.compress_type == zipfile.ZIP_STORED
                mapped = self._map(archive, member) if stored else None
                if mapped is not None:
                    return mapped
                with archive.open(member) as opened:
                    array: Array = npy.read_array(opened, allow_pickle=False)
                    return array
        except Exception as error:  # see above
            if "allow_pickle" in str(error):
                raise self._of_objects(name) from None
            raise self._unreadable(f"array '{name}': {error}") from None

    def _map(self, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Array | None:
        """Map an array; None where NumPy cannot, and has to read it."""
        with archive.open(member) as opened:
            read_header = HEADERS.get(npy.read_magic(opened))
            if read_header is None:
                return None
            shape, fortran, dtype = read_header(opened)
            start = opened.tell()
            size = math.prod(shape) * dtype.itemsize
            if dtype.hasobject or not size or start + size != member.file_size:
                return None
            while opened.read(BLOCK):  # to its end, where zipfile compares the checksum
                pass
        with self.path.open("rb") as file:
            start += _first_byte(file, member)
        order: Literal["F", "C"] = "F" if fortran else "C"
        mapped: Array = np.memmap(self.path, dtype, "r", start, shape, order)
        return mapped

    def _of_objects(self, name: str) -> DataError:
        what = f"array '{name}' holds Python objects, not numbers or texts"
        fix = (
            f"save texts as {name}.astype(str) and numbers as {name}.astype(float); "
            "pad sequences of different lengths to one length"
        )
        return DataError(what, str(self.path), fix)

    def _unreadable(self, error: str) -> DataError:
        fix = "save it with numpy.savez or numpy.savez_compressed"
        return DataError(f"cannot be read: {error}", str(self.path), fix)


def _first_byte(file: IO[bytes], member: zipfile.ZipInfo) -> int:
    """Where in the archive a member's content starts."""
    file.seek(member.header_offset)
    name, extra = struct.unpack("<HH", file.read(LOCAL_HEADER)[-4:])
    return member.header_offset + LOCAL_HEADER + int(name) + int(extra)


CHANNELS = (1, 3, 4)  # an axis of as many entries is taken for the channels
PARTS = ("train", "val", "test")


def several_labels(y: Mapping[str, Array]) -> bool:
    """Whether targets are 0 or 1 each, `(N, K)`, and not one 1 a row, which would be one class."""
    flags = all(a.ndim == 2 and a.shape[1] > 1 and a.dtype.kind in "iufb" for a in y.values())
    if not flags or not all(np.isin(a, (0, 1)).all() for a in y.values()):
        return False
    return any((a.sum(1) != 1).any() for a in y.values())


class Npz:
    """Arrays in an `.npz` file: `x` and `y`, or `x_train`, `y_train`, `x_test`, `y_test`.

    Arrays that numpy.savez wrote are memory-mapped; compressed ones are unpacked into memory.

    Args:
        path: The file; relative to the project's root.
        kind: image: bytes (uint8) `(N, H, W)`, `(N, H, W, C)` or `(N, C, H, W)`; sequence: numbers
            `(N, L)`, `(N, C, L)` or `(N, L, C)`; tabular: numbers `(N, F)`.
        task: classification: `y` are integers or strings `(N,)`; 0 and 1 `(N, K)` that are not one
            1 a row are read as multi_label; regression: numbers `(N,)` or `(N, T)`.
        x: Name of the inputs. With a part's name before or behind it (`train_x`, `x_train`), it is
            that part.
        y: Name of the targets, in the same way.
        channels: Which axis they are; auto: of an image the one of 1, 3 or 4 entries, of a sequence
            the first.
        licence: Of the data, for the records.
        origin: Where they come from, for the records; null: the path.
    """

    def __init__(
        self,
        *,
        path: str,
        kind: Literal["image", "sequence", "tabular"] = "image",
        task: Literal["classification", "multi_label", "regression"] = "classification",
        x: str = "x",
        y: str = "y",
        channels: Literal["auto", "first", "last"] = "auto",
        licence: str = "not stated",
        origin: str | None = None,
    ) -> None:
        self.path, self.x, self.y = path, x, y
        self.kind, self.task, self.channels = kind, task, channels
        self.licence, self.origin = licence, origin or path

    def read(self) -> Raw:
        """Return the data.

        Raises:
            DataError: The file or an array in it is damaged, missing, or of another kind.
            EnvironmentFault: There is no such file.
        """
        path = user_path(self.path)
        file = NpzFile(path)
        names = self._names(file)
        x = {part: self._inputs(name, file[name]) for part, (name, _) in names.items()}
        classes: list[str] = []
        targets: list[str] = []
        y = {part: file[name] for part, (_, name) in names.items()}
        if self.task == "multi_label" or (self.task == "classification" and several_labels(y)):
            self.task = "multi_label"
        y = {part: self._targets(name, y[part]) for part, (_, name) in names.items()}
        if self.task == "multi_label":
            classes = [f"{self.y}{i}" for i in range(next(iter(y.values())).shape[1])]
        elif self.task == "classification":
            classes, y = number_classes(y)
        else:
            width = {array.shape[1] for array in y.values()}
            number = max(width)
            targets = [self.y] if number == 1 else [f"{self.y}{i}" for i in range(number)]
        return Raw(
            kind=self.kind,
            task=self.task,
            parts={part: (x[part], y[part]) for part in names},
            classes=classes,
            targets=targets,
            licence=self.licence,
            origin=self.origin,
            files=[path],
            reading=Reading(
                target=self.y, parts={part: f"array '{name}'" for part, (name, _) in names.items()}
            ),
            notes=lambda: self._notes(x),
        )

    def _names(self, file: NpzFile) -> dict[str, tuple[str, str]]:
        """The names of inputs and targets, by part."""
        found = {}
        for part in PARTS:
            for form in (f"{{}}_{part}", f"{part}_{{}}"):
                if form.format(self.x) in file:
                    found[part] = (form.format(self.x), form.format(self.y))
        if "train" not in found:
            found = {"all": (self.x, self.y)}
        wanted = [(s, name) for pair in found.values() for s, name in zip("xy", pair, strict=True)]
        for setting, name in wanted:
            if name not in file:
                fix = f"set data.source.{setting}: {nearest(name, file.members)}"
                raise DataError(f"holds no array '{name}'", self.path, fix)
        return found

    def _inputs(self, name: str, x: Array) -> Array:
        """Bring inputs into litlab's order of axes, as views where they are mapped."""
        if self.kind == "image":
            return self._images(name, x)
        wanted = (2, 3) if self.kind == "sequence" else (2,)
        if x.ndim not in wanted:
            shapes = "(N, L), (N, C, L) or (N, L, C)" if self.kind == "sequence" else "(N, F)"
            raise self._misfit(name, f"shape {x.shape}", f"{self.kind} data are {shapes}")
        if x.ndim == 2:
            self._require_no_channels(name, x)
            return x if self.kind == "tabular" else x[:, None]
        return x.transpose(0, 2, 1) if self.channels == "last" else x

    def _images(self, name: str, x: Array) -> Array:
        if x.dtype != np.uint8:
            how = "(255 * x).round().astype('uint8')" if x.dtype.kind == "f" else "uint8"
            raise self._misfit(name, f"images of {x.dtype}", f"give bytes from 0 to 255: {how}")
        if x.ndim == 3:
            self._require_no_channels(name, x)
            return x[:, None]
        if x.ndim != 4:
            fix = "images are (N, H, W), (N, H, W, C) or (N, C, H, W); or set data.source.kind"
            raise self._misfit(name, f"shape {x.shape}", fix)
        first, last = x.shape[1] in CHANNELS, x.shape[3] in CHANNELS
        if self.channels == "auto" and first == last:
            fix = "set data.source.channels to first or last"
            raise self._misfit(name, f"shape {x.shape}, whose channels cannot be guessed", fix)
        if self.channels == "last" or (self.channels == "auto" and last):
            return x.transpose(0, 3, 1, 2)
        return x

    def _require_no_channels(self, name: str, x: Array) -> None:
        if self.channels != "auto":
            raise ConfigError(
                f"array '{name}': shape {x.shape} of {self.kind} data has no axis of channels",
                f"data.source.channels={self.channels}",
                "set data.source.channels=auto",
            )

    def _notes(self, x: Mapping[str, Array]) -> list[str]:
        """Return what may be a mistake: sequences that look as if they lay on their side."""
        channels, steps = next(iter(x.values())).shape[1:] if self.kind == "sequence" else (0, 0)
        if self.channels != "auto" or channels <= steps:
            return []
        shown = f"sequences of {channels} channels and {steps} steps"
        return [f"{shown}: if the steps come first, set data.source.channels=last"]

    def _targets(self, name: str, y: Array) -> Array:
        if self.task == "multi_label":
            if y.ndim != 2 or y.dtype.kind not in "iufb" or not np.isin(y, (0, 1)).all():
                what = f"labels of {y.dtype} and shape {y.shape}"
                raise self._misfit(name, what, "several labels are 0 or 1 each, (N, K)")
            return y.astype(np.uint8)
        if self.task == "regression":
            if y.dtype.kind not in "iuf" or y.ndim not in (1, 2):
                raise self._misfit(name, f"targets of {y.dtype} and shape {y.shape}", "numbers")
            return y.reshape(len(y), -1).astype(np.float32)
        if y.ndim == 2 and y.shape[1] == 1:
            y = y[:, 0]  # as Keras keeps CIFAR-10's
        if y.ndim != 1:
            one_hot = y.ndim == 2 and y.dtype.kind in "iufb" and bool((y.sum(1) == 1).all())
            fix = (
                "save class numbers (N,): y.argmax(1)"
                if one_hot
                else "several labels are 0 or 1 each"
            )
            raise self._misfit(name, f"labels of shape {y.shape}", fix)
        if y.dtype.kind == "f":
            fix = "give integers: y.astype(int); or set data.source.task=regression task=regression"
            raise self._misfit(name, f"labels of {y.dtype}", fix)
        if y.dtype.kind not in "iubUS":
            raise self._misfit(name, f"labels of {y.dtype}", "give integers or strings")
        return np.char.decode(y, "utf-8") if y.dtype.kind == "S" else y

    def _misfit(self, name: str, what: str, fix: str) -> DataError:
        return DataError(f"array '{name}': {what}", self.path, fix)
