"""What TrivialAugment and RandAugment do to images: fourteen operations, as Pillow defines them.

Each takes images `(N, C, H, W)` in [0, 1] and an amount for each, `(N,)`, and gives back the like.
The tests hold them against Pillow's, which the papers use; here, nothing is rounded to bytes in
between, and an image is sheared about its centre, not about its upper left corner.
"""

from collections.abc import Callable

import torch
from torch.nn import functional as F

from litlab.data.augment.warp import warp

Tensor = torch.Tensor
GRAY = (0.299, 0.587, 0.114)  # ITU-R 601-2, as Pillow
LEVELS = 255


def _each(amount: Tensor) -> Tensor:
    return amount[:, None, None, None]


def _blend(base: Tensor, x: Tensor, factor: Tensor) -> Tensor:
    """Pillow's enhancement: 0 is the base, 1 the image itself, more goes beyond it."""
    return torch.lerp(base, x, _each(factor)).clamp(0, 1)


def _gray(x: Tensor) -> Tensor:
    """Return `(N, 1, H, W)`; images that are not of three channels count them all alike."""
    if x.shape[1] != len(GRAY):
        return x.mean(1, keepdim=True)
    return (x * x.new_tensor(GRAY)[:, None, None]).sum(1, keepdim=True)


def _levels(x: Tensor) -> Tensor:
    return (x * LEVELS).round_()


def brightness(x: Tensor, factor: Tensor) -> Tensor:
    """Away from black, or towards it."""
    return _blend(torch.zeros_like(x), x, factor)


def contrast(x: Tensor, factor: Tensor) -> Tensor:
    """Away from the image's mean gray, or towards it."""
    return _blend(_gray(x).mean((2, 3), keepdim=True).expand_as(x), x, factor)


def color(x: Tensor, factor: Tensor) -> Tensor:
    """Away from gray, or towards it; an image without three colours stays as it is."""
    return _blend(_gray(x).expand_as(x), x, factor) if x.shape[1] == len(GRAY) else x


def sharpness(x: Tensor, factor: Tensor) -> Tensor:
    """Away from the smoothed image, or towards it; the outermost pixels stay."""
    if min(x.shape[2:]) < 3:
        return x
    kernel = x.new_ones(3, 3)
    kernel[1, 1] = 5
    kernel = (kernel / kernel.sum()).expand(x.shape[1], 1, 3, 3)
    smooth = x.clone()
    smooth[:, :, 1:-1, 1:-1] = F.conv2d(x, kernel, groups=x.shape[1])
    return _blend(smooth, x, factor)


def posterize(x: Tensor, bits: Tensor) -> Tensor:
    """Keep so many of the eight bits."""
    step = _each((1 << (8 - bits.to(torch.int64))).to(x.dtype))
    return (_levels(x) / step).floor_() * step / LEVELS


def solarize(x: Tensor, threshold: Tensor) -> Tensor:
    """Invert what is at least as bright, of 255."""
    return torch.where(_levels(x) < _each(threshold), x, 1 - x)


def autocontrast(x: Tensor, _: Tensor) -> Tensor:
    """Stretch each channel to the whole range."""
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    return torch.where(high > low, (x - low) / (high - low).clamp(min=1e-12), x)


def equalize(x: Tensor, _: Tensor) -> Tensor:
    """Spread each channel's levels so that all are about equally frequent (Pillow's rule)."""
    levels, bins = _levels(x).to(torch.int64).flatten(2).flatten(0, 1), LEVELS + 1
    first = torch.arange(len(levels), device=x.device)[:, None] * bins
    counts = torch.bincount((levels + first).flatten(), minlength=len(levels) * bins)
    counts = counts.reshape(-1, bins)
    # Pillow leaves out the highest level's pixels, and a channel whose step would be none.
    highest = counts.gather(1, levels.amax(1, keepdim=True))
    step = (counts.sum(1, keepdim=True) - highest) // LEVELS
    below = counts.cumsum(1) - counts
    table = ((below + step // 2) // step.clamp(min=1)).clamp(max=LEVELS)
    table = torch.where(step > 0, table, torch.arange(bins, device=x.device))
    return (table.gather(1, levels) / LEVELS).reshape(x.shape)


def _moved(
    x: Tensor,
    *,
    a: Tensor | float = 1,
    b: Tensor | float = 0,
    c: Tensor | float = 0,
    d: Tensor | float = 0,
    e: Tensor | float = 1,
    f: Tensor | float = 0,
) -> Tensor:
    rows = [x.new_zeros(len(x)) + value for value in (a, b, c, d, e, f)]
    return warp(x, torch.stack(rows, 1).reshape(-1, 2, 3), "nearest")


def rotate(x: Tensor, degrees: Tensor) -> Tensor:
    """Turn anticlockwise about the centre."""
    cos, sin = degrees.deg2rad().cos(), degrees.deg2rad().sin()
    return _moved(x, a=cos, b=-sin, d=sin, e=cos)


def shear_x(x: Tensor, slope: Tensor) -> Tensor:
    """Move each row by its distance from the middle times the slope."""
    return _moved(x, b=slope)


def shear_y(x: Tensor, slope: Tensor) -> Tensor:
    """Move each column by its distance from the middle times the slope."""
    return _moved(x, d=slope)


def translate_x(x: Tensor, pixels: Tensor) -> Tensor:
    """Move to the left."""
    return _moved(x, c=pixels)


def translate_y(x: Tensor, pixels: Tensor) -> Tensor:
    """Move upwards."""
    return _moved(x, f=pixels)


def identity(x: Tensor, _: Tensor) -> Tensor:
    """Return the images unchanged."""
    return x


OPERATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    function.__name__: function
    for function in (
        identity,
        autocontrast,
        equalize,
        rotate,
        solarize,
        color,
        posterize,
        contrast,
        brightness,
        sharpness,
        shear_x,
        shear_y,
        translate_x,
        translate_y,
    )
}
