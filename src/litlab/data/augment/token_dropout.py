import torch

from litlab.config.hyperparameters import Fraction
from litlab.data.augment.base import TextAugmentation
from litlab.data.augment.draws import Draws
from litlab.data.spec import DataSpec


class TokenDropout(TextAugmentation):
    """Takes tokens out of texts; what follows moves up (random deletion of EDA, Wei and Zou 2019).

    Args:
        spec: The data it is for.
        p: How likely each token goes. The last one left stays, whichever that is.
    """

    def __init__(self, spec: DataSpec, *, p: Fraction = 0.1) -> None:
        super().__init__(spec)
        self.p = p

    def rewrite(self, x: torch.Tensor, length: torch.Tensor, draws: Draws) -> torch.Tensor:
        """Return `(B, L)`, as wide as before."""
        place = torch.arange(x.shape[1], device=x.device)
        used = place < length[:, None]
        luck = torch.where(used, draws.uniform(x.shape[1]), -1.0)
        stays = luck >= self.p
        stays |= used & (place == luck.argmax(1, keepdim=True))
        kept = x.gather(1, (~stays).to(torch.uint8).argsort(dim=1, stable=True))
        return torch.where(place < stays.sum(1, keepdim=True), kept, self.pad_id)
