"""What a table's columns are: numbers, categories, dates, or nothing to learn from."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from litlab.data.sources.table_cells import (
    as_amounts,
    as_dates,
    as_numbers,
    as_text,
    formats_of,
    numbers_of,
    parts_of,
    without_marks,
)
from litlab.data.sources.table_file import quoted
from litlab.data.sources.table_rows import TableRows
from litlab.data.spec import Array, CellFormat
from litlab.utils.errors import DataError

LEADING_ZERO = r"^[+-]?0\d+$"
DAY_NUMBER = re.compile(r"(19|20)\d{2}(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])")
ID_NAME = re.compile(r"(.*[\W_])?(id|uuid|guid|key)|.*[a-z](Id|ID|Nr|No)")
TIME_NAME = re.compile(r".*(time|step|day|week|month|year|date|hour|epoch|round|t)", re.IGNORECASE)
# Numbers that stand for missing cells.
SENTINELS = (-1.0, -9.0, -99.0, -200.0, -999.0, -9999.0, -99999.0, 999.0, 9999.0, 99999.0)
SHOWN = 5
Decimal = Literal[".", ","]
MOST_CATEGORIES = 100_000
SAMPLE = 2000  # different values of a column that are looked at one by one
MOST_MARKS = 20  # different cells that are no numbers, in a column of numbers
FEW_MARKS = 3
LABEL_CELLS = {"0", "1", "0.0", "1.0"}
FEW = 20  # different values that are categories, however few rows there are
LEAST_DAYS = 3  # different numbers that all look like days
ROWS = 10  # growing by chance in so many rows is unlikely
PLAIN = CellFormat()
LARGEST = float(np.finfo(np.float32).max)


class Cell(NamedTuple):
    """A cell to be named in a message; its line is looked for when it is."""

    place: Callable[[int], str]
    row: int
    content: str = ""

    def __str__(self) -> str:
        return f"{self.place(self.row)}{self.content}"


def listed(cells: Iterable[Cell]) -> str:
    """Return cells as a message lists them."""
    return ", ".join(map(str, cells))


class Survey:
    """What the cells of one column look like, gathered batch by batch.

    Facts about the file, and no statistics: nothing here is of use to a model.

    Args:
        name: The column.
        where: Its file.
        most: Different values that are counted.
        style: How its cells are read.
    """

    def __init__(self, name: str, where: str, most: int, style: CellFormat = PLAIN) -> None:
        self.name, self.where, self.most, self.style = name, where, most, style
        self.rows = self.missing = self.numbers = self.dates = 0
        self.whole = True
        self.values: set[str] | None = set()  # None: more than `most`
        self.sample: dict[str, None] = {}  # the first different values
        self.spread = 1.0  # different values a cell
        self.lacking: list[Cell] = []
        self.odd: list[Cell] = []  # cells that are not numbers
        self.marks: Counter[str] = Counter()  # those that are nothing like a number
        self.amounts: dict[str, Counter[str]] = {
            ".": Counter(),
            ",": Counter(),
        }  # units, by decimal
        self.dots = 0  # numbers with a point
        self.infinite: list[Cell] = []
        self.num_infinite = 0
        self.rising = self.counting = True  # so far, each number is larger (by one) than the last
        self.zeros = ""  # a number with leading zeros, if there is one
        self.low, self.high = np.inf, -np.inf  # of numbers that are not in SENTINELS
        self.sentinels: Counter[float] = Counter()
        self.parts: dict[str, None] = {}  # of dates, in which they differ
        self._last = -np.inf
        self._first: Array | None = None  # date

    @property
    def present(self) -> int:
        """How many cells hold something."""
        return self.rows - self.missing

    @property
    def is_numeric(self) -> bool:
        """Whether every cell is a number."""
        return self.numbers == self.present

    def see(self, cells: Any, place: Callable[[int], str], start: int) -> None:
        """Look at some more cells of a file, from its row `start` on; `place` finds a row in it."""

        def cell(row: int, content: str = "") -> Cell:
            return Cell(place, start + row, content)

        cells = without_marks(cells, self.style)
        self.rows += len(cells)
        self.missing += cells.null_count
        _note(self.lacking, pc.is_null(cells), cell)
        if self.style.dates or (
            pa.types.is_temporal(cells.type) and not pa.types.is_duration(cells.type)
        ):
            self._see_dates(cells, cell)
            return
        if not pa.types.is_duration(cells.type):
            self._count_values(cells)
        numbers = numbers_of(cells, self.style)
        self.numbers += len(numbers) - numbers.null_count
        self._see_numbers(cells, numbers, first=start == 0)
        beyond = pc.fill_null(pc.greater(pc.abs(numbers), LARGEST), False)
        self.num_infinite += beyond.true_count
        _note(self.infinite, beyond, lambda row: cell(row, f" {cells[row]}"))
        odd = pc.and_(pc.is_valid(cells), pc.is_null(numbers))
        if odd.true_count:
            _note(self.odd, odd, lambda row: cell(row, f" '{str(cells[row])[:30]}'"))
            self._see_odd(cells.filter(odd))
        if pa.types.is_string(cells.type):
            self.dots += pc.match_substring(cells.filter(pc.is_valid(numbers)), ".").true_count

    def _see_odd(self, cells: Any) -> None:
        """Look at cells that are no plain numbers: amounts with units, or nothing of the kind."""
        texts, counts = cells.value_counts().flatten()
        digits = pc.match_substring_regex(texts, r"\d")
        if not digits.true_count:
            self._note_marks(texts, counts)
            return
        strange = None
        for decimal, units in self.amounts.items():
            found = as_amounts(texts, decimal)[1]
            for unit, number in zip(found.to_pylist(), counts.to_pylist(), strict=True):
                units[unit] += number if unit is not None else 0
            strange = found.is_null() if strange is None else pc.and_(strange, found.is_null())
            units.pop(None, None)  # type: ignore[call-overload]
        self._note_marks(texts.filter(strange), counts.filter(strange))

    def _note_marks(self, texts: Any, counts: Any) -> None:
        if len(self.marks) <= SAMPLE:
            pairs = zip(texts.to_pylist(), counts.to_pylist(), strict=True)
            for text, number in pairs:
                self.marks[text] += number

    def _see_dates(self, cells: Any, cell: Callable[[int, str], Cell]) -> None:
        dates = as_dates(cells, self.style.dates)
        odd = pc.and_(pc.is_valid(cells), pa.array(np.isnat(dates)))
        if odd.true_count:
            _note(self.odd, odd, lambda row: cell(row, f" '{str(cells[row])[:30]}'"))
            self.marks.update(as_text(cells.filter(odd)).to_pylist())
        self.dates += len(dates) - int(np.isnat(dates).sum())
        known = np.unique(dates[~np.isnat(dates)])
        self._first = known[:1] if self._first is None else self._first
        self.parts |= dict.fromkeys(parts_of(np.concatenate([self._first, known])))

    def _see_numbers(self, cells: Any, numbers: Any, *, first: bool) -> None:
        """Look for what numbers are that are no amounts: row numbers, codes, marks of nothing."""
        values = numbers.to_numpy(zero_copy_only=False)
        known = values[~np.isnan(values)]
        self.whole = self.whole and bool((np.floor(known) == known).all())
        if self.rising:
            steps = np.diff(values, prepend=[-np.inf if first else self._last])
            self.rising = bool((steps > 0).all())  # not with NaN
            self.counting = self.counting and bool((steps[int(first) :] == 1).all())
            self._last = values[-1] if len(values) else self._last
        marks = np.isin(known, SENTINELS)
        self.sentinels.update(known[marks].tolist())
        rest = known[~marks]
        if len(rest):
            self.low, self.high = min(self.low, rest.min()), max(self.high, rest.max())
        if not self.zeros and pa.types.is_string(cells.type):
            found = cells.filter(pc.match_substring_regex(cells, LEADING_ZERO))
            self.zeros = found[0].as_py() if len(found) else ""

    def _count_values(self, cells: Any) -> None:
        if self.values is None and len(self.sample) >= SAMPLE:
            return
        texts = as_text(pc.unique(cells).drop_null()).to_pylist()
        self.sample |= dict.fromkeys(texts[: SAMPLE - len(self.sample)])
        if self.values is not None:
            self.values.update(texts)
            self.spread = len(self.values) / max(self.present, 1)
            if len(self.values) > self.most:
                self.values = None

    def is_text(self) -> bool:
        """Whether there are too many different values to call them categories."""
        return self.values is None or len(self.values) > max(FEW, self.present / 2)

    def example(self) -> str:
        """Return one of its values, for a message."""
        return f"'{next(iter(self.sample), '')[:30]}'"


def format_of(survey: Survey, decimal: Decimal | None = None, tie: Decimal = ".") -> CellFormat:
    """Return how a column's cells are best read, after a look at them as they stand.

    Args:
        survey: Of the column, read as `CellFormat()` says.
        decimal: What separates a fraction; None: what fits the most cells.
        tie: What it is if both fit: 1,234.
    """
    if survey.dates or not survey.present:
        return survey.style  # of a type of their own
    plain = {".": survey.numbers, ",": survey.numbers - survey.dots}
    fits = {d: plain[d] + sum(survey.amounts[d].values()) for d in (".", ",")}
    days = [bool(DAY_NUMBER.fullmatch(text)) for text in survey.sample]
    if survey.is_numeric and len(days) >= LEAST_DAYS and all(days):
        return CellFormat(dates="%Y%m%d")
    if survey.is_numeric:  # as they stand; but 1.234 may be 1234
        pointed = survey.dots and (decimal or tie) == "," and _grouped(survey)
        return CellFormat(decimal=",", unit="#") if pointed else CellFormat()
    more: Decimal = "," if fits[","] > fits["."] else "."
    best = decimal or (tie if fits["."] == fits[","] else more)
    units = Counter(survey.amounts[best])
    grouped = units.pop("#", 0)
    unit, number = units.most_common(1)[0] if units else ("#" if grouped else "", 0)
    if re.search(r"#[^\W\d_]", unit) and plain[best] + grouped > survey.present / 5:
        return CellFormat()  # codes: 0, 1a
    known = plain[best] + grouped + number
    rest = survey.present - known
    if best == ",":
        rest, unit = rest - survey.dots, unit or "#"
    certain = sum(survey.marks.values()) == rest and len(survey.marks) <= SAMPLE
    if known and (not rest or (certain and are_marks(survey.marks, rest, survey))):
        missing = tuple(sorted(survey.marks)) if rest else ()
        return CellFormat(decimal=best, unit=unit, missing=missing)
    formats = date_formats(survey)
    return CellFormat(dates=formats[0]) if formats else CellFormat()


def _grouped(survey: Survey) -> bool:
    """Whether its numbers with points may be such with points between thousands."""
    texts = [text for text in survey.sample if "." in text]
    return all(re.fullmatch(r"[+-]?[1-9]\d{0,2}(\.\d{3})+", text) for text in texts)


def are_marks(marks: Mapping[str, int], number: int, survey: Survey) -> bool:
    """Whether cells that are no numbers mean that nothing is known."""
    few = len(marks) <= FEW_MARKS and not any(re.search(r"\d", mark) for mark in marks)
    many = number < survey.present / 2 or len(survey.sample) - len(marks) > FEW
    return (few and many) or (len(marks) <= MOST_MARKS and number <= survey.present / 10)


def date_formats(survey: Survey) -> tuple[str, list[str]] | None:
    """Return the formats of a column's dates, and others that fit as well; None if it has none.

    Of two that fit, such as day and month, that one is taken which puts the rows in order.
    """
    formats, others = formats_of(list(survey.sample)[:300])
    if not formats:
        return None
    if others and "|" not in formats:
        texts = list(survey.sample)
        fits = {f: as_dates(texts, f) for f in (formats, *others)}
        steps = {f: np.diff(dates) for f, dates in fits.items() if not np.isnat(dates).any()}
        ordered = [f for f, step in steps.items() if (step > np.timedelta64(0)).all()]
        chosen = next(iter(ordered or steps), formats)
        others = [f for f in (formats, *others) if f != chosen and (f in ordered or not ordered)]
        formats = chosen
    return formats, others


Kind = Literal["numeric", "categorical", "dates", "left out"]


class Verdict(NamedTuple):
    """What a column is, and why, where that is not plain to see."""

    kind: Kind
    why: str = ""


def verdict(survey: Survey, said: str | None) -> Verdict:
    """Say what a column is.

    Args:
        survey: Of the column, read as its cells are best read.
        said: What the user says that it is: `numeric`, `categorical`, `dates`, or nothing.

    Raises:
        DataError: It is not what the user says, or holds what no network should be fed.
    """
    if said == "categorical":
        return _categorical(survey)
    if not survey.present:
        return Verdict("left out", "empty")
    if survey.dates and survey.dates == survey.present:
        return _dates(survey)
    if survey.num_infinite and survey.is_numeric:
        what = f"column '{survey.name}' has {survey.num_infinite} infinite numbers"
        raise DataError(
            f"{what} ({listed(survey.infinite)})", survey.where, "correct or drop these rows"
        )
    if said in ("numeric", "dates") and not survey.is_numeric:
        number = survey.present - survey.numbers - survey.dates
        what = f"column '{survey.name}' has {number} cells that are not {_named(said)}"
        fix = "correct them, list them in data.source.na_values, or set "
        fix += f"data.source.categorical=[{quoted(survey.name)}]"
        raise DataError(f"{what} ({listed(survey.odd)})", survey.where, fix)
    if said == "numeric":
        return Verdict("numeric", _how(survey))
    if survey.values is not None and len(survey.values) == 1 and not survey.missing:
        return Verdict("left out", f"always {survey.example()}")
    return _numeric(survey) if survey.is_numeric else _texts(survey)


def _named(said: str) -> str:
    return {"numeric": "numbers"}.get(said, said)


def _categorical(survey: Survey) -> Verdict:
    if not survey.present or survey.values is None:
        what = "is empty" if not survey.present else f"has over {survey.most} different values"
        fix = f"data.source.drop=[{quoted(survey.name)}]"
        raise DataError(f"column '{survey.name}' {what}", survey.where, fix)
    return Verdict("categorical")


def _dates(survey: Survey) -> Verdict:
    if not survey.parts:
        return Verdict("left out", "always the same date")
    return Verdict("dates", f"dates such as {survey.example()}" if survey.sample else "dates")


def _numeric(survey: Survey) -> Verdict:
    unique = survey.spread > 0.95 and survey.present >= ROWS
    if survey.zeros:
        shown = f"leading zeros such as '{survey.zeros}'"
        if unique or survey.is_text():
            return Verdict("left out", f"codes with {shown}, nearly all different")
        return Verdict("categorical", f"codes with {shown}")
    if survey.whole and survey.rows >= ROWS and not survey.style.unit:
        counts = survey.counting and survey.rising and survey.sample.keys() & {"0", "1"}
        if counts and not TIME_NAME.fullmatch(survey.name):
            return Verdict("left out", "it numbers the rows")
        if ID_NAME.fullmatch(survey.name):
            if unique or survey.values is None:
                return Verdict("left out", "an identifier")
            if not survey.is_text():
                return Verdict("categorical", "an identifier that repeats")
    return Verdict("numeric", _how(survey))


def _how(survey: Survey) -> str:
    """How numbers were read, if not plainly."""
    style, reasons = survey.style, []
    if style.unit and (style.unit, style.decimal) != ("#", ","):
        cell = next(
            (t for t in survey.sample if not as_numbers(pa.array([t]), ".")[0].is_valid), ""
        )
        reasons.append(f"cells such as '{cell[:30]}'")
    if style.missing:
        shown = ", ".join(f"'{mark[:20]}'" for mark in style.missing[:SHOWN])
        reasons.append(f"{shown} {'is' if len(style.missing) == 1 else 'are'} missing")
    return ", ".join(reasons)


def _texts(survey: Survey) -> Verdict:
    if not survey.is_text():
        return Verdict("categorical")
    number = f"over {survey.most}" if survey.values is None else f"{len(survey.values)}"
    lengths = [len(text.split()) for text in survey.sample]
    kind = "free text" if np.mean(lengths) > 2 else "identifiers"
    shown = f"{kind}: {number} different values in {survey.present} cells, such as"
    return Verdict("left out", f"{shown} {survey.example()}")


def missing_cells(surveys: Sequence[Survey]) -> DataError | None:
    """Return the refusal of missing cells, with their number in each column; None without any."""
    counts = [f"{survey.name} {survey.missing}" for survey in surveys if survey.missing]
    if not counts:
        return None
    more = f" and {len(counts) - 20} more columns" if len(counts) > 20 else ""
    fix = (
        "set data.source.impute=median (or mean, or indicator), fitted on train, with a category "
        "of their own for missing ones; or correct the file"
    )
    return DataError(f"missing cells: {', '.join(counts[:20])}{more}", surveys[0].where, fix)


def _note(into: list[Cell], mask: Any, say: Callable[[int], Cell]) -> None:
    """Remember the first few places where a mask is true."""
    if len(into) < SHOWN and mask.true_count:
        into += [say(place) for place in np.flatnonzero(mask)[: SHOWN - len(into)].tolist()]


# A table's columns that are no features: targets, and what the split may go by.


def amounts(rows: Mapping[str, TableRows], surveys: Sequence[Survey]) -> dict[str, Array]:
    """Return a regression's targets by part, float64 `(N, T)`.

    Raises:
        DataError: A target is missing, infinite or no number; names the first five.
    """
    for survey in surveys:
        _require_cells(survey, "target")
        number = survey.present - survey.numbers
        if number:
            what = f"{number} targets '{survey.name}' are not numbers ({listed(survey.odd)})"
            fix = "correct them, or set data.source.task=classification task=classification"
            raise DataError(what, survey.where, fix)
        if survey.num_infinite:
            what = f"{survey.num_infinite} targets '{survey.name}' are infinite"
            raise DataError(f"{what} ({listed(survey.infinite)})", survey.where, "correct them")
    return {
        part: np.column_stack([_numbers(r, survey) for survey in surveys])
        for part, r in rows.items()
    }


def is_label(survey: Survey) -> bool:
    """Whether a column holds nothing but 0 and 1."""
    if survey.values is None or not survey.is_numeric:
        return False
    return {value.replace(",", ".") for value in survey.values} <= LABEL_CELLS


def flags(rows: Mapping[str, TableRows], surveys: Sequence[Survey]) -> dict[str, Array]:
    """Return 0 or 1 of each label by part, uint8 `(N, K)`.

    Raises:
        DataError: A target is missing, or neither 0 nor 1.
    """
    for survey in surveys:
        _require_cells(survey, "target")
        if not is_label(survey):
            found = ", ".join(sorted(survey.values)[:5]) if survey.values else "many values"
            what = f"the target '{survey.name}' holds {found}: a label is 0 or 1"
            fix = "correct it, or set data.source.task=regression (amounts)"
            raise DataError(what, survey.where, fix)
    return {part: y.astype(np.uint8) for part, y in amounts(rows, surveys).items()}


def labels(
    rows: Mapping[str, TableRows], survey: Survey, suffix: str
) -> tuple[list[str], dict[str, Array]]:
    """Return the classes, sorted, and the class numbers by part, int64 `(N,)`.

    Raises:
        DataError: A label is missing, or there is a single class, or so many that the column must
            be something else.
    """
    _require_cells(survey, "target")
    if survey.values is None:
        what = f"the target '{survey.name}' has over {survey.most} different labels"
        fix = "set data.source.task=regression task=regression, or data.source.max_categories"
        raise DataError(what, survey.where, fix)
    known: dict[str, int] = {}
    whole = survey.is_numeric and survey.whole and not survey.zeros and not suffix
    codes = {part: _codes(r, survey.name, suffix, known, whole) for part, r in rows.items()}
    if len(known) < 2:
        what = f"the target '{survey.name}' has a single class, '{next(iter(known), '')}'"
        raise DataError(what, survey.where, "give at least two classes")
    classes = sorted(known, key=_by_number if all(map(_is_number, known)) else str)
    ranks = np.empty(len(known), dtype=np.int64)
    ranks[[known[name] for name in classes]] = np.arange(len(known))
    return classes, {part: ranks[numbers] for part, numbers in codes.items()}


def groups(rows: TableRows, survey: Survey) -> Array:
    """Return the cells of a column as text `(N,)`.

    Raises:
        DataError: A cell is missing.
    """
    _require_cells(survey, "data.group")
    known: dict[str, int] = {}
    codes = _codes(rows, survey.name, "", known)
    names: Array = np.array(list(known), dtype=object)[codes]
    return names


def times(rows: TableRows, survey: Survey) -> Array:
    """Return a column to order by, `(N,)`: numbers as they are, dates in ns since 1970.

    Raises:
        DataError: A cell is missing, or neither a number nor a date.
    """
    _require_cells(survey, "data.time")
    if survey.is_numeric and not survey.dates:
        return _numbers(rows, survey)
    if survey.dates < survey.present:
        shown = listed(survey.odd) or survey.example()
        what = f"data.time: column '{survey.name}' cannot be ordered: no date or number ({shown})"
        fix = f'give the format: data.source.dates={{{quoted(survey.name)}:"%d.%m.%Y %H:%M"}}'
        raise DataError(what, survey.where, fix)
    style = survey.style
    parts = [as_dates(b[survey.name], style.dates) for b in rows.batches([survey.name])]
    instants: Array = np.concatenate(parts).astype(np.int64)
    return instants


def _require_cells(survey: Survey, what: str) -> None:
    if survey.missing:
        shown = f"{survey.missing} rows lack the {what} '{survey.name}', first "
        raise DataError(shown + listed(survey.lacking), survey.where, "drop or complete them")


def _numbers(rows: TableRows, survey: Survey) -> Array:
    batches = (without_marks(b[survey.name], survey.style) for b in rows.batches([survey.name]))
    parts = [numbers_of(cells, survey.style) for cells in batches]
    return np.concatenate([part.to_numpy(zero_copy_only=False) for part in parts] or [np.empty(0)])


def _codes(
    rows: TableRows, name: str, suffix: str, known: dict[str, int], whole: bool = False
) -> Array:
    """Each cell's number in `known`, which grows by what is new; `whole`: 0.0 is 0."""
    parts = [np.empty(0, dtype=np.int64)]
    for batch in rows.batches([name]):
        cells = batch[name]
        if whole:
            cells = as_numbers(cells, ".").cast(pa.int64(), safe=False)
        cells = as_text(cells)
        if suffix:
            cells = pc.replace_substring_regex(cells, re.escape(suffix) + "$", "")
        encoded = cells.dictionary_encode()
        numbers = [known.setdefault(value, len(known)) for value in encoded.dictionary.to_pylist()]
        parts.append(np.array(numbers, dtype=np.int64)[np.asarray(encoded.indices)])
    return np.concatenate(parts)


def _is_number(label: str) -> bool:
    try:
        return float(label) == float(label)
    except ValueError:
        return False


def _by_number(label: str) -> tuple[float, str]:
    return float(label), label
