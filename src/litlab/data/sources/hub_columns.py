"""Which columns of a data set are what, and how they are read."""

import pickle
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from litlab.data.inputs.images import (
    GREY_MODES,
    Fit,
    Form,
    Header,
    count_conversions,
    decode,
    in_threads,
    read_header,
)
from litlab.data.prepare.source_files import cannot_write
from litlab.data.raw import Decision, Raw, number_classes
from litlab.data.sources.table import Table
from litlab.data.spec import Array
from litlab.utils.errors import ConfigError, DataError, nearest

LISTS = "name a column of single values; texts with several labels: save JSON lines, use data=text"

# Rows of a data set in Arrow files, read without keeping them in memory.


BATCH_ROWS = 1024
MAPPED_BYTES = 32 * 2**20  # read through one mapping


class ArrowRows:
    """Some columns of a data set by row number, as Arrow tables.

    The library maps its files into memory, and a page once seen counts as resident until the map is
    closed. So this holds the data set pickled, which for a mapped one is the files' names, and maps
    them anew as often as `MAPPED_BYTES` were read.
    """

    def __init__(self, dataset: Any, columns: Sequence[str]) -> None:
        self.number = len(dataset)
        self._closed = pickle.dumps(dataset.select_columns(list(columns)).with_format("arrow"))
        self._open: Any = None
        self._seen = 0.0

    def __len__(self) -> int:
        return self.number

    def take(self, rows: Array) -> Any:
        """Return these rows `(n,)`, in this order, as a pyarrow Table."""
        table = self._mapped()[rows.tolist()]
        if len(rows):  # rows between them are on the same pages
            self._seen += table.nbytes * (int(rows.max()) - int(rows.min()) + 1) / len(rows)
        return table

    def batches(self) -> Iterator[Any]:
        """Go through all rows."""
        for start in range(0, self.number, BATCH_ROWS):
            yield self.take(np.arange(start, min(start + BATCH_ROWS, self.number)))

    def _mapped(self) -> Any:
        if self._open is None or self._seen > MAPPED_BYTES:
            self._open = None  # closes the old map, unless a table of it is still in use
            self._open, self._seen = pickle.loads(self._closed), 0.0
        return self._open


Sort = Literal["image", "class", "string", "number", "other"]
TARGET_NAMES = ("label", "labels", "target", "class", "y")
ROW_NUMBERS = ("idx", "id", "index", "__index_level_0__", "Unnamed: 0")
SHOWN = 5


def sort_of(feature: Any) -> Sort:
    """Return what a column's feature is taken for."""
    name = type(feature).__name__
    if name in ("Image", "ClassLabel"):
        return "image" if name == "Image" else "class"
    dtype = str(getattr(feature, "dtype", "")) if name == "Value" else ""
    if dtype in ("string", "large_string", "string_view"):
        return "string"
    return "number" if dtype.startswith(("int", "uint", "float", "bool", "decimal")) else "other"


def find_target(features: Mapping[str, Any], target: str | None) -> str:
    """Return the column to predict: the given one, the only one of classes, or one called so.

    Raises:
        ConfigError: There is no such column, or it has to be named.
    """
    if target is not None:
        return _known(features, target, "data.source.target")
    classes = [name for name, feature in features.items() if sort_of(feature) == "class"]
    usual = [name for name in features if name.lower() in TARGET_NAMES]
    for found in (classes, usual):
        if len(found) == 1:
            return found[0]
    raise ConfigError(
        f"no target column is given; the columns are {', '.join(features)}",
        "data.source.target",
        "name it",
    )


def check_target(feature: Any, target: str, where: str) -> None:
    """Refuse a target whose cells are not single values, such as several labels per sample.

    Raises:
        DataError: They are not.
    """
    name = type(feature).__name__
    if name in ("list", "List", "LargeList", "Sequence"):  # the first: `datasets` before 4
        raise DataError(f"the target '{target}' holds lists", where, LISTS)
    if name not in ("ClassLabel", "Value"):
        fix = "set data.source.target to a column of classes or numbers"
        raise DataError(f"the target '{target}' holds {name} values", where, fix)


