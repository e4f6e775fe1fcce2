"""Opens a table, whatever its format."""

import contextlib
import csv
import io
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from litlab.data.prepare.source_files import require_file
from litlab.data.raw import Decision
from litlab.data.sources.table_cells import clean
from litlab.data.sources.table_layout import (
    BLOCK,
    CUT,
    TableFormat,
    cells_of,
    find_layout,
    is_cut,
    not_text,
    open_text,
    rows_of,
    undecodable,
)
from litlab.utils.errors import DataError, closest

SHOWN = 10  # names in a message
FIX = "correct the file"


class TableFile(Protocol):
    """A table's columns by name, in the file's order, and its rows batch by batch.

    A batch's columns are strings, int64, float64, or dates of some type; a missing cell is null.
    `unread` are columns whose cells are nothing of the kind, with what they hold; `blocks` are
    names that stand for several columns.
    """

    path: Path
    names: list[str]
    unread: dict[str, str]
    blocks: dict[str, list[str]]

    @property
    def decisions(self) -> Sequence[Decision]:
        """What was found out of the format, with the evidence."""

    def batches(self, names: Sequence[str]) -> Iterator[list[Any]]:
        """Go through the rows; of each batch, these columns' arrays. Others are not looked at."""

    def place(self, row: int) -> str:
        """Return where a row is, its number counted from 0: `name:line`.

        Rows in ascending order are found in a single pass.
        """


def lacks_columns(
    lacking: Sequence[str], wanted: Sequence[str], table: TableFile, whose: str
) -> DataError:
    """Return the refusal of a file without columns that it should have.

    Args:
        lacking: Their names.
        wanted: All columns that it should have.
        table: The file: its own names are what has to be changed.
        whose: Who has them, to begin a sentence with: "the model was trained with".
    """
    name = lacking[0]
    own = closest(name, set(table.names) - set(wanted))
    more = f" ({len(lacking)} of {len(wanted)} columns are missing)" if len(lacking) > 1 else ""
    if own is not None:
        what = f"the file has '{own}', {whose} '{name}'{more}"
        return DataError(what, str(table.path), f"rename it to '{name}'")
    what = f"the file has no column '{name}', {whose} it{more}"
    return DataError(what, str(table.path), f"add it; the file has {_some(table.names)}")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


def unreadable(path: Path, error: Exception) -> DataError:
    """Say that a file is no table, in the library's own words."""
    return DataError(f"cannot be read as a table: {error}", str(path), FIX)


def unique_names(names: Sequence[str]) -> list[str]:
    """Return names of which none is there twice: `a`, `a.1`; an empty one is its place's number.

    The first may be empty: an index has no name.
    """
    found: dict[str, None] = {}
    given = set(names)
    for place, name in enumerate(names):
        name = name or ("" if place == 0 and len(names) > 1 else f"column{place}")
        number = 0
        unique = name
        while unique in found or (number and unique in given):
            number += 1
            unique = f"{name}.{number}"
        found[unique] = None
    return list(found)


# Tables as text: cells with a delimiter between them, a row a line.


GATHERED = 8 * 2**20  # bytes
FAULTS = (OSError, UnicodeError, LookupError, csv.Error, pa.ArrowException)


