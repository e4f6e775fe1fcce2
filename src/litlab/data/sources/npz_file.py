import math
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Literal, Protocol

import numpy as np
from numpy.lib import format as npy

from litlab.data.inputs.images import passed_over
from litlab.data.prepare.source_files import require_file
from litlab.data.spec import Array
from litlab.utils.errors import DataError

# The arrays of an `.npz` file: memory-mapped where they are stored as they are.


HEADERS: dict[tuple[int, int], Any] = {
    (1, 0): npy.read_array_header_1_0,
    (2, 0): npy.read_array_header_2_0,
}
LOCAL_HEADER = 30  # bytes before a member's name; its last four are the lengths of what follows
BLOCK = 2**20


class Arrays(Protocol):
    """Arrays by name, each read when it is asked for."""

    path: Path

    def __iter__(self) -> Iterator[str]:
        """Give the names."""

    def shape(self, name: str) -> tuple[int, ...]:
        """Return an array's shape without reading it; () where that cannot be done."""

    def __getitem__(self, name: str) -> Array:
        """Return one array."""


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

    def __iter__(self) -> Iterator[str]:
        return iter(self.members)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return an array's shape, by its header alone; of one that cannot be read, ().

        What is wrong with it is said when it is read.
        """
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(self.members[name]) as opened:
                return _read_shape(opened)
        except Exception:
            return ()

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
                raise _of_objects(name, self.path) from None
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

    def _unreadable(self, error: str) -> DataError:
        fix = "save it with numpy.savez or numpy.savez_compressed"
        return DataError(f"cannot be read: {error}", str(self.path), fix)


def _first_byte(file: IO[bytes], member: zipfile.ZipInfo) -> int:
    """Where in the archive a member's content starts."""
    file.seek(member.header_offset)
    name, extra = struct.unpack("<HH", file.read(LOCAL_HEADER)[-4:])
    return member.header_offset + LOCAL_HEADER + int(name) + int(extra)


def _read_shape(file: IO[bytes]) -> tuple[int, ...]:
    shape, _, _ = HEADERS[npy.read_magic(file)](file)
    found: tuple[int, ...] = shape
    return found


def _of_objects(name: str, path: Path) -> DataError:
    what = f"array '{name}' holds Python objects, not numbers or texts"
    fix = (
        f"save texts as {name}.astype(str) and numbers as {name}.astype(float); "
        "pad sequences of different lengths with NaN to one length and set data.source.impute=zero"
    )
    return DataError(what, str(path), fix)


class NpyFolder:
    """The `.npy` files of a folder, by name without suffix; those of folders in it as `train/x`.

    They are memory-mapped. Python objects (pickles) are refused.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files = {
            file.relative_to(path).with_suffix("").as_posix(): file
            for file in sorted((*path.glob("*.npy"), *path.glob("*/*.npy")))
            if not any(map(passed_over, file.relative_to(path).parts))
        }

    def __iter__(self) -> Iterator[str]:
        return iter(self.files)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return an array's shape, by its header alone; of one that cannot be read, ()."""
        try:
            with require_file(self.files[name]).open("rb") as file:
                return _read_shape(file)
        except Exception:
            return ()

    def __getitem__(self, name: str) -> Array:
        """Return one array.

        Raises:
            DataError: It is damaged, or holds Python objects.
        """
        path = require_file(self.files[name])
        try:
            array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
        except Exception as error:  # a damaged header makes numpy raise nearly anything
            if "Python objects" in str(error) or "allow_pickle" in str(error):
                raise _of_objects(name, path) from None
            what, fix = f"cannot be read: {error}", "save it with numpy.save"
            raise DataError(what, str(path), fix) from None
        return array
