"""A table's columns that are no features: targets, and what the split may go by."""

import re
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from litlab.data.sources.table_columns import Survey, listed
from litlab.data.sources.table_rows import TableRows, as_numbers, as_text
from litlab.data.spec import Array
from litlab.utils.errors import DataError


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
