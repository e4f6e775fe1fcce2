import torch

from litlab.config.hyperparameters import Fraction
from litlab.data.augment.base import Augmentation
from litlab.data.augment.draws import Draws
from litlab.data.spec import DataSpec


class FeatureDropout(Augmentation):
    """Hides features: a number becomes its train mean, a categorical code 0, a value not seen.

    So the network learns to do without any one of them, and the embedding of unseen values, which
    the train split alone would never reach, learns to say little.

    Args:
        spec: The data it is for.
        p: How likely each feature of each sample is hidden.
    """

    kinds = frozenset({"tabular"})

    hidden: torch.Tensor

    def __init__(self, spec: DataSpec, *, p: Fraction = 0.1) -> None:
        super().__init__(spec)
        self.p = p
        hidden = torch.tensor(spec.mean)
        hidden[spec.num_numeric :] = 0
        self.register_buffer("hidden", hidden, persistent=False)

    def change(self, x: torch.Tensor, draws: Draws) -> torch.Tensor:
        """Return `(B, F)`."""
        return torch.where(draws.uniform(x.shape[1]) < self.p, self.hidden, x)