class Delimited:
    """A CSV file or its kin, through pyarrow's streaming reader, whose refusals are explained.

    Args:
        path: The file.
        style: What is known of its format.
        wanted: Columns that it should have.

    Raises:
        DataError: It is empty or cannot be read, or its columns are more or fewer than `names`.
    """

    def __init__(self, path: Path, style: TableFormat, wanted: Sequence[str] = ()) -> None:
        self.path, self.style = path, style
        self.unread: dict[str, str] = {}
        self.blocks: dict[str, list[str]] = {}
        self.names: list[str] = []
        self._lines: Iterator[int] | None = None  # of the rows from number `_counted` on
        self._counted = 0
        try:
            self.layout = find_layout(path, style, () if style.names else wanted)
        except FAULTS as error:
            raise self._complaint(error) from None
        self.style, cells = self.layout.style, self.layout.header
        if not cells:
            raise DataError("cannot be read as a table: it is empty", str(path), FIX)
        width = max(len(cells), self.layout.width)
        if style.names and len(style.names) != width:
            raise DataError(
                f"{width} columns (delimiter {self.style.delimiter!r}), {len(style.names)} names",
                str(path),
                "give a name for each, or another delimiter",
            )
        if len(cells) == self.layout.width - 1 and self.style.header:
            cells = ["", *cells]  # as R writes row names: without a name
        numbered = [f"column{i}" for i in range(len(cells))]
        named = cells if self.style.header else numbered
        self.names = unique_names(style.names or named)
        self.decisions = self._decisions(named)

    def _decisions(self, named: Sequence[str]) -> list[Decision]:
        found = list(self.layout.decisions)
        twice = sorted({name for name in named if name and list(named).count(name) > 1})
        if twice and not self.style.names:
            why = f"{', '.join(repr(name) for name in twice[:5])} is the name of several columns"
            found.append(Decision(setting="data.source.names", value=list(self.names), why=why))
        return found

    def batches(self, names: Sequence[str]) -> Iterator[list[Any]]:
        """Stream the rows; the rest of a cell that was quoted and never closed is refused."""
        last, places = "", [self.names.index(name) for name in names]
        footers = self._num_footers()
        held: Any = None  # the last batch, of which footers are to be cut off
        try:
            with self._reader() as reader:
                for batch in _gathered(reader):
                    last = str(batch.columns[-1][-1]) if len(batch) else last
                    batch = self._rows_only(batch)
                    if not footers:
                        yield self._clean(batch, places)
                        continue
                    if held is not None:
                        yield self._clean(held, places)
                    held = batch
                if held is not None:
                    rows = len(held) - footers
                    yield self._clean(held.slice(0, max(rows, 0)), places)
        except FAULTS as error:
            raise self._complaint(error) from None
        if "\n" in last and not is_cut(self.layout) and not self._ends_with_a_quote():
            what = f"a quote opened before '{last.splitlines()[0][:40]}' is never closed"
            raise DataError(what, str(self.path), FIX)

    def place(self, row: int) -> str:
        """Return the line that a row starts in, counted as an editor does: `x.csv:2`."""
        if self._lines is None or row < self._counted:
            self._lines = (start for _, start, _ in self._rows())
            self._counted = 0
        skipped = row - self._counted
        self._counted = row + 1
        return f"{self.path.name}:{next(islice(self._lines, skipped, None), '?')}"

    def _rows(self) -> Iterator[tuple[list[str], int, int]]:
        """The slow way through a file."""
        with open_text(self.path, self.style) as text:
            yield from rows_of(text, self.layout, skip=self.layout.skip)

    def _num_footers(self) -> int:
        """The lines at the end that are as wide as rows; pyarrow passes over the others."""
        widths = [len(next(rows_of([line], self.layout))[0]) for line in self.layout.footers]
        return widths.count(len(self.names)) if not is_cut(self.layout) else len(widths)

    def _rows_only(self, batch: Any) -> Any:
        """Leave out comments and rows in which no cell holds anything."""
        texts = [pc.utf8_trim_whitespace(column) for column in batch.columns]
        empty = pc.equal(texts[0], "")
        for text in texts[1:]:
            if not empty.true_count:
                break
            empty = pc.and_(empty, pc.equal(text, ""))
        if self.style.comment:
            empty = pc.or_(empty, pc.starts_with(texts[0], self.style.comment))
        return batch.filter(pc.invert(empty)) if empty.true_count else batch

    def _clean(self, batch: Any, places: Sequence[int]) -> list[Any]:
        return [clean(batch.columns[place], self.style.nothing) for place in places]

    def _reader(self) -> Any:
        from pyarrow import csv as arrow_csv

        keys = [f"{i}" for i in range(len(self.names))]
        cut = is_cut(self.layout)
        return arrow_csv.open_csv(
            pa.PythonFile(_Cut(self)) if cut else self.path,
            arrow_csv.ReadOptions(
                use_threads=False,
                block_size=BLOCK,
                skip_rows=0 if cut else self.layout.skip,
                column_names=keys,
                encoding="utf-8" if cut else self.style.encoding,
            ),
            arrow_csv.ParseOptions(
                delimiter=CUT if cut else self.style.delimiter,
                newlines_in_values=not cut,
                quote_char=False if cut else '"',
                invalid_row_handler=self._skip_invalid,
            ),
            arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(keys, pa.string()), strings_can_be_null=False
            ),
        )

    def _skip_invalid(self, row: Any) -> str:
        text = row.text.strip("\r\n")
        footer = any(text.strip() == line.strip() for line in self.layout.footers)
        blank = not text.replace(str(self.style.delimiter), "").strip()
        return "skip" if footer or blank or self.style.is_comment(text) else "error"

    def _complaint(self, error: Exception) -> DataError:
        """Find out what pyarrow stumbled over: it does not say at which byte, or in which line."""
        where, encoding = str(self.path), self.style.encoding or "utf-8"
        if isinstance(error, LookupError):
            fix = "set data.source.encoding to one that Python knows, such as latin-1"
            return DataError(f"there is no encoding '{encoding}'", where, fix)
        with contextlib.suppress(*FAULTS):
            place = undecodable(self.path, encoding)
            if place is not None:
                return not_text(self.path, encoding, place)
            width = len(self.names)
            for cells, line, _ in self._rows() if width else ():
                if len(cells) != width:
                    what = f"line {line} has {len(cells)} cells, the others {width}"
                    shown = str(self.style.delimiter).join(cells)[:60]
                    return DataError(f"{what}: {shown}", where, f"{FIX}, or its delimiter")
        return unreadable(self.path, error)

    def _ends_with_a_quote(self) -> bool:
        tail = b""
        with pa.input_stream(str(self.path)) as file:
            while block := file.read(BLOCK):
                tail = (tail + block)[-200:]
        return tail.replace(b"\0", b"").rstrip().endswith(b'"')


