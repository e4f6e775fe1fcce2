from array import array
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from litlab.data.spec import Array


class TextSpool:
    """Texts in one file on disk, read by number: memory holds only where each of them lies.

    Attributes:
        sizes: Bytes of each text `(N,)`.
    """

    def __init__(self, path: Path, texts: Iterable[str]) -> None:
        ends = array("q", [0])
        with path.open("wb") as file:
            for text in texts:
                # Half of a surrogate pair, which JSON may hold, is in no encoding.
                ends.append(ends[-1] + file.write(text.encode("utf-8", "replace")))
        self.path = path
        self._ends: Array = np.frombuffer(ends, dtype=np.int64)
        self.sizes: Array = np.diff(self._ends)

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, rows: Any) -> list[str]:
        """Return the texts of these row numbers `(n,)`."""
        texts = []
        with self.path.open("rb") as file:
            for start, size in zip(self._ends[:-1][rows], self.sizes[rows], strict=True):
                file.seek(start)
                texts.append(file.read(size).decode("utf-8"))
        return texts
