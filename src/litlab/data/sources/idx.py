"""The IDX format of MNIST and its kin: big-endian arrays of bytes behind a short header."""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from litlab.data.spec import Array
from litlab.errors import DataError

UNSIGNED_BYTE = 0x08


def read_idx(path: Path) -> Array:
    """Return the array of unsigned bytes in an IDX file, gzipped or not.

    Raises:
        DataError: The file is not an IDX file of bytes, or its length is not what it announces.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot be read: {error}", str(path), "fetch the file again") from None
    if len(content) < 4 or content[:3] != bytes((0, 0, UNSIGNED_BYTE)) or not content[3]:
        raise DataError(
            "not an IDX file of unsigned bytes", str(path), "check that it is the raw file"
        )
    start = 4 + 4 * content[3]
    if len(content) < start:
        raise DataError("its header is cut short", str(path), "fetch the file again")
    shape = struct.unpack(f">{content[3]}I", content[4:start])
    if len(content) - start != math.prod(shape):
        raise DataError(
            f"announces {'x'.join(map(str, shape))} bytes and holds {len(content) - start}",
            str(path),
            "fetch the file again",
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


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
