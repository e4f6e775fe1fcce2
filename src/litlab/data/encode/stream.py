from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

import numpy as np

from litlab.data.encode.tokenizer import UNK_ID, Unit, check_vocab_size, train_tokenizer
from litlab.data.spec import Array

TOGETHER = 256  # blocks tokenized at once: the library takes some hundred bytes a token


class StreamEncoder:
    """Turns the blocks of a long text into token ids that, one after the other, are a stream.

    Nothing is cut off or padded. No token reaches over the end of a block.

    Args:
        unit: What a token is: a character, a frequent run of bytes (byte pairs), or a word.
        vocab_size: At most so many tokens are told apart, the three special ones included.
        min_frequency: A character or word seen less often in the train split is `<unk>`; a pair of
            tokens seen less often is not merged.
        lowercase: Whether case is ignored.
        context_length: How many tokens a model reads at once.

    Raises:
        ValueError: `vocab_size` has no room for what is always in it.
    """

    def __init__(
        self,
        *,
        unit: Unit = "char",
        vocab_size: int = 10000,
        min_frequency: int = 1,
        lowercase: bool = False,
        context_length: int = 64,
    ) -> None:
        check_vocab_size(unit, vocab_size)
        self.unit, self.vocab_size, self.min_frequency = unit, vocab_size, min_frequency
        self.lowercase, self.context_length = lowercase, context_length
        self.tokenizer: Any = None
        self.tokens = self.unknown = self.characters = 0

    def fit(self, chunks: Callable[[], Iterator[list[str]]]) -> None:
        """Learn the vocabulary."""
        self.tokenizer = train_tokenizer(
            chain.from_iterable(chunks()),
            self.unit,
            vocab_size=self.vocab_size,
            min_frequency=self.min_frequency,
            lowercase=self.lowercase,
        )

    def encode(self, chunk: list[str]) -> list[Array]:
        """Return each block's ids `(its length,)`, int32."""
        blocks = []
        for start in range(0, len(chunk), TOGETHER):
            for encoding in self.tokenizer.encode_batch_fast(chunk[start : start + TOGETHER]):
                ids = np.array(encoding.ids, dtype=np.int32)
                self.tokens += len(ids)
                self.unknown += int((ids == UNK_ID).sum())
                blocks.append(ids)
        self.characters += sum(map(len, chunk))
        return blocks

    def describe(self) -> dict[str, Any]:
        """Return the tokenizer's JSON, its size, and how much of the stream is a sample."""
        return {
            "tokenizer": self.tokenizer.to_str(),
            "vocab_size": self.tokenizer.get_vocab_size(),
            "pad_id": None,
            "shape": (self.context_length,),
        }

    def notes(self) -> list[str]:
        """Return how long the stream is, and how many of its tokens are not known."""
        known = self.tokenizer.get_vocab_size()
        found = [
            f"{self.characters:,} characters as {self.tokens:,} tokens, vocabulary of {known:,}"
        ]
        if self.unknown:
            share = self.unknown / self.tokens
            found.append(f"{share:.2%} of the tokens are not in the vocabulary of {known:,}: <unk>")
        return found
