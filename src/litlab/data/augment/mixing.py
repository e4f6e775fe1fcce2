import torch
from torch.nn import functional as F

from litlab.config.hyperparameters import Fraction, Positive
from litlab.data.augment.base import Augmentation, inside, lengths
from litlab.data.augment.draws import Draws
from litlab.data.spec import DataSpec

TABLE = 4096  # pieces of Beta's quantile function


class Mixing(Augmentation):
    """Mixes each sample with a partner, and their labels in the same share.

    The loader serves the partners as the batch's second half. Class numbers become soft labels
    `(B, C)`; regression targets, and 0 or 1 of several labels, are mixed as they are.

    Args:
        spec: The data it is for.
        p: Share of the samples that are mixed.

    Raises:
        ValueError: The data's targets cannot be mixed.
    """

    mixes = True

    def __init__(self, spec: DataSpec, p: Fraction) -> None:
        super().__init__(spec)
        if spec.task == "language_model":
            raise ValueError(
                f"{type(self).__name__} mixes labels, and the targets of '{spec.name}' are tokens"
            )
        self.p, self.num_classes = p, len(spec.classes)

    def forward(
        self, x: torch.Tensor, y: torch.Tensor, draws: Draws
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mixed inputs and soft targets of the first half.

        Args:
            x: `(2B, ...)`, the batch and then the partners.
            y: `(2B,)` class numbers, `(2B, K)` labels, or `(2B, T)` float.
            draws: Of the batch's samples, `(B,)` or more of them.
        """
        self.follow(x.device)
        if self.num_classes and not y.is_floating_point():
            y = (y if y.ndim == 2 else F.one_hot(y, self.num_classes)).to(torch.float32)
        (x, partner), (y, other) = x.chunk(2), y.chunk(2)
        draws = draws.first(len(x))
        hit = draws.bernoulli(self.p)
        mixed, share = self.mix(x, partner, hit, draws)
        return mixed, torch.lerp(other, y, share.to(y.dtype).reshape(-1, *(1,) * (y.ndim - 1)))

    def mix(
        self, x: torch.Tensor, partner: torch.Tensor, hit: torch.Tensor, draws: Draws
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mixed inputs and each sample's own share in them, `(B,)`; 1 where not hit."""
        raise NotImplementedError


class BetaTable(torch.nn.Module):
    """Draws from Beta(alpha, alpha), by its quantile function.

    Linear between 4097 points of equal probability, so its distribution function is off by at most
    1/4096; a rejection sampler would need as many draws as it happens to need.
    """

    quantiles: torch.Tensor

    def __init__(self, alpha: float) -> None:
        super().__init__()
        import numpy as np
        from scipy.special import betaincinv

        points = betaincinv(alpha, alpha, np.linspace(0, 1, TABLE + 1))
        quantiles = torch.from_numpy(points).to(torch.float32)
        self.register_buffer("quantiles", quantiles, persistent=False)

    def forward(self, draws: Draws) -> torch.Tensor:
        """Return `(B,)` in [0, 1]."""
        place = draws.uniform() * TABLE
        piece = place.floor().to(torch.int64)
        low, high = self.quantiles[piece], self.quantiles[piece + 1]
        return torch.lerp(low, high, place - piece)


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


class Mixup(Mixing):
    """mixup (Zhang et al. 2018): weighted means of pairs of samples and of their labels.

    The weight is drawn from Beta(alpha, alpha), once a sample (the paper draws once a batch). A
    table's categorical codes have no mean: they are those of the sample of the greater weight.

    Args:
        spec: The data it is for.
        alpha: Of Beta: small values leave most pairs nearly as they were, 1 draws evenly.
        p: Share of the samples that are mixed.

    Raises:
        ValueError: Its inputs or targets cannot be mixed.
    """

    kinds = frozenset({"image", "sequence", "tabular"})
    instead = "token ids cannot be averaged: use augment=cutmix"

    def __init__(self, spec: DataSpec, *, alpha: Positive = 0.2, p: Fraction = 1.0) -> None:
        super().__init__(spec, p)
        self.blend, self.beta = Blend(spec), BetaTable(alpha)

    def mix(
        self, x: torch.Tensor, partner: torch.Tensor, hit: torch.Tensor, draws: Draws
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the weighted mean, and the weight."""
        weight = torch.where(hit, self.beta(draws), 1.0)
        return self.blend(x, partner, weight), weight


class Blend(torch.nn.Module):
    """The weighted mean of two samples; of codes, the one that weighs more."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        self.num_numeric = spec.num_numeric if spec.cardinalities else None

    def forward(self, x: torch.Tensor, partner: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Return inputs of x's shape; `weight` `(B,)` is x's own."""
        weight = weight.reshape(-1, *(1,) * (x.ndim - 1))
        mixed = torch.lerp(partner, x, weight)
        if self.num_numeric is not None:
            codes = slice(self.num_numeric, None)
            mixed[:, codes] = torch.where(weight >= 0.5, x[:, codes], partner[:, codes])
        return mixed


class MixupCutMix(Mixing):
    """mixup for some samples, CutMix for the others, as most recipes for large networks do.

    Args:
        spec: The data it is for.
        mixup_alpha: Of mixup's Beta.
        cutmix_alpha: Of CutMix's Beta.
        switch: Share of the mixed samples that get CutMix.
        p: Share of the samples that are mixed.

    Raises:
        ValueError: Its inputs or targets cannot be mixed.
    """

    kinds = Mixup.kinds
    instead = Mixup.instead

    def __init__(
        self,
        spec: DataSpec,
        *,
        mixup_alpha: Positive = 0.2,
        cutmix_alpha: Positive = 1.0,
        switch: Fraction = 0.5,
        p: Fraction = 1.0,
    ) -> None:
        super().__init__(spec, p)
        self.blend, self.paste, self.switch = Blend(spec), Paste(spec), switch
        self.of_mixup, self.of_cutmix = BetaTable(mixup_alpha), BetaTable(cutmix_alpha)

    def mix(
        self, x: torch.Tensor, partner: torch.Tensor, hit: torch.Tensor, draws: Draws
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return each sample with its partner's part in it, and its own share."""
        cut = draws.bernoulli(self.switch)
        size = torch.where(hit & cut, 1 - self.of_cutmix(draws), 0.0)
        weight = torch.where(hit & ~cut, self.of_mixup(draws), 1.0)
        mixed, share = self.paste(x, partner, size, draws)
        return self.blend(mixed, partner, weight), share * weight
