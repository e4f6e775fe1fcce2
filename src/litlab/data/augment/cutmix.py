import torch

from litlab.config.hyperparameters import Fraction, Positive
from litlab.data.augment.draws import Draws
from litlab.data.augment.mixing import BetaTable, Mixing
from litlab.data.augment.spans import inside, lengths
from litlab.data.spec import DataSpec


class CutMix(Mixing):
    """CutMix (Yun et al. 2019): a part of each sample is its partner's, labels go by its share.

    The part's size, 1 - w, comes from w of Beta(alpha, alpha), once a sample. Of an image it is a
    rectangle of the image's proportions around any pixel, cut off at the edges; of a sequence, a
    span of time; of a table, each column with that probability; of a text, a span that holds
    tokens of both, so that padding stays where it was. The label's share is that of the pixels,
    steps, columns or tokens that came out in the end.

    Args:
        spec: The data it is for.
        alpha: Of Beta: 1 draws every size evenly, as the paper does.
        p: Share of the samples that are mixed.

    Raises:
        ValueError: Its targets cannot be mixed.
    """

    kinds = frozenset({"image", "sequence", "tabular", "text"})
    on_bytes = True

    def __init__(self, spec: DataSpec, *, alpha: Positive = 1.0, p: Fraction = 1.0) -> None:
        super().__init__(spec, p)
        self.paste, self.beta = Paste(spec), BetaTable(alpha)

    def mix(
        self, x: torch.Tensor, partner: torch.Tensor, hit: torch.Tensor, draws: Draws
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the samples with a part of their partners, and their own share."""
        size = torch.where(hit, 1 - self.beta(draws), 0.0)
        pasted: tuple[torch.Tensor, torch.Tensor] = self.paste(x, partner, size, draws)
        return pasted


class Paste(torch.nn.Module):
    """Puts a part of one sample into another, each kind of data its own part."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        self.kind, self.pad_id = spec.kind, spec.pad_id

    def forward(
        self, x: torch.Tensor, partner: torch.Tensor, size: torch.Tensor, draws: Draws
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return inputs of x's shape and x's own share in them, `(B,)`.

        Args:
            x: `(B, ...)`.
            partner: The same.
            size: The part's share to aim at, `(B,)`; nothing is pasted at 0.
            draws: Of the batch's samples.
        """
        parts = {"image": _rectangle, "sequence": _span, "tabular": _columns}
        if self.kind == "text":
            assert self.pad_id is not None
            taken, used = _tokens(x, partner, self.pad_id, size, draws)
            share = 1 - taken.sum(1) / used
        else:
            taken = parts[self.kind](x, size, draws)
            share = 1 - taken.flatten(1).float().mean(1)
        return torch.where(taken, partner, x), share


def _rectangle(x: torch.Tensor, size: torch.Tensor, draws: Draws) -> torch.Tensor:
    """Return which pixels `(B, 1, H, W)`."""
    sides = []
    for length, at in zip(x.shape[2:], draws.uniform(2).unbind(1), strict=True):
        number = (size.sqrt() * length).round()
        start = (at * length).floor() - (number / 2).floor()
        place = torch.arange(length, device=x.device)
        sides.append((place >= start[:, None]) & (place < (start + number)[:, None]))
    rows, columns = sides
    return (rows[:, :, None] & columns[:, None])[:, None]


def _span(x: torch.Tensor, size: torch.Tensor, draws: Draws) -> torch.Tensor:
    """Return which steps `(B, 1, L)`."""
    length = x.shape[2]
    return inside((size * length).round(), draws.uniform(), length)[:, None]


def _columns(x: torch.Tensor, size: torch.Tensor, draws: Draws) -> torch.Tensor:
    """Return which columns `(B, F)`."""
    return draws.uniform(x.shape[1]) < size[:, None]


def _tokens(
    x: torch.Tensor, partner: torch.Tensor, pad_id: int, size: torch.Tensor, draws: Draws
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return which places `(B, L)`, and how many tokens each text has."""
    own = lengths(x, pad_id)
    both = torch.minimum(own, lengths(partner, pad_id))
    number = torch.minimum((size * own).round(), both)
    return inside(number, draws.uniform(), x.shape[1], both), own.clamp(min=1)
