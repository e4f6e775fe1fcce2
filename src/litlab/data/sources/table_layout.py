"""How a table stands in a file of text: encoding, delimiter, header, titles above, totals below.

Written here, because no library's reader tells what it decided and why: docs/log.md compares them.
"""

import codecs
import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from io import TextIOWrapper
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from litlab.data.raw import Decision
from litlab.data.sources.table_cells import DATE_LIKE, Missing
from litlab.utils.errors import DataError

BLOCK = 2**20  # bytes read at once (pyarrow has some 30 blocks in hand); a row must fit
LONGEST_CELL = 2**31 - 1  # the csv module's own limit is 131,072 characters
WORDS = {
    "comma": ",",
    "semicolon": ";",
    "tab": "\t",
    "\\t": "\t",
    "pipe": "|",
    "space": "whitespace",
    " ": "whitespace",
}
NAMES = {",": ",", ";": ";", "\t": "tab", "|": "|"}  # by which a decision calls a delimiter
CUT = "\x1f"  # between the cells of a line that was cut at blanks, or by width
SAMPLE = 200  # lines
TAIL = 2**16  # bytes
PLAIN = re.compile(r"[+-]?(\d+([.,]\d+)*|[.,]\d+)(e[+-]?\d+)?%?", re.I)
FOOTER = re.compile(
    r"((grand |sub)?totals?|sum|average|mean|median|sources?|notes?|generated|exported|rows|"
    r"summe|gesamt|mittelwert|quelle|total g[ée]n[ée]ral)\b.*|\(?\d+ (rows|records)\b.*",
    re.I,
)

TOTAL = re.compile(r"(grand |sub)?total:?|sum:?|summe:?|gesamt:?", re.I)


@dataclass(frozen=True)
class TableFormat:
    """How a table's file is read; null is found out from the file.

    Of Parquet only `missing` and `decimal` count. `missing` are cells that mean that nothing is
    known, beside `MISSING`.
    """

    delimiter: str | None = None
    header: bool | None = None
    names: tuple[str, ...] = ()
    comment: str | None = None
    decimal: str | Mapping[str, str] | None = None
    encoding: str | None = None
    skip_start: int | None = None
    skip_end: int | None = None
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

    def is_comment(self, line: str) -> bool:
        """Whether a line is left out."""
        return self.comment is not None and line.lstrip().startswith(self.comment)


@dataclass
class Layout:
    """A file's format, with nothing left open.

    Attributes:
        style: The format.
        header: The cells of the line that names the columns; of the first line without one.
        skip: Lines above the first row.
        footers: Lines at the end that are no rows.
        width: Cells in a row.
        bounds: Where the columns of a file with cells of fixed width begin.
        decisions: What was found out, with the evidence.
    """

    style: TableFormat
    header: list[str]
    skip: int = 0
    footers: list[str] = field(default_factory=list)
    width: int = 0
    bounds: tuple[int, ...] = ()
    decisions: list[Decision] = field(default_factory=list)

    def decide(self, name: str, value: Any, why: str) -> None:
        """Keep a decision."""
        self.decisions.append(Decision(setting=f"data.source.{name}", value=value, why=why))


def find_layout(path: Path, style: TableFormat, wanted: Sequence[str] = ()) -> Layout:
    """Find out what a format leaves open.

    Args:
        path: The file.
        style: What is known of its format.
        wanted: Columns that it should have: they tell its header from titles above it.

    Raises:
        DataError: It is empty, or text in no encoding.
    """
    delimiter = style.delimiter
    style = replace(style, delimiter=WORDS.get(delimiter or "", delimiter))
    found = Layout(replace(style, encoding=style.encoding or find_encoding(path)), [])
    given = style.encoding is not None
    if not given and codecs.lookup(str(found.style.encoding)).name not in ("utf-8", "utf-8-sig"):
        why = "its first bytes are this encoding's mark"
        if found.style.encoding == "cp1252":
            why = f"byte {undecodable(path, 'utf-8')} is not UTF-8"
        found.decide("encoding", found.style.encoding, why)
    lines, whole = _first_lines(path, found.style)
    if style.delimiter is None:
        _find_delimiter(path, lines, whole, wanted, found)
    _find_header(lines, whole, wanted, found)
    _find_footer(path, found)
    return found


# Encoding.


MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def find_encoding(path: Path) -> str:
    """Return the encoding of a text: by its mark, UTF-8 if it is that, or else cp1252.

    UTF-8 with a few damaged bytes stays UTF-8, so that they are named when it is read.
    """
    with pa.input_stream(str(path)) as file:
        head = file.read(4096)
    for mark, name in MARKS:
        if head.startswith(mark):
            return name
    if len(head) > 3 and head[1::2].count(0) > len(head) / 4:
        return "utf-16-le"
    if len(head) > 3 and head[::2].count(0) > len(head) / 4:
        return "utf-16-be"
    place = undecodable(path, "utf-8")
    if place is None:
        return "utf-8"
    with pa.input_stream(str(path)) as file:
        around = file.read(place + BLOCK)[max(0, place - BLOCK) :]
    kept = around.decode("utf-8", errors="ignore")
    letters = len(re.findall(r"[^\W\d_a-zA-Z]", kept))
    bad = around.decode("utf-8", errors="replace").count("\ufffd")
    damaged = letters > bad or any(byte in around for byte in b"\x81\x8d\x8f\x90\x9d\x00\xff")
    return "utf-8" if damaged else "cp1252"


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


def open_text(path: Path, style: TableFormat) -> TextIOWrapper:
    """Open a text, unpacked; its line ends stay as they are."""
    encoding = str(style.encoding)
    encoding = "utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding
    return TextIOWrapper(pa.input_stream(str(path)), encoding, newline="")


def _first_lines(path: Path, style: TableFormat) -> tuple[list[str], bool]:
    """The first lines, and whether they are all."""
    with open_text(path, style) as text:
        lines, size = [], 0
        for line in text:
            lines.append(line)
            size += len(line)
            if len(lines) >= SAMPLE or size > BLOCK:
                return lines, False
    return lines, True


# Lines to cells.


TOKEN = re.compile(r'"(?:[^"]|"")*"(?=\s|$)|\S+')


def cells_of(line: str, layout: Layout) -> list[str]:
    """Cut a line at blanks, or by width."""
    if layout.style.delimiter == "fixed":
        ends = [*layout.bounds[1:], len(line)]
        return [line[start:end].strip() for start, end in zip(layout.bounds, ends, strict=True)]
    tokens = TOKEN.findall(line)
    return [
        token[1:-1].replace('""', '"') if len(token) > 1 and token[0] == token[-1] == '"' else token
        for token in tokens
    ]


def is_cut(layout: Layout) -> bool:
    """Whether a line is cut here, and not by pyarrow."""
    return layout.style.delimiter in ("whitespace", "fixed")


def rows_of(
    lines: Iterable[str], layout: Layout, *, skip: int = 0
) -> Iterator[tuple[list[str], int, int]]:
    """Go through the rows: each one's cells, and its first and last line, from 1.

    Comments and rows without a single cell that holds something are left out.

    Args:
        lines: Of the text, from its first on.
        layout: How they are cut.
        skip: Lines to pass over.
    """
    csv.field_size_limit(LONGEST_CELL)
    style = layout.style
    numbered: Iterator[tuple[list[str], int]]
    lines = islice(lines, skip, None)
    if is_cut(layout):
        numbered = ((cells_of(line, layout), i) for i, line in enumerate(lines, start=1))
    else:
        reader = csv.reader(lines, delimiter=str(style.delimiter))
        numbered = ((row, reader.line_num) for row in reader)
    start = 1
    for row, end in numbered:
        cells = [cell.strip() for cell in row]
        if any(cells) and not style.is_comment(next(filter(None, cells))):
            yield cells, skip + start, skip + end
        start = end + 1


def _sampled(lines: Sequence[str], whole: bool, layout: Layout) -> list[tuple[list[str], int, int]]:
    """The rows of the first lines; the last one may be a part of a row, if there are more lines."""
    rows: list[tuple[list[str], int, int]] = []
    with suppress(csv.Error):
        rows += rows_of(lines, layout, skip=layout.style.skip_start or 0)
    return rows if whole or len(rows) < 2 else rows[:-1]


# Delimiter.


