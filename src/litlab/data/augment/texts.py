import torch

from litlab.data.augment.base import Augmentation
from litlab.data.augment.draws import Draws
from litlab.data.augment.spans import lengths
from litlab.data.spec import DataSpec

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
