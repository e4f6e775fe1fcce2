"""A table's rows by number, from a file that holds no more of it in memory than is asked for."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from litlab.data.sources.table_format import TableFile
from litlab.data.spec import Array

# What Arrow's own parser takes for a number, so that cells which are none can be told apart.
NUMBER = r"^[+-]?((\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|(?i:inf|infinity|nan))$"
SPOOLED = 8192  # rows in one piece of the file, which is read whole


class TableRows:
    """Some columns of a table, spooled into an Arrow file.

    The file is read and not mapped: pages of a map count as resident memory until they are needed
    elsewhere. No batch is kept; rows in ascending order read each batch once.
    """

    def __init__(self, table: TableFile, names: Sequence[str], spool: Path) -> None:
        self.path, self.spool, self.names = table.path, spool, list(names)
        self.place = table.place
        starts, writer = [0], None
        try:
            for columns in table.batches(self.names):
                batch = pa.record_batch(columns, names=self.names)
                if writer is None:
                    writer = pa.ipc.new_file(str(spool), batch.schema)
                for start in range(0, len(batch), SPOOLED):
                    piece = batch.slice(start, SPOOLED)
                    writer.write_batch(piece)
                    starts.append(starts[-1] + len(piece))
        finally:
            if writer is not None:
                writer.close()
        self.starts = np.array(starts, dtype=np.int64)

    def __len__(self) -> int:
        return int(self.starts[-1])

    def batches(self, names: Sequence[str]) -> Iterator[Any]:
        """Go through these columns from the first row to the last."""
        if len(self):
            with self._open(names) as reader:
                for number in range(reader.num_record_batches):
                    yield reader.get_batch(number).select(list(names))

    def take(self, rows: Array, names: Sequence[str]) -> Any:
        """Return these columns of these rows `(n,)`, in this order, as a pyarrow Table."""
        order = np.argsort(rows, kind="stable")
        ascending = np.asarray(rows, dtype=np.int64)[order]
        numbers = np.searchsorted(self.starts, ascending, side="right") - 1
        with self._open(names) as reader:
            parts = [
                reader.get_batch(int(number))
                .select(list(names))
                .take(pa.array(ascending[numbers == number] - self.starts[number]))
                for number in np.unique(numbers)
            ]
            table = pa.Table.from_batches(parts, None if parts else reader.schema)
        if np.array_equal(order, np.arange(len(order))):
            return table
        return table.combine_chunks().take(pa.array(np.argsort(order)))

    def _open(self, names: Sequence[str]) -> Any:
        wanted = pa.ipc.IpcReadOptions(included_fields=[self.names.index(name) for name in names])
        return pa.ipc.open_file(pa.OSFile(str(self.spool)), options=wanted)


class Features:
    """A table's features, read by row number: numbers as float64, categories as strings.

    Chunks are pandas DataFrames with the columns by name; a missing cell is NaN.
    """

    def __init__(
        self, rows: TableRows, numeric: Sequence[str], categorical: Sequence[str], decimal: str
    ) -> None:
        self.rows, self.numeric, self.categorical = rows, tuple(numeric), tuple(categorical)
        self.decimal = decimal

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: Any) -> Any:
        """Return the rows of these numbers, in this order."""
        rows = np.arange(len(self))[rows] if isinstance(rows, slice) else rows
        table = self.rows.take(rows, [*self.numeric, *self.categorical])
        return typed(table, self.numeric, self.categorical, self.decimal).to_pandas()


def typed(table: Any, numeric: Sequence[str], categorical: Sequence[str], decimal: str) -> Any:
    """Return a table's cells as numbers and categories; what is no number becomes null."""
    numbers = {name: as_numbers(table[name], decimal) for name in numeric}
    return pa.table(numbers | {name: as_text(table[name]) for name in categorical})


def as_numbers(cells: Any, decimal: str) -> Any:
    """Return cells as float64; what is no number becomes null."""
    if not pa.types.is_string(cells.type):
        return cells.cast(pa.float64(), safe=False)
    if decimal != ".":
        cells = pc.replace_substring(cells, decimal, ".")
    try:
        return cells.cast(pa.float64())
    except pa.ArrowInvalid:
        fits = pc.match_substring_regex(cells, NUMBER)
        return pc.if_else(fits, cells, pa.scalar(None, pa.string())).cast(pa.float64())


def as_text(cells: Any) -> Any:
    """Return cells as strings."""
    return cells if pa.types.is_string(cells.type) else cells.cast(pa.string())
