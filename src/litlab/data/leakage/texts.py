"""Texts of almost the same words: one put in, left out or changed in a long text.

Candidates share one of ten hashes, each of eight minima of the words' hashes (MinHash: Broder 1997,
"On the resemblance and containment of documents"); the sets of words themselves, which wait in a
temporary file, decide.
"""

import unicodedata
from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path

import numpy as np

from litlab.data.leakage.duplicates import Spool
from litlab.data.leakage.samples import GrowingArray
from litlab.data.spec import Array

# Texts without what does not tell them apart.


LONGEST = 25  # letters a word, on average: more than that are no words


class _Punctuation(dict[int, str]):
    """A table for `str.translate` that looks up each character once."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        found = " " if unicodedata.category(character).startswith("P") else character
        self[code] = found
        return found


_WITHOUT_PUNCTUATION = _Punctuation()


def normalize(text: str) -> str:
    """Return a text in Unicode's form KC, in lower case, with single spaces and no punctuation.

    One that is all punctuation keeps it.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    words = folded.translate(_WITHOUT_PUNCTUATION).split()
    return " ".join(words or folded.split())


def words_of(whole: str) -> list[str]:
    """Return the words of a normalized text; of one that has no spaces, its pairs of letters."""
    words = whole.split()
    if len(whole) > LONGEST * len(words):
        whole = "".join(words)
        words = [whole[i : i + 2] for i in range(len(whole) - 1)]
    return words


FEWEST = 10  # different words: shorter texts are alike by chance
ALIKE = 0.9  # of all the words of two texts, those that both have
BANDS, ROWS = 10, 8  # share one: 99.6 % of pairs that are 0.9 alike, 4 % of those 0.5
MOST = 16  # candidates that share one hash with a text


class Wordings:
    """Hashes of the different words of each text."""

    def __init__(self, folder: Path | None = None) -> None:
        self._words = Spool(np.uint32, folder)
        self._counts = GrowingArray(np.int64)
        self._bands = GrowingArray(np.uint32, (BANDS,))
        rng = np.random.default_rng(0)
        self._factors = rng.integers(0, 2**64, BANDS * ROWS, np.uint64) | np.uint64(1)

    def add(self, texts: list[str]) -> None:
        """Append those of n normalized texts."""
        sets = [set(words_of(text)) for text in texts]
        known = {word: place for place, word in enumerate(set().union(*sets))}
        places = np.fromiter((known[word] for one in sets for word in one), np.int64)
        counts = np.array([len(one) for one in sets], np.int64)
        flat = _hashes(known)[places]
        self._counts.add(counts)
        self._words.add(flat >> np.uint64(32))
        bands = np.zeros((len(texts), BANDS), np.uint64)
        some = counts >= FEWEST
        starts = (np.cumsum(counts) - counts)[counts > 0]
        for number, factor in enumerate(self._factors if some.any() else ()):
            minima = np.minimum.reduceat(flat * factor, starts)
            mixed = bands[counts > 0, number // ROWS] * np.uint64(0x9E3779B97F4A7C15) + minima
            bands[counts > 0, number // ROWS] = mixed ^ (mixed >> np.uint64(29))
        self._bands.add(bands >> np.uint64(32))

    def near_pairs(self) -> Array:
        """Return pairs of texts of almost the same words `(P, 2)`, in the order of adding."""
        counts, bands, words = self._counts.whole(), self._bands.whole(), self._words.whole()
        ends = np.cumsum(counts)
        long = np.flatnonzero(counts >= FEWEST)
        found = [np.empty((0, 2), np.int64)]
        for band in range(BANDS):
            order = long[np.argsort(bands[long, band], kind="stable")]
            keys = bands[order, band]
            for step in range(1, MOST + 1):
                same = np.flatnonzero(keys[step:] == keys[:-step])
                found.append(np.stack([order[same], order[same + step]], 1))
        pairs = np.unique(np.sort(np.concatenate(found), axis=1), axis=0)
        sizes = np.sort(counts[pairs], axis=1)
        pairs = pairs[sizes[:, 0] >= ALIKE * sizes[:, 1]]
        alike = np.zeros(len(pairs), bool)
        for place, (a, b) in enumerate(pairs.tolist()):
            one, other = (set(words[ends[i] - counts[i] : ends[i]].tolist()) for i in (a, b))
            alike[place] = len(one & other) >= ALIKE * len(one | other)
        return pairs[alike]


def _hashes(words: Iterable[str]) -> Array:
    """Return a uint64 for each word."""
    found = (blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8) for word in words)
    return np.frombuffer(b"".join(one.digest() for one in found), np.uint64)
