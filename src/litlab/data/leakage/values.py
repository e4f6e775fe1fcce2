"""What makes two inputs the same: a digest of the bytes, of the numbers, or of the words."""

from typing import Any

import numpy as np

from litlab.data.leakage.samples import digests
from litlab.data.spec import Array, Kind

MISSING = np.uint64(0x7FF8_0000_0000_0001)


def input_digests(kind: Kind, x: Any, content: Any) -> Array:
    """Return a digest `(n, 2)` of each of n inputs.

    Images by their bytes; texts, normalized, or their ids where the source has no words; tables
    and sequences by their numbers, fractions to six digits (to twelve where there is a single
    number), tables read by an encoder by their cells as the source has them.
    """
    if kind == "text":
        if isinstance(content, list):
            return digests(text.encode("utf-8", "surrogatepass") for text in content)
        return digests(np.ascontiguousarray(ids, np.int64) for ids in x)
    if hasattr(content, "columns"):
        return digests(cells(content))
    if kind == "image":
        return digests(np.ascontiguousarray(x).reshape(len(x), -1))
    return digests(rounded(np.asarray(x).reshape(len(x), -1)))


def cells(table: Any) -> Array:
    """Return one uint64 for each cell of a DataFrame `(n, F)`: of its number, or of its text.

    The column's type plays no part, for a column of one chunk may hold text in the next.
    """
    from pandas import to_numeric
    from pandas.util import hash_array

    out = np.empty(table.shape, np.uint64)
    for column, name in enumerate(table.columns):
        series = table[name]
        if series.dtype.kind == "M":
            out[:, column] = series.to_numpy().astype("M8[ns]").view(np.uint64)
            continue
        numbers = to_numeric(series.astype(object), errors="coerce").to_numpy(np.float64)
        out[:, column] = rounded(numbers[:, None], table.shape[1])[:, 0]
        texts = np.flatnonzero(np.isnan(numbers) & ~series.isna().to_numpy())
        if len(texts):
            words = series.iloc[texts].astype(str).str.strip().to_numpy(object)
            out[texts, column] = hash_array(words)
    return out


def rounded(values: Array, width: int | None = None) -> Array:
    """Return an uint64 for each number `(n, F)`, the same for those equal to six digits.

    Whole numbers are only the same if they are equal: they may be counts, seconds, or names. A
    single column has twelve digits: of many random numbers, some agree in six.

    Args:
        values: The numbers.
        width: How many columns the whole table has, if these are not all.
    """
    significant = 12 if (width or values.shape[1]) == 1 else 6
    numbers = values.astype(np.float64) + 0.0  # -0 is 0
    out = numbers.view(np.uint64).copy()
    out[np.isnan(numbers)] = MISSING
    fractions = np.isfinite(numbers) & (numbers != np.trunc(numbers))
    some = numbers[fractions]
    power = np.floor(np.log10(np.abs(some))).astype(np.int64)
    digits = _digits(some, power, significant)
    small, large = digits < 10 ** (significant - 1), digits >= 10**significant
    power = power - small + large
    digits = np.where(small | large, _digits(some, power, significant), digits)
    whole = np.where(some < 0, -digits, digits) * 10.0 ** (power - significant + 1)
    exact = (digits.astype(np.int64) << 12) | ((power + 1024) << 1) | (some < 0)
    # What rounds to a whole number is that number, so that 3.0000001 is 3.
    near_whole = np.abs(whole - np.rint(whole)) <= np.abs(whole) * 1e-14
    near_whole &= np.abs(whole) >= 1
    bits = (np.rint(whole) + 0.0).view(np.uint64)
    out[fractions] = np.where(near_whole, bits, exact.astype(np.uint64))
    return out


def _digits(values: Array, power: Array, significant: int) -> Array:
    # In two steps, for ten to this power is infinite where numbers are smallest.
    shift = significant - 1 - power
    half = shift // 2
    digits: Array = np.rint(np.abs(values) * 10.0**half * 10.0 ** (shift - half))
    return digits
