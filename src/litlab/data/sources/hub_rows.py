"""Rows of a data set in Arrow files, read without keeping them in memory."""

import pickle
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from litlab.data.spec import Array

BATCH_ROWS = 1024
MAPPED_BYTES = 32 * 2**20  # read through one mapping


class ArrowRows:
    """Some columns of a data set by row number, as Arrow tables.

    The library maps its files into memory, and a page once seen counts as resident until the map is
    closed. So this holds the data set pickled, which for a mapped one is the files' names, and maps
    them anew as often as `MAPPED_BYTES` were read.
    """

    def __init__(self, dataset: Any, columns: Sequence[str]) -> None:
        self.number = len(dataset)
        self._closed = pickle.dumps(dataset.select_columns(list(columns)).with_format("arrow"))
        self._open: Any = None
        self._seen = 0.0

    def __len__(self) -> int:
        return self.number

    def take(self, rows: Array) -> Any:
        """Return these rows `(n,)`, in this order, as a pyarrow Table."""
        table = self._mapped()[rows.tolist()]
        if len(rows):  # rows between them are on the same pages
            self._seen += table.nbytes * (int(rows.max()) - int(rows.min()) + 1) / len(rows)
        return table

    def batches(self) -> Iterator[Any]:
        """Go through all rows."""
        for start in range(0, self.number, BATCH_ROWS):
            yield self.take(np.arange(start, min(start + BATCH_ROWS, self.number)))

    def _mapped(self) -> Any:
        if self._open is None or self._seen > MAPPED_BYTES:
            self._open = None  # closes the old map, unless a table of it is still in use
            self._open, self._seen = pickle.loads(self._closed), 0.0
        return self._open
