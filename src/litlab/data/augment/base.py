from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import nn

from litlab.data.augment.draws import Draws
from litlab.data.spec import DataSpec


class Augmentation(nn.Module):
    """Changes a training batch: `(x, y, draws) -> (x, y)`, whole batches, each sample its own draw.

    It sees inputs before normalization: images in [0, 1] (or bytes, see `on_bytes`), those that are
    not stored as bytes, sequences and tables in their own unit, texts as ids. All random numbers
    come from `draws`, so that a sample's change depends on the seed, the epoch and the sample, and
    on nothing else. What comes in stays as it was: a subclass returns a new tensor, or the same one
    where nothing changes.

    Attributes:
        kinds: The kinds of data it is for.
        on_bytes: Whether it takes uint8 images too, and gives them back as such.
        of_bytes: Whether it needs pixels between black and white, as bytes are.
        mixes: Whether it mixes each sample with another (see `mixing.Mixing`).
        instead: What to use for data of another kind, added to the refusal.

    Args:
        spec: The data it is for.

    Raises:
        ValueError: It is not made for this kind of data.
    """

    kinds: ClassVar[frozenset[str]]
    on_bytes: ClassVar[bool] = False
    of_bytes: ClassVar[bool] = False
    mixes: ClassVar[bool] = False
    instead: ClassVar[str] = ""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        if spec.kind not in self.kinds:
            name, made_for = type(self).__name__, " and ".join(sorted(self.kinds))
            what = f"{name} is for {made_for} data; '{spec.name}' is {spec.kind}"
            raise ValueError(f"{what}; {self.instead}" if self.instead else what)
        if self.of_bytes and spec.kind == "image" and spec.dtype != "uint8":
            raise ValueError(
                f"{type(self).__name__} changes brightness between black and white, and the images "
                f"of '{spec.name}' are numbers of another range ({spec.dtype}): use augment=light, "
                "standard or affine, or save the images as bytes from 0 to 255"
            )

    def forward(
        self, x: torch.Tensor, y: torch.Tensor, draws: Draws
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the changed batch; labels stay unless a subclass mixes them."""
        if not len(x):  # a process's share of the last batch may be nothing
            return x, y
        self.follow(x.device)
        return self.change(x, draws), y

    def follow(self, device: torch.device) -> None:
        """Bring buffers to the batch's device, once: no Trainer moves augmentations."""
        buffer = next(self.buffers(), None)
        if buffer is not None and buffer.device != device:
            self.to(device)

    def change(self, x: torch.Tensor, draws: Draws) -> torch.Tensor:
        """Return changed inputs, as many, each of the shape it had."""
        raise NotImplementedError


def needs_partners(augmentations: Sequence[nn.Module]) -> bool:
    """Return whether the loader must serve each sample with a partner to mix it with.

    Raises:
        ValueError: More than one mixes, or one does and is not the last.
    """
    mixing = [i for i, a in enumerate(augmentations) if getattr(a, "mixes", False)]
    names = [type(augmentations[i]).__name__ for i in mixing]
    if len(mixing) > 1:
        raise ValueError(
            f"{' and '.join(names)} both mix samples; keep one (augment=mixup_cutmix switches "
            "between mixup and cutmix)"
        )
    if mixing and mixing[0] != len(augmentations) - 1:
        after = type(augmentations[mixing[0] + 1]).__name__
        raise ValueError(f"{names[0]} mixes samples and comes before {after}; put it last")
    return bool(mixing)


# Spans: so many places in a row, somewhere in a row of so many.


def inside(
    number: torch.Tensor, at: torch.Tensor, places: int, length: torch.Tensor | None = None
) -> torch.Tensor:
    """Return which places `(B, places)` a span covers, bool.

    Args:
        number: How many places it covers, `(B,)`; what is over the length is cut off.
        at: Where it lies, `(B,)` in [0, 1): every start that leaves it inside is equally likely.
        places: How many there are.
        length: How many of them a sample uses, the first ones, `(B,)`; None: all.
    """
    used: torch.Tensor | int = places if length is None else length
    number = number.clamp(max=used)
    # In float32, at * n may round up to n.
    start = torch.minimum((at * (used - number + 1)).floor(), used - number)
    place = torch.arange(places, device=at.device)
    return (place >= start[:, None]) & (place < (start + number)[:, None])


def lengths(x: torch.Tensor, pad_id: int) -> torch.Tensor:
    """Return how many places of each text come before its padding, `(B,)` int64."""
    place = torch.arange(1, x.shape[1] + 1, device=x.device)
    return ((x != pad_id) * place).amax(1)


MASK_ID = 2  # of litlab's tokenizers: <pad>, <unk>, <mask>, then what they learnt


class TextAugmentation(Augmentation):
    """Changes token ids `(B, L)`, padded at the end; subclasses see how long each text is.

    Raises:
        ValueError: The data are not texts, or have tokens as targets, which would have to change
            with them.
    """

    kinds = frozenset({"text"})

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        if spec.task == "language_model":
            raise ValueError(
                f"{type(self).__name__} changes texts, and the targets of '{spec.name}' are their "
                "tokens; use dropout instead"
            )
        assert spec.pad_id is not None
        self.pad_id = spec.pad_id

    def change(self, x: torch.Tensor, draws: Draws) -> torch.Tensor:
        """Return `(B, L)`; padding stays at the end."""
        return self.rewrite(x, lengths(x, self.pad_id), draws)

    def rewrite(self, x: torch.Tensor, length: torch.Tensor, draws: Draws) -> torch.Tensor:
        """Return changed texts `(B, L)`; `length` `(B,)` counts each one's tokens."""
        raise NotImplementedError


def mask_id(spec: DataSpec) -> int | None:
    """Return the id of the token that stands for a hidden one, or None where there is none."""
    for token in ("<mask>", "<unk>"):
        if token in spec.vocabulary:
            return spec.vocabulary.index(token)
    return MASK_ID if spec.tokenizer is not None else None
