"""Opens a table, whatever its format."""

import codecs
import contextlib
import csv
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from io import TextIOWrapper
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from litlab.data.prepare.source_files import require_file
from litlab.data.spec import Array
from litlab.utils.errors import DataError, closest

# What all tables have in common, whatever file they come from.


MISSING = ("", "NA", "N/A", "NaN", "nan", "NULL", "null", "?")
BLOCK = 2**20  # bytes read at once (pyarrow has some 30 blocks in hand); a row must fit
SHOWN = 10  # names in a message
ADVICE = "correct the file"
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?")


class Missing:
    """The cells of a table that mean that nothing is known.

    Case does not count; a number stands for all ways to write it: -200 for -200.0 and -200,0.

    Args:
        further: Such cells beside `MISSING`.
    """

    def __init__(self, further: Iterable[str] = ()) -> None:
        self.texts = tuple(dict.fromkeys(text.strip().lower() for text in (*MISSING, *further)))

    @cached_property
    def numbers(self) -> Any:
        """Those of the cells that are numbers, float64."""
        found = [float(text) for text in self.texts if NUMBER.fullmatch(text)]
        return pa.array(found, pa.float64())

    def among_texts(self, cells: Any) -> Any:
        """Return where strings without blanks around them are such cells."""
        found = pc.is_in(pc.utf8_lower(cells), value_set=pa.array(self.texts, pa.string()))
        for number in self.numbers.to_pylist():
            found = pc.or_(found, pc.match_substring_regex(cells, _written(number)))
        return pc.fill_null(found, False)

    def among_numbers(self, cells: Any) -> Any:
        """Return where int64 or float64 are such cells."""
        return pc.is_in(cells.cast(pa.float64(), safe=False), value_set=self.numbers)


def _written(number: float) -> str:
    """Return a pattern of the ways to write a number without an exponent."""
    whole, _, rest = f"{Decimal(repr(abs(number))):f}".partition(".")
    rest = rest.rstrip("0")
    sign = "-" if number < 0 else r"\+?"
    fraction = f"[.,]{rest}0*" if rest else "([.,]0*)?"
    leading = "0+" if float(number) == 0 else f"0*{whole.lstrip('0')}"
    return f"^{sign}{leading}{fraction}$"


@dataclass(frozen=True)
class TableFormat:
    """How a table's file is read; of Parquet only `missing` and `decimal` count.

    `missing` are further cells that mean that nothing is known, beside `MISSING`.
    """

    delimiter: str | None = None
    header: bool = True
    names: tuple[str, ...] = ()
    comment: str | None = None
    decimal: str = "."
    encoding: str = "utf-8"
    missing: tuple[str, ...] = ()

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> "TableFormat":
        """Return the format among a source's settings; what they lack is the default."""
        known: dict[str, Any] = {"missing": settings.get("na_values")}
        known |= {
            name: settings.get(name) for name in cls.__dataclass_fields__ if name not in known
        }
        given = {name: value for name, value in known.items() if value is not None}
        given |= {name: tuple(given[name]) for name in ("names", "missing") if name in given}
        return cls(**given)

    @cached_property
    def nothing(self) -> Missing:
        """The cells that mean that nothing is known."""
        return Missing(self.missing)


class TableFile(Protocol):
    """A table's columns by name, in the file's order, and its rows batch by batch.

    A batch's columns are strings, int64, float64, or dates of some type; a missing cell is null.
    """

    path: Path
    names: list[str]

    def batches(self, names: Sequence[str]) -> Iterator[list[Any]]:
        """Go through the rows; of each batch, these columns' arrays. Others are not looked at."""

    def place(self, row: int) -> str:
        """Return where a row is, its number counted from 0: `name:line`.

        Rows in ascending order are found in a single pass.
        """


def clean(column: Any, missing: Missing) -> Any:
    """Return a column as strings without blanks around them, int64, float64 or dates.

    Cells that mean that nothing is known become null.

    Raises:
        TypeError: Its cells are nothing of the kind; the argument names their type.
    """
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind, types = column.type, pa.types
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        column = pc.utf8_trim_whitespace(column.cast(pa.string()))
        return pc.if_else(missing.among_texts(column), pa.scalar(None, pa.string()), column)
    if types.is_boolean(kind):
        return pc.if_else(column, "True", "False")
    if types.is_integer(kind) and not types.is_uint64(kind):
        column = column.cast(pa.int64())
        return pc.if_else(missing.among_numbers(column), pa.scalar(None, pa.int64()), column)
    if types.is_floating(kind) or types.is_decimal(kind) or types.is_integer(kind):
        column = column.cast(pa.float64(), safe=False)
        none = pc.or_(pc.is_nan(column), missing.among_numbers(column))
        return pc.if_else(none, pa.scalar(None, pa.float64()), column)
    if types.is_temporal(kind):
        return column
    if types.is_null(kind):
        return column.cast(pa.string())
    raise TypeError(str(kind))


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
    return DataError(f"cannot be read as a table: {error}", str(path), ADVICE)