def _find_delimiter(
    path: Path, lines: Sequence[str], whole: bool, wanted: Sequence[str], found: Layout
) -> None:
    """The delimiter that cuts lines into the same number of cells, most of them plain values."""
    suffixes = {suffix.lower() for suffix in path.suffixes}
    scores: dict[str, tuple[Any, ...]] = {}
    for delimiter in (",", ";", "\t", "|", "whitespace"):
        if delimiter == "," and found.style.decimal == ",":
            continue
        trial = replace(found, style=replace(found.style, delimiter=delimiter))
        rows = [cells for cells, _, _ in _sampled(lines, whole, trial)]
        width, share = _usual_width(rows)
        if width < 2:
            continue
        named = bool(wanted) and any(set(wanted) <= set(cells) for cells in rows[:30])
        plain = _plain_share([cells for cells in rows if len(cells) == width])
        if delimiter == "whitespace" and (share < 0.9 or (plain < 0.5 and not named)):
            continue
        expected = delimiter == "\t" and bool(suffixes & {".tsv", ".tab"})
        last = delimiter != "whitespace"
        scores[delimiter] = (named, expected, share > 0.9, round(plain, 1), last, share, width)
    best = max(scores, key=lambda delimiter: scores[delimiter], default="")
    if best in ("", "whitespace") and (bounds := _fixed_bounds(lines, whole, best, found)):
        found.bounds, best = bounds, "fixed"
    found.style = replace(found.style, delimiter=best or ",")
    if best not in ("", ",") and not ("\t" in best and suffixes & {".tsv", ".tab"}):
        rows = [cells for cells, _, _ in _sampled(lines, whole, found)]
        width, share = _usual_width(rows)
        why = f"it cuts {share:.0%} of the first {len(rows)} rows into {width} cells"
        found.decide("delimiter", NAMES.get(best, best), why)


def _usual_width(rows: Sequence[Sequence[str]]) -> tuple[int, float]:
    """The most frequent number of cells, and the share of the rows that have as many."""
    if not rows:
        return 0, 0.0
    width, number = Counter(map(len, rows)).most_common(1)[0]
    return width, number / len(rows)


def _plain_share(rows: Sequence[Sequence[str]]) -> float:
    """The share of the cells that are empty, a number, a date or a single word."""
    cells = [cell for row in rows for cell in row]
    plain = sum(
        not cell or bool(PLAIN.fullmatch(cell) or DATE_LIKE.fullmatch(cell)) or cell.isalpha()
        for cell in cells
    )
    return plain / max(len(cells), 1)


def _fixed_bounds(lines: Sequence[str], whole: bool, best: str, found: Layout) -> tuple[int, ...]:
    """Where columns of fixed width begin, if cutting at blanks does not do."""
    kept = [line.rstrip("\r\n") for line in lines if line.strip()]
    kept = kept if whole else kept[:-1]
    if len(kept) < 3 or best == "whitespace" or any("\t" in line for line in kept):
        return ()
    length = max(map(len, kept))
    blank = [all(i >= len(line) or line[i] == " " for line in kept) for i in range(length)]
    starts = [i for i in range(length) if not blank[i] and (i == 0 or blank[i - 1])]
    # A gap of one blank in every line may be chance: two of them, or many lines, are none.
    return tuple(starts) if len(starts) > 1 and len(kept) >= 5 else ()


# Header and footer.


def _find_header(lines: Sequence[str], whole: bool, wanted: Sequence[str], found: Layout) -> None:
    """The line that names the columns, and whether there is one."""
    style = found.style
    if style.delimiter == "fixed" and not found.bounds:
        found.bounds = _fixed_bounds(lines, whole, "", found) or (0,)
    rows = _sampled(lines, whole, found)
    if not rows:
        return
    width, share = _usual_width([cells for cells, _, _ in rows[1:]] or [rows[0][0]])
    found.width = width if share > 0.5 else len(rows[0][0])
    place = 0
    if style.skip_start is None:
        place = _first_row(rows, wanted, found.width, style)
        if place:
            skip = rows[place][1] - 1
            titles = "; ".join(" ".join(filter(None, cells))[:40] for cells, _, _ in rows[:place])
            found.style = style = replace(style, skip_start=skip)
            found.decide("skip_start", skip, f"above the table stands '{titles[:80]}'")
    cells, start, end = rows[place]
    found.header, found.skip = cells, start - 1
    if style.header is None:
        lacking = set(wanted) - set(cells)
        numbered = lacking and all(re.fullmatch(r"column\d+", name) for name in lacking)
        named = wanted and not lacking
        rest = [r for r, _, _ in rows[place + 1 :]]
        has = bool(named) or not (numbered or _is_data(cells, rest))
        found.style = replace(style, header=has)
        if not has:
            why = f"the first line is like the others: {', '.join(cells)[:60]}"
            found.decide("header", False, why)
    if found.style.header:
        found.skip = end


