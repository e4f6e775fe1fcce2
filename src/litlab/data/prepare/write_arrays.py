"""Writes a split's safetensors file piece by piece, so that it need not fit in memory."""

import math
import struct
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import numpy as np

from litlab.data.spec import Array
from litlab.utils.strict_json import dumps

RESERVED = 4096  # bytes for the header, whose numbers are known only at the end
NAMES = {"u1": "U8", "i4": "I32", "i8": "I64", "f4": "F32"}  # safetensors' own


class SplitWriter:
    """Writes one split: places and targets first, then inputs as they come.

    In this order every array starts at a multiple of its item size, without gaps (which the format
    forbids).

    Args:
        path: The file.
        dtype: Of the inputs.
        y: Targets, all of them.
        source_index: Places in the source, all of them.
    """

    def __init__(self, path: Path, dtype: str, y: Array, source_index: Array) -> None:
        self.path, self.dtype = path, np.dtype(dtype)
        self.entries: dict[str, dict[str, object]] = {}
        self.shape: tuple[int, ...] | None = None
        self.number, self.end = 0, 0
        self.lengths: list[Array] = []
        self.file: IO[bytes] = path.open("wb")
        self.file.seek(RESERVED)
        self._put("source_index", source_index.astype("<i8"))
        self._put("y", y)
        self.start = self.end

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self._finish()
        self.file.close()

    def add(self, x: Array | list[Array]) -> None:
        """Append samples: `(n, *shape)`, or a list of n texts' ids."""
        if isinstance(x, list):
            self.lengths.append(np.array([len(ids) for ids in x], dtype=np.int32))
            x = np.concatenate(x) if x else np.empty(0)
        self.shape = x.shape[1:]
        content = np.ascontiguousarray(x, dtype=self.dtype)
        self.number += len(content)
        self.file.write(content.data)
        self.end += content.nbytes

    def _put(self, name: str, array: Array) -> None:
        content = np.ascontiguousarray(array)
        self.file.write(content.data)
        self._note(name, content.dtype, content.shape, self.end)
        self.end += content.nbytes

    def _note(
        self, name: str, dtype: np.dtype[np.generic], shape: tuple[int, ...], at: int
    ) -> None:
        size = math.prod(shape) * dtype.itemsize
        self.entries[name] = {
            "dtype": NAMES[dtype.str[1:]],
            "shape": list(shape),
            "data_offsets": [at, at + size],
        }

    def _finish(self) -> None:
        self._note("x", self.dtype, (self.number, *(self.shape or ())), self.start)
        if self.lengths:
            self._put("lengths", np.concatenate(self.lengths))
        header = dumps(self.entries, separators=(",", ":")).encode().ljust(RESERVED - 8)
        assert len(header) == RESERVED - 8
        self.file.seek(0)
        self.file.write(struct.pack("<Q", len(header)) + header)
