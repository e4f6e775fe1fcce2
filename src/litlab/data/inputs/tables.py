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
from litlab.data.sources.table_cells import as_numbers, without_marks
from litlab.data.sources.table_file import TableFile, lacks_columns, open_table
from litlab.data.sources.table_layout import TableFormat
from litlab.data.sources.table_rows import frame_of, sources_of
from litlab.data.spec import Array, CellFormat, Column, DataSpec
from litlab.utils.errors import DataError

SHOWN = 5  # rows in a message


def read_features(path: Path, spec: DataSpec) -> tuple[list[str], Array]:
    """Return each row's place, and the feature columns, as `prepare` would store them `(N, F)`.

    Other columns, the target among them, are left alone. What was fitted on train holds: fills of
    missing cells, quantiles, categories; values that train lacks are counted in a warning.

    Raises:
        DataError: A column is missing or there twice, or its cells are not what they should be.
    """
    settings = own_settings(spec)
    columns = spec.columns or [Column(name=name, kind="numeric") for name in spec.features]
    sources = sources_of(columns)
    table = _open(path, TableFormat.of(settings), settings.get("target", ()), sources)
    _require_columns(table, sources)
    comma = settings.get("decimal") == "," or any(c.cells.decimal == "," for c in columns)
    encoder = TableEncoder.of(spec.columns)
    parts, done = [np.empty((0, len(columns)))], 0
    for cells in table.batches(sources):
        batch = pa.table(cells, names=sources)
        features = [_with_comma(column, batch) if comma else column for column in columns]
        frame = frame_of(batch, features)
        for feature in features:
            if feature.kind == "numeric" and feature.cells.part != "missing":
                content = without_marks(batch[feature.source].combine_chunks(), feature.cells)
                _require_numbers(
                    feature.source, content, pa.array(frame[feature.name]), table, done
                )
        try:
            parts.append(encoder.encode(frame) if spec.columns else frame.to_numpy(np.float64))
        except DataError as error:
            raise DataError(error.what, str(path), error.fix) from None
        done += len(frame)
    for note in encoder.notes():
        warnings.warn(f"{path.name}: {note}", stacklevel=3)
    return [table.place(row) for row in range(done)], np.concatenate(parts)


def _with_comma(column: Column, cells: Any) -> Column:
    """A column whose numbers had no fraction in training, where the others have decimal commas."""
    content = cells[column.source]
    if column.kind != "numeric" or column.cells != CellFormat() or not _is_text(content):
        return column
    if pc.any(pc.match_substring(content, ".")).as_py():
        return column
    return column.model_copy(update={"cells": CellFormat(decimal=",")})


def _is_text(cells: Any) -> bool:
    return bool(pa.types.is_string(cells.type))


def own_settings(spec: DataSpec) -> Any:
    """The settings of a source of litlab's; those of others mean what they like."""
    own = spec.source.startswith("litlab.data.sources.")
    return spec.settings.get("source", {}) if own else {}


def _open(
    path: Path, style: TableFormat, target: str | Sequence[str], features: Sequence[str]
) -> TableFile:
    """Open a file that may have a header where the training data had none, and lack the target."""
    found = open_table(path, replace(style, header=True, names=(), skip_end=None), features)
    if set(features) <= set(found.names) or (style.header is not False and not style.names):
        return found
    targets = [target] if isinstance(target, str) else target
    names = style.names
    if len(found.names) == len(names) - len(targets):
        names = tuple(name for name in names if name not in targets)
    return open_table(path, replace(style, names=names, skip_end=None))


def _require_columns(table: TableFile, features: Sequence[str]) -> None:
    missing = [name for name in features if name not in table.names]
    if missing:
        raise lacks_columns(missing, features, table, "the model was trained with")
    # One that is there twice was renamed, and which of the two the model knows is not certain.
    renamed = any(decision.setting == "data.source.names" for decision in table.decisions)
    again = set(table.names) - set(features) if renamed else set()
    twice = [name for name in features if f"{name}.1" in again]
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
