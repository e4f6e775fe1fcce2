"""Random numbers that belong to a sample, not to a place in a batch.

A stateful generator gives a sample whatever number is next: another batch order, another number of
processes or a resumed run changes every augmentation. Here a number is a hash of what it is for
(counter-based, as in Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011):
splitmix64 (Steele et al. 2014) turns (seed, epoch, sample, stream, call) into a key a sample, and
two rounds of a 32-bit hash (C. Wellons' hash-prospector) turn the key and the element's place into
the number. torch has no logical shift, so each right shift is masked.
"""

import hashlib
import math
from collections.abc import Callable
from typing import Self

import torch

_GOLDEN = 0x9E3779B97F4A7C15  # 2^64 / golden ratio, made odd
_ALL = 2**64 - 1
_NO_EPOCH = -1
_CACHED = 2**17  # numbers


def _signed(number: int, bits: int = 64) -> int:
    """The same bits as torch's signed integers read them."""
    number &= 2**bits - 1
    return number - 2**bits if number >> (bits - 1) else number


def _mix_number(z: int) -> int:
    """splitmix64's finalizer, of one Python integer."""
    z &= _ALL
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z = ((z ^ (z >> shift)) * factor) & _ALL
    return z ^ (z >> 31)


def _steps(bits: int, dtype: torch.dtype, *pairs: tuple[int, int]) -> list[list[torch.Tensor]]:
    """Shift, mask and factor of each step, as tensors: a Python number is converted every time."""
    rows = ((shift, (1 << (bits - shift)) - 1, _signed(factor, bits)) for shift, factor in pairs)
    return [[torch.tensor(number, dtype=dtype) for number in row] for row in rows]


_STEPS64 = _steps(64, torch.int64, (30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1))
_STEPS32 = _steps(32, torch.int32, (16, 0x21F0AAAD), (15, 0xD35A2D97), (15, 1))


def _mix(z: torch.Tensor, steps: list[list[torch.Tensor]]) -> torch.Tensor:
    """Xor-shifts and multiplications, in place."""
    for i, (shift, mask, factor) in enumerate(steps):
        z ^= (z >> shift).bitwise_and_(mask)
        if i < len(steps) - 1:
            z *= factor
    return z


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
        base = _mix_number(_mix_number(self.seed) + (epoch + 2) * _GOLDEN)
        z = self.index.to(torch.int64) * _signed(_GOLDEN)
        self._samples = _mix(z.add_(_signed(base)), _STEPS64)
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
        other._salt = _mix_number(self._salt ^ code)
        return other

    def lasting(self) -> Self:
        """Return draws that a sample keeps from epoch to epoch; `epoch` still tells which it is."""
        other = self._copy()
        other._start(_NO_EPOCH, self._salt)
        return other

    def first(self, number: int) -> Self:
        """Return the draws of the batch's first samples."""
        other = self._copy()
        other.index, other._samples = self.index[:number], self._samples[:number]
        return other

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> torch.Tensor:
        """Return `(B, *shape)` float32 in [low, high), in steps of 2^-24 of the range.

        `uniform(n)` begins with what `uniform(m)` would give for m < n: texts that are padded to
        another length keep their numbers. The same holds for `integers`.
        """
        numbers = self._drawn(shape, _unit).reshape(len(self), *shape)
        return numbers if (low, high) == (0.0, 1.0) else numbers.mul_(high - low).add_(low)

    def normal(self, *shape: int) -> torch.Tensor:
        """Return `(B, *shape)` float32 of mean 0 and deviation 1; none is beyond 5.77."""
        number = math.prod(shape)
        pairs = self._drawn((number + number % 2,), _box_muller)
        return pairs[:, :number].reshape(len(self), *shape)

    def integers(self, low: int, high: int, *shape: int) -> torch.Tensor:
        """Return `(B, *shape)` int64 in [low, high); the range is at most 2^31."""
        assert 0 < high - low <= 2**31, f"nothing to draw from [{low}, {high})"
        words = self._drawn(shape, _widened)
        return words.mul_(high - low).bitwise_right_shift_(32).add_(low).reshape(-1, *shape)

    def bernoulli(self, p: float) -> torch.Tensor:
        """Return `(B,)` bool, True with probability p; at 0 never, at 1 always."""
        return self.uniform() < p

    def _drawn(
        self, shape: tuple[int, ...], finish: Callable[[torch.Tensor], torch.Tensor]
    ) -> torch.Tensor:
        """Return `(B, n)`, n numbers for each sample, made by `finish` of random bits, int32."""
        self._calls += 1
        salt = _mix_number(self._salt + self._calls * _GOLDEN)
        keys = _mix(self._samples + _signed(salt), _STEPS64).view(torch.int32).reshape(-1, 2)
        if not shape:  # the key is random enough
            return finish(keys[:, 1:])
        number = math.prod(shape)
        # As much as a processor's cache holds at a time: it takes half the time of all at once.
        rows = _CACHED // max(number, 1) if keys.device.type == "cpu" else len(keys)
        return torch.cat([finish(_elements(k, number)) for k in torch.split(keys, max(rows, 1))])


def _elements(keys: torch.Tensor, number: int) -> torch.Tensor:
    """Return random bits `(B, number)` int32 from keys `(B, 2)`."""
    places = torch.arange(number, dtype=torch.int32, device=keys.device)
    words = places.mul_(_signed(_GOLDEN >> 32, 32)) + keys[:, :1]
    return _mix(_mix(words, _STEPS32).bitwise_xor_(keys[:, 1:]), _STEPS32)


def _unit(words: torch.Tensor) -> torch.Tensor:
    """The upper 24 bits as a number in [0, 1)."""
    return (words >> 8).bitwise_and_(2**24 - 1).to(torch.float32).mul_(2.0**-24)


def _widened(words: torch.Tensor) -> torch.Tensor:
    """All 32 bits as a number in [0, 2^32), int64."""
    return words.to(torch.int64).bitwise_and_(2**32 - 1)


def _box_muller(words: torch.Tensor) -> torch.Tensor:
    """An even number of words as normal numbers (Box and Muller 1958)."""
    radius, angle = _unit(words).chunk(2, 1)
    radius = radius.neg().add_(1).log_().mul_(-2).sqrt_()
    angle = angle * (2 * math.pi)
    return torch.cat([radius * angle.cos(), angle.sin_().mul_(radius)], 1)
