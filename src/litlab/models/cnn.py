from math import prod
from typing import Literal

from torch import Tensor, nn

from litlab.config.hyperparameters import (
    Activation,
    Count,
    Depth,
    Initialization,
    Norm,
    Probability,
)
from litlab.data.spec import DataSpec
from litlab.models.channels import ChannelInput, ConvStyle, PlainBlock, ResidualBlock, Stage
from litlab.models.layers import GAINS, initialize, masked_max, masked_mean


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
