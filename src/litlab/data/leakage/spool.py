"""What is too large to remember of every sample waits in a temporary file."""

import tempfile
import weakref
from pathlib import Path

import numpy as np

from litlab.data.spec import Array


class Spool:
    """An array that grows by chunks, in a file that has no name and goes with this object.

    Args:
        dtype: Of its values.
        folder: Where the file lies; the system's temporary folder if there is none.
    """

    def __init__(self, dtype: object, folder: Path | None = None) -> None:
        self.dtype = np.dtype(dtype)  # type: ignore[call-overload]
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        weakref.finalize(self, self._file.close)
        self.size = 0

    def add(self, values: Array) -> None:
        """Append values of any shape, flat."""
        self._file.write(values.astype(self.dtype, copy=False).tobytes())
        self.size += values.size

    def whole(self) -> Array:
        """Return all values `(size,)`, mapped from the file."""
        if not self.size:
            return np.empty(0, self.dtype)
        self._file.flush()
        # As a plain array: a memmap's slices are slow to make.
        return np.asarray(np.memmap(self._file, self.dtype, "r", shape=(self.size,)))
