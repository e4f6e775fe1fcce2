"""Perceptual hashes of thumbnails, and the pairs that they bring together.

A hash is the signs of random projections of the whitened principal components: distinct images of
one data set differ in many bits, even where all of them are digits. Pairs that share one of eight
parts of it are found by sorting (Indyk & Motwani 1998, "Approximate nearest neighbors").
"""

import numpy as np

from litlab.data.leakage.pixels import batches, centred
from litlab.data.spec import Array

BANDS = 8  # hashes of a sample; a pair that shares one is looked at
NEXT = 5  # on either side of a sample, those next to it by one hash
COMPONENTS = 32
FIT = 4096  # images that the components are of


class PictureHash:
    """Eight hashes of each thumbnail, of as many bits as tell the samples apart."""

    def __init__(self, images: Array) -> None:
        self.bits = int(np.clip(np.ceil(np.log2(max(len(images), 2))) + 2, 16, 32))
        some = np.unique(np.linspace(0, len(images) - 1, FIT).astype(np.int64))
        inside, _ = centred(images[some], (0, 0))
        values, vectors = np.linalg.eigh(inside.T @ inside / len(some))
        number = min(COMPONENTS, len(values))
        values, vectors = values[-number:].clip(0), vectors[:, -number:]
        # Weak components are mostly noise: they count for less than the strong ones.
        weights = vectors / np.sqrt(values + 0.1 * values.mean() + 1e-12)
        rotate = np.random.default_rng(0).normal(size=(number, BANDS * self.bits))
        self.weights = (weights @ rotate).astype(np.float32)
        self.middle = np.median(inside @ self.weights, axis=0)

    def of(self, images: Array, shift: tuple[int, int]) -> Array:
        """Return the hashes `(N, 8)` of images, as if each were shifted by a pixel or none."""
        packed = np.zeros((len(images), BANDS, 4), np.uint8)
        for rows in batches(len(images)):
            signs = centred(images[rows], shift)[0] @ self.weights > self.middle
            bits = np.packbits(signs.reshape(len(signs), BANDS, self.bits), axis=2)
            packed[rows, :, : bits.shape[2]] = bits
        return packed.view(np.uint32)[:, :, 0]


def candidates(queries: Array, codes: Array, numbers: Array, most: int) -> Array:
    """Find pairs that share a hash and differ in at most `most` bits.

    Of the many that share one where samples are much alike, those that are next to each other by
    the following hash. Returns rows of query, code, and how many bits differ `(P, 3)`.
    """
    found = np.empty((0, 3), np.int64)
    for band in range(BANDS):
        keys, asked = (_keys(some[numbers], band) for some in (codes, queries))
        order = np.argsort(keys, kind="stable")
        keys, asked, order = keys[order], asked[order], numbers[order]
        places = np.searchsorted(keys, asked)
        here = [found]
        for step in range(-NEXT, NEXT):
            at = np.clip(places + step, 0, len(keys) - 1)
            same = np.flatnonzero((keys[at] ^ asked) >> np.uint64(32) == 0)
            pairs = np.stack([order[same], order[at[same]]], 1)
            differ = count_bits(queries[pairs[:, 0]] ^ codes[pairs[:, 1]])
            near = (differ <= most) & (pairs[:, 0] != pairs[:, 1])
            here.append(np.column_stack([pairs, differ])[near])
        found = few(np.concatenate(here), 8 * budget(len(codes)))
    return found


def budget(number: int) -> int:
    """How many pairs of so many images are looked at closely, those closest by their hashes."""
    return max(100_000, 3 * number)


def _keys(codes: Array, band: int) -> Array:
    """One hash of each sample, and by which those that share it are ordered: the next one."""
    first, second = codes[:, band].astype(np.uint64), codes[:, (band + 1) % BANDS]
    keys: Array = (first << np.uint64(32)) | second
    return keys


def closest(rows: Array) -> Array:
    """Of the rows (query, code, bits, ...) of each pair, keep the one of the fewest bits."""
    low, high = rows[:, :2].min(1), rows[:, :2].max(1)
    order = np.lexsort((rows[:, -1], rows[:, 2], high, low))
    first = np.ones(len(order), bool)
    first[1:] = (low[order][1:] != low[order][:-1]) | (high[order][1:] != high[order][:-1])
    return rows[order[first]]


def few(rows: Array, most: int) -> Array:
    """Keep the closest of the rows (query, code, bits, ...), so many at most."""
    if len(rows) <= most:
        return rows
    far = np.searchsorted(np.bincount(rows[:, 2]).cumsum(), most, side="right")
    return rows[rows[:, 2] < max(far, 1)][:most]


def count_bits(words: Array) -> Array:
    """Count the ones in rows of eight uint32 `(n, 8)`, by adding up ever wider fields."""
    x = words.view(np.uint64)
    for width, mask in (
        (1, 0x5555555555555555),
        (2, 0x3333333333333333),
        (4, 0x0F0F0F0F0F0F0F0F),
    ):
        x = (x & np.uint64(mask)) + ((x >> np.uint64(width)) & np.uint64(mask))
    counts: Array = x.view(np.uint8).sum(1, dtype=np.int64)
    return counts
