"""A table's rows by number, from a file that holds no more of it in memory than is asked for."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from litlab.data.sources.table_cells import as_dates, as_text, numbers_of, part_of, without_marks
from litlab.data.sources.table_file import TableFile
from litlab.data.spec import Array, CellFormat, Column

SPOOLED = 8192  # rows in one piece of the file, which is read whole


class TableRows:
    """Some columns of a table, spooled into an Arrow file.

    The file is read and not mapped: pages of a map count as resident memory until they are needed
    elsewhere. No batch is kept; rows in ascending order read each batch once.

    Args:
        table: The table.
        names: Its columns that are kept.
        spool: The file to write.
        needed: Columns of which a cell must hold something, with their formats: other rows are
            left out.
    """

    def __init__(
        self,
        table: TableFile,
        names: Sequence[str],
        spool: Path,
        needed: Mapping[str, CellFormat] | None = None,
    ) -> None:
        self.path, self.spool, self.names = table.path, spool, list(names)
        self._place = table.place
        left_out: list[Array] = []
        starts, writer, seen = [0], None, 0
        try:
            for columns in table.batches(self.names):
                batch = pa.record_batch(columns, names=self.names)
                if writer is None:
                    writer = pa.ipc.new_file(str(spool), batch.schema)
                kept = _all_valid(batch, needed or {})
                left_out.append(np.flatnonzero(~kept) + seen)
                seen += len(batch)
                batch = batch if kept.all() else batch.filter(pa.array(kept))
                for start in range(0, len(batch), SPOOLED):
                    piece = batch.slice(start, SPOOLED)
                    writer.write_batch(piece)
                    starts.append(starts[-1] + len(piece))
        finally:
            if writer is not None:
                writer.close()
        self.starts = np.array(starts, dtype=np.int64)
        self.left_out = np.concatenate(left_out or [np.empty(0, np.int64)])  # numbers in the file

    def place(self, row: int) -> str:
        """Return where a row is in the file."""
        before = self.left_out - np.arange(len(self.left_out))
        return self._place(row + int(np.searchsorted(before, row, side="right")))

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


def _all_valid(batch: Any, needed: Mapping[str, CellFormat]) -> Array:
    valid = np.ones(len(batch), dtype=bool)
    for name, style in needed.items():
        cells = without_marks(batch[name], style)
        valid &= cells.is_valid().to_numpy(zero_copy_only=False)
    return valid


class Features:
    """A table's features, read by row number: numbers as float64, categories as strings.

    Chunks are pandas DataFrames with the features by name; a missing cell is NaN.

    Args:
        rows: The table.
        features: What is read of it: `name`, `kind` and `cells` of each count.
    """

    def __init__(self, rows: TableRows, features: Sequence[Column]) -> None:
        self.rows, self.features = rows, tuple(features)
        self.sources = sources_of(features)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: Any) -> Any:
        """Return the rows of these numbers, in this order."""
        rows = np.arange(len(self))[rows] if isinstance(rows, slice) else rows
        return frame_of(self.rows.take(rows, self.sources), self.features)


def sources_of(features: Sequence[Column]) -> list[str]:
    """Return the columns of the file that features are read from."""
    return list(dict.fromkeys(feature.source for feature in features))


def frame_of(cells: Any, features: Sequence[Column]) -> Any:
    """Return the features of a table's cells as a DataFrame; what cannot be read becomes NaN."""
    found: dict[str, Any] = {}
    dates: dict[str, Array] = {}
    for feature in features:
        column, style = feature.source, feature.cells
        content = cells[column]
        content = content.combine_chunks() if isinstance(content, pa.ChunkedArray) else content
        content = without_marks(content, style)
        if style.part == "missing":
            found[feature.name] = pc.cast(_is_missing(content, style), pa.float64())
        elif style.part:
            if column not in dates:
                dates[column] = as_dates(content, style.dates)
            found[feature.name] = pa.array(part_of(dates[column], style.part), from_pandas=True)
        elif feature.kind == "numeric":
            found[feature.name] = numbers_of(content, style)
        else:
            found[feature.name] = as_text(content)
    return pa.table(found).to_pandas()


def _is_missing(cells: Any, style: CellFormat) -> Any:
    if style.dates:
        return pa.array(np.isnat(as_dates(cells, style.dates)))
    return pc.is_null(cells)
