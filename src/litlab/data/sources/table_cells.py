"""A table's cells: which hold nothing, and what the others are as numbers, texts or dates."""

import re
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from litlab.data.spec import Array, CellFormat

MISSING = ("", "NA", "N/A", "NaN", "nan", "NULL", "null", "?", "#N/A", "<NA>", "NaT")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?")
# What Arrow's own parser takes for a number, so that cells which are none can be told apart.
NUMBER_PATTERN = r"^[+-]?((\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|(?i:inf|infinity|nan))$"


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


def as_text(cells: Any) -> Any:
    """Return cells as strings."""
    return cells if pa.types.is_string(cells.type) else cells.cast(pa.string())


# Numbers.


def as_numbers(cells: Any, decimal: str) -> Any:
    """Return cells as float64; what is no plain number becomes null."""
    if pa.types.is_duration(cells.type):
        return pc.divide(cells.cast(pa.duration("ns")).cast(pa.int64()).cast(pa.float64()), 1e9)
    if not pa.types.is_string(cells.type):
        return cells.cast(pa.float64(), safe=False)
    if decimal != ".":
        pointed = pc.match_substring(cells, ".")  # between thousands: `as_amounts` reads them
        cells = pc.if_else(pointed, pa.scalar(None, pa.string()), cells)
        cells = pc.replace_substring(cells, decimal, ".")
    try:
        return cells.cast(pa.float64())
    except pa.ArrowInvalid:
        fits = pc.match_substring_regex(cells, NUMBER_PATTERN)
        return pc.if_else(fits, cells, pa.scalar(None, pa.string())).cast(pa.float64())


CURRENCY = r"[$€£¥₹₩₽]|US\$|R\$|USD|EUR|GBP|CHF|JPY|INR|AUD|CAD|CNY|Rs\.?"
SPACES = "\u00a0\u202f\u2009"
# A class of all letters would take RE2 50 ms to compile, each time.
SUFFIX = rf"{CURRENCY}|%|‰|°[CF]?|[A-Za-zµ]{{1,5}}[²³]?(?:/[A-Za-z]{{1,4}})?"
GROUPED = {".": rf"[,'’ {SPACES}]", ",": rf"[.'’ {SPACES}]"}


def _amount(decimal: str) -> str:
    """A pattern of numbers with separated thousands, or with a unit before or behind them."""
    mark = re.escape(decimal)
    whole = rf"[1-9]\d{{0,2}}(?:{GROUPED[decimal]}\d{{3}})+|\d+"
    number = rf"(?:{whole})(?:{mark}\d*)?|{mark}\d+"
    return (
        rf"^(?P<open>\(?)(?P<sign>[+\-−]?)[ {SPACES}]?(?P<before>(?:{CURRENCY})?)[ {SPACES}]?"
        rf"(?P<inner>[+\-−]?)(?P<number>{number})[ {SPACES}]?"
        rf"(?P<behind>(?:{SUFFIX})?)(?P<close>\)?)$"
    )


AMOUNTS = {decimal: _amount(decimal) for decimal in (".", ",")}


def as_amounts(cells: Any, decimal: str) -> tuple[Any, Any]:
    """Return numbers with separated thousands or a unit as float64, and the unit of each: `$#`.

    Both are null where a cell is nothing of the kind. Numbers in parentheses are negative.
    """
    found = pc.extract_regex(cells, AMOUNTS[decimal])
    part = {name: pc.struct_field(found, name) for name in ("open", "sign", "inner", "number")}
    unit = pc.binary_join_element_wise(
        pc.struct_field(found, "before"), "#", pc.struct_field(found, "behind"), ""
    )
    number = pc.replace_substring_regex(part["number"], GROUPED[decimal], "")
    number = pc.replace_substring(number, decimal, ".").cast(pa.float64())
    signs = pc.binary_join_element_wise(part["open"], part["sign"], part["inner"], "")
    negative = pc.match_substring_regex(signs, r"[(\-−]")
    balanced = pc.equal(pc.equal(part["open"], "("), pc.equal(pc.struct_field(found, "close"), ")"))
    valid = pc.fill_null(balanced, False)
    number = pc.if_else(negative, pc.negate(number), number)
    return (
        pc.if_else(valid, number, pa.scalar(None, pa.float64())),
        pc.if_else(valid, unit, pa.scalar(None, pa.string())),
    )