def find_input(
    features: Mapping[str, Any], kind: str, given: str | None, target: str
) -> tuple[Literal["image", "text", "tabular"], str]:
    """Return the kind of data, and the column of images or texts ("" for tables).

    Raises:
        ConfigError: There is no such column, it is of another kind, or it has to be named.
    """
    if given is not None:
        features = {given: features[_known(features, given, "data.source.input")]}
    sorts = {name: sort_of(feature) for name, feature in features.items() if name != target}
    images = [name for name, sort in sorts.items() if sort == "image"]
    strings = [name for name, sort in sorts.items() if sort == "string"]
    numbers = [n for n, sort in sorts.items() if sort == "number" and n not in ROW_NUMBERS]
    if kind == "auto":
        kind = "image" if images else "text" if len(strings) == 1 and not numbers else "tabular"
    if kind == "tabular":
        return "tabular", ""
    columns = images if kind == "image" else strings
    if len(columns) != 1:
        there = f"{len(columns)}: {', '.join(columns)}" if columns else "none"
        what = f"kind={kind} takes one column of {kind}s, and there is {there}"
        raise ConfigError(what, "data.source.input", f"name one of: {', '.join(features)}")
    return ("image" if kind == "image" else "text"), columns[0]


def _known(features: Mapping[str, Any], name: str, setting: str) -> str:
    if name not in features:
        raise ConfigError(f"there is no column '{name}'", setting, nearest(name, features))
    return name


class Cells:
    """A column's cells by row number; what is not asked for stays in the Arrow file."""

    def __init__(self, dataset: Any, column: str) -> None:
        self.rows = ArrowRows(dataset, [column])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: Array) -> list[Any]:
        """Return the cells of these row numbers `(n,)`."""
        cells: list[Any] = self.rows.take(np.asarray(rows)).column(0).to_pylist()
        return cells


class Texts(Cells):
    """A column of texts, without the blanks around them.

    Attributes:
        sizes: Bytes of each `(N,)`.
    """

    def __init__(self, dataset: Any, column: str) -> None:
        import pyarrow.compute as pc

        super().__init__(dataset, column)
        sizes = [
            pc.binary_length(pc.utf8_trim_whitespace(batch.column(0))).to_numpy()
            for batch in self.rows.batches()
        ]
        # A missing text is an empty one.
        self.sizes: Array = np.nan_to_num(np.concatenate(sizes)).astype(np.int64)

    def __getitem__(self, rows: Array) -> list[str]:
        """Return the texts of these row numbers `(n,)`."""
        return [(text or "").strip() for text in super().__getitem__(rows)]


class Columns(Mapping[str, Array]):
    """All columns by name, each read when it is asked for."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __iter__(self) -> Iterator[str]:
        return iter(self.dataset.column_names)

    def __len__(self) -> int:
        return len(self.dataset.column_names)

    def __getitem__(self, name: str) -> Array:
        """Return a column's cells `(N,)`; a missing one is None, or NaN among numbers."""
        if name not in self.dataset.column_names:
            raise KeyError(name)
        cells: Array = values(self.dataset, name)
        return cells


def values(dataset: Any, column: str) -> Array:
    """Return a whole column `(N,)`."""
    batches = ArrowRows(dataset, [column]).batches()
    return np.concatenate([np.array(batch.column(0).to_numpy()) for batch in batches])


def check_texts(texts: Mapping[str, Texts], column: str, where: str) -> None:
    """Refuse texts that are missing, or have no character that is not blank.

    Raises:
        DataError: There are some.
    """
    for part, those in texts.items():
        empty = np.flatnonzero(those.sizes == 0).tolist()
        what = f"empty texts in column '{column}'"
        _refuse_rows(empty, what, part, where, "data.source.empty=pad")


