"""Images that look alike: re-encoded, a little brighter, shifted by a pixel.

A thumbnail of each image waits in a temporary file. At the end a perceptual hash finds candidates,
without comparing all with all, and least squares over their thumbnails decide.
"""

from pathlib import Path

import numpy as np

from litlab.data.leakage.image_hash import PictureHash, budget, candidates, closest, few
from litlab.data.leakage.pixels import batches, blurred, centred, detrended, inside, squares
from litlab.data.leakage.samples import GrowingArray
from litlab.data.leakage.spool import Spool
from litlab.data.spec import Array

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

    Each is stretched to use the eight bits it has: rounding would tell dark copies apart.
    """

    def __init__(self, shape: tuple[int, ...], folder: Path | None = None) -> None:
        height, width = shape[1:]
        self.shape = min(height, SIDE) - 2, min(width, SIDE) - 2
        self.scale = max(height / SIDE, width / SIDE)
        self._down, self._right = _averaging(height, SIDE), _averaging(width, SIDE)
        self._spool = Spool(np.uint8, folder)
        self._gains = GrowingArray(np.float32)

    def add(self, images: Array) -> None:
        """Append those of images `(n, C, H, W)`."""
        step = max(1, 2**22 // images[0].size)
        for start in range(0, len(images), step):
            grey = images[start : start + step].mean(1, dtype=np.float32)
            small = blurred(self._down @ grey @ self._right.T)
            small -= small.mean((1, 2), keepdims=True)
            gains = (127 / (np.abs(small).max((1, 2)) + 1)).clip(0.5, 16)
            self._spool.add(np.rint(small * gains[:, None, None] + 128).clip(0, 255))
            self._gains.add(gains)

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