def quoted(name: str) -> str:
    """Return a column's name as an override's list takes it."""
    return name if name.replace("_", "").isalnum() else f"'{name}'"


# Tables as text: cells with a delimiter between them, a row a line.


DELIMITERS = (",", ";", "\t", "|")
LONGEST_CELL = 2**31 - 1  # the csv module's own limit is 131,072 characters
GATHERED = 8 * 2**20  # bytes
FAULTS = (OSError, UnicodeError, LookupError, csv.Error, pa.ArrowException)


class Delimited:
    """A CSV file or its kin, through pyarrow's streaming reader, whose refusals are explained.

    Raises:
        DataError: It is empty or cannot be read, or its columns are more or fewer than `names`.
    """

    def __init__(self, path: Path, style: TableFormat) -> None:
        self.path, self.style = path, style
        self.names: list[str] = []
        self._lines: Iterator[int] | None = None  # of the rows from number `_counted` on
        self._counted = 0
        try:
            self.delimiter = style.delimiter or _sniff(path, style)
            cells, _, end = next(_rows(path, style, self.delimiter), ([], 0, 0))
        except FAULTS as error:
            raise self._complaint(error) from None
        if not cells:
            raise DataError("cannot be read as a table: it is empty", str(path), ADVICE)
        self.skip = end if style.header else end - 1 - sum(cell.count("\n") for cell in cells)
        if style.names and len(style.names) != len(cells):
            raise DataError(
                f"{len(cells)} columns (delimiter {self.delimiter!r}), {len(style.names)} names",
                str(path),
                "give a name for each, or another delimiter",
            )
        unnamed = [f"column{i}" for i in range(len(cells))]
        self.names = list(style.names) or (cells if style.header else unnamed)

    def batches(self, names: Sequence[str]) -> Iterator[list[Any]]:
        """Stream the rows; the rest of a cell that was quoted and never closed is refused."""
        last, places = "", [self.names.index(name) for name in names]
        try:
            with self._reader() as reader:
                for batch in _gathered(reader):
                    last = str(batch.columns[-1][-1]) if len(batch) else last
                    yield self._clean(batch, places)
        except FAULTS as error:
            raise self._complaint(error) from None
        if "\n" in last and not self._ends_with_a_quote():
            what = f"a quote opened before '{last.splitlines()[0][:40]}' is never closed"
            raise DataError(what, str(self.path), ADVICE)

    def place(self, row: int) -> str:
        """Return the line that a row starts in, counted as an editor does: `x.csv:2`."""
        if self._lines is None or row < self._counted:
            rows = _rows(self.path, self.style, self.delimiter)
            self._lines = (start for _, start, _ in islice(rows, int(self.style.header), None))
            self._counted = 0
        skipped = row - self._counted
        self._counted = row + 1
        return f"{self.path.name}:{next(islice(self._lines, skipped, None), '?')}"

    def _clean(self, batch: Any, places: Sequence[int]) -> list[Any]:
        if self.style.comment:
            first = pc.utf8_ltrim_whitespace(batch.columns[0])
            batch = batch.filter(pc.invert(pc.starts_with(first, self.style.comment)))
        return [clean(batch.columns[place], self.style.nothing) for place in places]

    def _reader(self) -> Any:
        from pyarrow import csv as arrow_csv

        keys = [f"{i}" for i in range(len(self.names))]  # its own names may be there twice
        return arrow_csv.open_csv(
            self.path,
            arrow_csv.ReadOptions(
                use_threads=False,
                block_size=BLOCK,
                skip_rows=self.skip,
                column_names=keys,
                encoding=self.style.encoding,
            ),
            arrow_csv.ParseOptions(
                delimiter=self.delimiter,
                newlines_in_values=True,
                invalid_row_handler=self._skip_comment,
            ),
            arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(keys, pa.string()), strings_can_be_null=False
            ),
        )

    def _skip_comment(self, row: Any) -> str:
        return "skip" if _is_comment(row.text, self.style) else "error"

    def _complaint(self, error: Exception) -> DataError:
        """Find out what pyarrow stumbled over: it does not say at which byte, or in which line."""
        where, encoding = str(self.path), self.style.encoding
        if isinstance(error, LookupError):
            fix = "set data.source.encoding to one that Python knows, such as latin-1"
            return DataError(f"there is no encoding '{encoding}'", where, fix)
        with contextlib.suppress(*FAULTS):
            place = undecodable(self.path, encoding)
            if place is not None:
                return not_text(self.path, encoding, place)
            width = len(self.names)
            for cells, line, _ in _rows(self.path, self.style, self.delimiter) if width else ():
                if len(cells) != width:
                    what = f"line {line} has {len(cells)} cells, the others {width}"
                    shown = self.delimiter.join(cells)[:60]
                    return DataError(f"{what}: {shown}", where, f"{ADVICE}, or its delimiter")
        return unreadable(self.path, error)

    def _ends_with_a_quote(self) -> bool:
        tail = b""
        with pa.input_stream(str(self.path)) as file:
            while block := file.read(BLOCK):
                tail = (tail + block)[-200:]
        return tail.rstrip().endswith(b'"')


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