def _refuse_rows(rows: list[int], what: str, part: str, where: str, setting: str) -> None:
    if rows:
        shown = ", ".join(map(str, rows[:SHOWN])) + (", ..." if len(rows) > SHOWN else "")
        part = "" if part == "all" else f" of {part}"
        fix = f"remove them, or set {setting}"
        raise DataError(f"{len(rows)} {what} (rows{part}: {shown})", where, fix)


def class_targets(
    parts: Mapping[str, Any], column: str, where: str
) -> tuple[list[str], dict[str, Array]]:
    """Return the classes' names, and each part's class numbers `(N,)`.

    Raises:
        DataError: A sample has no label, or the parts' classes differ.
    """
    found = {part: values(dataset, column) for part, dataset in parts.items()}
    feature = next(iter(parts.values())).features[column]
    of_classes = sort_of(feature) == "class"
    for part, labels in found.items():
        lacking = _lacking(labels) | (labels == -1 if of_classes else False)
        other = "another split: data.source.test_split=validation, say"
        what = f"samples without a label in column '{column}'"
        _refuse_rows(np.flatnonzero(lacking).tolist(), what, part, where, other)
    if not of_classes:
        return number_classes({part: _plain(labels) for part, labels in found.items()})
    if any(dataset.features[column].names != feature.names for dataset in parts.values()):
        fix = "save its splits with the same ClassLabel"
        raise DataError(f"the splits number the classes of '{column}' differently", where, fix)
    numbers = {part: labels.astype(np.int64) for part, labels in found.items()}
    return [str(name) for name in feature.names], numbers


def _lacking(cells: Array) -> Array:
    if cells.dtype == object:
        return np.array([cell is None or cell == "" for cell in cells], dtype=bool)
    return np.isnan(cells) if cells.dtype.kind == "f" else np.zeros(len(cells), dtype=bool)


def _plain(labels: Array) -> Array:
    """Labels as integers or strings: whole numbers that are stored as floats are the former."""
    if labels.dtype == object or labels.dtype.kind == "b":
        return np.array([str(label) for label in labels])
    whole = labels.dtype.kind == "f" and bool((labels == np.round(labels)).all())
    return labels.astype(np.int64) if whole else labels


def amounts(parts: Mapping[str, Any], column: str, where: str) -> dict[str, Array]:
    """Return each part's numbers to predict `(N, 1)`.

    Raises:
        DataError: The column is not numeric.
    """
    found = {part: values(dataset, column) for part, dataset in parts.items()}
    if any(numbers.dtype.kind not in "iufb" for numbers in found.values()):
        fix = "set data.source.task=classification, or name a column of numbers"
        raise DataError(f"the target '{column}' is not numeric", where, fix)
    return {part: numbers.astype(np.float64)[:, None] for part, numbers in found.items()}


# Images in the cells of a data set: encoded bytes, or files beside it.


AT_ONCE = 256  # images whose files are in memory


class _Encoded:
    """A file in memory; of a path it has what decoding uses: `open`, and a name for messages."""

    def __init__(self, content: bytes, name: str) -> None:
        self.content, self.name = content, name

    def __str__(self) -> str:
        return self.name

    def open(self, mode: str) -> BytesIO:
        """Give the content as a file."""
        return BytesIO(self.content)