def numbers_of(cells: Any, style: CellFormat) -> Any:
    """Return cells as float64, as this format reads them; what is no number becomes null."""
    plain = as_numbers(cells, style.decimal)
    if not style.unit or not pa.types.is_string(cells.type):
        return plain
    odd = pc.and_(pc.is_valid(cells), pc.is_null(plain))
    if not odd.true_count:
        return plain
    amounts, units = as_amounts(cells.filter(odd), style.decimal)
    known = pc.is_in(units, value_set=pa.array(["#", style.unit]))
    amounts = pc.if_else(known, amounts, pa.scalar(None, pa.float64()))
    return pc.replace_with_mask(plain, odd, amounts)


def without_marks(cells: Any, style: CellFormat) -> Any:
    """Return cells of which those are null that hold nothing in this column alone."""
    if not style.missing or not pa.types.is_string(cells.type):
        return cells
    marks = pc.is_in(cells, value_set=pa.array(style.missing, pa.string()))
    return pc.if_else(marks, pa.scalar(None, pa.string()), cells)


# Dates.


_DAYS: tuple[str, ...] = (
    "%Y-%m-%d",
    "%Y/%m/%d",
    "%Y.%m.%d",
    "%d.%m.%Y",
    "%d/%m/%Y",
    "%m/%d/%Y",
    "%d-%m-%Y",
)
_DAYS += ("%m-%d-%Y", "%d/%m/%y", "%m/%d/%y", "%d.%m.%y", "%d-%b-%Y", "%d-%b-%y", "%d %b %Y")
_DAYS += ("%d %B %Y", "%b %d, %Y", "%B %d, %Y", "%b %d %Y", "%Y%m%d")
_HOURS: tuple[str, ...] = (
    "%H:%M",
    "%H:%M:%S",
    "%H:%M:%S.%f",
    "%I:%M %p",
    "%I:%M:%S %p",
    "%H.%M.%S",
)
FORMATS = (
    "%Y-%m",
    "%Y/%m",
    "%m/%Y",
    "%b-%y",
    "%b-%Y",
    "%b %Y",
    "%B %Y",
    "%Y%m",
    *_DAYS,
    *_HOURS,
    *(f"{day} {hour}" for day in _DAYS for hour in _HOURS[:5]),
)
ISO = re.compile(
    r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?( ?(Z|UTC|[+-]\d{2}:?\d{2}))?)?"
)
_MONTHS = "jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec"
DATE_LIKE = re.compile(
    r"(\d{1,4}[-/.]\d{1,2}([-/.]\d{1,4})?|\d{8}|\d{6}"
    rf"|(\d{{1,2}}[-/. ])?({_MONTHS})[a-z]*[-/. ]\d{{2,4}}(,? \d{{2,4}})?)?"
    r"([T ]?\d{1,2}[:.]\d{2}([:.]\d{2}(\.\d+)?)?( ?[ap]m)?)?( ?(Z|UTC|[+-]\d{2}:?\d{2}))?",
    re.IGNORECASE,
)


def formats_of(texts: Iterable[str], most: int = 3) -> tuple[str, list[str]]:
    """Return the formats of dates, `|` between them, and others that fit as many of the texts.

    The first is empty if texts are no dates, or are in more formats than `most`.
    """
    texts = list(texts)
    given = [text for text in texts if text and DATE_LIKE.fullmatch(text)]
    total = len(given)
    if not total or total < 0.9 * len(texts):
        return "", []
    if all(map(ISO.fullmatch, given)):
        return "iso", []
    chosen: list[str] = []
    others: list[str] = []
    rest = given
    while rest and len(chosen) < most:
        fits = {form: [not np.isnat(date) for date in as_dates(rest, form)] for form in FORMATS}
        best = max(fits, key=lambda form: sum(fits[form]))
        number = sum(fits[best])
        if not number:
            break
        if not chosen:
            others = [form for form in fits if form != best and sum(fits[form]) == number]
        chosen.append(best)
        rest = [text for text, fit in zip(rest, fits[best], strict=True) if not fit]
    return ("|".join(chosen), others) if len(rest) <= 0.1 * total else ("", [])


