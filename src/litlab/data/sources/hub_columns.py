"""Which columns of a data set are what, and how they are read."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np

from litlab.data.sources.class_numbers import number_classes
from litlab.data.sources.hub_rows import ArrowRows
from litlab.data.sources.text_labels import SINGLE
from litlab.data.spec import Array
from litlab.utils.errors import ConfigError, DataError, nearest

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
        raise DataError(f"the target '{target}' holds lists", where, SINGLE)
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
