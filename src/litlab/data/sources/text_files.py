"""Files of text in some encoding, and where the first byte is that is not of it."""

import codecs
import csv
import json
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from litlab.data.prepare.source_files import require_file
from litlab.data.spec import Array
from litlab.utils.errors import DataError, closest, nearest


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


BLOCK = 2**16


@contextmanager
def readable(path: Path, encoding: str) -> Iterator[None]:
    """Say of a file that cannot be read, or is in another encoding, where and what to do.

    Raises:
        DataError: It is so.
    """
    try:
        yield
    except UnicodeError:
        raise _other_encoding(path, encoding) from None
    except OSError as error:
        raise DataError(f"cannot be read: {error}", str(path), "correct the file") from None


def open_text(path: Path, encoding: str, newline: str | None) -> TextIO:
    """Open a file; a byte order mark is no part of its text.

    Raises:
        DataError: It is a folder, a pipe or a device.
    """
    require_file(path)
    is_utf8 = codecs.lookup(encoding).name == "utf-8"
    return path.open(encoding="utf-8-sig" if is_utf8 else encoding, newline=newline)


def read_whole(path: Path, encoding: str) -> str:
    """Return a file's text.

    Raises:
        DataError: It is in another encoding, or cannot be read.
    """
    with readable(path, encoding), open_text(path, encoding, None) as file:
        return file.read()


def lines_of(path: Path, encoding: str) -> Iterator[tuple[int, str]]:
    r"""Give a file's lines and their numbers; only `\n` and `\r\n` end one.

    Not `\x85`, as with str.splitlines: in cp1252 read as latin-1 it is an ellipsis.

    Raises:
        DataError: It is in another encoding, or cannot be read.
    """
    with readable(path, encoding), open_text(path, encoding, "\n") as file:
        for number, line in enumerate(file, start=1):
            yield number, line.removesuffix("\n").removesuffix("\r")


def _other_encoding(path: Path, encoding: str) -> DataError:
    """Say where the first byte is that cannot be decoded."""
    decoder = codecs.getincrementaldecoder(encoding)()
    done, lines = 0, 1
    with path.open("rb") as file:
        block = b"start"
        while block:
            block = file.read(BLOCK)
            held = len(decoder.getstate()[0])  # bytes of a character that the last block began
            try:
                decoder.decode(block, final=not block)
            except UnicodeError as error:  # without a place where UTF-16 lacks its mark
                place = getattr(error, "start", held) - held
                done, lines = done + place, lines + block.count(b"\n", 0, max(place, 0))
                break
            done, lines = done + len(block), lines + block.count(b"\n")
    return DataError(
        f"not {encoding} at byte {done} (line {lines})",
        str(path),
        "save it as UTF-8, or give data.source.encoding, e.g. latin-1 or cp1252",
    )


# Reads files of texts row by row: CSV, TSV, JSON lines, Parquet, or a label and a text a line.


FORMAT_OF = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}
REFUSED = {
    ".json": "write one JSON object a line (.jsonl)",
    ".xls": "export it as CSV",
    ".xlsx": "export it as CSV",
    **dict.fromkeys((".gz", ".zip", ".bz2", ".xz", ".zst"), "unpack it"),
}
LONGEST_CELL = 2**31 - 1  # the csv module's own limit is 131,072 characters
PARQUET_ROWS = 256
LABEL = "__label__"  # fastText's mark

Row = tuple[Path, int, list[Any]]  # where it is: the file, and its line's number


@dataclass(frozen=True)
class Layout:
    """How a file is written.

    Attributes:
        format: csv, tsv, jsonl, parquet or lines; auto goes by the file's suffix.
        encoding: Of its characters; Parquet has its own.
        delimiter: Between the cells of a row; None: a comma, in TSV a tab.
        header: Whether a CSV's first row names the columns; else they are 0, 1, 2, ...
        quotes: Whether a CSV's cells may be in quotation marks, and so hold delimiters and lines.
    """

    format: str = "auto"
    encoding: str = "utf-8"
    delimiter: str | None = None
    header: bool = True
    quotes: bool = True

    def format_of(self, path: Path) -> str:
        """Return a file's format.

        Raises:
            DataError: Its suffix is that of a format that is not read.
        """
        if self.format != "auto":
            return self.format
        suffix = path.suffix.lower()
        if suffix in REFUSED:
            raise DataError(f"{suffix} files are not read", str(path), REFUSED[suffix])
        return FORMAT_OF.get(suffix, "lines")


class MissingColumn(DataError):
    """A file lacks a column; `close` is the one whose name is most like it."""

    def __init__(self, what: str, path: Path, name: str, known: Iterable[str]) -> None:
        super().__init__(what, str(path), nearest(name, known))
        self.close = closest(name, known)


def check_layout(layout: Layout) -> None:
    """Refuse what is no encoding of text, and delimiters of more than one character.

    Raises:
        ValueError: It is one of these.
    """
    try:
        "".encode(layout.encoding)
    except LookupError:
        raise ValueError(
            f"encoding={layout.encoding} is not known: give utf-8, latin-1, cp1252, utf-16, ..."
        ) from None
    if layout.delimiter is not None and (len(layout.delimiter) != 1 or layout.delimiter in '"\r\n'):
        raise ValueError(f"delimiter={layout.delimiter!r} is not one character such as ';'")


