from typing import Literal

import torch
from torch import Tensor, nn

from litlab.config.hyperparameters import Activation, Count, Depth, Initialization, Probability
from litlab.data.spec import DataSpec, require_spec
from litlab.models.attention import EncoderLayer, Positions
from litlab.models.embedding import CellEmbedding, FeatureEmbedding, PatchEmbedding, TokenEmbedding
from litlab.models.layers import initialize, masked_mean


class Transformer(nn.Module):
    """A Transformer of one stack, over patches, features or tokens.

    Vaswani et al. 2017, §3; patches and class token from ViT (Dosovitskiy et al. 2021, §3.1), the
    tokens of tabular data from the FT-Transformer (Gorishniy et al. 2021, §3.3). On a language
    model's data no position reads a later one, and each gives logits for the token that follows it,
    as in GPT (Radford et al. 2018, §3.1); nothing is pooled.

    Where we differ: normalization comes first unless `norm_first=False`, and is then followed by a
    last one, as in ViT. Token vectors are not multiplied by `sqrt(embed_dim)` (Vaswani §3.4): a
    language model's start at N(0, 1), the same scale as there, and those of texts to be labelled at
    N(0, 0.01). Sinusoids number an image's patches row by row. The activation is GELU, as in ViT,
    where Vaswani has ReLU.

    Shapes: image `(B, C, H, W)`, sequence `(B, C, L)`, tabular `(B, F)` or text ids `(B, L)` to
    logits `(B, num_outputs)`; of a language model `(B, L, num_outputs)`. Padding of a text
    influences nothing; more tokens than the data were prepared with are refused.

    Args:
        spec: What the data are.
        embed_dim: Size of a token's vector; a multiple of `num_heads`.
        depth: How many encoder layers.
        num_heads: Attention heads in a layer.
        ffn_dim: Hidden width of the feed-forward networks.
        patch_size: Side of a patch, in pixels or samples; image and sequence only. Cost grows with
            the square of the number of patches.
        positions: A fixed table of sinusoids, or a trained one; tabular data need none.
        pool: What the logits are read from: an extra token, or the mean over all tokens. A language
            model has neither, and refuses the first.
        activation: In the feed-forward networks.
        norm_first: Normalize before attention and feed-forward (True) or after (False, the paper).
        dropout: After the embedding, in the feed-forward networks and on each branch's output.
        attention_dropout: On the attention weights.
        initialization: Of linear and patch layers, with a gain of 1.

    Raises:
        ValueError: `patch_size` does not divide the input, `num_heads` does not divide
            `embed_dim`, or a language model is to have a class token.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        embed_dim: Count = 64,
        depth: Depth = 4,
        num_heads: Count = 4,
        ffn_dim: Count = 128,
        patch_size: Count = 4,
        positions: Literal["sinusoidal", "learned"] = "sinusoidal",
        pool: Literal["class_token", "mean"] = "mean",
        activation: Activation = "gelu",
        norm_first: bool = True,
        dropout: Probability = 0.0,
        attention_dropout: Probability = 0.0,
        initialization: Initialization = "xavier_uniform",
    ) -> None:
        super().__init__()
        learned = positions == "learned"
        require_spec(spec)
        self.causal = spec.task == "language_model"
        if self.causal and pool == "class_token":
            raise ValueError(
                "model.pool=class_token: a language model reads every position; use model.pool=mean"
            )
        self.embed, self.positions = _embedding(spec, embed_dim, patch_size, learned=learned)
        self.class_token = (
            nn.Parameter(torch.randn(1, 1, embed_dim) * 0.02) if pool == "class_token" else None
        )
        self.drop = nn.Dropout(dropout)
        self.layers = nn.ModuleList(
            EncoderLayer(
                embed_dim,
                num_heads,
                ffn_dim,
                activation=activation,
                dropout=dropout,
                attention_dropout=attention_dropout,
                norm_first=norm_first,
                causal=self.causal,
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(embed_dim) if norm_first else nn.Identity()
        self.output = nn.Linear(embed_dim, spec.num_outputs)
        initialize([self], initialization)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the logits."""
        embedded = self.embed(x)
        tokens, keep = embedded if isinstance(embedded, tuple) else (embedded, None)
        if self.causal:
            keep = None  # no token reads what comes after it, and padding comes last
        tokens = self.positions(tokens)
        if self.class_token is not None:
            tokens = torch.cat([self.class_token.expand(len(tokens), -1, -1), tokens], 1)
            keep = None if keep is None else nn.functional.pad(keep, (1, 0), value=True)
        tokens = self.drop(tokens)
        for layer in self.layers:
            tokens = layer(tokens, keep)
        tokens = self.norm(tokens)
        if not self.causal:
            tokens = masked_mean(tokens, keep) if self.class_token is None else tokens[:, 0]
        logits: Tensor = self.output(tokens)
        return logits


def _embedding(
    spec: DataSpec, embed_dim: int, patch_size: int, *, learned: bool
) -> tuple[nn.Module, nn.Module]:
    """What turns samples of this kind into tokens, and what tells the tokens their places."""
    if spec.kind == "tabular" and spec.cardinalities:
        return CellEmbedding(spec, embed_dim), nn.Identity()
    if spec.kind == "tabular":
        return FeatureEmbedding(spec.shape[0], embed_dim), nn.Identity()
    if spec.kind == "text":
        return TokenEmbedding(spec, embed_dim), Positions(spec.shape[0], embed_dim, learned=learned)
    patches = PatchEmbedding(spec, embed_dim, patch_size)
    return patches, Positions(patches.num_patches, embed_dim, learned=learned)
