from torch import Tensor, nn

from litlab.config.hyperparameters import Activation, Count, Initialization, Norm, Probability
from litlab.data.spec import DataSpec
from litlab.models.embedding import flat_input
from litlab.models.layers import GAINS, activation_layer, initialize, norm_layer


class MLP(nn.Module):
    """A multilayer perceptron: any number of hidden layers, or none, which is a linear model.

    A hidden layer is linear, normalization, activation, dropout. Images and sequences are
    flattened; a text is the mean of its token vectors, so word order is lost.

    Shapes: image `(B, C, H, W)`, sequence `(B, C, L)`, tabular `(B, F)` or text ids `(B, L)` to
    logits `(B, num_outputs)`.

    Args:
        spec: What the data are.
        hidden: Width of each hidden layer, first to last.
        activation: After each hidden layer.
        norm: Between a hidden layer and its activation.
        dropout: Probability of dropping a hidden unit while training.
        initialization: Of all weights, with the activation's gain for the hidden layers and 1 for
            the last; biases start at zero. `default` is PyTorch's own, biases included.
        embed_dim: Size of a token's vector, and the most that a category's may have.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        hidden: tuple[Count, ...] = (256, 128),
        activation: Activation = "relu",
        norm: Norm = "batch",
        dropout: Probability = 0.0,
        initialization: Initialization = "he_normal",
        embed_dim: Count = 64,
    ) -> None:
        super().__init__()
        self.input, width = flat_input(spec, embed_dim)
        layers: list[nn.Module] = []
        for next_width in hidden:
            layers += [
                # Batch normalization subtracts the mean, and any bias with it.
                nn.Linear(width, next_width, bias=norm != "batch"),
                norm_layer(norm, next_width),
                activation_layer(activation),
                nn.Dropout(dropout),
            ]
            width = next_width
        self.hidden = nn.Sequential(*layers)
        self.output = nn.Linear(width, spec.num_outputs)
        initialize([self.hidden], initialization, GAINS[activation])
        initialize([self.output], initialization)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the logits."""
        logits: Tensor = self.output(self.hidden(self.input(x)))
        return logits
