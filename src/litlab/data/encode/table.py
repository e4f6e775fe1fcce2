from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from litlab.data.spec import Array, CellFormat, Column
from litlab.utils.errors import DataError

MISSING = "<missing>"  # the category of a cell that holds nothing
NUM_QUANTILES = 1000
SAMPLE_ROWS = 100_000  # medians and quantiles of more rows are those of as many drawn ones
SAMPLE_CELLS = 2**23  # 64 MiB
EDGE = 1e-7  # scikit-learn's BOUNDS_THRESHOLD


class TableEncoder:
    """Turns a table's cells into the numbers that are stored: `(n, F)` float32.

    Numeric columns come first, then the categorical ones as codes: 0 for a value that train lacks,
    else 1 + its place among the sorted categories of train. A missing number becomes train's median
    or mean, a missing category a category of its own. `scale="quantile"` maps numbers through
    their quantiles in train to a normal distribution, as scikit-learn's QuantileTransformer does;
    `"standard"` stores them as they are, for the spec's mean and std to standardize them.

    Chunks are pandas DataFrames with these columns by name: numbers, and strings; NaN or None is a
    missing cell.
    """

    def __init__(
        self,
        numeric: Sequence[str],
        categorical: Sequence[str],
        *,
        impute: Literal["refuse", "median", "mean", "indicator"] = "refuse",
        scale: Literal["standard", "quantile"] = "standard",
        cells: Mapping[str, CellFormat] | None = None,
    ) -> None:
        self.numeric, self.categorical = list(numeric), list(categorical)
        self.impute, self.scale, self.cells = impute, scale, dict(cells or {})
        self.columns: dict[str, Column] = {}
        self._said: list[str] = []
        self._filled: Counter[str] = Counter()
        self._unseen: Counter[str] = Counter()

    @classmethod
    def of(cls, columns: Sequence[Column]) -> "TableEncoder":
        """Return the encoder that wrote these columns into a DataSpec, fitted as it was."""
        by_kind = [[c.name for c in columns if c.kind == k] for k in ("numeric", "categorical")]
        encoder = cls(*by_kind)
        encoder.columns = {column.name: column for column in columns}
        return encoder

    def fit(self, chunks: Callable[[], Iterator[Any]]) -> None:
        """Learn fills, quantiles and categories from the train split, in one pass."""
        summary = _Summary(len(self.numeric))
        categories: dict[str, set[str | None]] = {name: set() for name in self.categorical}
        for chunk in chunks():
            summary.add(self._numbers(chunk))
            for name, values in categories.items():
                values.update(pc.unique(_strings(chunk[name])).to_pylist())
        drawn = summary.sample()
        numbers = [
            self._fit_numeric(name, i, summary, drawn[:, i]) for i, name in enumerate(self.numeric)
        ]
        codes = [self._fit_categorical(name, values) for name, values in categories.items()]
        self.columns = {column.name: column for column in (*numbers, *codes)}

    def _fit_numeric(self, name: str, place: int, summary: "_Summary", drawn: Array) -> Column:
        style = self.cells.get(name, CellFormat())
        fill = 0.0 if self.impute != "refuse" else None
        column = Column(name=name, kind="numeric", fill=fill, cells=style)
        if not summary.count[place]:
            self._said.append(f"column '{name}' has no values in train: it is filled with zeros")
            return column
        low, high = summary.low[place], summary.high[place]
        if low == high:
            self._said.append(f"column '{name}' is constant in train: it carries no information")
        elif self.scale == "standard" and high - low < 1e-5 * max(abs(low), abs(high)):
            said = (
                f"column '{name}' has values from {low:.10g} to {high:.10g}, too close for float32"
            )
            self._said.append(f"{said}: subtract {low:.10g} in the file")
        sample = drawn[~np.isnan(drawn)]
        if self.impute in ("median", "indicator"):
            fill = float(np.median(sample))
        elif self.impute == "mean":
            fill = float(summary.total[place] / summary.count[place])
        quantiles: tuple[float, ...] = ()
        bounded = style.part == "missing" or style.part.endswith((" sin", " cos"))
        if self.scale == "quantile" and low < high and not bounded:
            quantiles = tuple(quantiles_of(sample).tolist())
        return column.model_copy(update={"fill": fill, "quantiles": quantiles})

    def _fit_categorical(self, name: str, values: set[str | None]) -> Column:
        fill = None if self.impute == "refuse" else MISSING
        known = sorted({MISSING if value is None else value for value in values})
        if len(known) == 1:
            self._said.append(
                f"column '{name}' is always '{known[0]}' in train: it carries no information"
            )
        style = self.cells.get(name, CellFormat())
        return Column(
            name=name, kind="categorical", fill=fill, categories=tuple(known), cells=style
        )

    def encode(self, chunk: Any) -> Array:
        """Return the stored values `(n, F)` of a chunk.

        Raises:
            DataError: A cell is missing where the encoder was fitted to refuse that.
        """
        self._require_cells(chunk)
        numbers = self._numbers(chunk)
        for place, name in enumerate(self.numeric):
            column, values = self.columns[name], numbers[:, place]
            missing = np.isnan(values)
            if column.fill is not None and missing.any():
                values[missing] = column.fill
                self._filled[name] += int(missing.sum())
            if column.quantiles:
                numbers[:, place] = to_normal(values, np.array(column.quantiles))
        codes = [self._codes(chunk[name], self.columns[name]) for name in self.categorical]
        return np.column_stack([numbers, *codes]).astype(np.float32)

    def _require_cells(self, chunk: Any) -> None:
        columns = self.columns.values()
        lacking = {c.name: int(chunk[c.name].isna().sum()) for c in columns if c.fill is None}
        counts = [f"{name} {number}" for name, number in lacking.items() if number]
        if counts:
            fix = "fill them, or prepare and train with data.source.impute=median"
            raise DataError(f"missing cells: {', '.join(counts)}", "the table", fix)

    def _numbers(self, chunk: Any) -> Array:
        """The numeric columns `(n, F)` float64, NaN where a cell is missing."""
        numbers: Array = chunk[self.numeric].to_numpy(np.float64, copy=True, na_value=np.nan)
        return numbers

    def _codes(self, cells: Any, column: Column) -> Array:
        cells = _strings(cells)
        if column.fill is not None:
            self._filled[column.name] += cells.null_count
            cells = pc.fill_null(cells, column.fill)
        places = pc.index_in(cells, value_set=pa.array(column.categories, pa.string()))
        self._unseen[column.name] += places.null_count
        codes: Array = pc.add(pc.fill_null(places, -1), 1).to_numpy(zero_copy_only=False)
        return codes

    def describe(self) -> dict[str, Any]:
        """Return what the DataSpec has to know."""
        names = (*self.numeric, *self.categorical)
        columns = tuple(self.columns[name] for name in names)
        return {"columns": columns, "features": names, "shape": (len(names),)}

    def notes(self) -> list[str]:
        """Return what the user should know of fitting and encoding, counted so far."""
        notes = list(self._said)
        if filled := +self._filled:
            notes.append(f"missing cells filled: {_counts(filled)}")
        if unseen := +self._unseen:
            notes.append(f"cells with values not seen in train: {_counts(unseen)}")
        return notes


