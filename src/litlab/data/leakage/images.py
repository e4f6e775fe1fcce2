"""Images that look alike: re-encoded, a little brighter, shifted by a pixel.

A thumbnail of each image waits in a temporary file. At the end a perceptual hash finds candidates,
without comparing all with all, and least squares over their thumbnails decide.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from litlab.data.leakage.duplicates import Spool
from litlab.data.leakage.samples import GrowingArray
from litlab.data.spec import Array

# Pixels of thumbnails as they are compared: blurred, shifted, without means and slopes.


ROWS = 1024  # thumbnails or pairs at a time: what a processor's cache holds


def blurred(x: Array) -> Array:
    """Return images `(n, h, w)` as `(n, h - 2, w - 2)`: of JPEG's blocks, little is left."""
    x = (x[:, :-2] + 2 * x[:, 1:-1] + x[:, 2:]) / 4
    result: Array = (x[:, :, :-2] + 2 * x[:, :, 1:-1] + x[:, :, 2:]) / 4
    return result


def inside(images: Array, shift: tuple[int, int], step: int = 1) -> Array:
    """Return the middle of images `(n, h, w)`, shifted by up to two pixels, by steps of `step`."""
    down, right = (2 + by for by in shift)
    height, width = (side - 4 for side in images.shape[1:])
    x = images[:, down : down + height : step, right : right + width : step]
    return x.astype(np.float32)


def detrended(x: Array) -> Array:
    """Take means and slopes out of `(..., h, w)` and return `(..., h * w)`.

    Two skies are not alike for getting darker upwards.
    """
    rows, columns = np.meshgrid(*(np.linspace(-1, 1, side) for side in x.shape[-2:]), indexing="ij")
    ramps = np.stack([np.ones(rows.size), rows.ravel(), columns.ravel()])
    trend = (ramps / np.linalg.norm(ramps, axis=1, keepdims=True)).astype(np.float32)
    flat = x.reshape(-1, rows.size)
    flat = flat - (flat @ trend.T) @ trend
    result: Array = flat.reshape(*x.shape[:-2], rows.size)
    return result


def centred(images: Array, shift: tuple[int, int]) -> tuple[Array, Array]:
    """Return the insides of thumbnails with deviation 1 `(n, D)`, and what it was `(n, 1)`."""
    flat = detrended(inside(images, shift))
    deviation = np.maximum(np.sqrt(squares(flat) / flat.shape[1]), 1e-3)
    return flat / deviation[:, None], deviation[:, None]


def squares(x: Array) -> Array:
    """Sum the squares of each row `(n,)`."""
    total: Array = np.einsum("ij,ij->i", x, x)
    return total


def batches(number: int) -> Iterator[slice]:
    """Cut so many rows into pieces."""
    for start in range(0, number, ROWS):
        yield slice(start, min(start + ROWS, number))


# Perceptual hashes of thumbnails, and the pairs that they bring together.
#
# A hash is the signs of random projections of the whitened principal components: distinct images of
# one data set differ in many bits, even where all of them are digits. Pairs that share one of eight
# parts of it are found by sorting (Indyk & Motwani 1998, "Approximate nearest neighbors").


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


SMALLEST = 24  # pixels a side: below, distinct images are too alike
SIDE = 32  # of a thumbnail, at most
# Two images look alike if one, its slopes and its Laplacian explain this share of the other's
# variance, and 99 of 100 pixels to so many grey levels. JPEG of quality 70 leaves up to 7 levels,
# 10 % of brightness (the brightest saturate) up to 10; two of MNIST's distinct digits leave 8.4.
EXPLAINED = 0.98
LEVELS = 8.0
FAR = 0.35  # of the weight of the image itself, its slopes' and Laplacian's: a shift by 0.7 pixels
ROUGHLY = 0.96  # the same share, of every ninth pixel: what to look at closely
FLAT = 2.0  # deviation of grey levels below which there is nothing to correlate
SHIFTS = ((0, 0), (0, 1), (1, -1), (1, 0), (1, 1))  # the opposite ones are the other sample's