class _Cut(io.RawIOBase):
    """The rows of a file whose lines are cut here, as bytes for pyarrow."""

    def __init__(self, table: Delimited) -> None:
        super().__init__()
        self._text = open_text(table.path, table.style)
        layout = table.layout
        for _ in islice(self._text, layout.skip):
            pass
        self._lines = (
            CUT.join(cells_of(line, layout)) + "\n"
            for line in self._text
            if line.strip() and not layout.style.is_comment(line)
        )
        self._rest = b""

    def readable(self) -> bool:
        """Return true."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Return some more bytes."""
        while size < 0 or len(self._rest) < size:
            block = "".join(islice(self._lines, 1000)).encode()
            if not block:
                break
            self._rest += block
        size = len(self._rest) if size < 0 else size
        found, self._rest = self._rest[:size], self._rest[size:]
        return found

    def close(self) -> None:
        """Close the file."""
        self._text.close()
        super().close()


def _gathered(reader: Any) -> Iterator[Any]:
    """Batches of several blocks: with thousands of columns a block holds a few rows only."""
    some: list[Any] = []
    size = 0
    for batch in reader:
        some.append(batch)
        size += batch.nbytes
        if size >= GATHERED:
            yield _joined(some)
            some, size = [], 0
    if some:
        yield _joined(some)


def _joined(batches: list[Any]) -> Any:
    rows = sum(len(batch) for batch in batches)
    found = pa.Table.from_batches(batches).combine_chunks().to_batches(max_chunksize=max(rows, 1))
    return found[0] if found else batches[0]


# Parquet.


def open_table(path: Path, style: TableFormat, wanted: Sequence[str] = ()) -> TableFile:
    """Open a table by the suffix of its file: `.parquet`, or else text.

    Args:
        path: The file.
        style: What is known of its format.
        wanted: Columns that it should have: they tell a header from titles above it.

    Raises:
        DataError: It cannot be read as a table.
    """
    require_file(path)
    if path.suffix.lower() in (".xlsx", ".xls", ".ods"):
        raise DataError("is a spreadsheet", str(path), "save it as CSV")
    return Parquet(path, style) if is_parquet(path) else Delimited(path, style, wanted)


def is_parquet(path: Path) -> bool:
    """Whether a file is Parquet, by its suffix."""
    return path.suffix.lower() in (".parquet", ".pq")