def _first_row(
    rows: Sequence[tuple[list[str], int, int]],
    wanted: Sequence[str],
    width: int,
    style: TableFormat,
) -> int:
    """The number of the row with the names, or of the first one with data."""
    for place, (cells, _, _) in enumerate(rows[:30]):
        if wanted and style.header is not False and set(wanted) <= set(cells):
            return place
    for place, (cells, _, _) in enumerate(rows[:30]):
        known = sum(map(bool, cells))
        if len(cells) in (width, width - 1) and known > max(1, width / 2) or width < 2:
            return place
    return 0


def _is_data(first: Sequence[str], rest: Sequence[Sequence[str]]) -> bool:
    """Whether the first row is like the others: numbers in columns of numbers, and no years."""
    if not rest or first == [str(i) for i in range(len(first))] or len(set(first)) < len(first) / 2:
        return False
    numeric = [
        place
        for place in range(len(first))
        if all(len(r) <= place or not r[place] or PLAIN.fullmatch(r[place]) for r in rest)
        and any(len(r) > place and r[place] for r in rest)
    ]
    like = [place for place in numeric if PLAIN.fullmatch(first[place])]
    names = [place for place in like if re.fullmatch(r"(19|20)\d\d|[1-9]\d?", first[place])]
    return bool(numeric) and len(like) == len(numeric) and len(names) < len(like)


def _find_footer(path: Path, found: Layout) -> None:
    """Lines at the end that are no rows: totals, sources, notes."""
    style, width = found.style, found.width
    if style.skip_end == 0 or width < 2:
        return
    rows = _last_rows(path, found)
    number = 0
    if style.skip_end is not None:
        number = min(style.skip_end, len(rows))
    else:
        while number < min(5, len(rows) - 1) and _is_footer(rows[-1 - number][1], width):
            number += 1
    if not number:
        return
    found.footers = [line for line, _ in rows[len(rows) - number :]]
    if style.skip_end is None:
        shown = "; ".join(line.strip()[:40] for line in found.footers)
        found.decide("skip_end", number, f"below the table stands '{shown[:80]}'")
    found.style = replace(style, skip_end=number)


def _is_footer(cells: Sequence[str], width: int) -> bool:
    known = [cell for cell in cells if cell]
    first = known[0] if known else ""
    if PLAIN.fullmatch(first) or len(cells) > width:
        return False
    if TOTAL.fullmatch(first):
        return True
    note = len(known) == 1 and len(cells) < width and " " in first and len(first) > 10
    return note or (bool(FOOTER.fullmatch(first)) and len(known) < max(width, 2))


def _last_rows(path: Path, found: Layout) -> list[tuple[str, list[str]]]:
    """The last lines that hold something, each with its cells; none where that takes long."""
    encoding = codecs.lookup(str(found.style.encoding)).name
    plain = path.suffix.lower() not in (".gz", ".bz2", ".zst", ".lz4", ".br", ".xz")
    size = path.stat().st_size
    if encoding.startswith(("utf-16", "utf-32")) or not plain or size <= TAIL:
        if size > 2**23:
            return []
        with open_text(path, found.style) as text:
            lines = text.read().splitlines()[found.skip :]
    else:
        with path.open("rb") as file:
            file.seek(size - TAIL)
            lines = file.read().decode(encoding, errors="ignore").splitlines()[1:]
    rows = []
    for line in [line for line in lines if line.strip()][-30:]:
        with suppress(csv.Error):
            cells = next(rows_of([line], found), None)
            if cells is not None:
                rows.append((line, cells[0]))
    return rows


def not_text(path: Path, encoding: str, place: int) -> DataError:
    """Say where a file stops being text."""
    name = "UTF-8" if codecs.lookup(encoding).name == "utf-8" else encoding
    fix = "save it as UTF-8, or set data.source.encoding (latin-1, cp1252, ...)"
    return DataError(f"not {name} at byte {place}", str(path), fix)
