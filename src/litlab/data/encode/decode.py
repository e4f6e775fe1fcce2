"""Stored values back in the words of their source: tokens, cells, labels."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from litlab.data.encode.text import load_tokenizer
from litlab.data.spec import Array, Column, DataSpec

VISIBLE = str.maketrans({"\n": "⏎", "\r": "␍", "\t": "⇥"})
UNSEEN = "<unseen>"
LEAST = 0.005  # share of a class in a soft label that is worth naming
NAMED = 3  # classes or targets in a label
NO_LABEL = "(no label)"  # of a sample with none of several
SHORT = 12  # characters of a target's name, where there are several
SHOWN = 3.0  # deviations from a channel's mean, either way, from black to white


def token_names(spec: DataSpec, ids: Array) -> dict[int, str]:
    """Return the text of each token that occurs in `ids`; line ends and the like made visible."""
    numbers = np.unique(ids).tolist()
    if spec.tokenizer is None:
        return {i: str(i) if not spec.vocabulary else spec.vocabulary[i] for i in numbers}
    tokenizer = load_tokenizer(spec.tokenizer)
    names = {i: tokenizer.decode([i]) or str(tokenizer.id_to_token(i)) for i in numbers}
    return {i: name.translate(VISIBLE) for i, name in names.items()}


def joint(spec: DataSpec) -> str:
    """Return what stands between two tokens: a space between words, nothing within them."""
    if spec.tokenizer is None:
        return " "
    return "" if load_tokenizer(spec.tokenizer).decoder else " "


def tokens(spec: DataSpec, x: torch.Tensor) -> list[list[str]]:
    """Return the tokens of texts `(n, L)`, without the padding at their end."""
    names = token_names(spec, x.numpy())
    texts = []
    for ids in x.tolist():
        while len(ids) > 1 and ids[-1] == spec.pad_id:
            ids.pop()
        texts.append([names[i] for i in ids])
    return texts


def pixels(spec: DataSpec, x: Array) -> Array:
    """Return images `(..., C, H, W)`, in the units of `spec.mean`, in [0, 1] for people to look at.

    Those that are not bytes have no black and white: each channel is shown around its mean.
    """
    if spec.dtype == "uint8":
        return x
    mean, std = (np.array(values)[:, None, None] for values in (spec.mean, spec.std))
    shown: Array = np.clip((x - mean) / (2 * SHOWN * std) + 0.5, 0, 1)
    return shown


def cells(spec: DataSpec, x: torch.Tensor) -> list[list[str]]:
    """Return the rows of a table `(n, F)`, in the units and categories of its source."""
    columns = spec.columns or [Column(name=name, kind="numeric") for name in spec.feature_names]
    shown = [_cell(column, values) for column, values in zip(columns, x.numpy().T, strict=True)]
    return [list(row) for row in zip(*shown, strict=True)]


def _cell(column: Column, values: Array) -> list[str]:
    if column.kind == "categorical":
        names: Callable[[float], str] = partial(_category, column.categories)
        return [names(value) for value in values.tolist()]
    if column.quantiles:
        from scipy.special import ndtr

        values = np.interp(ndtr(values), np.linspace(0, 1, len(column.quantiles)), column.quantiles)
    return [_number(value) for value in values.tolist()]


def _number(value: float) -> str:
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e8 else f"{value:.4g}"


def _category(categories: tuple[str, ...], code: float) -> str:
    if code != int(code):  # mixed with another
        return f"{code:.2f}"
    return categories[int(code) - 1] if code > 0 else UNSEEN


def labels(spec: DataSpec, y: torch.Tensor) -> list[str]:
    """Return targets in words.

    Args:
        spec: The data.
        y: Class numbers `(n,)`, soft labels `(n, C)`, 0 or 1 of each label `(n, K)` (a share where
            samples were mixed), or numbers `(n, T)`.
    """
    if spec.task == "regression":
        return [", ".join(_values(spec, row)) for row in y.tolist()]
    if spec.task == "multi_label":
        return [_several(spec, row) for row in y.tolist()]
    if not y.is_floating_point():
        return [spec.classes[number] for number in y.tolist()]
    return [_soft(spec, row) for row in y.tolist()]


def _values(spec: DataSpec, row: list[float]) -> list[str]:
    if len(row) == 1:
        return [_number(row[0])]
    named = zip(spec.targets, row, strict=True)
    return [f"{name[:SHORT]} {_number(value)}" for name, value in named][:NAMED]


def _several(spec: DataSpec, shares: list[float]) -> str:
    present = [i for i, share in enumerate(shares) if share >= LEAST]
    names = [
        spec.classes[i] if shares[i] == 1 else f"{spec.classes[i]} {round(shares[i], 2):g}"
        for i in present
    ]
    return "; ".join(names) or NO_LABEL


def _soft(spec: DataSpec, shares: list[float]) -> str:
    ranked = sorted(range(len(shares)), key=lambda i: -shares[i])[:NAMED]
    named = [i for i in ranked if shares[i] >= LEAST] or ranked[:1]
    if len(named) == 1 and abs(shares[named[0]] - 1) < LEAST:
        return spec.classes[named[0]]
    return " / ".join(f"{spec.classes[i]} {round(shares[i], 2):g}" for i in named)
