"""Writes a split's safetensors file piece by piece, so that it need not fit in memory."""

import math
import struct
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import numpy as np

from litlab.data.spec import Array
from litlab.utils.files import dumps


class RunningStatistics:
    """Mean and deviation of what comes in pieces (Chan, Golub & LeVeque 1979, the pairwise update).

    Args:
        scale: The unit of the result, in units of what comes in: 255 for bytes as [0, 1].
    """

    def __init__(self, scale: float = 1.0) -> None:
        self.scale, self.count = scale, 0
        self.mean: Array = np.zeros(1)
        self.squares: Array = np.zeros(1)  # sum of squared distances from the mean

    def add(self, x: Array) -> None:
        """Take in samples `(n, C, ...)`; every axis but C is averaged over."""
        axes = (0, *range(2, x.ndim))
        number = x.size // x.shape[1]
        mean = x.mean(axes, dtype=np.float64)
        squares = x.var(axes, dtype=np.float64) * number
        total = self.count + number
        gap = mean - self.mean
        self.squares = self.squares + squares + gap**2 * (self.count * number / total)
        self.mean = self.mean + gap * (number / total)
        self.count = total

    def result(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return mean and deviation, one number a channel or feature.

        A constant column has nothing to divide by; its deviation becomes 1, so that it turns into
        zeros, not NaN. So does one that varies so little that 1/std overflows float32.
        """
        if not self.count:
            return (), ()
        std = np.sqrt(self.squares / self.count)
        std = np.where(std > np.finfo(np.float32).tiny, std, self.scale)
        mean, std = self.mean / self.scale, std / self.scale
        return tuple(map(float, mean)), tuple(map(float, std))


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
