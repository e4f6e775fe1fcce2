from torch import nn

from litlab.config.hyperparameters import Activation, Count, Initialization, Norm, Probability
from litlab.data.spec import DataSpec
from litlab.models.cnn import CNN
from litlab.models.mlp import MLP


def auto(
    spec: DataSpec,
    *,
    norm: Norm = "batch",
    activation: Activation = "relu",
    dropout: Probability = 0.0,
    initialization: Initialization = "he_normal",
    embed_dim: Count = 64,
) -> nn.Module:
    """Build what fits the kind of data, for sources that tell their kind only when they are read.

    A table gets an `MLP`; a text a `CNN` of one stage and the maximum over the positions, as in
    conf/model/text_cnn.yaml; images and sequences a `CNN`. Other settings are those models' own
    defaults.

    Args:
        spec: What the data are.
        norm: After every hidden layer.
        activation: After every hidden layer.
        dropout: Probability of dropping a hidden unit, of a CNN before the last layer.
        initialization: Of all weights.
        embed_dim: Size of a token's vector, and the most that a category's may have.

    Raises:
        ValueError: The data are too small for the CNN.
    """
    if spec.kind == "tabular":
        return MLP(
            spec,
            norm=norm,
            activation=activation,
            dropout=dropout,
            initialization=initialization,
            embed_dim=embed_dim,
        )
    return CNN(
        spec,
        channels=(128,) if spec.kind == "text" else (32, 64, 128),
        head="max" if spec.kind == "text" else "average",
        norm=norm,
        activation=activation,
        dropout=dropout,
        initialization=initialization,
        embed_dim=embed_dim,
    )
