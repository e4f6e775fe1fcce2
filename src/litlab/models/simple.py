"""The two smallest models, fixed so that anybody's plain PyTorch can be compared with them."""

from math import prod

from torch import Tensor, nn

from litlab.config.hyperparameters import Count
from litlab.data.spec import DataSpec
from litlab.models.cnn import ChannelInput
from litlab.models.embedding import flat_input
from litlab.models.layers import CONVOLUTIONS

_POOLS = {1: nn.MaxPool1d, 2: nn.MaxPool2d}


class SimpleNN(nn.Module):
    """Linear, ReLU, linear, on the flattened input, with PyTorch's own initialization.

    Shapes: image `(B, C, H, W)`, sequence `(B, C, L)`, tabular `(B, F)` or text ids `(B, L)` (as
    the mean of its token vectors) to logits `(B, num_outputs)`.

    Args:
        spec: What the data are.
        width: Of the hidden layer.
        embed_dim: Size of a token's vector, and the most that a category's may have.
    """

    def __init__(self, spec: DataSpec, *, width: Count = 128, embed_dim: Count = 64) -> None:
        super().__init__()
        self.input, flat = flat_input(spec, embed_dim)
        self.layers = nn.Sequential(
            nn.Linear(flat, width), nn.ReLU(), nn.Linear(width, spec.num_outputs)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Compute the logits."""
        logits: Tensor = self.layers(self.input(x))
        return logits


class SimpleCNN(nn.Module):
    """Twice a convolution of 3 (to 32, then 64 channels), ReLU and a max pool of 2; then linear.

    On 3 x 32 x 32 images of 10 classes it has 60,362 parameters. Sequences, texts and tabular
    rows (read as sequences of one channel) get the same in one dimension.

    Shapes: image `(B, C, H, W)`, sequence `(B, C, L)`, tabular `(B, F)` or text ids `(B, L)` to
    logits `(B, num_outputs)`.

    Args:
        spec: What the data are.
        embed_dim: Size of a token's vector, and the most that a category's may have.

    Raises:
        ValueError: A side of the input is shorter than 4, which the pools would reduce to nothing.
    """

    def __init__(self, spec: DataSpec, *, embed_dim: Count = 32) -> None:
        super().__init__()
        self.input = ChannelInput(spec, embed_dim, whole=True)
        sides = self.input.sides
        if min(sides) < 4:
            raise ValueError(
                f"model=simple_cnn pools twice, and {' x '.join(map(str, sides))} is too small "
                "for it: use model=cnn with model.pooling=none, or model=simple_nn"
            )
        conv, pool = CONVOLUTIONS[len(sides)], _POOLS[len(sides)]
        self.layers = nn.Sequential(
            conv(self.input.channels, 32, 3, padding=1),
            nn.ReLU(),
            pool(2),
            conv(32, 64, 3, padding=1),
            nn.ReLU(),
            pool(2),
            nn.Flatten(),
            nn.Linear(64 * prod(side // 4 for side in sides), spec.num_outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Compute the logits."""
        x, _ = self.input(x)
        logits: Tensor = self.layers(x)
        return logits
