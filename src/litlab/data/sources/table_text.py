"""Tables as text: cells with a delimiter between them, a row a line."""

import codecs
import contextlib
import csv
from collections.abc import Iterator, Sequence
from io import TextIOWrapper
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from litlab.data.sources.table_format import BLOCK, MEND, TableFormat, clean, unreadable
from litlab.utils.errors import DataError

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
            raise DataError("cannot be read as a table: it is empty", str(path), MEND)
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
            raise DataError(what, str(self.path), MEND)

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
                    return DataError(f"{what}: {shown}", where, f"{MEND}, or its delimiter")
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
