"""How a sample becomes vectors: tokens, patches or features.

Shapes: B batch, C channels, H height, W width, F features, L positions, D embed_dim.
A mask called `keep` is `(B, L)`, True where there is a token and False where there is padding.
"""

from math import prod

import torch
from torch import Tensor, nn

from litlab.data.spec import DataSpec, require_spec
from litlab.models.layers import CONVOLUTIONS, masked_mean

# Most words of a labelled data set occur a few times only, and what their vectors start with stays
# in them as noise: docs/log.md has the figures. A language model's tokens occur often.
TOKEN_STD = 0.1


class TokenEmbedding(nn.Module):
    """One trained vector for each token of the vocabulary; padding gives zeros.

    They start at N(0, 0.01), those of a language model at PyTorch's N(0, 1).

    Shapes: integer ids `(B, L)` to vectors `(B, L, D)` and `keep` `(B, L)`.
    """

    def __init__(self, spec: DataSpec, embed_dim: int) -> None:
        super().__init__()
        if spec.vocab_size is None:
            raise ValueError(f"the data set {spec.name} has no vocab_size: run `litlab prepare`")
        self.pad_id = spec.pad_id
        self.table = nn.Embedding(spec.vocab_size, embed_dim, padding_idx=spec.pad_id)
        if spec.task != "language_model":
            with torch.no_grad():
                self.table.weight.mul_(TOKEN_STD)

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
    require_spec(spec)
    if spec.task == "language_model":
        raise ValueError(
            f"it predicts one label per text, but '{spec.name}' needs the next token at every "
            "position: use model=transformer"
        )


def flat_input(spec: DataSpec, embed_dim: int) -> tuple[nn.Module, int]:
    """Return a module that maps a sample of any kind to one vector, and its length."""
    require_labels(spec)
    if spec.kind == "text":
        return BagOfTokens(spec, embed_dim), embed_dim
    if spec.cardinalities:
        row = RowEmbedding(spec, embed_dim)
        return row, row.width
    return nn.Flatten(), prod(spec.shape)


class RowEmbedding(nn.Module):
    """A table's row as one vector: its numbers, then a trained vector for each category.

    A column of n codes gets `min(embed_dim, round(1.6 * n ** 0.56))` numbers, fastai's rule of
    thumb (Howard & Gugger 2020, "fastai: A Layered API for Deep Learning", `emb_sz_rule`). Code 0,
    a value that train lacks, starts at zeros and stays there where nothing trains it.

    Shapes: `(B, F)`, numbers first and codes last, to `(B, width)`.
    """

    def __init__(self, spec: DataSpec, embed_dim: int) -> None:
        super().__init__()
        self.num_numeric = spec.num_numeric
        sizes = [(n, min(embed_dim, round(1.6 * n**0.56))) for n in spec.cardinalities]
        self.embeddings = nn.ModuleList(_zero_first(nn.Embedding(n, dim)) for n, dim in sizes)
        self.width = self.num_numeric + sum(dim for _, dim in sizes)

    def forward(self, x: Tensor) -> Tensor:
        """Look the categories up and put them beside the numbers."""
        numbers, codes = split_row(x, self.num_numeric)
        pairs = zip(self.embeddings, codes.unbind(1), strict=True)
        return torch.cat([numbers, *(embed(code) for embed, code in pairs)], 1)


def _zero_first(table: nn.Embedding) -> nn.Embedding:
    nn.init.zeros_(table.weight[0].detach())
    return table


def split_row(x: Tensor, num_numeric: int) -> tuple[Tensor, Tensor]:
    """Cut `(B, F)` into numbers `(B, N)` and integer codes `(B, F - N)`."""
    return x[:, :num_numeric], x[:, num_numeric:].round().long()


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


class CellEmbedding(nn.Module):
    """One token for each cell of a table's row that has categories.

    The whole feature tokenizer of the FT-Transformer (Gorishniy et al. 2021, §3.3): numbers as in
    `FeatureEmbedding`, a category as `table_j[code] + bias_j`. Code 0, a value that train lacks,
    starts as the bias alone.

    Shapes: `(B, F)`, numbers first and codes last, to `(B, F, D)`, in this order.
    """

    starts: Tensor

    def __init__(self, spec: DataSpec, embed_dim: int) -> None:
        super().__init__()
        self.num_numeric = spec.num_numeric
        self.numbers = FeatureEmbedding(self.num_numeric, embed_dim) if self.num_numeric else None
        bound = embed_dim**-0.5
        sizes = torch.tensor(spec.cardinalities)
        starts = sizes.cumsum(0) - sizes  # of each column's rows in the one table
        self.register_buffer("starts", starts, persistent=False)
        self.table = nn.Embedding(int(sizes.sum()), embed_dim)
        nn.init.uniform_(self.table.weight, -bound, bound)
        self.bias = nn.Parameter(torch.empty(len(sizes), embed_dim).uniform_(-bound, bound))
        with torch.no_grad():
            self.table.weight[starts] = 0

    def forward(self, x: Tensor) -> Tensor:
        """Embed the cells."""
        numbers, codes = split_row(x, self.num_numeric)
        tokens: Tensor = self.table(codes + self.starts) + self.bias
        return tokens if self.numbers is None else torch.cat([self.numbers(numbers), tokens], 1)
