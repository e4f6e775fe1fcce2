"""The parts of a convolutional network.

Shapes: B batch, C channels, S the positions, `(L,)` of a sequence or `(H, W)` of an image. `keep`
is `(B, L)`, True where a text has a token and False where it is padded, or None.
"""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from litlab.config.hyperparameters import Activation, Norm
from litlab.data.spec import DataSpec
from litlab.models.embedding import RowEmbedding, TokenEmbedding, require_labels
from litlab.models.layers import CONVOLUTIONS, activation_layer, masked, norm_layer

Pooling = Literal["max", "avg", "stride", "none"]
_POOLS: dict[tuple[str, int], type[nn.Module]] = {
    ("max", 1): nn.MaxPool1d,
    ("max", 2): nn.MaxPool2d,
    ("avg", 1): nn.AvgPool1d,
    ("avg", 2): nn.AvgPool2d,
}


class ChannelInput(nn.Module):
    """Any kind of sample as channels over positions.

    Images and sequences pass as they are. A tabular row becomes a sequence of one channel, which
    gives the order of its columns a meaning that it seldom has; its categories become vectors, laid
    end to end. Tokens become vectors.

    Texts come padded to the longest of their batch. What follows must give a text the same result
    whatever it shares a batch with, so they are padded further: to a multiple of what its pools
    take together, for a pool drops what is left over; or to the length of the longest of all.

    Shapes: `(B, C, *S)`, `(B, F)` or ids `(B, L)` to `(B, channels, *S)` and `keep`.

    Args:
        spec: What the data are.
        embed_dim: Size of a token's vector, and the most that a category's may have.
        multiple: What a text's length becomes a multiple of.
        whole: Whether every text gets the length of the longest.
    """

    def __init__(
        self, spec: DataSpec, embed_dim: int, *, multiple: int = 1, whole: bool = False
    ) -> None:
        super().__init__()
        require_labels(spec)
        self.kind = spec.kind
        self.multiple, self.least = multiple, spec.shape[0] if whole else 1
        self.embed = TokenEmbedding(spec, embed_dim) if spec.kind == "text" else None
        self.row = RowEmbedding(spec, embed_dim) if spec.cardinalities else None
        if spec.kind in ("tabular", "text"):
            self.channels = 1 if self.embed is None else embed_dim
            self.sides: tuple[int, ...] = spec.shape if self.row is None else (self.row.width,)
        else:
            self.channels, self.sides = spec.shape[0], spec.shape[1:]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Bring the sample into shape."""
        if self.embed is not None:
            vectors, keep = self.embed(self._padded(x, self.embed.pad_id))
            return vectors.transpose(1, 2), keep
        x = x if self.row is None else self.row(x)
        return x.unsqueeze(1) if self.kind == "tabular" else x, None

    def _padded(self, ids: Tensor, pad_id: int | None) -> Tensor:
        if pad_id is None:  # then all texts are of one length
            return ids
        length = -(-max(ids.size(1), self.least) // self.multiple) * self.multiple
        return F.pad(ids, (0, length - ids.size(1)), value=pad_id)


@dataclass(frozen=True)
class ConvStyle:
    """What all convolutions of a network have in common."""

    dims: int
    kernel_size: int
    padding_mode: Literal["zeros", "circular"]
    norm: Norm
    activation: Activation

    def conv(
        self, inputs: int, outputs: int, *, stride: int = 1, kernel_size: int | None = None
    ) -> nn.Sequential:
        """Convolution and normalization that keep the size, or with a stride of 2 halve it."""
        size = kernel_size or self.kernel_size
        conv = CONVOLUTIONS[self.dims](
            inputs,
            outputs,
            size,
            stride,
            padding=size // 2,
            # Batch normalization subtracts the mean, and any bias with it.
            bias=self.norm != "batch",
            padding_mode=self.padding_mode,
        )
        return nn.Sequential(conv, norm_layer(self.norm, outputs, self.dims))


class PlainBlock(nn.Module):
    """Convolution, normalization, activation: `(B, C, *S)` to `(B, outputs, *S)`."""

    def __init__(self, style: ConvStyle, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = style.conv(inputs, outputs, stride=stride)
        self.activation = activation_layer(style.activation)

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """Convolve; `keep` is that of the output."""
        return masked(self.activation(self.conv(x)), keep)


class ResidualBlock(nn.Module):
    """Two convolutions and a shortcut around them: `(B, C, *S)` to `(B, outputs, *S)`.

    The basic block of He et al. 2016 (CVPR), §3.2 and figure 2, activation after the sum. Where
    the shape changes, the shortcut is a normalized convolution of size 1 (their option B).
    """

    def __init__(self, style: ConvStyle, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.first = style.conv(inputs, outputs, stride=stride)
        self.second = style.conv(outputs, outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = style.conv(inputs, outputs, stride=stride, kernel_size=1)
        self.activation = activation_layer(style.activation)

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """Convolve and add; `keep` is that of the output."""
        inner = masked(self.activation(self.first(x)), keep)
        return masked(self.activation(self.second(inner) + self.shortcut(x)), keep)


class Stage(nn.Module):
    """Halve the resolution, unless told otherwise, then some blocks at that resolution.

    Shapes: `(B, C, *S)` and `keep` to `(B, outputs, *S/2)` and the `keep` of that.
    """

    def __init__(
        self,
        style: ConvStyle,
        block: type[PlainBlock] | type[ResidualBlock],
        widths: tuple[int, int],
        blocks: int,
        pooling: Pooling,
    ) -> None:
        super().__init__()
        inputs, outputs = widths
        self.stride = 2 if pooling == "stride" else 1
        pool = _POOLS.get((pooling, style.dims))
        self.pool = None if pool is None else pool(2)
        self.blocks = nn.ModuleList(
            block(style, outputs if i else inputs, outputs, 1 if i else self.stride)
            for i in range(blocks)
        )

    def forward(self, x: Tensor, keep: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Run the stage."""
        if self.pool is not None:
            x = self.pool(x)
        if keep is not None and self.stride == 2:
            keep = keep[:, ::2]
        elif keep is not None and self.pool is not None:
            # A window with one token in it is a token, so that no short text vanishes.
            keep = F.max_pool1d(keep.float().unsqueeze(1), 2).squeeze(1) > 0
        for block in self.blocks:
            x = block(x, keep)
        return x, keep