def _text(path: Path, style: TableFormat) -> TextIOWrapper:
    encoding = "utf-8-sig" if codecs.lookup(style.encoding).name == "utf-8" else style.encoding
    return TextIOWrapper(pa.input_stream(str(path)), encoding, newline="")


def _is_comment(line: str, style: TableFormat) -> bool:
    return style.comment is not None and line.lstrip().startswith(style.comment)


def _rows(path: Path, style: TableFormat, delimiter: str) -> Iterator[tuple[list[str], int, int]]:
    """The slow way through a file: each row's cells, and its first and last line, from 1."""
    csv.field_size_limit(LONGEST_CELL)
    with _text(path, style) as text:
        reader = csv.reader(text, delimiter=delimiter)
        start = 1
        for row in reader:
            cells = [cell.strip() for cell in row]
            if cells and not _is_comment(cells[0], style):
                yield cells, start, reader.line_num
            start = reader.line_num + 1


def _sniff(path: Path, style: TableFormat) -> str:
    """The delimiter that cuts the first rows into the most columns, the same number in each."""
    if ".tsv" in path.suffixes or ".tab" in path.suffixes:
        return "\t"
    with _text(path, style) as text:
        lines = [line for line in islice(text, 20) if not _is_comment(line, style)]
    found = {}
    for delimiter in DELIMITERS:
        with contextlib.suppress(csv.Error):
            widths = {len(cells) for cells in csv.reader(lines, delimiter=delimiter) if cells}
            found[delimiter] = min(widths) if len(widths) == 1 else 1
    best = max(found, key=lambda delimiter: found[delimiter], default=DELIMITERS[0])
    return best if found.get(best, 1) > 1 else DELIMITERS[0]


def undecodable(path: Path, encoding: str) -> int | None:
    """Return the offset of the first byte that is not text in this encoding, or None."""
    decoder, start = codecs.getincrementaldecoder(encoding)(), 0
    with pa.input_stream(str(path)) as file:
        while block := file.read(BLOCK):
            kept = len(decoder.getstate()[0])  # bytes of a character that the last block began
            try:
                decoder.decode(block)
            except UnicodeDecodeError as error:
                return start - kept + error.start
            start += len(block)
    try:
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        return start - len(error.object) + error.start
    return None


def not_text(path: Path, encoding: str, place: int) -> DataError:
    """Say where a file stops being text."""
    name = "UTF-8" if codecs.lookup(encoding).name == "utf-8" else encoding
    fix = "save it as UTF-8, or set data.source.encoding (latin-1, cp1252, ...)"
    return DataError(f"not {name} at byte {place}", str(path), fix)


# A table's rows by number, from a file that holds no more of it in memory than is asked for.


# What Arrow's own parser takes for a number, so that cells which are none can be told apart.
NUMBER_PATTERN = r"^[+-]?((\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|(?i:inf|infinity|nan))$"
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
        fits = pc.match_substring_regex(cells, NUMBER_PATTERN)
        return pc.if_else(fits, cells, pa.scalar(None, pa.string())).cast(pa.float64())


def as_text(cells: Any) -> Any:
    """Return cells as strings."""
    return cells if pa.types.is_string(cells.type) else cells.cast(pa.string())


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
