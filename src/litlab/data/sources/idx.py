"""The IDX format of MNIST and its kin: big-endian arrays of bytes behind a short header."""

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from litlab.data.prepare.source_files import require_file
from litlab.data.spec import Array
from litlab.utils.errors import DataError

UNSIGNED_BYTE = 0x08
MOST_UNPACKED = 2**30  # bytes of a gzipped file that are taken into memory


def read_idx(path: Path, dimensions: int | None = None) -> Array:
    """Return the array of unsigned bytes in an IDX file, of as many dimensions.

    It is memory-mapped, and read-only; one that is gzipped is unpacked into memory.

    Raises:
        DataError: The file is not an IDX file of bytes, its length is not what it announces, or it
            holds labels in the place of images.
    """
    require_file(path)
    zipped = path.suffix == ".gz"
    try:
        with gzip.open(path) if zipped else path.open("rb") as file:
            shape, start = _read_header(file, path)
            size = math.prod(shape)
            if not zipped:
                held = path.stat().st_size - start
            else:
                content = file.read(min(size, MOST_UNPACKED) + 1)  # never more, whatever is in it
                held = len(content)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot be read: {error}", str(path), "download the file again") from None
    if min(held, size) > MOST_UNPACKED:
        raise DataError(f"unpacks to {size} bytes", str(path), f"gunzip {path.name} first")
    if held != size:
        more = " or more" if zipped and held > size else ""
        raise DataError(
            f"its header states {'x'.join(map(str, shape))} bytes, it holds {held}{more}",
            str(path),
            "download the file again",
        )
    if dimensions not in (None, len(shape)):
        what = f"an array of {len(shape)} dimensions, not {dimensions}"
        raise DataError(what, str(path), "check the file's name")
    if zipped or not size:
        return np.frombuffer(content if zipped else b"", np.uint8).reshape(shape)
    return np.memmap(path, np.uint8, mode="r", offset=start, shape=shape)


def _read_header(file: Any, path: Path) -> tuple[tuple[int, ...], int]:
    """Return the shape that the file announces, and where the array starts."""
    magic = file.read(4)
    if len(magic) < 4 or magic[:3] != bytes((0, 0, UNSIGNED_BYTE)) or not magic[3]:
        raise DataError(
            "not an IDX file of unsigned bytes", str(path), "check that it is the raw file"
        )
    sides = file.read(4 * magic[3])
    if len(sides) < 4 * magic[3]:
        raise DataError("its header is truncated", str(path), "download the file again")
    return struct.unpack(f">{magic[3]}I", sides), 4 + len(sides)


def find_idx(folder: Path, stem: str) -> Path | None:
    """Return `<folder>/<stem>` or its gzipped form, whichever is there."""
    for name in (
        stem,
        f"{stem}.gz",
        stem.replace("-idx", ".idx"),
        f"{stem.replace('-idx', '.idx')}.gz",
    ):
        if (folder / name).is_file():
            return folder / name
    return None