def as_dates(cells: Any, formats: str) -> Array:
    """Return cells as datetime64[ns] `(n,)`, NaT where a cell is missing or no date.

    Times of day are on the first of January 1970. Time zones are brought to UTC.
    """
    import pandas as pd

    if isinstance(cells, pa.Array | pa.ChunkedArray) and pa.types.is_temporal(cells.type):
        if pa.types.is_time(cells.type):
            cells = cells.cast(pa.time64("ns")).cast(pa.int64()).cast(pa.timestamp("ns"))
        kind = pa.timestamp("ns", getattr(cells.type, "tz", None))
        stamps = cells.cast(kind, safe=False).to_pandas()
        found: Array = stamps.to_numpy(dtype="datetime64[ns]", na_value=np.datetime64("NaT"))
        return found
    cells = as_text(cells) if isinstance(cells, pa.Array | pa.ChunkedArray) else cells
    texts = pd.Series(cells.to_pylist() if hasattr(cells, "to_pylist") else cells, dtype=object)
    dates = pd.Series(pd.NaT, index=texts.index, dtype="datetime64[ns]")
    for form in formats.split("|"):
        options: Mapping[str, Any] = {"format": "ISO8601", "utc": True}
        read = pd.to_datetime(
            texts, errors="coerce", **(options if form == "iso" else {"format": form})
        )
        if getattr(read.dt, "tz", None) is not None:
            read = read.dt.tz_localize(None)
        if not any(mark in form for mark in ("%y", "%Y", "iso")):  # on the first of January 1900
            read = read - pd.Timestamp("1900-01-01") + pd.Timestamp(0)
        dates = dates.fillna(read.astype("datetime64[ns]"))
    return np.asarray(dates.to_numpy())


DAY = np.timedelta64(1, "D")
FIRST = np.datetime64("2000-01-01", "ns")  # days are counted from here: float32 is exact enough
TURNS = ("month", "weekday", "hour")


def part_of(dates: Array, part: str) -> Array:
    """Return a part of dates `(n,)` as float64, NaN for NaT.

    `year`; `days` since the first of January 2000; `month`, `weekday` and `hour`, each as `sin` and
    `cos` of its place in the year, the week and the day.
    """
    name, _, turn = part.partition(" ")
    if name == "days":
        return np.asarray((dates - FIRST) / DAY, dtype=np.float64)
    if name == "year":
        return _known(dates, dates.astype("datetime64[Y]").astype(np.int64) + 1970)
    days = dates.astype("datetime64[D]")
    shares: dict[str, Callable[[], Any]] = {
        "month": lambda: dates.astype("datetime64[M]").astype(np.int64) % 12 / 12,
        "weekday": lambda: (days.astype(np.int64) + 3) % 7 / 7,
        "hour": lambda: (dates - days) / DAY,
    }
    angle = 2 * np.pi * _known(dates, np.asarray(shares[name](), dtype=np.float64))
    return np.sin(angle) if turn == "sin" else np.cos(angle)


def _known(dates: Array, values: Array) -> Array:
    return np.where(np.isnat(dates), np.nan, values)


def parts_of(dates: Array) -> list[str]:
    """Return the parts in which dates differ."""
    known = np.unique(dates[~np.isnat(dates)])
    turns = [turn for turn in TURNS if len(np.unique(part_of(known, f"{turn} cos").round(6))) > 1]
    if len(np.unique(known.astype("datetime64[D]"))) < 2:  # times of day
        return [f"{turn} {side}" for turn in turns for side in ("sin", "cos")]
    if "weekday" in turns and not (known - known.astype("datetime64[M]")).any():
        turns.remove("weekday")  # the first of each month
    years = len(np.unique(known.astype("datetime64[Y]"))) > 1
    cyclic = [f"{turn} {side}" for turn in turns for side in ("sin", "cos")]
    return [*(["year"] if years else []), "days", *cyclic]
