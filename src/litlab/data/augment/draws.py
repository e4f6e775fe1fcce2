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
from typing import Self

import torch

_GOLDEN = 0x9E3779B97F4A7C15  # 2^64 / golden ratio, made odd
_ALL = 2**64 - 1
_NO_EPOCH = -1


def _signed(number: int, bits: int = 64) -> int:
    """The same bits as torch's signed integers read them."""
    number &= 2**bits - 1
    return number - 2**bits if number >> (bits - 1) else number


_ROUNDS64 = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
_ROUNDS32 = ((16, 0x21F0AAAD), (15, 0xD35A2D97))


def _mix_number(z: int) -> int:
    """splitmix64's finalizer, of one Python integer."""
    z &= _ALL
    for shift, factor in _ROUNDS64:
        z = ((z ^ (z >> shift)) * factor) & _ALL
    return z ^ (z >> 31)


def _mix(z: torch.Tensor, rounds: tuple[tuple[int, int], ...], last: int) -> torch.Tensor:
    """Xor-shifts and multiplications, in place, in the width of the tensor's integers."""
    bits = 64 if z.dtype == torch.int64 else 32
    for shift, factor in (*rounds, (last, 1)):
        z ^= (z >> shift).bitwise_and_((1 << (bits - shift)) - 1)
        if factor != 1:
            z *= _signed(factor, bits)
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
        self._samples = _mix(z.add_(_signed(base)), _ROUNDS64, 31)
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
        """Return `(B, *shape)` float32 in [low, high), in steps of 2^-24 of the range."""
        words = self._words(math.prod(shape)).reshape(len(self), *shape)
        numbers = _unit(words)
        return numbers if (low, high) == (0.0, 1.0) else numbers.mul_(high - low).add_(low)

    def normal(self, *shape: int) -> torch.Tensor:
        """Return `(B, *shape)` float32 of mean 0 and deviation 1 (Box and Muller 1958).

        24 bits a number: nothing lies beyond 5.77 deviations.
        """
        number = math.prod(shape)
        radius, angle = _unit(self._words(number + number % 2)).chunk(2, 1)
        radius = radius.neg_().add_(1).log_().mul_(-2).sqrt_()
        angle = angle.mul_(2 * math.pi)
        pairs = torch.cat([radius * angle.cos(), radius * angle.sin()], 1)
        return pairs[:, :number].reshape(len(self), *shape)

    def integers(self, low: int, high: int, *shape: int) -> torch.Tensor:
        """Return `(B, *shape)` int64 in [low, high); the range is at most 2^31."""
        assert 0 < high - low <= 2**31, f"nothing to draw from [{low}, {high})"
        words = self._words(math.prod(shape)).to(torch.int64).bitwise_and_(2**32 - 1)
        return words.mul_(high - low).bitwise_right_shift_(32).add_(low).reshape(-1, *shape)

    def bernoulli(self, p: float) -> torch.Tensor:
        """Return `(B,)` bool, True with probability p; at 0 never, at 1 always."""
        return self.uniform() < p

    def _words(self, number: int) -> torch.Tensor:
        """Return random bits `(B, number)` int32."""
        self._calls += 1
        salt = _mix_number(self._salt + self._calls * _GOLDEN)
        keys = _mix(self._samples + _signed(salt), _ROUNDS64, 31)
        one, other = keys.view(torch.int32).reshape(-1, 2, 1).unbind(1)
        places = torch.arange(number, dtype=torch.int32, device=keys.device)
        words = places.mul_(_signed(_GOLDEN >> 32, 32)) + one
        words = _mix(words, _ROUNDS32, 15).bitwise_xor_(other)
        return _mix(words, _ROUNDS32, 15)


def _unit(words: torch.Tensor) -> torch.Tensor:
    """The upper 24 bits as a number in [0, 1)."""
    return words.bitwise_right_shift_(8).bitwise_and_(2**24 - 1).to(torch.float32).mul_(2.0**-24)