def _strings(cells: Any) -> Any:
    return pa.array(cells, pa.string(), from_pandas=True)


def _counts(counter: Counter[str]) -> str:
    shown = [f"{name} {number}" for name, number in counter.items()]
    more = f" and {len(shown) - 20} more columns" if len(shown) > 20 else ""
    return ", ".join(shown[:20]) + more


def quantiles_of(sample: Array, number: int = NUM_QUANTILES) -> Array:
    """Return evenly spaced quantiles of a sample `(n,)`, ascending; at most as many as samples.

    NumPy's percentiles to the last bit, of which scikit-learn's transformer is made: where values
    repeat, one bit decides on which side of a step one falls. NumPy partitions the sample anew for
    each of them, which for a thousand takes a hundred times as long as to sort it once.
    """
    ordered = np.sort(sample)
    last = len(ordered) - 1
    places = np.linspace(0, 1, min(number, len(ordered))) * 100 / 100 * last
    below = np.floor(places).astype(np.int64)
    share = places - below
    low, high = ordered[below], ordered[np.minimum(below + 1, last)]
    gap = high - low
    found = np.where(share < 0.5, low + gap * share, high - gap * (1 - share))
    # Rounding may put one a hair below the one before it.
    ascending: Array = np.maximum.accumulate(found)
    return ascending


def to_normal(values: Array, quantiles: Array) -> Array:
    """Map values `(n,)` through ascending quantiles to a normal distribution, within 5.2.

    scikit-learn's QuantileTransformer(output_distribution="normal"): where a value is repeated in
    the quantiles it gets the middle of its ranks, save at the ends.
    """
    from scipy.special import ndtri

    ranks = np.linspace(0, 1, len(quantiles))
    up = np.interp(values, quantiles, ranks)
    down = np.interp(-values, -quantiles[::-1], -ranks[::-1])
    share = 0.5 * (up - down)
    share[values + EDGE > quantiles[-1]] = 1
    share[values - EDGE < quantiles[0]] = 0
    bounds = ndtri(EDGE - np.spacing(1)), ndtri(1 - (EDGE - np.spacing(1)))
    normal: Array = np.clip(ndtri(share), *bounds)
    return normal


class _Summary:
    """Counts, sums and ends of the columns of a stream of rows, and a sample of its rows."""

    def __init__(self, width: int) -> None:
        self.size = max(1, min(SAMPLE_ROWS, SAMPLE_CELLS // max(width, 1)))
        self.seen = 0
        self.count, self.total = np.zeros(width, dtype=np.int64), np.zeros(width)
        self.low, self.high = np.full(width, np.inf), np.full(width, -np.inf)
        self._rows = [np.empty((0, width))]
        self._keys = [np.empty(0, dtype=np.uint64)]
        self._limit = np.iinfo(np.uint64).max  # keys from here on are not among the lowest

    def add(self, rows: Array) -> None:
        """Take in some more rows `(n, F)`."""
        self.count += (~np.isnan(rows)).sum(0)
        self.total += np.nansum(rows, 0)
        self.low = np.fmin(self.low, np.fmin.reduce(rows, 0, initial=np.inf))
        self.high = np.fmax(self.high, np.fmax.reduce(rows, 0, initial=-np.inf))
        keys = _scrambled(np.arange(self.seen, self.seen + len(rows), dtype=np.uint64))
        self.seen += len(rows)
        low = keys < self._limit
        self._rows.append(rows[low])
        self._keys.append(keys[low])
        if sum(map(len, self._keys)) > 2 * self.size:
            self._keep()

    def _keep(self) -> None:
        rows, keys = np.concatenate(self._rows), np.concatenate(self._keys)
        if len(keys) > self.size:
            kept = np.argpartition(keys, self.size - 1)[: self.size]
            rows, keys = rows[kept], keys[kept]
            self._limit = int(keys.max())
        self._rows, self._keys = [rows], [keys]

    def sample(self) -> Array:
        """The rows, or the `size` of them with the lowest keys, `(m, F)`."""
        self._keep()
        return self._rows[0]


def _scrambled(places: Array) -> Array:
    """A random number for each place, always the same: SplitMix64 (Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        z = (places + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))
