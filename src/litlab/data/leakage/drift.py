"""Splits that are not from one distribution: features that differ between train and the others."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from litlab.data.leakage.report import Finding
from litlab.data.leakage.samples import digests
from litlab.data.leakage.texts import words_of
from litlab.data.spec import SPLITS, Array, Kind

# Two-sample statistics of many features at once.


LEVEL = 0.001  # chance of a false alarm for a whole check: each of its tests has its part of that


def kolmogorov_smirnov(a: Array, b: Array) -> tuple[float, float]:
    """Return the largest distance of two samples' distribution functions, and its p-value.

    The p-value is the asymptotic one with Stephens' correction (1970) for small samples, as in
    Numerical Recipes, section 14.3.3.
    """
    values = np.concatenate([a, b])
    order = np.argsort(values, kind="stable")
    steps = np.where(order < len(a), 1 / len(a), -1 / len(b)).cumsum()
    last = np.append(values[order][1:] != values[order][:-1], True)
    distance = min(float(np.abs(steps[last]).max()), 1.0)
    root = np.sqrt(len(a) * len(b) / (len(a) + len(b)))
    x = (root + 0.12 + 0.11 / root) * distance
    k = np.arange(1, 101)
    p = 2 * float(((-1.0) ** (k - 1) * np.exp(-2 * (k * x) ** 2)).sum())
    return distance, float(np.clip(p if x > 0.2 else 1.0, 0, 1))


def total_variation(a: Array, b: Array) -> tuple[float, float]:
    """Return half the sum of the differences of two categories' shares, and Pearson's p-value.

    Args:
        a: How often each category is in the first sample `(C,)`.
        b: The same of the second.
    """
    from scipy.special import chdtrc

    distance = float(np.abs(a / a.sum() - b / b.sum()).sum() / 2)
    table = np.stack([a, b]).astype(np.float64)
    expected = np.outer(table.sum(1), table.sum(0)) / table.sum()
    rare = expected.min(0) < 5  # too few for the approximation: counted together
    table = np.concatenate([table[:, ~rare], table[:, rare].sum(1, keepdims=True)], axis=1)
    table = table[:, table.sum(0) > 0]
    if table.shape[1] < 2:
        return distance, 1.0
    expected = np.outer(table.sum(1), table.sum(0)) / table.sum()
    statistic = ((table - expected) ** 2 / expected).sum()
    return distance, float(chdtrc(table.shape[1] - 1, statistic))


def share_p_values(a: Array, number: int, b: Array, other: int) -> Array:
    """Return p-values of the shares `a / number` and `b / other` being one and the same `(C,)`.

    By the normal approximation; 1 where fewer than 5 are to be expected on either side.
    """
    from scipy.special import ndtr

    pooled = (a + b) / (number + other)
    expected = np.minimum(pooled, 1 - pooled) * min(number, other)
    error = np.sqrt(np.maximum(pooled * (1 - pooled), 1e-12) * (1 / number + 1 / other))
    z = np.abs(a / number - b / other) / error
    p: Array = np.where(expected >= 5, 2 * ndtr(-z), 1.0)
    return p


# What makes two inputs the same: a digest of the bytes, of the numbers, or of the words.


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


# Classes per split: how many, and whether their shares differ by more than chance.


RATIO = 1.2  # smaller differences of a class's share are no matter, however certain
SHOWN = 5


def imbalance(
    counts: dict[str, Array], classes: tuple[str, ...], sizes: dict[str, int] | None = None
) -> list[Finding]:
    """Find classes or labels whose share of val or test is not that of train.

    Args:
        counts: Samples of each class, by split `(C,)`.
        classes: Their names.
        sizes: Samples of each split; None: each sample is of one class, so the sum of the counts.
    """
    train, details = counts["train"], []
    of = sizes or {split: int(number.sum()) for split, number in counts.items()}
    for split in ("val", "test"):
        other = counts[split]
        if not of["train"] or not of[split]:
            continue
        p = share_p_values(train, of["train"], other, of[split])
        shares = train / of["train"], other / of[split]
        larger, smaller = np.maximum(*shares), np.minimum(*shares)
        found = (p < LEVEL / (2 * len(train))) & (larger > RATIO * smaller)
        details += [
            f"{classes[place]}: {shares[0][place]:.1%} of train, {shares[1][place]:.1%} of {split}"
            for place in np.flatnonzero(found)
        ]
    if not details:
        return []
    shown = "; ".join(details[:SHOWN]) + ("; ..." if len(details) > SHOWN else "")
    return [
        Finding(
            check="imbalance",
            stops=False,
            count=len(details),
            message=f"{'label' if sizes else 'class'} frequencies differ between splits by more"
            f" than chance: {shown}",
            details=tuple(details),
        )
    ]


SAMPLES = 4096  # of each split, chosen by a hash of their place in the source
EFFECT = 0.1  # smaller differences are no matter, however certain
WORDS, LONGEST = 100, 200  # the train split's most frequent words; words of a text that count
WIDEST = 1024  # features of a sample that are looked at

Words = list[frozenset[str]]  # of each text, its words


class Drift:
    """Keeps a small sample of each split, and compares them."""

    def __init__(self, kind: Kind, cardinalities: Sequence[int], columns: Sequence[str]) -> None:
        self.kind, self.cardinalities, self.columns = kind, cardinalities, columns
        self._kept: dict[str, _Kept] = {split: _Kept() for split in SPLITS}

    def add(self, split: str, index: Array, x: Any, content: Any) -> None:
        """Look at a chunk, see `LeakageCheck.add`."""
        worded = self.kind == "text" and len(content) and isinstance(content[0], str)

        def describe(rows: Array) -> tuple[Array, Words]:
            numbers = [x[row] for row in rows] if isinstance(x, list) else x[rows]
            words = [frozenset(words_of(content[row])[:LONGEST]) for row in rows if worded]
            return self._features(numbers), words

        self._kept[split].add(np.asarray(index), describe)

    def _features(self, x: Any) -> Array:
        """What is compared: numbers `(n, F)`."""
        if self.kind == "text":
            return np.array([[len(ids)] for ids in x], np.float64)
        if self.kind == "tabular":
            return np.asarray(x, np.float64)[:, :WIDEST]
        flat = np.asarray(x, np.float64).reshape(*x.shape[:2], -1)
        return np.concatenate([flat.mean(2), flat.std(2)], axis=1)[:, :WIDEST]

    def _names(self, number: int) -> list[str]:
        if self.kind == "text":
            return ["length"]
        if self.kind == "tabular":
            numbered = [f"column {place}" for place in range(number)]
            return list(self.columns[:number]) if len(self.columns) >= number else numbered
        what = ("brightness", "contrast") if self.kind == "image" else ("mean", "deviation")
        channels = number // 2
        several = [f" of channel {place}" for place in range(channels)] if channels > 1 else [""]
        return [name + channel for name in what for channel in several]

    def found(self) -> list[Finding]:
        """Compare val and test with train, and return what differs."""
        train, others = self._kept["train"], ("val", "test")
        tested: list[tuple[str, str, float, float]] = []
        for split in others:
            other = self._kept[split]
            if not len(train.features) or not len(other.features):
                continue
            width = train.features.shape[1]
            codes = dict(enumerate(self.cardinalities, width - len(self.cardinalities)))
            for place, name in enumerate(self._names(width)):
                pair = train.features[:, place], other.features[:, place]
                if place in codes:
                    counts = [np.bincount(v.astype(int), minlength=codes[place]) for v in pair]
                    tested.append((name, split, *total_variation(*counts)))
                else:
                    tested.append((name, split, *kolmogorov_smirnov(*pair)))
            tested += [(word, split, e, p) for word, e, p in _words(train.words, other.words)]
        found = [t for t in tested if t[2] > EFFECT and t[3] < LEVEL / len(tested)]
        if not found:
            return []
        found.sort(key=lambda one: (-one[2], one[0], one[1]))
        details = [
            f"{name} (train-{split} {effect:.2f}, p {p:.1g})" for name, split, effect, p in found
        ]
        shown = ", ".join(details[:SHOWN]) + (", ..." if len(details) > SHOWN else "")
        return [
            Finding(
                check="drift",
                stops=False,
                count=len(details),
                message=f"splits differ in their distribution: {shown}",
                details=tuple(details),
            )
        ]


class _Kept:
    """Those samples of a split whose places have the smallest hashes."""

    def __init__(self) -> None:
        self.keys = np.empty(0, np.uint64)
        self.features = np.empty((0, 0))
        self.words: Words = []

    def add(self, index: Array, describe: Callable[[Array], tuple[Array, Words]]) -> None:
        keys = _scrambled(index)
        if len(self.keys) >= SAMPLES:
            rows = np.flatnonzero(keys < self.keys.max())
        else:
            rows = np.argsort(keys, kind="stable")[:SAMPLES]
        if not len(rows):
            return
        features, words = describe(rows)
        keys = np.concatenate([self.keys, keys[rows]])
        features = np.concatenate([self.features, features]) if len(self.features) else features
        words = self.words + words
        order = np.argsort(keys, kind="stable")[:SAMPLES]
        self.keys, self.features = keys[order], features[order]
        self.words = [words[place] for place in order] if words else []


def _scrambled(index: Array) -> Array:
    """Return a hash of each place (SplitMix64): what is kept does not depend on the order."""
    x = index.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    scrambled: Array = x ^ (x >> np.uint64(31))
    return scrambled


def _words(train: Words, other: Words) -> list[tuple[str, float, float]]:
    """Compare the shares of texts that have a word, of the words most frequent in train."""
    if not train or not other:
        return []
    counted, others = (Counter(word for words in s for word in words) for s in (train, other))
    names = sorted(counted, key=lambda word: (-counted[word], word))[:WORDS]
    a, b = np.array([counted[word] for word in names]), np.array([others[word] for word in names])
    effects = np.abs(a / len(train) - b / len(other))
    p = share_p_values(a, len(train), b, len(other))
    return [(f"'{name}'", float(e), float(q)) for name, e, q in zip(names, effects, p, strict=True)]
