"""What a table's columns are: numbers, categories, or what no network should be fed as it is."""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from litlab.data.sources.table_file import TableRows, as_numbers, as_text, quoted
from litlab.data.spec import Array
from litlab.utils.errors import DataError

DATE = (
    r"^(\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{4})"
    r"([T ]\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?)? ?(Z|UTC|[+-]\d{2}:?\d{2})?$"
)
LEADING_ZERO = r"^[+-]?0\d+$"
COMMAS = r"^[+-]?\d+(,\d+)+(\.\d+)?$"
SHOWN = 5
MOST_CATEGORIES = 100_000
FEW = 20  # different values that are categories, however few rows there are
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
    """

    def __init__(self, name: str, where: str, decimal: str, most: int) -> None:
        self.name, self.where, self.decimal, self.most = name, where, decimal, most
        self.rows = self.missing = self.numbers = self.dates = self.commas = 0
        self.whole = True
        self.values: set[str] | None = set()  # None: more than `most`
        self.lacking: list[Cell] = []
        self.odd: list[Cell] = []  # cells that are not numbers
        self.infinite: list[Cell] = []
        self.num_infinite = 0
        self.rising = True  # so far, each number is larger than the one before it
        self.zeros = ""  # a number with leading zeros, if there is one
        self._last = -np.inf

    @property
    def present(self) -> int:
        """How many cells hold something."""
        return self.rows - self.missing

    def see(self, cells: Any, place: Callable[[int], str], start: int) -> None:
        """Look at some more cells of a file, from its row `start` on; `place` finds a row in it."""

        def cell(row: int, content: str = "") -> Cell:
            return Cell(place, start + row, content)

        self.rows += len(cells)
        self.missing += cells.null_count
        _note(self.lacking, pc.is_null(cells), cell)
        if pa.types.is_temporal(cells.type):
            self.dates += len(cells) - cells.null_count
            return
        self._count_values(cells)
        numbers = as_numbers(cells, self.decimal)
        self.numbers += len(numbers) - numbers.null_count
        self._see_codes(cells, numbers, first=start == 0)
        self.whole = (
            self.whole and pc.all(pc.equal(pc.floor(numbers), numbers)).as_py() is not False
        )
        beyond = pc.fill_null(pc.greater(pc.abs(numbers), LARGEST), False)
        self.num_infinite += beyond.true_count
        _note(self.infinite, beyond, lambda row: cell(row, f" {cells[row]}"))
        odd = pc.and_(pc.is_valid(cells), pc.is_null(numbers))
        if odd.true_count:
            _note(self.odd, odd, lambda row: cell(row, f" '{str(cells[row])[:30]}'"))
            texts, counts = cells.filter(odd).value_counts().flatten()
            self.dates += _count(texts, counts, DATE)
            self.commas += _count(texts, counts, COMMAS)

    def _see_codes(self, cells: Any, numbers: Any, *, first: bool) -> None:
        """Look for what numbers are that are no amounts: row numbers, and codes with zeros."""
        if self.rising:
            values = numbers.to_numpy(zero_copy_only=False)
            before = [-np.inf if first else self._last]
            self.rising = bool((np.diff(values, prepend=before) > 0).all())  # not with NaN
            self._last = values[-1] if len(values) else self._last
        if not self.zeros and pa.types.is_string(cells.type):
            found = cells.filter(pc.match_substring_regex(cells, LEADING_ZERO))
            self.zeros = found[0].as_py() if len(found) else ""

    def _count_values(self, cells: Any) -> None:
        if self.values is not None:
            self.values.update(as_text(pc.unique(cells).drop_null()).to_pylist())
            if len(self.values) > self.most:
                self.values = None

    def wrong(self, numeric: bool, categorical: bool) -> tuple[str, str] | None:
        """Return what makes it no column for a network, and the advice; None if it is one.

        Args:
            numeric: The user says that it is one of numbers.
            categorical: The user says that it is one of categories, so any cells will do.
        """
        name = self.name
        if not self.present:
            return f"column '{name}' is empty", _drop(name)
        if categorical:
            too_many = f"column '{name}' has over {self.most} different values"
            return (too_many, _drop(name)) if self.values is None else None
        if self.dates > self.present / 2:
            advice = "turn it into numbers (age in days, month, weekday), or leave it out: "
            order = "; to split by it: data.time="
            return f"column '{name}' holds dates", f"{advice}{_drop(name)}{order}{name}"
        if self.num_infinite:
            what = f"column '{name}' has {self.num_infinite} infinite numbers"
            return f"{what} ({listed(self.infinite)})", "correct or drop these rows"
        amounts = self.numbers + self.commas
        if self.commas and not numeric and amounts > self.present / 2:
            more = self.present - amounts
            other = f", and {more} cells that are not numbers" if more else ""
            advice = "write 1234.5, or set data.source.decimal=',' if that is what they are"
            what = f"column '{name}' has {self.commas} numbers with commas"
            return f"{what} ({listed(self.odd)}){other}", advice
        if numeric or self.present / 2 < self.numbers < self.present:
            number = self.present - self.numbers
            if not number:
                return None
            what = f"column '{name}' has {number} cells that are not numbers"
            categories = f"data.source.categorical=[{quoted(name)}]"
            advice = f"correct them, list them in data.source.na_values, or set {categories}"
            return f"{what} ({listed(self.odd)})", advice
        return None

    def is_text(self) -> bool:
        """Whether there are too many different values to call them categories."""
        return self.values is None or len(self.values) > max(FEW, self.present / 2)


def kinds(
    surveys: Sequence[Survey], numeric: Iterable[str], categorical: Iterable[str]
) -> tuple[list[str], list[str]]:
    """Return the names of the numeric and of the categorical columns.

    Numeric is a column whose every cell is a number, if it is not in `categorical`; categorical is
    one with few different values.

    Raises:
        DataError: A column is neither: dates, free text, numbers with a few other cells.
    """
    numbers: list[str] = []
    categories: list[str] = []
    texts: list[Survey] = []
    for survey in surveys:
        wrong = survey.wrong(survey.name in numeric, survey.name in categorical)
        if wrong:
            raise DataError(wrong[0], survey.where, wrong[1])
        if survey.name in categorical:
            categories.append(survey.name)
        elif survey.numbers == survey.present:
            numbers.append(survey.name)
        elif survey.is_text():
            texts.append(survey)
        else:
            categories.append(survey.name)
    if texts:
        raise _free_text(texts)
    return numbers, categories


def _free_text(texts: Sequence[Survey]) -> DataError:
    shown = ", ".join(
        f"'{t.name}' ({f'over {t.most}' if t.values is None else len(t.values)} different values "
        f"in {t.present} cells)"
        for t in texts[:SHOWN]
    )
    names = ",".join(quoted(t.name) for t in texts)
    fix = f"drop them: data.source.drop=[{names}], or keep them: data.source.categorical=[{names}]"
    return DataError(f"free text or identifiers, not categories: {shown}", texts[0].where, fix)


def missing_cells(surveys: Sequence[Survey]) -> DataError | None:
    """Return the refusal of missing cells, with their number in each column; None without any."""
    counts = [f"{survey.name} {survey.missing}" for survey in surveys if survey.missing]
    if not counts:
        return None
    more = f" and {len(counts) - 20} more columns" if len(counts) > 20 else ""
    fix = (
        "set data.source.impute=median (or mean), fitted on train, with a category of their own "
        "for missing ones; or correct the file"
    )
    return DataError(f"missing cells: {', '.join(counts[:20])}{more}", surveys[0].where, fix)


def _count(texts: Any, counts: Any, pattern: str) -> int:
    return pc.sum(counts.filter(pc.match_substring_regex(texts, pattern))).as_py() or 0


def _note(into: list[Cell], mask: Any, say: Callable[[int], Cell]) -> None:
    """Remember the first few places where a mask is true."""
    if len(into) < SHOWN and mask.true_count:
        into += [say(place) for place in np.flatnonzero(mask)[: SHOWN - len(into)].tolist()]


def _drop(name: str) -> str:
    return f"data.source.drop=[{quoted(name)}]"


# Columns of a table that are probably not what they were taken for.


CURRENCY = "$€£¥₹₩₽"
DIGITS = re.compile(r"[+-]?\d[\d.,'’\u00a0\u202f\u2009]*(?: \d{3})*")
AMOUNT = re.compile(
    rf"(?:[{CURRENCY}]|[A-Z]{{3}})? ?# ?(?:[%‰{CURRENCY}]|[^\W\d_]{{1,5}}[²³]?)?|\(#\)"
)
MOMENT = re.compile(
    r"\d{4}[-/.]\d{1,2}|\d{1,2}[-/.]\d{4}|\d{1,2}[:.]\d{2}([:.]\d{2})?( ?[ap]m)?"
    r"|(\d{1,2}[-/. ])?(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*[-/. ]\d{2,4}",
    re.IGNORECASE,
)
DAY_NUMBER = re.compile(r"(19|20)\d{2}(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])")
LEAST = 3  # different values that say something
MOST = 0.8  # of them, are nearly all
ROWS = 10  # growing by chance in so many rows is unlikely
NAMES = 5  # in a message


def doubts(
    surveys: Iterable[Survey], numeric: Collection[str], sure: Collection[str]
) -> tuple[str, ...]:
    """Return a warning for each kind of doubt, which names the columns and what to set.

    Args:
        surveys: Of the features.
        numeric: The features that are taken for numbers; the others are categories.
        sure: The features of which the user said what they are.
    """
    asked = [survey for survey in surveys if survey.name not in sure]
    numbers = [survey for survey in asked if survey.name in numeric]
    categories = [survey for survey in asked if survey.name not in numeric]
    found = (
        _warning(
            [s for s in categories if _are_amounts(s)],
            "categories that look like numbers with a unit, whose order and distance are lost",
            "write plain numbers in the file, or set {categorical} to keep them",
        ),
        _warning(
            [s for s in categories if _share(s, MOMENT.fullmatch) > MOST],
            "categories that look like dates or times",
            "turn them into numbers, split by one (data.time), or set {categorical} to keep them",
        ),
        _warning(
            [s for s in numbers if s.zeros],
            "numbers with leading zeros, which are lost",
            "if they are codes, such as postcodes, set {categorical}",
        ),
        _warning(
            [s for s in numbers if _share(s, DAY_NUMBER.fullmatch) > MOST],
            "numbers that look like dates",
            "turn them into numbers such as day and month, or split by one (data.time)",
        ),
        _warning(
            [s for s in numbers if s.rising and s.whole and s.rows >= ROWS],
            "whole numbers that grow from row to row, like row numbers",
            "if they only number the rows, set {drop}",
        ),
    )
    return tuple(warning for warning in found if warning)


def _warning(surveys: Sequence[Survey], what: str, fix: str) -> str:
    if not surveys:
        return ""
    shown = ", ".join(f"'{s.name}'{_example(s)}" for s in surveys[:NAMES])
    more = f" and {len(surveys) - NAMES} more" if len(surveys) > NAMES else ""
    names = ",".join(quoted(s.name) for s in surveys) if len(surveys) <= NAMES else "..."
    settings = {key: f"data.source.{key}=[{names}]" for key in ("categorical", "drop")}
    return f"{what}: {shown}{more}; {fix.format(**settings)}"


def _example(survey: Survey) -> str:
    value = survey.zeros or next(iter(sorted(survey.values or ())), "")
    return f" ({value[:30]})" if value else ""


def _are_amounts(survey: Survey) -> bool:
    """Whether nearly all values are a number in one and the same dress: `$#`, `# kg`, `#%`."""
    values = survey.values or ()
    dresses = Counter(DIGITS.sub("#", value) for value in values)
    dress, number = dresses.most_common(1)[0] if dresses else ("", 0)
    return number >= max(LEAST, MOST * len(values)) and bool(AMOUNT.fullmatch(dress))


def _share(survey: Survey, fits: Callable[[str], object]) -> float:
    """The share of a column's different values that fit; 0 where they are too many or few."""
    values = survey.values or ()
    return sum(map(bool, map(fits, values))) / len(values) if len(values) >= LEAST else 0.0


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
    known = survey.values is not None and survey.present == survey.numbers > 0
    return known and {float(v.replace(survey.decimal, ".")) for v in survey.values or ()} <= {
        0.0,
        1.0,
    }


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
    codes = {part: _codes(r, survey.name, suffix, known) for part, r in rows.items()}
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
        DataError: A cell is missing, or neither a number nor a date as ISO 8601 writes it.
    """
    _require_cells(survey, "data.time")
    if survey.numbers == survey.present:
        return _numbers(rows, survey)
    parts = []
    for batch in rows.batches([survey.name]):
        try:
            parts.append(_nanoseconds(batch[survey.name]))
        except pa.ArrowException as error:
            fix = "write 2026-01-31 or 2026-01-31T12:00:00, or a number, in each cell"
            what = f"data.time: column '{survey.name}' cannot be ordered: {error}"
            raise DataError(what, survey.where, fix) from None
    return np.concatenate(parts)


def _nanoseconds(cells: pa.Array) -> Array:
    if pa.types.is_time(cells.type) or pa.types.is_duration(cells.type):
        unit = pa.types.is_duration(cells.type)
        cells = cells.cast(pa.duration("ns") if unit else pa.time64("ns"))
        return np.asarray(cells.cast(pa.int64()))
    try:
        instants = cells.cast(pa.timestamp("ns"))
    except pa.ArrowInvalid:  # with a zone
        instants = cells.cast(pa.timestamp("ns", "UTC"))
    return np.asarray(instants.cast(pa.int64()))


def _require_cells(survey: Survey, what: str) -> None:
    if survey.missing:
        shown = f"{survey.missing} rows lack the {what} '{survey.name}', first "
        raise DataError(shown + listed(survey.lacking), survey.where, "drop or complete them")


def _numbers(rows: TableRows, survey: Survey) -> Array:
    parts = [as_numbers(b[survey.name], survey.decimal) for b in rows.batches([survey.name])]
    return np.concatenate([part.to_numpy(zero_copy_only=False) for part in parts] or [np.empty(0)])


def _codes(rows: TableRows, name: str, suffix: str, known: dict[str, int]) -> Array:
    """Each cell's number in `known`, which grows by what is new."""
    parts = [np.empty(0, dtype=np.int64)]
    for batch in rows.batches([name]):
        cells = as_text(batch[name])
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
