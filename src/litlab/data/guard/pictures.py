"""Images that look alike: re-encoded, a little brighter, shifted by a pixel.

A thumbnail of each image waits in a temporary file. At the end a perceptual hash of each, the signs
of random projections of its whitened principal components, finds candidates without comparing all
with all (Indyk & Motwani 1998); the correlation of their thumbnails decides.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from litlab.data.guard.spool import Spool
from litlab.data.spec import Array

SMALLEST = 24  # pixels a side: below, distinct images are too alike
SIDE = 32  # of a thumbnail, at most
# Two images look alike if one, its slopes and its Laplacian explain this share of the other's
# variance, and 99 of 100 pixels to so many grey levels. JPEG of quality 70 leaves up to 7 levels,
# 10 % of brightness (the brightest saturate) up to 10; two of MNIST's distinct digits leave 8.4.
EXPLAINED = 0.99
LEVELS = 8.0
ROUGHLY = 0.97  # the same share, of every ninth pixel: what to look at closely
FLAT = 2.0  # deviation of grey levels below which there is nothing to correlate
BANDS = 8  # hashes of a sample; a pair that shares one is looked at
MOST = 64  # candidates that share one hash with a sample
COMPONENTS = 32
FIT = 4096  # images that the components are of
ROWS = 4096  # thumbnails or pairs at a time
SHIFTS = ((0, 0), (0, 1), (1, -1), (1, 0), (1, 1))  # the opposite ones are the other sample's


class Thumbnails:
    """Grey thumbnails of at most 32 x 32 pixels, in a temporary file."""

    def __init__(self, shape: tuple[int, ...], folder: Path | None = None) -> None:
        height, width = shape[1:]
        self.shape = min(height, SIDE) - 2, min(width, SIDE) - 2
        self.scale = max(height / SIDE, width / SIDE)
        self._down, self._right = _averaging(height, SIDE), _averaging(width, SIDE)
        self._spool = Spool(np.uint8, folder)

    def add(self, images: Array) -> None:
        """Append those of images `(n, C, H, W)`."""
        step = max(1, 2**22 // images[0].size)
        for start in range(0, len(images), step):
            grey = images[start : start + step].mean(1, dtype=np.float32)
            small = _blurred(self._down @ grey @ self._right.T)
            self._spool.add(np.rint(small).astype(np.uint8))

    def whole(self) -> Array:
        """Return all thumbnails `(N, h, w)`, mapped from the file."""
        return self._spool.whole().reshape(-1, *self.shape)

    def near_pairs(self) -> tuple[Array, Array]:
        """Return pairs of images that look alike `(P, 2)`, and which are too flat to tell `(N,)`.

        A pair is two numbers, ascending, in the order that the images were added.
        """
        images = self.whole()
        flat = np.concatenate([_centred(images[rows], (0, 0))[1] for rows in _batches(len(images))])
        flat = flat[:, 0] < FLAT
        hashing = _Hash(images)
        codes = hashing.of(images, (0, 0))
        found = [np.empty((0, 2), np.int64)]
        for shift in SHIFTS if self.scale < 2 else SHIFTS[:1]:
            shifted = codes if shift == (0, 0) else hashing.of(images, shift)
            pairs = _candidates(shifted, codes, np.flatnonzero(~flat), hashing.bits * 3 // 4)
            found += [_alike(images, pairs[rows], shift) for rows in _batches(len(pairs))]
        return np.unique(np.sort(np.concatenate(found), axis=1), axis=0), flat


class _Hash:
    """Eight hashes of each thumbnail, of as many bits as tell the samples apart."""

    def __init__(self, images: Array) -> None:
        self.bits = int(np.clip(np.ceil(np.log2(max(len(images), 2))) + 2, 16, 32))
        some = np.unique(np.linspace(0, len(images) - 1, FIT).astype(np.int64))
        centred, _ = _centred(images[some], (0, 0))
        values, vectors = np.linalg.eigh(centred.T @ centred / len(some))
        number = min(COMPONENTS, len(values))
        values, vectors = values[-number:].clip(0), vectors[:, -number:]
        # Weak components are mostly noise: they count for less than the strong ones.
        weights = vectors / np.sqrt(values + 0.1 * values.mean() + 1e-12)
        rotate = np.random.default_rng(0).normal(size=(number, BANDS * self.bits))
        self.weights = (weights @ rotate).astype(np.float32)
        self.middle = np.median(centred @ self.weights, axis=0)

    def of(self, images: Array, shift: tuple[int, int]) -> Array:
        """Return the hashes `(N, 8)` of images, as if each were shifted by a pixel or none."""
        packed = np.zeros((len(images), BANDS, 4), np.uint8)
        for rows in _batches(len(images)):
            signs = _centred(images[rows], shift)[0] @ self.weights > self.middle
            bits = np.packbits(signs.reshape(len(signs), BANDS, self.bits), axis=2)
            packed[rows, :, : bits.shape[2]] = bits
        return packed.view(np.uint32)[:, :, 0]


def _candidates(queries: Array, codes: Array, numbers: Array, most: int) -> Array:
    """Find pairs (query, code) `(P, 2)` that share a hash and differ in at most `most` bits."""
    found = [np.empty((0, 2), np.int64)]
    for band in range(BANDS):
        order = numbers[np.argsort(codes[numbers, band], kind="stable")]
        keys, asked = codes[order, band], queries[order, band]
        low, high = np.searchsorted(keys, asked), np.searchsorted(keys, asked, side="right")
        for step in range(MOST):
            ask = np.flatnonzero(low + step < high)
            if not len(ask):
                break
            pairs = np.stack([order[ask], order[low[ask] + step]], 1)
            pairs = pairs[pairs[:, 0] != pairs[:, 1]]
            differ = _count_bits(queries[pairs[:, 0]] ^ codes[pairs[:, 1]])
            found.append(pairs[differ <= most])
    return np.unique(np.concatenate(found), axis=0)


def _count_bits(words: Array) -> Array:
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


def _alike(images: Array, pairs: Array, shift: tuple[int, int]) -> Array:
    """Return those of the pairs `(n, 2)` that look alike, the first of each being shifted."""
    first, second = images[pairs[:, 0]], images[pairs[:, 1]]
    rest, power, _ = _unexplained(first, second, shift, 3)
    rough = _squares(rest) <= (1 - ROUGHLY) * power
    rest, power, contrast = _unexplained(first[rough], second[rough], shift, 1)
    close = _squares(rest) <= (1 - EXPLAINED) * power
    levels = np.abs(rest[close]) * ((contrast / power)[close] ** 0.25)[:, None]
    close[close] = np.quantile(levels, 0.99, axis=1) <= LEVELS
    return pairs[rough][close]


def _unexplained(
    first: Array, second: Array, shift: tuple[int, int], step: int
) -> tuple[Array, Array, Array]:
    """Explain each second thumbnail by the first, its slopes and its Laplacian (least squares).

    That is what a little more brightness, contrast or blur, or a shift by less than a pixel, comes
    to. Returns what is left `(n, D)`, and the squares of both, summed `(n,)`.
    """
    middle, up, down, left, right = (
        _inside(first, (shift[0] + y, shift[1] + x), step)
        for y, x in ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))
    )
    bases = np.stack([middle, down - up, right - left, up + down + left + right - 4 * middle], 1)
    wanted = _inside(second, (0, 0), step)
    grams = bases @ bases.transpose(0, 2, 1)
    grams += np.eye(4, dtype=np.float32) * (1e-6 * grams.max((1, 2)) + 1e-3)[:, None, None]
    weights = np.linalg.solve(grams, bases @ wanted[:, :, None])
    rest = wanted - (weights.transpose(0, 2, 1) @ bases)[:, 0]
    return rest, _squares(wanted) + 1, _squares(middle) + 1


def _squares(x: Array) -> Array:
    squares: Array = np.einsum("ij,ij->i", x, x)
    return squares


def _blurred(x: Array) -> Array:
    """Images `(n, h, w)` as `(n, h - 2, w - 2)`: what is left of JPEG's blocks is small."""
    x = (x[:, :-2] + 2 * x[:, 1:-1] + x[:, 2:]) / 4
    blurred: Array = (x[:, :, :-2] + 2 * x[:, :, 1:-1] + x[:, :, 2:]) / 4
    return blurred


