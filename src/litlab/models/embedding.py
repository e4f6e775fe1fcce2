"""How a sample becomes vectors: tokens, patches or features.

Shapes: B batch, C channels, H height, W width, F features, L positions, D embed_dim.
A mask called `keep` is `(B, L)`, True where there is a token and False where there is padding.
"""

from math import prod

import torch
from torch import Tensor, nn

from litlab.data.spec import DataSpec
from litlab.models.layers import CONVOLUTIONS, masked_mean


class TokenEmbedding(nn.Module):
    """One trained vector for each token of the vocabulary; padding gives zeros.

    Shapes: integer ids `(B, L)` to vectors `(B, L, D)` and `keep` `(B, L)`.
    """

    def __init__(self, spec: DataSpec, embed_dim: int) -> None:
        super().__init__()
        if spec.vocab_size is None:
            raise ValueError(f"the data set {spec.name} has no vocab_size: run `litlab prepare`")
        self.pad_id = spec.pad_id
        self.table = nn.Embedding(spec.vocab_size, embed_dim, padding_idx=spec.pad_id)

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Look the tokens up."""
        # No `if there is padding`: a branch on the data would break torch.export.
        keep = torch.ones_like(ids, dtype=torch.bool) if self.pad_id is None else ids != self.pad_id
        # The padding row is zero only until somebody writes to it, so it is not relied upon.
        return self.table(ids) * keep.unsqueeze(-1), keep


class BagOfTokens(nn.Module):
    """The mean of a text's token vectors, its order and padding left out.

    Shapes: integer ids `(B, L)` to `(B, D)`; a text of padding alone gives zeros.
    """

    def __init__(self, spec: DataSpec, embed_dim: int) -> None:
        super().__init__()
        self.embed = TokenEmbedding(spec, embed_dim)

    def forward(self, ids: Tensor) -> Tensor:
        """Average the vectors of the tokens that are not padding."""
        return masked_mean(*self.embed(ids))


def require_labels(spec: DataSpec) -> None:
    """Refuse data of which every token has a prediction of its own.

    Raises:
        ValueError: The data are for a language model.
    """
    if spec.task == "language_model":
        raise ValueError(
            f"it predicts one label a text, and '{spec.name}' wants the next token at every "
            "position: use model=transformer"
        )


def flat_input(spec: DataSpec, embed_dim: int) -> tuple[nn.Module, int]:
    """What turns a sample of any kind into one vector, and that vector's length."""
    require_labels(spec)
    if spec.kind == "text":
        return BagOfTokens(spec, embed_dim), embed_dim
    return nn.Flatten(), prod(spec.shape)


class PatchEmbedding(nn.Module):
    """Cut an image or a sequence into patches and map each to a vector.

    Dosovitskiy et al. 2021, §3.1, as a convolution whose stride is its kernel.

    Shapes: `(B, C, H, W)` to `(B, H/P * W/P, D)`, rows first; `(B, C, L)` to `(B, L/P, D)`.
    """

    def __init__(self, spec: DataSpec, embed_dim: int, patch_size: int) -> None:
        super().__init__()
        channels, *sides = spec.shape
        if any(side % patch_size for side in sides):
            fits = [p for p in range(1, min(sides) + 1) if not any(side % p for side in sides)]
            raise ValueError(
                f"model.patch_size={patch_size} does not divide the data's "
                f"{' x '.join(map(str, sides))}: choose one of {', '.join(map(str, fits))}"
            )
        self.sides = tuple(sides)
        self.num_patches = prod(side // patch_size for side in sides)
        self.project = CONVOLUTIONS[len(sides)](channels, embed_dim, patch_size, patch_size)

    def forward(self, x: Tensor) -> Tensor:
        """Embed the patches."""
        # In any other size a patch would silently get another place's position.
        if x.shape[2:] != self.sides:
            raise ValueError(
                f"the input is {' x '.join(map(str, x.shape[2:]))} and the model was built for "
                f"{' x '.join(map(str, self.sides))}: resize the input, or prepare the data in "
                "that size and train again"
            )
        vectors: Tensor = self.project(x)
        return vectors.flatten(2).transpose(1, 2)


class FeatureEmbedding(nn.Module):
    """One token for each number of a table's row: `x_j * weight_j + bias_j`.

    The numeric half of the feature tokenizer of the FT-Transformer (Gorishniy et al. 2021, §3.3).
    The bias tells the features apart, so no positions are added.

    Shapes: `(B, F)` to `(B, F, D)`.
    """

    def __init__(self, num_features: int, embed_dim: int) -> None:
        super().__init__()
        bound = embed_dim**-0.5
        self.weight = nn.Parameter(torch.empty(num_features, embed_dim).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(num_features, embed_dim).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """Embed the features."""
        return x.unsqueeze(-1) * self.weight + self.bias
