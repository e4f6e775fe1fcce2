"""Splits of a data set -> Parquet, for the source of tables to read."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from litlab.data.prepare.source_files import cannot_write
from litlab.data.raw import Raw
from litlab.data.sources.hub_columns import sort_of
from litlab.data.sources.hub_rows import ArrowRows
from litlab.data.sources.table import Table
from litlab.utils.errors import ConfigError, DataError, nearest

PARTS = {"train": "path", "val": "val_path", "test": "test_path"}


def read_as_table(
    parts: Mapping[str, Any],
    scratch: Path,
    *,
    where: str,
    target: str,
    drop: Sequence[str],
    **options: Any,
) -> Raw:
    """Write each part as Parquet into `scratch` and read them as tables.

    Args:
        parts: Data sets by part.
        scratch: A folder for what does not fit in memory.
        where: The data set, for messages.
        target: Column to predict.
        drop: Columns to leave out.
        options: The other settings of `Table`.

    Raises:
        ConfigError: Settings contradict one another, or there is no such column.
        DataError: The tables are not fit to learn from.
        EnvironmentFault: The disk is full.
    """
    features = next(iter(parts.values())).features
    for name in drop:
        if name not in features:
            fix = nearest(name, features)
            raise ConfigError(f"there is no column '{name}'", "data.source.drop", fix)
    kept = [name for name in features if name not in drop]
    _check_columns({name: features[name] for name in kept}, where)
    folder = scratch / "tables"
    folder.mkdir()
    paths: dict[str, Any] = {}
    for part, dataset in parts.items():
        part = "train" if part == "all" else part
        paths[PARTS[part]] = str(folder / f"{part}.parquet")
        try:
            _write(dataset, kept, folder / f"{part}.parquet")
        except OSError as error:
            raise cannot_write(error, scratch) from None
    try:
        raw = Table(**paths, target=target, **options).read(folder)
    except DataError as error:  # says where in files of which the user knows nothing
        place = error.where.replace(f"{folder}/", f"{where}, ").removesuffix(".parquet")
        raise DataError(error.what.replace(".parquet:", ":"), place, error.fix) from None
    except ValueError as error:
        raise ConfigError(str(error), "data.source", "change one of the two") from None
    left_out = raw.reading.left_out | dict.fromkeys(drop, "data.source.drop")
    return replace(raw, reading=raw.reading.model_copy(update={"left_out": left_out}))


def _check_columns(features: Mapping[str, Any], where: str) -> None:
    """Refuse columns whose cells are no single values.

    Raises:
        DataError: There are some.
    """
    nested = [
        name
        for name, feature in features.items()
        if sort_of(feature) in ("image", "other") and not _is_time(feature)
    ]
    if nested:
        what = f"the columns {', '.join(nested)} hold neither numbers nor texts"
        raise DataError(what, where, f"leave them out: data.source.drop=[{','.join(nested)}]")


def _is_time(feature: Any) -> bool:
    return str(getattr(feature, "dtype", "")).startswith(("date", "time", "duration", "null"))


def _write(dataset: Any, names: Sequence[str], path: Path) -> None:
    import pyarrow.parquet as pq

    batches = _batches(dataset, names)
    first = next(batches)
    with pq.ParquetWriter(path, first.schema) as file:
        file.write_table(first)
        for batch in batches:
            file.write_table(batch)


def _batches(dataset: Any, names: Sequence[str]) -> Iterator[Any]:
    """Go through the rows; numbered classes have their names."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for table in ArrowRows(dataset, names).batches():
        for place, name in enumerate(names):
            feature = dataset.features[name]
            if sort_of(feature) == "class":
                numbers = table.column(name)
                known = pc.if_else(pc.less(numbers, 0), None, numbers)
                titles = pa.array(feature.names, pa.string()).take(known.combine_chunks())
                table = table.set_column(place, name, titles)
        yield table.replace_schema_metadata(None)
