import torch
from torch.nn import functional as F

from litlab.data.augment.base import Augmentation
from litlab.data.spec import DataSpec
from litlab.hyperparameters import Positive


class Mixup(Augmentation):
    """mixup (Zhang et al. 2018): convex combinations of pairs of samples and of their labels.

    The weight is drawn from Beta(alpha, alpha), once a sample (the paper draws once a batch). Class
    numbers become soft labels `(B, C)`; regression targets are mixed as they are. Token ids cannot
    be mixed, so it is not for text.
    """

    kinds = frozenset({"image", "sequence", "tabular"})

    def __init__(self, spec: DataSpec, *, alpha: Positive = 0.2) -> None:
        super().__init__(spec)
        self.alpha, self.num_classes = alpha, len(spec.classes)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mixed `x` and soft `y`."""
        if self.num_classes and not y.is_floating_point():
            y = F.one_hot(y, self.num_classes).to(x.dtype)
        # From torch's global generator, on the CPU: the same draws whatever the device.
        alpha = torch.full((len(x),), self.alpha)
        weight = torch.distributions.Beta(alpha, alpha).sample().to(x.device)
        partner = torch.randperm(len(x)).to(x.device)
        return _mix(x, x[partner], weight), _mix(y, y[partner], weight)


def _mix(a: torch.Tensor, b: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    weight = weight.reshape(-1, *(1,) * (a.ndim - 1)).to(a.dtype)
    return weight * a + (1 - weight) * b
