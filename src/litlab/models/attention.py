import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from litlab.config.hyperparameters import Activation
from litlab.models.layers import activation_layer


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


class MultiHeadSelfAttention(nn.Module):
    """Every position reads every other, or none that comes after it, in `num_heads` subspaces.

    Vaswani et al. 2017, §3.2: `softmax(q k^T / sqrt(D / num_heads)) v` in each head, the heads
    joined and projected. Queries, keys and values come from one fused layer, in that order, as in
    `torch.nn.MultiheadAttention`, whose numbers these are.

    Shapes: `(B, L, D)` to the same, and `keep` `(B, L)`, True where a position may be read. A
    sample in which no position may be read reads all of them, for an empty softmax is NaN.

    Args:
        embed_dim: D, the size of a token's vector.
        num_heads: Into how many parts D is split.
        dropout: Probability of dropping an attention weight while training.
        causal: Whether a position reads only itself and those before it, as in the paper's decoder
            (§3.2.3): what it gives can then predict the position after it.

    Raises:
        ValueError: `num_heads` does not divide `embed_dim`.
    """

    def __init__(
        self, embed_dim: int, num_heads: int, dropout: float = 0.0, *, causal: bool = False
    ) -> None:
        super().__init__()
        if embed_dim % num_heads:
            near = max(1, round(embed_dim / num_heads)) * num_heads
            raise ValueError(
                f"model.embed_dim={embed_dim} is not a multiple of model.num_heads={num_heads}: "
                f"use model.embed_dim={near}, or another number of heads"
            )
        self.num_heads = num_heads
        self.dropout, self.causal = dropout, causal
        self.qkv = nn.Linear(embed_dim, 3 * embed_dim)
        self.project = nn.Linear(embed_dim, embed_dim)

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """Return self-attention over the positions, of the input's shape."""
        batch, length, embed_dim = x.shape
        qkv = self.qkv(x).view(batch, length, 3, self.num_heads, embed_dim // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind()
        if keep is not None:
            keep = (keep | ~keep.any(1, keepdim=True))[:, None, None, :]
            if self.causal:  # itself it may always read: else padding at the start would be NaN
                here = torch.eye(length, dtype=torch.bool, device=x.device)
                keep = (keep | here).tril()
        dropout = self.dropout if self.training else 0.0
        heads = F.scaled_dot_product_attention(
            q, k, v, attn_mask=keep, dropout_p=dropout, is_causal=self.causal and keep is None
        )
        out: Tensor = self.project(heads.transpose(1, 2).reshape(batch, length, embed_dim))
        return out


class EncoderLayer(nn.Module):
    """Self-attention, then a feed-forward network at each position, each with a shortcut.

    Vaswani et al. 2017, §3.1 and §3.3. The paper normalizes after each sum (`norm_first=False`);
    normalizing each branch's input instead trains without warm-up (Xiong et al. 2020, §3).

    Shapes: `(B, L, D)` to the same; `keep` `(B, L)` and `causal` as in `MultiHeadSelfAttention`.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        ffn_dim: int,
        *,
        activation: Activation = "relu",
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        norm_first: bool = True,
        causal: bool = False,
    ) -> None:
        super().__init__()
        self.norm_first = norm_first
        self.attention = MultiHeadSelfAttention(
            embed_dim, num_heads, attention_dropout, causal=causal
        )
        self.ffn = nn.Sequential(
            nn.Linear(embed_dim, ffn_dim),
            activation_layer(activation),
            nn.Dropout(dropout),
            nn.Linear(ffn_dim, embed_dim),
        )
        self.attention_norm = nn.LayerNorm(embed_dim)
        self.ffn_norm = nn.LayerNorm(embed_dim)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """Return the encoded positions, of the input's shape."""
        if self.norm_first:
            x = x + self.drop(self.attention(self.attention_norm(x), keep))
            x = x + self.drop(self.ffn(self.ffn_norm(x)))
        else:
            x = self.attention_norm(x + self.drop(self.attention(x, keep)))
            x = self.ffn_norm(x + self.drop(self.ffn(x)))
        return x
