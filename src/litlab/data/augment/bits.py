"""Random bits as a function of numbers: keys of 64 bits, words of 32.

splitmix64 (Steele et al. 2014) mixes the keys; two rounds of a 32-bit hash (C. Wellons'
hash-prospector) make an element's word of its sample's key and its place. NumPy does it on the CPU,
three times as fast as torch for a batch's few numbers and twice as fast for an image's many; torch
does the same anywhere else. It has no logical shift, so there each right shift is masked.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch

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