def _inside(images: Array, shift: tuple[int, int], step: int = 1) -> Array:
    """The middle of images, shifted by up to two pixels, or each third of its pixels `(n, D)`.

    Their means and slopes are taken out: two skies are not alike for getting darker upwards.
    """
    down, right = (2 + by for by in shift)
    height, width = (side - 4 for side in images.shape[1:])
    x = images[:, down : down + height : step, right : right + width : step]
    rows, columns = np.linspace(-1, 1, x.shape[1]), np.linspace(-1, 1, x.shape[2])
    ramps = [np.ones(x.shape[1:]), rows[:, None] + 0 * columns, columns + 0 * rows[:, None]]
    trend = np.stack([ramp.ravel() / np.linalg.norm(ramp) for ramp in ramps]).astype(np.float32)
    x = x.reshape(len(x), -1).astype(np.float32)
    middle: Array = x - (x @ trend.T) @ trend
    return middle


def _centred(images: Array, shift: tuple[int, int]) -> tuple[Array, Array]:
    """Return the insides of thumbnails with deviation 1 `(n, D)`, and what it was `(n, 1)`."""
    flat = _inside(images, shift)
    deviation = np.maximum(np.sqrt(_squares(flat) / flat.shape[1]), 1e-3)
    return flat / deviation[:, None], deviation[:, None]


def _batches(number: int) -> Iterator[slice]:
    for start in range(0, number, ROWS):
        yield slice(start, min(start + ROWS, number))


def _averaging(size: int, most: int) -> Array:
    """A matrix `(min(size, most), size)` that averages neighbouring pixels, all of equal weight."""
    small = min(size, most)
    edges = np.arange(small + 1) * size / small
    pixels = np.arange(size)
    low, high = edges[:-1, None], edges[1:, None]
    overlap = np.minimum(high, pixels + 1) - np.maximum(low, pixels)
    weights: Array = (overlap.clip(0) * small / size).astype(np.float32)
    return weights