def read_rows(path: Path, columns: Sequence[str], layout: Layout) -> Iterator[Row]:
    """Give each row's place, its first line, and what it has in `columns`.

    Memory holds one row at a time, of Parquet some more. Blank lines are passed over. In the format
    `lines` a row is the label up to the first white space, and the text after it: two columns of
    these names, whatever they are called. Several words that begin with fastText's `__label__` are
    a list of labels; such a word inside the text is refused, for it would give the label away.

    Raises:
        DataError: The file is not what it should be; the message names the line.
    """
    name = layout.format_of(path)
    readers = {"csv": _csv, "tsv": _csv, "jsonl": _jsonl, "parquet": _parquet, "lines": _labelled}
    with readable(path, layout.encoding):
        yield from readers[name](path, columns, layout)


def _labelled(path: Path, columns: Sequence[str], layout: Layout) -> Iterator[Row]:
    if len(columns) > 2:
        what = f"lines of a label and a text have no column '{columns[2]}'"
        raise DataError(what, str(path), "use CSV, JSON lines or Parquet")
    for number, line in lines_of(path, layout.encoding):
        label, *rest = line.split(None, 1) or [""]
        text = "".join(rest)
        labels = [label.removeprefix(LABEL)]
        while label.startswith(LABEL) and text.startswith(LABEL):
            more, *rest = text.split(None, 1)
            text = "".join(rest)
            labels.append(more.removeprefix(LABEL))
        if LABEL in text:
            _check_marks(path, number, text.split())
        if label:
            yield path, number, [text, labels if len(labels) > 1 else labels[0]]


def _check_marks(path: Path, number: int, words: list[str]) -> None:
    marked = [word for word in words if word.startswith(LABEL)]
    if marked:
        what = f"line {number} has the label '{marked[0][:60]}' inside the text"
        raise DataError(what, str(path), "put the labels at the start of the line")


def _jsonl(path: Path, columns: Sequence[str], layout: Layout) -> Iterator[Row]:
    for number, line in lines_of(path, layout.encoding):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            why = getattr(error, "msg", "nested too deeply")
            fix = "write one JSON object a line"
            raise DataError(f"line {number} is not JSON: {why}", str(path), fix) from None
        if not isinstance(row, dict):
            fix = f'write {{"{columns[0]}": ...}}'
            raise DataError(f"line {number} is not a JSON object", str(path), fix)
        missing = [name for name in columns if name not in row]
        if missing:
            raise MissingColumn(f"line {number} has no '{missing[0]}'", path, missing[0], row)
        yield path, number, [row[name] for name in columns]


def _csv(path: Path, columns: Sequence[str], layout: Layout) -> Iterator[Row]:
    csv.field_size_limit(LONGEST_CELL)
    tabs = layout.format_of(path) == "tsv"
    with open_text(path, layout.encoding, "") as file:
        rows = csv.reader(
            file,
            delimiter=layout.delimiter or ("\t" if tabs else ","),
            quoting=csv.QUOTE_MINIMAL if layout.quotes else csv.QUOTE_NONE,
            strict=True,
        )
        numbered = _numbered(path, rows)
        first = next(numbered, None)
        if first is None:
            raise DataError("the file is empty", str(path), "give one with rows")
        width = len(first[1])
        names = [cell.strip() for cell in first[1]] if layout.header else map(str, range(width))
        places = find_columns(path, columns, list(names))
        if not layout.header:
            yield path, first[0], [first[1][place] for place in places]
        for number, row in numbered:
            if len(row) != width:
                what = f"line {number} has {len(row)} cells, and the first line {width}"
                fix = "put cells that hold the delimiter in quotation marks"
                raise DataError(what, str(path), fix)
            yield path, number, [row[place] for place in places]


def _numbered(path: Path, rows: Any) -> Iterator[tuple[int, list[str]]]:
    """Give the rows of a csv.reader that are not blank, and the line each starts at."""
    while True:
        number = rows.line_num + 1
        try:
            row = next(rows, None)
        except csv.Error as error:
            raise DataError(
                f"the row at line {number} cannot be read: {error}",
                str(path),
                'correct its quotation marks; data.source.quotes=false reads " as a character',
            ) from None
        if row is None:
            return
        if len(row) > 1 or "".join(row).strip():
            yield number, row


def _parquet(path: Path, columns: Sequence[str], layout: Layout) -> Iterator[Row]:
    from pyarrow.parquet import ParquetFile

    require_file(path)
    try:
        with ParquetFile(path, pre_buffer=False, buffer_size=BLOCK) as file:
            find_columns(path, columns, file.schema_arrow.names)
            number = 1
            for batch in file.iter_batches(PARQUET_ROWS, columns=list(dict.fromkeys(columns))):
                for row in zip(*(batch.column(name).to_pylist() for name in columns), strict=True):
                    yield path, number, list(row)
                    number += 1
    except ValueError as error:  # pyarrow's ArrowInvalid is one
        raise DataError(f"is not Parquet: {error}", str(path), "correct the file") from None


def find_columns(path: Path, columns: Sequence[str], names: Sequence[str]) -> list[int]:
    """Return where the columns are among a table's.

    Raises:
        DataError: One is missing, or there twice.
    """
    for name in columns:
        if name not in names:
            raise MissingColumn(f"column '{name}' is missing", path, name, names)
        if list(names).count(name) > 1:
            raise DataError(f"column '{name}' appears twice", str(path), "rename or drop one")
    return [names.index(name) for name in columns]
