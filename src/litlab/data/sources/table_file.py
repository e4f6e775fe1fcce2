"""Opens a table, whatever its format."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from litlab.data.files import require_file
from litlab.data.sources.table_format import BLOCK, TableFile, TableFormat, clean, unreadable
from litlab.data.sources.table_text import Delimited
from litlab.errors import DataError


def open_table(path: Path, style: TableFormat) -> TableFile:
    """Open a table by the suffix of its file: `.parquet`, or else text.

    Raises:
        DataError: It cannot be read as a table.
    """
    require_file(path)
    if path.suffix.lower() in (".xlsx", ".xls", ".ods"):
        raise DataError("is a spreadsheet", str(path), "save it as CSV")
    if path.suffix.lower() in (".parquet", ".pq"):
        return _Parquet(path, style)
    return Delimited(path, style)


class _Parquet:
    def __init__(self, path: Path, style: TableFormat) -> None:
        import pyarrow.parquet as pq

        self.path, self.style = path, style
        try:
            with pq.ParquetFile(path) as file:
                self.names = [name.strip() for name in file.schema_arrow.names]
                metadata = file.metadata
        except (OSError, pa.ArrowException) as error:
            raise unreadable(path, error) from None
        groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
        width = sum(group.total_byte_size for group in groups) / max(metadata.num_rows, 1)
        self.rows_at_once = max(1, min(int(BLOCK / max(width, 1)), 65_536))

    def place(self, row: int) -> str:
        """Return a row's number, from 0: the format has no lines."""
        return f"{self.path.name}:{row}"

    def batches(self) -> Iterator[list[Any]]:
        import pyarrow.parquet as pq

        try:
            # Without buffering ahead, a page of each column is in memory, not the whole row group.
            with pq.ParquetFile(self.path, pre_buffer=False, buffer_size=2**20) as file:
                for batch in file.iter_batches(self.rows_at_once, use_threads=False):
                    yield self._clean(batch)
        except (OSError, pa.ArrowException) as error:
            raise unreadable(self.path, error) from None

    def _clean(self, batch: Any) -> list[Any]:
        columns = []
        for name, column in zip(self.names, batch.columns, strict=True):
            try:
                columns.append(clean(column, self.style.missing))
            except TypeError as error:
                what = f"column '{name}' holds {error}"
                raise DataError(what, str(self.path), "leave it out of the file") from None
        return columns
