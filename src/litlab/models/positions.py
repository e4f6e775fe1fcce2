import math

import torch
from torch import Tensor, nn


def sinusoidal_table(length: int, embed_dim: int) -> Tensor:
    """Sines and cosines of the position, `(length, embed_dim)`; Vaswani et al. 2017, §3.5.

    `table[p, 2i] = sin(p / 10000^(2i / embed_dim))`, and the cosine of the same at `2i + 1`. An odd
    `embed_dim`, which the paper does not treat, has one cosine fewer than sines.
    """
    positions = torch.arange(length, dtype=torch.float64).unsqueeze(1)
    even = torch.arange(0, embed_dim, 2, dtype=torch.float64)
    angles = positions * torch.exp(even * (-math.log(10_000.0) / embed_dim))
    table = torch.empty(length, embed_dim)
    table[:, 0::2] = angles.sin().float()
    table[:, 1::2] = angles.cos()[:, : embed_dim // 2].float()
    return table


class Positions(nn.Module):
    """Add to each token a vector that says where it stands: sinusoids, or a trained table.

    Patches of an image are numbered row by row, in one dimension (Dosovitskiy et al. 2021, §3.1).

    Shapes: `(B, L, D)` to the same, `L` at most `max_length`.
    """

    def __init__(self, max_length: int, embed_dim: int, *, learned: bool) -> None:
        super().__init__()
        self.table: Tensor
        if learned:
            # The deviation is that of BERT and ViT: small beside the content at the start.
            self.table = nn.Parameter(torch.randn(max_length, embed_dim) * 0.02)
        else:
            # A formula needs no place in the checkpoint.
            table = sinusoidal_table(max_length, embed_dim)
            self.register_buffer("table", table, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Add the first `L` positions."""
        if x.size(1) > len(self.table):
            raise ValueError(
                f"{x.size(1)} tokens do not fit the model's {len(self.table)} positions, as many "
                "as a sample of its training data has: shorten the samples, or train again on data "
                "prepared with longer ones"
            )
        return x + self.table[: x.size(1)]
