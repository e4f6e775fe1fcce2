"""Reads a user's new tables, as the columns of the training data were read and fitted."""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from litlab.data.encode.table import TableEncoder
from litlab.data.sources.table_file import open_table
from litlab.data.sources.table_format import TableFile, TableFormat, lacks_columns
from litlab.data.sources.table_rows import as_numbers, typed
from litlab.data.spec import Array, Column, DataSpec
from litlab.utils.errors import DataError

SHOWN = 5


def read_features(path: Path, spec: DataSpec) -> tuple[list[str], Array]:
    """Return each row's place, and the feature columns, as `prepare` would store them `(N, F)`.

    Other columns, the target among them, are left alone. What was fitted on train holds: fills of
    missing cells, quantiles, categories; values that train lacks are counted in a warning.

    Raises:
        DataError: A column is missing or there twice, or its cells are not what they should be.
    """
    own = spec.source.startswith("litlab.data.sources.")  # others' settings mean what they like
    settings: Any = spec.settings.get("source", {}) if own else {}
    table = _open(path, TableFormat.of(settings), settings.get("target", ()), spec.features)
    _require_columns(table, spec.features)
    plain = [Column(name=name, kind="numeric") for name in spec.features]
    numeric = [c.name for c in spec.columns or plain if c.kind == "numeric"]
    categorical = [name for name in spec.features if name not in numeric]
    encoder, decimal = TableEncoder.of(spec.columns), settings.get("decimal", ".")
    parts, done = [np.empty((0, len(spec.features)))], 0
    for columns in table.batches(spec.features):
        batch = pa.table(columns, names=list(spec.features))
        cells = typed(batch, numeric, categorical, decimal)
        for name in numeric:
            _require_numbers(name, batch[name], cells[name], table, done)
        frame = cells.to_pandas()
        try:
            parts.append(encoder.encode(frame) if spec.columns else frame.to_numpy(np.float64))
        except DataError as error:
            raise DataError(error.what, str(path), error.fix) from None
        done += len(frame)
    for note in encoder.notes():
        warnings.warn(f"{path.name}: {note}", stacklevel=3)
    return [table.place(row) for row in range(done)], np.concatenate(parts)


def _open(
    path: Path, style: TableFormat, target: str | Sequence[str], features: Sequence[str]
) -> TableFile:
    """Open a file that may have a header where the training data had none, and lack the target."""
    found = open_table(path, replace(style, header=True, names=()))
    if set(features) <= set(found.names) or (style.header and not style.names):
        return found
    targets = [target] if isinstance(target, str) else target
    names = style.names
    if len(found.names) == len(names) - len(targets):
        names = tuple(name for name in names if name not in targets)
    return open_table(path, replace(style, names=names))


def _require_columns(table: TableFile, features: Sequence[str]) -> None:
    missing = [name for name in features if name not in table.names]
    if missing:
        raise lacks_columns(missing, features, table, "the model was trained with")
    twice = [name for name in features if table.names.count(name) > 1]
    if twice:
        raise DataError(f"column '{twice[0]}' appears twice", str(table.path), "rename or drop it")


def _require_numbers(name: str, cells: Any, numbers: Any, table: TableFile, start: int) -> None:
    odd = pc.and_(pc.is_valid(cells), pc.invert(pc.fill_null(pc.is_finite(numbers), False)))
    places = np.flatnonzero(odd.to_numpy(zero_copy_only=False))
    if len(places):
        first = places[:SHOWN].tolist()
        shown = [f"{table.place(start + row)} '{cells[row]}'" for row in first]
        what = f"column '{name}' has cells that are not finite numbers: {', '.join(shown)}"
        raise DataError(what, str(table.path), "correct the cells")


def read_rows(path: Path) -> tuple[list[str], Array]:
    """Return each row's place, and all columns as numbers `(N, L)`.

    A first line that holds something else is a header.

    Raises:
        DataError: A cell is no number.
    """
    table = open_table(path, TableFormat(header=False))
    parts, first, done = [np.empty((0, len(table.names)))], 0, 0
    for columns in table.batches(table.names):
        if not done and path.suffix.lower() != ".parquet" and _is_header(columns, path):
            columns, first, done = [column[1:] for column in columns], 1, 1
        numbers = [as_numbers(column, ".") for column in columns]
        for name, cells, values in zip(table.names, columns, numbers, strict=True):
            _require_numbers(name, cells, values, table, done)
        parts.append(np.column_stack([v.to_numpy(zero_copy_only=False) for v in numbers]))
        done += len(parts[-1])
    return [table.place(row) for row in range(first, done)], np.concatenate(parts)


def _is_header(columns: Sequence[Any], path: Path) -> bool:
    first = [as_numbers(column[:1], ".")[0].as_py() for column in columns]
    given = [column[0].is_valid for column in columns]
    if any(valid and value is None for valid, value in zip(given, first, strict=True)):
        return True
    if len(columns[0]) < 2 or len(first) < 2 or first != list(range(len(first))):
        return False
    # pandas writes the numbers of the columns when they have no names.
    warnings.warn(f"{path.name}: its first line, 0, 1, 2, ..., is a header", stacklevel=4)
    return True
