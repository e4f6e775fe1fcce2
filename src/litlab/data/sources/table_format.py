"""What all tables have in common, whatever file they come from."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from litlab.utils.errors import DataError, closest

MISSING = ("", "NA", "N/A", "NaN", "nan", "NULL", "null", "?")
BLOCK = 2**20  # bytes read at once (pyarrow has some 30 blocks in hand); a row must fit
SHOWN = 10  # names in a message
MEND = "correct the file"
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
    return DataError(f"cannot be read as a table: {error}", str(path), MEND)


def quoted(name: str) -> str:
    """Return a column's name as an override's list takes it."""
    return name if name.replace("_", "").isalnum() else f"'{name}'"
