"""Random numbers that depend on the sample, not on its position in a batch.

A stateful generator gives a sample whatever number is next: another batch order, another number of
processes or a resumed run changes every augmentation. Here a number is a hash of what it is for
(counter-based, as in Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011).
"""

import hashlib
import math
from typing import Self

import torch

from litlab.data.augment.bits import GOLDEN, mix_number, sample_keys, words

_NO_EPOCH = -1


class Draws:
    """Random numbers of a batch's samples, keyed by (seed, epoch, sample index).

    What is drawn depends on these three, on the stream's name and on which call on this object it
    is; never on the batch, its order or its size, nor on torch's generators. Integers and uniform
    numbers are the same on each device; normal ones up to rounding.

    Args:
        seed: Of the run.
        epoch: Counted from 0.
        index: The samples' numbers in their split, `(B,)` int64; the numbers are drawn where it is.
    """

    def __init__(self, seed: int, epoch: int, index: torch.Tensor) -> None:
        self.seed, self.epoch, self.index = seed, epoch, index
        self._start(epoch, 0)

    def _start(self, epoch: int, salt: int) -> None:
        base = mix_number(mix_number(self.seed) + (epoch + 2) * GOLDEN)
        self._keys = sample_keys(self.index, base)
        self._salt, self._calls = salt, 0

    def _copy(self) -> Self:
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other._calls = 0
        return other

    def __len__(self) -> int:
        return len(self.index)

    def stream(self, name: str) -> Self:
        """Return independent draws for a purpose of that name."""
        other = self._copy()
        code = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
        other._salt = mix_number(self._salt ^ code)
        return other

    def lasting(self) -> Self:
        """Return draws that a sample keeps from epoch to epoch; `epoch` still tells which it is."""
        other = self._copy()
        other._start(_NO_EPOCH, self._salt)
        return other

    def first(self, number: int) -> Self:
        """Return the draws of the batch's first samples."""
        other = self._copy()
        other.index, other._keys = self.index[:number], self._keys[:number]
        return other

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> torch.Tensor:
        """Return `(B, *shape)` float32 in [low, high), in steps of 2^-24 of the range.

        `uniform(n)` begins with what `uniform(m)` would give for m < n: texts that are padded to
        another length keep their numbers. The same holds for `integers`.
        """
        numbers = _unit(self._words(shape, 24)).reshape(len(self), *shape)
        return numbers if (low, high) == (0.0, 1.0) else numbers.mul_(high - low).add_(low)

    def normal(self, *shape: int) -> torch.Tensor:
        """Return `(B, *shape)` float32 of mean 0 and deviation 1; none is beyond 5.77.

        In pairs, from a length and an angle (Box and Muller 1958).
        """
        number = math.prod(shape)
        radius, angle = _unit(self._words((number + number % 2,), 24)).chunk(2, 1)
        radius = radius.neg().add_(1).log_().mul_(-2).sqrt_()
        angle = angle * (2 * math.pi)
        pairs = torch.cat([radius * angle.cos(), angle.sin_().mul_(radius)], 1)
        return pairs[:, :number].reshape(len(self), *shape)

    def integers(self, low: int, high: int, *shape: int) -> torch.Tensor:
        """Return `(B, *shape)` int64 in [low, high); the range is at most 2^31."""
        assert 0 < high - low <= 2**31, f"nothing to draw from [{low}, {high})"
        wide = self._words(shape, 32).to(torch.int64).bitwise_and_(2**32 - 1)
        return wide.mul_(high - low).bitwise_right_shift_(32).add_(low).reshape(-1, *shape)

    def bernoulli(self, p: float) -> torch.Tensor:
        """Return `(B,)` bool, True with probability p; at 0 never, at 1 always."""
        return self.uniform() < p

    def _words(self, shape: tuple[int, ...], keep: int) -> torch.Tensor:
        """Return as many words a sample as the shape has places, `(B, n)`, of so many bits."""
        self._calls += 1
        salt = mix_number(self._salt + self._calls * GOLDEN)
        return words(self._keys, salt, math.prod(shape) if shape else None, keep)


def _unit(bits: torch.Tensor) -> torch.Tensor:
    """24 bits as a number in [0, 1)."""
    return bits.to(torch.float32).mul_(2.0**-24)