class Thumbnails:
    """Grey thumbnails of at most 32 x 32 pixels, in a temporary file.

    Each is stretched to use the eight bits it has: rounding would tell dark copies apart. Images
    that are not bytes are brought into their range first, by the first ones that come.
    """

    def __init__(self, shape: tuple[int, ...], folder: Path | None = None) -> None:
        height, width = shape[1:]
        self.shape = min(height, SIDE) - 2, min(width, SIDE) - 2
        self.scale = max(height / SIDE, width / SIDE)
        self._down, self._right = _averaging(height, SIDE), _averaging(width, SIDE)
        self._spool = Spool(np.uint8, folder)
        self._gains = GrowingArray(np.float32)
        self._range: tuple[float, float] | None = None  # what becomes 0, and how much becomes 1

    def add(self, images: Array) -> None:
        """Append those of images `(n, C, H, W)`."""
        step = max(1, 2**22 // images[0].size)
        for start in range(0, len(images), step):
            grey = self._grey(images[start : start + step])
            small = blurred(self._down @ grey @ self._right.T)
            small -= small.mean((1, 2), keepdims=True)
            gains = (127 / (np.abs(small).max((1, 2)) + 1)).clip(0.5, 16)
            self._spool.add(np.rint(small * gains[:, None, None] + 128).clip(0, 255))
            self._gains.add(gains)

    def _grey(self, images: Array) -> Array:
        grey: Array = images.mean(1, dtype=np.float32)
        if images.dtype == np.uint8:
            return grey
        if self._range is None:  # a few bright pixels do not count
            low, high = np.quantile(grey, [0.001, 0.999])
            self._range = float(low), 255 / float(high - low) if high > low else 1.0
        return (grey - self._range[0]) * self._range[1]

    def whole(self) -> Array:
        """Return all thumbnails `(N, h, w)`, mapped from the file."""
        return self._spool.whole().reshape(-1, *self.shape)

    def near_pairs(self) -> tuple[Array, Array]:
        """Return pairs of images that look alike `(P, 2)`, and which are too flat to tell `(N,)`.

        A pair is two numbers, ascending, in the order that the images were added.
        """
        images = self.whole()
        flat = np.concatenate([centred(images[rows], (0, 0))[1] for rows in batches(len(images))])
        gains = self._gains.whole()
        flat = flat[:, 0] < FLAT * gains
        hashing = PictureHash(images)
        codes = hashing.of(images, (0, 0))
        shifts = SHIFTS if self.scale < 2 else SHIFTS[:1]
        found = []
        for number, shift in enumerate(shifts):
            shifted = codes if shift == (0, 0) else hashing.of(images, shift)
            pairs = candidates(shifted, codes, np.flatnonzero(~flat), hashing.bits * 3 // 4)
            found.append(np.column_stack([pairs, np.full(len(pairs), number)]))
        best = few(closest(np.concatenate(found)), budget(len(images)))
        alike = [np.empty((0, 2), np.int64)]
        for number, shift in enumerate(shifts):
            pairs = best[best[:, 3] == number, :2]
            alike += [_alike(images, gains, pairs[rows], shift) for rows in batches(len(pairs))]
        return np.unique(np.sort(np.concatenate(alike), axis=1), axis=0), flat


def _alike(images: Array, gains: Array, pairs: Array, shift: tuple[int, int]) -> Array:
    """Return those of the pairs `(n, 2)` that look alike, the first of each being shifted."""
    close = _explains(images, gains, pairs, shift)
    # The other way round: a blurred copy does not explain what it was made of.
    back = pairs[~close][:, ::-1]
    close[~close] = _explains(images, gains, back, (-shift[0], -shift[1]))
    return pairs[close]


def _explains(images: Array, gains: Array, pairs: Array, shift: tuple[int, int]) -> Array:
    """Whether the first of each pair, shifted, explains the second `(n,)`."""
    first, second = images[pairs[:, 0]], images[pairs[:, 1]]
    rest, power, *_ = _unexplained(first, second, shift, 3)
    close: Array = squares(rest) <= (1 - ROUGHLY) * power
    rest, power, contrast, weights = _unexplained(first[close], second[close], shift, 1)
    # As if both had the mean of their contrasts.
    levels = np.abs(rest) * ((contrast / power) ** 0.25)[:, None]
    levels /= np.sqrt(gains[pairs[close]].prod(1, keepdims=True))
    fits = squares(rest) <= (1 - EXPLAINED) * power
    fits &= (np.abs(weights[:, 1:]) <= FAR * weights[:, :1]).all(1)
    fits[fits] = np.quantile(levels[fits], 0.99, axis=1) <= LEVELS
    close[close] = fits
    return close


def _unexplained(
    first: Array, second: Array, shift: tuple[int, int], step: int
) -> tuple[Array, Array, Array, Array]:
    """Explain each second thumbnail by the first, its slopes and its Laplacian (least squares).

    That is what a little more brightness, contrast or blur, or a shift by less than a pixel, comes
    to. Returns what is left `(n, D)`, the squares of second and first, summed `(n,)`, and the
    weights `(n, 4)`.
    """
    middle, up, down, left, right = (
        inside(first, (shift[0] + y, shift[1] + x), step)
        for y, x in ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))
    )
    bases = np.stack([middle, down - up, right - left, up + down + left + right - 4 * middle], 1)
    bases = detrended(bases)
    middle, wanted = bases[:, 0], detrended(inside(second, (0, 0), step))
    grams = bases @ bases.transpose(0, 2, 1)
    grams += np.eye(4, dtype=np.float32) * (1e-6 * grams.max((1, 2)) + 1e-3)[:, None, None]
    weights = np.linalg.solve(grams, bases @ wanted[:, :, None])[:, :, 0]
    rest = wanted - (weights[:, None] @ bases)[:, 0]
    return rest, squares(wanted) + 1, squares(middle) + 1, weights


def _averaging(size: int, most: int) -> Array:
    """A matrix `(min(size, most), size)` that averages the pixels around each place it keeps.

    Those further away count for less (a triangle's weights), or a shift by one of many pixels
    would not be a smooth change.
    """
    small = min(size, most)
    scale = size / small
    centres = (np.arange(small)[:, None] + 0.5) * scale
    weights = (1 - np.abs(np.arange(size) + 0.5 - centres) / scale).clip(0)
    normal: Array = (weights / weights.sum(1, keepdims=True)).astype(np.float32)
    return normal
