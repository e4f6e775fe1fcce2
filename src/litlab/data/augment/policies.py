from collections.abc import Callable
from typing import NamedTuple

import torch
from torch.nn import functional as F

from litlab.config.hyperparameters import Count, Index
from litlab.data.augment.base import Augmentation
from litlab.data.augment.draws import Draws
from litlab.data.augment.warp import warp
from litlab.data.spec import DataSpec

# What TrivialAugment and RandAugment do to images: fourteen operations, as Pillow defines them.
#
# Each takes images `(N, C, H, W)` in [0, 1] and an amount for each, `(N,)`, and gives back the
# like. The tests hold them against Pillow's, which the papers use; here, nothing is rounded to
# bytes in between, and an image is sheared about its centre, not about its upper left corner.


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


# One of fourteen operations for each image: what TrivialAugment and RandAugment share.


MAX_MAGNITUDE = 30  # strengths are 0 to 30, as in both papers
NAMES = tuple(OPERATIONS)


class Ranges(NamedTuple):
    """How far each operation goes at the greatest strength.

    Attributes:
        degrees: Of rotation, either way.
        slope: Of shearing, either way.
        pixels: Of translation in x and in y, either way, by whole pixels.
        bits: What posterizing takes away.
        factor: How far color, contrast, brightness and sharpness go from 1, either way.
    """

    degrees: float
    slope: float
    pixels: tuple[float, float]
    bits: int
    factor: float

    def amount(self, name: str, strength: torch.Tensor, sign: torch.Tensor) -> torch.Tensor:
        """Return what the operation of that name takes.

        Args:
            name: Of the operation.
            strength: From 0 to 1, `(N,)`.
            sign: Which way, -1 or 1, `(N,)`.
        """
        if name == "solarize":
            return (LEVELS + 1) * (1 - strength)
        if name == "posterize":
            return 8 - (strength * self.bits).round()
        if name == "rotate":
            return sign * strength * self.degrees
        if name.startswith("shear"):
            return sign * strength * self.slope
        if name.startswith("translate"):
            return sign * (strength * self.pixels[name == "translate_y"]).round()
        return 1 + sign * strength * self.factor


def apply(
    x: torch.Tensor, choice: torch.Tensor, magnitude: torch.Tensor, sign: torch.Tensor, to: Ranges
) -> torch.Tensor:
    """Do to each image what was chosen for it; images of one operation go through it together.

    Args:
        x: `(B, C, H, W)`, bytes or in [0, 1]; it comes back as such.
        choice: Places in `NAMES`, `(B,)`.
        magnitude: From 0 to 30, `(B,)`.
        sign: -1 or 1, `(B,)`.
        to: How far each operation goes.
    """
    order = choice.argsort()
    counts = torch.bincount(choice, minlength=len(NAMES)).tolist()
    by_operation = [
        torch.split(values.index_select(0, order), counts)
        for values in (x, magnitude / MAX_MAGNITUDE, sign)
    ]
    changed = [
        _apply_one(name, part, to.amount(name, strength, way)) if len(part) else part
        for name, part, strength, way in zip(NAMES, *by_operation, strict=True)
    ]
    return torch.cat(changed).index_select(0, order.argsort())


def _apply_one(name: str, x: torch.Tensor, amount: torch.Tensor) -> torch.Tensor:
    if name == "identity" or x.is_floating_point():
        return OPERATIONS[name](x, amount)
    changed = OPERATIONS[name](x / LEVELS, amount)
    return (changed * LEVELS).round_().to(x.dtype)


class RandAugment(Augmentation):
    """Some operations for each image, one after another, all of one strength (Cubuk et al. 2020).

    Each is drawn from fourteen, so that one may come twice; the sign of what can go either way is
    drawn too. At the greatest strength: rotation by 30 degrees, shear by 0.3, translation by 45 %
    of the side, posterizing to 4 bits. Where the paper's enhancement factor goes from 0.1 to 1.9
    with the strength, so that strength 15 does nothing, here it goes from 1 to 1 ± 0.9. Images are
    sheared about their centre; what comes in from outside is black. Images of one channel have
    no colour: that operation then changes nothing.

    Args:
        spec: The data it is for.
        num_ops: Operations an image, the paper's N.
        magnitude: Their strength, 0 to 30, the paper's M.

    Raises:
        ValueError: There is no such strength.
    """

    kinds = frozenset({"image"})
    on_bytes = True
    of_bytes = True

    def __init__(self, spec: DataSpec, *, num_ops: Count = 2, magnitude: Index = 9) -> None:
        super().__init__(spec)
        if magnitude > MAX_MAGNITUDE:
            raise ValueError(f"magnitude={magnitude}: must be at most {MAX_MAGNITUDE}")
        self.num_ops, self.magnitude = num_ops, magnitude
        share = 150 / 331  # AutoAugment's 150 pixels of ImageNet's 331
        pixels = (spec.shape[2] * share, spec.shape[1] * share)
        self.ranges = Ranges(30.0, 0.3, pixels, 4, 0.9)

    def change(self, x: torch.Tensor, draws: Draws) -> torch.Tensor:
        """Return `(B, C, H, W)`."""
        choices = draws.integers(0, len(NAMES), self.num_ops)
        signs = draws.integers(0, 2, self.num_ops) * 2 - 1
        magnitude = torch.full_like(choices[:, 0], self.magnitude)
        for choice, sign in zip(choices.unbind(1), signs.unbind(1), strict=True):
            x = apply(x, choice, magnitude, sign, self.ranges)
        return x


MOST_PIXELS = 32  # of translation


class TrivialAugment(Augmentation):
    """One operation for each image, of a strength drawn at random (Müller and Hutter 2021).

    Each of fourteen operations is as likely as another, each strength of 0 to 30 too; there is
    nothing to tune. `wide` is the paper's wide space, TA (Wide): rotation to 135 degrees, shear to
    0.99, translation to 32 pixels, posterizing to 2 bits, enhancement by a factor of 0.01 to 1.99.
    The other space is that of RandAugment's operations: 30 degrees, 0.3, 10 of 32 pixels, 4 bits,
    0.1 to 1.9.

    Unlike in the paper's code, translation ends at half of a side, so that something of a small
    image stays, and images are sheared about their centre. What comes in from outside is black.
    Images of one channel have no colour: that operation then changes nothing.

    Args:
        spec: The data it is for.
        wide: Whether to go to the ends of the wide space.
    """

    kinds = frozenset({"image"})
    on_bytes = True
    of_bytes = True

    def __init__(self, spec: DataSpec, *, wide: bool = True) -> None:
        super().__init__(spec)
        height, width = spec.shape[1:]
        if wide:
            pixels = (min(MOST_PIXELS, width / 2), min(MOST_PIXELS, height / 2))
            self.ranges = Ranges(135.0, 0.99, pixels, 6, 0.99)
        else:
            self.ranges = Ranges(30.0, 0.3, (width * 10 / 32, height * 10 / 32), 4, 0.9)

    def change(self, x: torch.Tensor, draws: Draws) -> torch.Tensor:
        """Return `(B, C, H, W)`."""
        choice = draws.integers(0, len(NAMES))
        magnitude = draws.integers(0, MAX_MAGNITUDE + 1)
        sign = draws.integers(0, 2) * 2 - 1
        return apply(x, choice, magnitude, sign, self.ranges)
