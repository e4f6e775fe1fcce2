"""Pixels of thumbnails as the guard compares them: blurred, shifted, without means and slopes."""

from collections.abc import Iterator

import numpy as np

from litlab.data.spec import Array

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