class Parquet:
    """A Parquet file. Fields of a struct, and numbers of lists of one length, are columns.

    Raises:
        DataError: It cannot be read.
    """

    decisions: Sequence[Decision] = ()

    def __init__(self, path: Path, style: TableFormat) -> None:
        import pyarrow.parquet as pq

        self.path, self.style = path, style
        self.unread: dict[str, str] = {}
        self.blocks: dict[str, list[str]] = {}
        # By name: the stored column, and the steps into it: fields of structs, places in lists.
        self._found: dict[str, tuple[str, tuple[str | int, ...]]] = {}
        try:
            with pq.ParquetFile(path) as file:
                schema, metadata = file.schema_arrow, file.metadata
            twice = {name for name in schema.names if schema.names.count(name) > 1}
            if twice:
                raise DataError(f"column '{min(twice)}' appears twice", str(path), "rename it")
            for field in schema:
                name, before = field.name.strip(), len(self._found)
                self._add(name, field.name, field.type, ())
                if name not in self._found:
                    self.blocks[name] = list(self._found)[before:]
        except (OSError, pa.ArrowException) as error:
            raise unreadable(path, error) from None
        self.names = list(self._found)
        groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
        width = sum(group.total_byte_size for group in groups) / max(metadata.num_rows, 1)
        self.rows_at_once = max(1, min(int(BLOCK / max(width, 1)), 65_536))

    def _add(self, name: str, stored: str, kind: Any, steps: tuple[str | int, ...]) -> None:
        types = pa.types
        if types.is_struct(kind):
            for field in kind:
                self._add(f"{name}.{field.name}", stored, field.type, (*steps, field.name))
            return
        self._found[name] = (stored, steps)
        if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
            number = self._length(stored, steps) if _is_number(kind.value_type) else 0
            if number:
                del self._found[name]
                self._found |= {f"{name}.{i}": (stored, (*steps, i)) for i in range(number)}
                return
            lists = "lists of several lengths" if _is_number(kind.value_type) else str(kind)
            self.unread[name] = lists
            return
        try:
            clean(pa.nulls(1, kind), self.style.nothing)
        except TypeError as error:
            self.unread[name] = str(error)

    def _length(self, stored: str, steps: tuple[str | int, ...]) -> int:
        """The length of all lists of a column; 0 where they differ."""
        import pyarrow.parquet as pq

        lengths: set[int] = set()
        with pq.ParquetFile(self.path, pre_buffer=False) as file:
            for batch in file.iter_batches(8192, columns=[stored], use_threads=False):
                cells = _within(batch.column(0), steps)
                lengths |= set(pc.unique(pc.list_value_length(cells)).to_pylist()) - {None}
                if len(lengths) > 1:
                    return 0
        return lengths.pop() if lengths else 0

    def place(self, row: int) -> str:
        """Return a row's number, from 0: the format has no lines."""
        return f"{self.path.name}:{row}"

    def batches(self, names: Sequence[str]) -> Iterator[list[Any]]:
        """Stream the rows, a page of each column at a time."""
        import pyarrow.parquet as pq

        for name in names:
            if name in self.unread:
                what = f"column '{name}' holds {self.unread[name]}"
                fix = f"leave it out: data.source.drop=[{quoted(name)}]"
                raise DataError(what, str(self.path), fix)
        try:
            # Without buffering ahead, a page of each column is in memory, not the whole row group.
            with pq.ParquetFile(self.path, pre_buffer=False, buffer_size=2**20) as file:
                stored = list(dict.fromkeys(self._found[name][0] for name in names))
                options = {"columns": stored, "use_threads": False}
                for batch in file.iter_batches(self.rows_at_once, **options):
                    yield [self._cells(batch, name) for name in names]
        except (OSError, pa.ArrowException) as error:
            raise unreadable(self.path, error) from None

    def _cells(self, batch: Any, name: str) -> Any:
        stored, steps = self._found[name]
        return clean(_within(batch[stored], steps), self.style.nothing)


def _is_number(kind: Any) -> bool:
    types = pa.types
    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind))


def _within(cells: Any, steps: Sequence[str | int]) -> Any:
    """Go into structs and lists."""
    for step in steps:
        if isinstance(step, str):
            cells = pc.struct_field(cells, step)
        else:
            cells = pc.list_element(cells, step)
    return cells


def quoted(name: str) -> str:
    """Return a column's name as an override's list takes it."""
    return name if name.replace("_", "").isalnum() else f"'{name}'"
