"""Random numbers that depend on the sample, not on its position in a batch.

A stateful generator gives a sample whatever number is next: another batch order, another number of
processes or a resumed run changes every augmentation. Here a number is a hash of what it is for
(counter-based, as in Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011).
"""

import hashlib
import math
from collections.abc import Iterator
from typing import Any, NamedTuple, Self, TypeVar

import numpy as np
import numpy.typing as npt
import torch

# Random bits as a function of numbers: keys of 64 bits, words of 32.
#
# splitmix64 (Steele et al. 2014) mixes the keys; two rounds of a 32-bit hash (C. Wellons'
# hash-prospector) make an element's word of its sample's key and its place. NumPy does it on the
# CPU, three times as fast as torch for a batch's few numbers and twice as fast for an image's
# many; torch does the same anywhere else. It has no logical shift, so there each right shift is
# masked.


GOLDEN = 0x9E3779B97F4A7C15  # 2^64 / golden ratio, made odd
ALL = 2**64 - 1
CACHED = 2**17  # words: what a processor's cache holds; all at once takes twice the time

B = TypeVar("B", npt.NDArray[Any], torch.Tensor)
Bits = npt.NDArray[Any] | torch.Tensor  # unsigned in NumPy, signed in torch
STEPS64 = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, None))
STEPS32 = ((16, 0x21F0AAAD), (15, 0xD35A2D97), (15, None))


def mix_number(z: int) -> int:
    """splitmix64's finalizer, of one Python integer."""
    z &= ALL
    for shift, factor in STEPS64:
        z = ((z ^ (z >> shift)) * (factor or 1)) & ALL
    return z


def sample_keys(index: torch.Tensor, base: int) -> Bits:
    """Return a key for each sample number, `(B,)` of 64 bits."""
    numbers = index.to(torch.int64)
    if index.device.type == "cpu":
        keys = numbers.numpy().view(np.uint64) * np.uint64(GOLDEN)
        keys += np.uint64(base)
        return _mix(keys, _NUMPY64)
    return _mix((numbers * _signed(GOLDEN, 64)).add_(_signed(base, 64)), _TORCH64)


def words(keys: Bits, salt: int, number: int | None, keep: int) -> torch.Tensor:
    """Return random words, `(B, number)` int32.

    Args:
        keys: The samples'.
        salt: What they are for, mixed.
        number: How many words a sample; None is one, which costs less than a number of 1.
        keep: Bits kept, the upper ones: 24, or all 32 as a signed number.
    """
    if isinstance(keys, torch.Tensor):
        return _torch_words(keys, salt, number, keep)
    pairs = _mix(keys + np.uint64(salt), _NUMPY64).view(np.uint32).reshape(-1, 2)
    if number is None:
        made = pairs[:, 1:] >> np.uint32(32 - keep)
    else:
        made = np.empty((len(pairs), number), np.uint32)
        places = np.arange(number, dtype=np.uint32) * np.uint32(GOLDEN >> 32)
        for some in _pieces(len(pairs), number):
            piece = _mix(np.add(places, pairs[some, :1], out=made[some]), _NUMPY32)
            piece ^= pairs[some, 1:]
            piece = _mix(piece, _NUMPY32)
            piece >>= np.uint32(32 - keep)
    return torch.from_numpy(made.view(np.int32))


def _pieces(rows: int, number: int) -> Iterator[slice]:
    step = max(CACHED // max(number, 1), 1)
    return (slice(start, start + step) for start in range(0, rows, step))


def _torch_words(keys: torch.Tensor, salt: int, number: int | None, keep: int) -> torch.Tensor:
    pairs = _mix(keys + _signed(salt, 64), _TORCH64).view(torch.int32).reshape(-1, 2)
    made = pairs[:, 1:]
    if number is not None:
        places = torch.arange(number, dtype=torch.int32, device=keys.device)
        made = places.mul_(_signed(GOLDEN >> 32, 32)) + pairs[:, :1]
        made = _mix(_mix(made, _TORCH32).bitwise_xor_(pairs[:, 1:]), _TORCH32)
    return made if keep == 32 else (made >> 32 - keep).bitwise_and_(2**keep - 1)


def _signed(number: int, bits: int) -> int:
    """The same bits as torch's signed integers read them."""
    return number - 2**bits if number >> (bits - 1) else number


class _Step(NamedTuple):
    """A xor with what is shifted right, and a product. Typed: Python's numbers are slower."""

    shift: Any
    mask: Any
    factor: Any


def _steps(
    steps: tuple[tuple[int, int | None], ...], kind: type[np.unsignedinteger[Any]]
) -> tuple[_Step, ...]:
    return tuple(
        _Step(kind(shift), None, None if factor is None else kind(factor))
        for shift, factor in steps
    )


def _torch_steps(
    steps: tuple[tuple[int, int | None], ...], bits: int, dtype: torch.dtype
) -> tuple[_Step, ...]:
    def typed(number: int) -> torch.Tensor:
        return torch.tensor(_signed(number, bits), dtype=dtype)

    return tuple(
        _Step(
            typed(shift),
            typed(2 ** (bits - shift) - 1),
            None if factor is None else typed(factor),
        )
        for shift, factor in steps
    )


_NUMPY64, _NUMPY32 = _steps(STEPS64, np.uint64), _steps(STEPS32, np.uint32)
_TORCH64 = _torch_steps(STEPS64, 64, torch.int64)
_TORCH32 = _torch_steps(STEPS32, 32, torch.int32)


def _mix(z: B, steps: tuple[_Step, ...]) -> B:
    """Mix numbers of NumPy or torch in place."""
    for shift, mask, factor in steps:
        shifted = z >> shift
        if mask is not None:
            shifted &= mask
        z ^= shifted
        if factor is not None:
            z *= factor
    return z


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