class Images:
    """A column of images: decoded in parallel when they are asked for, and not kept.

    Args:
        dataset: One split.
        column: The images' column.
        where: The data set, for messages.
        roots: Folders that files named in the cells must lie in; links followed.

    Attributes:
        form: What each becomes; None until all were looked at.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, dataset: Any, column: str, where: str, roots: Sequence[Path]) -> None:
        from datasets import Image

        self.cells = Cells(dataset.cast_column(column, Image(decode=False)), column)
        self.where, self.roots = f"{where}, column '{column}'", roots
        self.form: Form | None = None

    def __len__(self) -> int:
        return len(self.cells)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of all of them, `(N, C, H, W)`."""
        assert self.form is not None
        return (len(self), self.form.channels, self.form.height, self.form.width)

    def __getitem__(self, rows: Array) -> Array:
        """Return the images of these row numbers `(n,)`, uint8 `(n, C, H, W)`."""
        form = self.form
        assert form is not None
        images = np.empty((len(rows), *self.shape[1:]), dtype=np.uint8)
        for start in range(0, len(rows), AT_ONCE):
            numbers = rows[start : start + AT_ONCE]
            files = self._files(numbers)

            def fill(place: int, start: int = start, files: list[Any] = files) -> None:
                fix = "set data.source.size"
                images[start + place], _ = decode(files[place], form, fix=fix)

            in_threads(fill, range(len(numbers)))
        return images

    def headers(self) -> list[Header]:
        """Look at every image's header."""
        found: list[Header] = []
        for start in range(0, len(self), AT_ONCE):
            rows = np.arange(start, min(start + AT_ONCE, len(self)))
            found += in_threads(read_header, self._files(rows))
        return found

    def _files(self, rows: Array) -> list[Path]:
        pairs = zip(self.cells[rows], np.asarray(rows).tolist(), strict=True)
        return [cast(Path, self._file(cell, row)) for cell, row in pairs]

    def _file(self, cell: Mapping[str, Any] | None, row: int) -> Path | _Encoded:
        """An image's file; what a data set says lies elsewhere on this machine is not opened."""
        where = f"{self.where}, row {row}"
        if cell is None or not (cell["bytes"] or cell["path"]):
            raise DataError("there is no image", where, "remove the row")
        if cell["bytes"]:
            return _Encoded(cell["bytes"], where)
        path = Path(cell["path"])
        if not any(path.resolve().is_relative_to(root) for root in self.roots):
            fix = "store the images in it"
            raise DataError(f"the image is outside the data set ({path})", where, fix)
        return path


def shape_images(
    parts: Mapping[str, Images],
    size: tuple[int, int] | None,
    fit: Fit,
    color: Literal["rgb", "gray", "auto"],
) -> list[str]:
    """Decide what every image becomes; return what the user should know of it.

    Raises:
        DataError: An image cannot be read, or they differ in size and none is given.
    """
    headers = [header for images in parts.values() for header in images.headers()]
    modes = [header.mode for header in headers]
    gray = color == "gray" or (color == "auto" and all(mode in GREY_MODES for mode in modes))
    channels = 1 if gray else 3
    sizes = Counter((header.height, header.width) for header in headers)
    if size is None and len(sizes) > 1:
        where = next(iter(parts.values())).where
        shown = ", ".join(f"{n} of {w}x{h}" for (h, w), n in sizes.most_common(5))
        fix = "set data.source.size: one number, or [height, width]"
        raise DataError(f"images of {len(sizes)} sizes: {shown}", where, fix)
    height, width = size or next(iter(sizes))
    for images in parts.values():
        images.form = Form(channels, height, width, fit if size else None)
    said = count_conversions(modes, channels)
    return [said] if said else []


# Splits of a data set -> Parquet, for the source of tables to read.


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
    settled = {name: _with_dropped(getattr(raw.reading, name), drop) for name in SETTLED}
    return replace(raw, reading=raw.reading.model_copy(update={"left_out": left_out, **settled}))


SETTLED = ("decisions", "suggestions")  # the lists of a reading


def _with_dropped(decisions: Sequence[Decision], drop: Sequence[str]) -> tuple[Decision, ...]:
    """Decisions that also hold the columns which the table was written without."""
    return tuple(
        decision.model_copy(update={"value": [*drop, *decision.value]})
        if decision.setting == "data.source.drop" and isinstance(decision.value, list)
        else decision
        for decision in decisions
    )


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
