from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import nn

from litlab.data.augment.base import Augmentation
from litlab.data.augment.draws import Draws
from litlab.data.spec import DataSpec


class Key(NamedTuple):
    """What a batch's random numbers depend on; `samples` are their numbers `(B,)`."""

    seed: int
    epoch: int
    samples: torch.Tensor


class Preprocess(nn.Module):
    """Stored values -> what augmentation sees -> what the model sees.

    The statistics are those of the train split (spec.mean, spec.std), wherever the batch comes
    from: validation, test, or a user's new data.
    """

    mean: torch.Tensor
    inverse_std: torch.Tensor

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        self.kind = spec.kind
        tail = (1,) * (len(spec.shape) - 1)
        mean, std = torch.tensor(spec.mean), torch.tensor(spec.std)
        self.register_buffer("mean", mean.reshape(-1, *tail), persistent=False)
        self.register_buffer("inverse_std", (1 / std).reshape(-1, *tail), persistent=False)

    def to_float(self, x: torch.Tensor) -> torch.Tensor:
        """Turn bytes `(B, C, H, W)` into floats in [0, 1]; token ids into int64."""
        if self.kind == "text":
            return x.long()
        return x.to(torch.float32).div_(255) if x.dtype == torch.uint8 else x.to(torch.float32)

    def normalize(self, x: torch.Tensor) -> torch.Tensor:
        """Subtract the train split's mean and divide by its deviation; ids stay as they are."""
        return x if self.kind == "text" else (x - self.mean).mul_(self.inverse_std)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Do both, for data that are not augmented any further."""
        if x.dtype == torch.uint8:  # its floats are nobody else's
            return self.to_float(x).sub_(self.mean).mul_(self.inverse_std)
        return self.normalize(self.to_float(x))

    def augmented(
        self,
        x: torch.Tensor,
        y: torch.Tensor,
        augmentations: Mapping[str, Augmentation],
        key: Key,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return stored values as the model sees them while training, and their targets.

        Augmentations that can do so work on bytes, which are a quarter of the floats to move.
        """
        draws = Draws(*key)
        for name, augmentation in augmentations.items():
            if not augmentation.on_bytes:
                x = self.to_float(x)
            if augmentation.mixes:  # two rows a sample: it and its partner
                draws = Draws(key.seed, key.epoch, key.samples[: len(x) // 2])
            x, y = augmentation(x, y, draws.stream(name))
        return self(x), y
