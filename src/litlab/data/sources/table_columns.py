"""What a table's columns are: numbers, categories, or what no network should be fed as it is."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from litlab.data.sources.table_format import quoted
from litlab.data.sources.table_rows import as_numbers, as_text
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
