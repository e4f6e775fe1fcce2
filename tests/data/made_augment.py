"""Batches, specs and draws for the tests of augmentation."""

from typing import Any

import torch

from litlab.data.augment.base import Augmentation
from litlab.data.augment.draws import Draws
from litlab.data.spec import Column, DataSpec, Kind
from made_data import make_spec

SIZES: dict[Kind, tuple[int, ...]] = {
    "image": (3, 12, 10),
    "sequence": (2, 24),
    "tabular": (6,),
    "text": (15,),
}
CATEGORIES = ("b", "c", "d")


def spec_of(kind: Kind, shape: tuple[int, ...] | None = None, **more: Any) -> DataSpec:
    """A spec; a table's last two columns are categorical."""
    shape = shape or SIZES[kind]
    if kind == "tabular" and shape[0] > 2:
        numeric = [Column(name=f"n{i}", kind="numeric") for i in range(shape[0] - 2)]
        codes = [Column(name=f"c{i}", kind="categorical", categories=CATEGORIES) for i in range(2)]
        plain = make_spec(kind, shape)
        more = {
            "columns": (*numeric, *codes),
            "mean": (*plain.mean[:-2], 0.0, 0.0),
            "std": (*plain.std[:-2], 1.0, 1.0),
        } | more
    return make_spec(kind, shape, **more)


def samples(spec: DataSpec, number: int = 64) -> torch.Tensor:
    """Inputs as augmentation sees them: floats, or ids padded to lengths of one and more."""
    generator = torch.Generator().manual_seed(0)
    if spec.kind == "text":
        assert spec.vocab_size
        ids = torch.randint(1, spec.vocab_size, (number, *spec.shape), generator=generator)
        length = torch.randint(1, spec.shape[0] + 1, (number, 1), generator=generator)
        return torch.where(torch.arange(spec.shape[0]) < length, ids, 0)
    x = torch.rand(number, *spec.shape, generator=generator)
    if spec.cardinalities:
        codes = torch.randint(0, 4, (number, len(spec.cardinalities)), generator=generator)
        x[:, spec.num_numeric :] = codes.float()
    return x


def draws_of(number: int = 64, *, seed: int = 0, epoch: int = 0) -> Draws:
    return Draws(seed, epoch, torch.arange(number))


def change(augmentation: Augmentation, x: torch.Tensor, **key: int) -> torch.Tensor:
    """What an augmentation that leaves the labels makes of a batch."""
    y = torch.zeros(len(x), dtype=torch.long)
    changed, after = augmentation(x, y, draws_of(len(x), **key))
    assert after is y
    return changed
