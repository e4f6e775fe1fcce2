"""Opens a table, whatever its format."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from litlab.data.prepare.source_files import require_file
from litlab.data.sources.table_format import (
    BLOCK,
    TableFile,
    TableFormat,
    clean,
    quoted,
    unreadable,
)
from litlab.data.sources.table_text import Delimited
from litlab.utils.errors import DataError


def open_table(path: Path, style: TableFormat) -> TableFile:
    """Open a table by the suffix of its file: `.parquet`, or else text.

    Raises:
        DataError: It cannot be read as a table.
    """
    require_file(path)
    if path.suffix.lower() in (".xlsx", ".xls", ".ods"):
        raise DataError("is a spreadsheet", str(path), "save it as CSV")
    return _Parquet(path, style) if is_parquet(path) else Delimited(path, style)


def is_parquet(path: Path) -> bool:
    """Whether a file is Parquet, by its suffix."""
    return path.suffix.lower() in (".parquet", ".pq")


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

    def batches(self, names: Sequence[str]) -> Iterator[list[Any]]:
        import pyarrow.parquet as pq

        twice = [name for name in names if self.names.count(name) > 1]
        if twice:
            raise DataError(f"column '{twice[0]}' appears twice", str(self.path), "rename it")
        try:
            # Without buffering ahead, a page of each column is in memory, not the whole row group.
            with pq.ParquetFile(self.path, pre_buffer=False, buffer_size=2**20) as file:
                stored = [file.schema_arrow.names[self.names.index(name)] for name in names]
                options = {"columns": stored, "use_threads": False}
                for batch in file.iter_batches(self.rows_at_once, **options):
                    yield [
                        self._clean(name, batch[s]) for name, s in zip(names, stored, strict=True)
                    ]
        except (OSError, pa.ArrowException) as error:
            raise unreadable(self.path, error) from None

    def _clean(self, name: str, column: Any) -> Any:
        try:
            return clean(column, self.style.nothing)
        except TypeError as error:
            fix = f"leave it out: data.source.drop=[{quoted(name)}]"
            raise DataError(f"column '{name}' holds {error}", str(self.path), fix) from None
