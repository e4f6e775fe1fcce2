from collections.abc import Iterable

import torch
from torch import Tensor, nn

from litlab.config.hyperparameters import Activation, Initialization, Norm

ACTIVATIONS: dict[Activation, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}

# What a weight's standard deviation is multiplied by because this activation follows. The
# rectifier family: 1 / sqrt(E[f(z)^2]) for z ~ N(0, 1), the argument of He et al. 2015 (§2.2),
# which PyTorch tabulates for ReLU and leaky ReLU only. tanh, sigmoid: PyTorch's `calculate_gain`.
GAINS: dict[Activation, float] = {
    "relu": 2**0.5,
    "leaky_relu": 1.4141428569978354,
    "elu": 1.2451983007007066,
    "gelu": 1.5335304411955353,
    "silu": 1.6765324703310913,
    "tanh": 5 / 3,
    "sigmoid": 1.0,
}

CONVOLUTIONS: dict[int, type[nn.Conv1d] | type[nn.Conv2d]] = {1: nn.Conv1d, 2: nn.Conv2d}
_BATCH_NORMS: dict[int, type[nn.Module]] = {
    0: nn.BatchNorm1d,
    1: nn.BatchNorm1d,
    2: nn.BatchNorm2d,
}


class ChannelNorm(nn.LayerNorm):
    """Layer normalization over the channels of each position, apart from every other position.

    As in ConvNeXt (Liu et al. 2022, §2.6). Unlike statistics over all positions, these do not
    depend on how much padding a text carries.

    Shapes: `(B, C, ...)` to the same.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalize `(B, C, ...)` over `C`."""
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


def activation_layer(name: Activation) -> nn.Module:
    """Build an activation by name.

    Raises:
        ValueError: There is no such activation.
    """
    if name not in ACTIVATIONS:
        raise ValueError(f"model.activation={name}: choose one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]()


def norm_layer(name: Norm, channels: int, dims: int = 0) -> nn.Module:
    """Build a normalization of `(B, channels)` or, with `dims` of 1 or 2, `(B, channels, ...)`.

    Raises:
        ValueError: There is no such normalization.
    """
    if name == "batch":
        return _BATCH_NORMS[dims](channels)
    if name == "layer":
        return ChannelNorm(channels)
    if name == "none":
        return nn.Identity()
    raise ValueError(f"model.norm={name}: choose batch, layer or none")


def _fill(weight: Tensor, scheme: Initialization, gain: float) -> None:
    if scheme == "xavier_uniform":
        nn.init.xavier_uniform_(weight, gain)
    elif scheme == "xavier_normal":
        nn.init.xavier_normal_(weight, gain)
    elif scheme == "he_uniform":
        nn.init.kaiming_uniform_(weight, nonlinearity="linear").mul_(gain)
    elif scheme == "he_normal":
        nn.init.kaiming_normal_(weight, nonlinearity="linear").mul_(gain)
    elif scheme == "orthogonal":
        nn.init.orthogonal_(weight, gain)
    else:
        raise ValueError(
            f"model.initialization={scheme}: choose default, xavier_uniform, xavier_normal, "
            "he_uniform, he_normal or orthogonal"
        )


@torch.no_grad()
def initialize(modules: Iterable[nn.Module], scheme: Initialization, gain: float = 1.0) -> None:
    """Draw the weights of every linear and convolution layer anew, and zero their biases.

    `default` leaves what PyTorch drew. Normalizations and embeddings are never touched. The
    schemes: Glorot and Bengio 2010 (§4.2.1), He et al. 2015 (§2.2, fan-in), Saxe et al. 2014.

    Args:
        modules: Layers, or modules to look for layers in.
        scheme: Where the weights come from.
        gain: Factor on their standard deviation: `GAINS[activation]` before an activation, and 1
            where the output is used as it is.

    Raises:
        ValueError: There is no such scheme.
    """
    if scheme == "default":
        return
    for module in modules:
        for layer in module.modules():
            if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d):
                weight = layer.weight
                if not isinstance(layer, nn.Linear) and layer.stride == layer.kernel_size:
                    # Patches do not overlap: each input is read once, so the layer is a linear one
                    # of whole patches, and Glorot's fan-out is the channels alone, as in ViT.
                    weight = weight.flatten(1)
                _fill(weight, scheme, gain)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)


def masked(x: Tensor, keep: Tensor | None) -> Tensor:
    """Zero the positions of `x` `(B, C, L)` where `keep` `(B, L)` is False."""
    return x if keep is None else x * keep.unsqueeze(1).to(x.dtype)


def masked_mean(x: Tensor, keep: Tensor | None) -> Tensor:
    """Average `x` `(B, L, D)` over the positions kept, to `(B, D)`; zero where none is kept."""
    if keep is None:
        return x.mean(1)
    weights = keep.unsqueeze(-1).to(x.dtype)
    return (x * weights).sum(1) / weights.sum(1).clamp(min=1)


def masked_max(x: Tensor, keep: Tensor | None) -> Tensor:
    """Take the maximum of `x` `(B, L, D)` over the positions kept, to `(B, D)`; else zero."""
    if keep is None:
        return x.amax(1)
    kept = x.masked_fill(~keep.unsqueeze(-1), -torch.inf).amax(1)
    return kept.masked_fill(~keep.any(1, keepdim=True), 0.0)
