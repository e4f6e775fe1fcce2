"""Spans: so many places in a row, somewhere in a row of so many."""

import torch


def inside(
    number: torch.Tensor, at: torch.Tensor, places: int, length: torch.Tensor | None = None
) -> torch.Tensor:
    """Return which places `(B, places)` a span covers, bool.

    Args:
        number: How many places it covers, `(B,)`; what is over the length is cut off.
        at: Where it lies, `(B,)` in [0, 1): every start that leaves it inside is equally likely.
        places: How many there are.
        length: How many of them a sample uses, the first ones, `(B,)`; None: all.
    """
    used: torch.Tensor | int = places if length is None else length
    number = number.clamp(max=used)
    # In float32, at * n may round up to n.
    start = torch.minimum((at * (used - number + 1)).floor(), used - number)
    place = torch.arange(places, device=at.device)
    return (place >= start[:, None]) & (place < (start + number)[:, None])


def lengths(x: torch.Tensor, pad_id: int) -> torch.Tensor:
    """Return how many places of each text come before its padding, `(B,)` int64."""
    place = torch.arange(1, x.shape[1] + 1, device=x.device)
    return ((x != pad_id) * place).amax(1)
