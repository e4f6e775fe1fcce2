from dataclasses import dataclass
from math import prod
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from litlab.config.hyperparameters import (
    Activation,
    Count,
    Depth,
    Initialization,
    Norm,
    Probability,
)
from litlab.data.spec import DataSpec
from litlab.models.embedding import RowEmbedding, TokenEmbedding, require_labels
from litlab.models.layers import (
    CONVOLUTIONS,
    GAINS,
    activation_layer,
    initialize,
    masked,
    masked_max,
    masked_mean,
    norm_layer,
)

# The parts of a convolutional network.
#
# Shapes: B batch, C channels, S the positions, `(L,)` of a sequence or `(H, W)` of an image. `keep`
# is `(B, L)`, True where a text has a token and False where it is padded, or None.


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


class CNN(nn.Module):
    """A convolutional network, in two dimensions for images and in one for everything else.

    Stages of blocks, each stage but the first at half the resolution of the one before. With
    `block=residual` a first convolution comes before the stages, as in He et al. 2016, §4.2:
    `channels=[16, 32, 64] blocks_per_stage=3 pooling=stride block=residual` is their ResNet-20,
    with projection shortcuts.

    Tabular rows are read as sequences of one channel: the columns' order, which seldom means
    anything, then decides what is a neighbour. It works, and an MLP is the honest choice. A text's
    padding is zeroed again after every block and left out of the average, though not out of the
    statistics of batch normalization while training.

    Shapes: image `(B, C, H, W)`, sequence `(B, C, L)`, tabular `(B, F)` or text ids `(B, L)` to
    logits `(B, num_outputs)`.

    Args:
        spec: What the data are.
        channels: Width of each stage, first to last.
        blocks_per_stage: How many blocks a stage has.
        block: One convolution (plain), or two with a shortcut (residual).
        kernel_size: Of every convolution; odd, so that the size is kept.
        pooling: How a stage halves the resolution: a pool of 2, a stride of 2, or not at all.
        padding_mode: What lies outside the border; circular suits periodic data.
        norm: After every convolution; `layer` is over the channels of each position.
        activation: After every block, and inside the residual one.
        dropout: Probability of dropping a feature before the last layer while training.
        head: Average or maximum over the positions, or all of them side by side. The maximum, with
            one stage, reads sentences as Kim 2014 does: which features occur, wherever.
        initialization: Of all weights, with the activation's gain and 1 for the last layer.
        embed_dim: Size of a token's vector, and the most that a category's may have.

    Raises:
        ValueError: The input is too small for that many stages or for a kernel that wraps around,
            or `kernel_size` is even, or `channels` is empty.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        channels: tuple[Count, ...] = (32, 64, 128),
        blocks_per_stage: Depth = 1,
        block: Literal["plain", "residual"] = "plain",
        kernel_size: Count = 3,
        pooling: Literal["max", "avg", "stride", "none"] = "max",
        padding_mode: Literal["zeros", "circular"] = "zeros",
        norm: Norm = "batch",
        activation: Activation = "relu",
        dropout: Probability = 0.0,
        head: Literal["average", "max", "flatten"] = "average",
        initialization: Initialization = "he_normal",
        embed_dim: Count = 64,
    ) -> None:
        super().__init__()
        pools = len(channels) - 1 if pooling in ("max", "avg") and head != "flatten" else 0
        whole = head == "flatten" or padding_mode == "circular"
        self.input = ChannelInput(spec, embed_dim, multiple=2 ** max(pools, 0), whole=whole)
        sides = _check(self.input.sides, len(channels), kernel_size, pooling, padding_mode)
        style = ConvStyle(len(sides), kernel_size, padding_mode, norm, activation)
        width, self.stem = self.input.channels, None
        if block == "residual":
            self.stem = PlainBlock(style, width, channels[0])
            width = channels[0]
        self.stages = nn.ModuleList()
        for i, outputs in enumerate(channels):
            kind = ResidualBlock if block == "residual" else PlainBlock
            halve = pooling if i else "none"
            self.stages.append(Stage(style, kind, (width, outputs), blocks_per_stage, halve))
            width = outputs
        self.head = head
        self.drop = nn.Dropout(dropout)
        self.output = nn.Linear(width * (prod(sides) if head == "flatten" else 1), spec.num_outputs)
        initialize([self.stages, self.stem or nn.Identity()], initialization, GAINS[activation])
        initialize([self.output], initialization)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the logits."""
        x, keep = self.input(x)
        if self.stem is not None:
            x = self.stem(x, keep)
        for stage in self.stages:
            x, keep = stage(x, keep)
        if self.head == "average":
            x = masked_mean(x.flatten(2).transpose(1, 2), keep)
        elif self.head == "max":
            x = masked_max(x.flatten(2).transpose(1, 2), keep)
        logits: Tensor = self.output(self.drop(x.flatten(1)))
        return logits


def _check(
    sides: tuple[int, ...], stages: int, kernel_size: int, pooling: str, padding_mode: str
) -> tuple[int, ...]:
    """Refuse what cannot work; return the sides that the last stage leaves."""
    if not stages:
        raise ValueError("model.channels is empty: give one width for each stage, such as [32, 64]")
    if kernel_size % 2 == 0:
        raise ValueError(
            f"model.kernel_size={kernel_size} is even and would shrink every layer: "
            f"use {kernel_size - 1} or {kernel_size + 1}"
        )
    size = " x ".join(map(str, sides))
    for _ in range(stages - 1 if pooling != "none" else 0):
        if pooling != "stride" and min(sides) < 2:
            raise ValueError(
                f"model.channels has {stages} stages, and halving {size} that often leaves "
                "nothing: give fewer stages, or set model.pooling=none"
            )
        sides = tuple(-(-side // 2) if pooling == "stride" else side // 2 for side in sides)
    if padding_mode == "circular" and kernel_size // 2 > min(sides):
        raise ValueError(
            f"model.padding_mode=circular would wrap a model.kernel_size of {kernel_size} more "
            f"than once around the {min(sides)} positions that {size} is reduced to: "
            "use a smaller kernel, fewer model.channels, or model.padding_mode=zeros"
        )
    return sides
