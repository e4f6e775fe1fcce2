"""One of fourteen operations for each image: what TrivialAugment and RandAugment share."""

from typing import NamedTuple

import torch

from litlab.data.augment.image_ops import LEVELS, OPERATIONS

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
