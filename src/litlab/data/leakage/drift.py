"""Splits that are not from one distribution: features that differ between train and the others."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from litlab.data.leakage.report import Finding
from litlab.data.leakage.statistics import (
    LEVEL,
    kolmogorov_smirnov,
    share_p_values,
    total_variation,
)
from litlab.data.leakage.words import words_of
from litlab.data.spec import SPLITS, Array, Kind

SAMPLES = 4096  # of each split, chosen by a hash of their place in the source
EFFECT = 0.1  # smaller differences are no matter, however certain
WORDS, LONGEST = 100, 200  # the train split's most frequent words; words of a text that count
WIDEST = 1024  # features of a sample that are looked at
SHOWN = 5

Words = list[frozenset[str]]  # of each text, its words


class Drift:
    """Keeps a small sample of each split, and compares them."""

    def __init__(self, kind: Kind, cardinalities: Sequence[int], columns: Sequence[str]) -> None:
        self.kind, self.cardinalities, self.columns = kind, cardinalities, columns
        self._kept: dict[str, _Kept] = {split: _Kept() for split in SPLITS}

    def add(self, split: str, index: Array, x: Any, content: Any) -> None:
        """Look at a chunk, as of `Guard.add`."""
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
