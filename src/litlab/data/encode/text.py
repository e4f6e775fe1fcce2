from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from tokenizers.trainers import Trainer
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

import numpy as np

from litlab.data.spec import Array, DataSpec
from litlab.utils.errors import DataError

# Tokenizers of words, characters or byte pairs, by the library `tokenizers`.


Unit = Literal["word", "char", "bpe"]
SPECIALS = ("<pad>", "<unk>", "<mask>")
PAD_ID, UNK_ID, MASK_ID = range(len(SPECIALS))
BYTES = 256


def check_vocab_size(unit: Unit, vocab_size: int) -> None:
    """Refuse a vocabulary that has no room for what is always in it.

    Raises:
        ValueError: It has none.
    """
    least = len(SPECIALS) + (BYTES if unit == "bpe" else 1)
    if vocab_size < least:
        what = f"its {BYTES} single bytes" if unit == "bpe" else f"a {unit}"
        raise ValueError(
            f"vocab_size={vocab_size} is too small for {', '.join(SPECIALS)} and {what}: "
            f"give at least {least}"
        )


def train_tokenizer(
    texts: Iterable[str], unit: Unit, *, vocab_size: int, min_frequency: int, lowercase: bool
) -> "Tokenizer":
    """Learn a tokenizer; the same texts give the same one.

    `word` splits at white space and around runs of punctuation, `char` at every character, `bpe`
    merges bytes (Sennrich et al. 2016, on bytes as in GPT-2) and so knows every text. All bring
    text into Unicode's composed form (NFC) first. `vocab_size` counts the three special tokens.
    """
    from tokenizers import normalizers

    check_vocab_size(unit, vocab_size)
    tokenizer, trainer = _untrained(unit, vocab_size, min_frequency)
    steps = [normalizers.NFC(), normalizers.Lowercase()]
    tokenizer.normalizer = normalizers.Sequence(steps if lowercase else steps[:1])
    tokenizer.train_from_iterator(texts, trainer)
    return load_tokenizer(tokenizer.to_str())


def load_tokenizer(content: str) -> "Tokenizer":
    """Return the tokenizer of a DataSpec."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(content)
    # A text in which somebody wrote "<pad>" would otherwise contain padding. Not kept in JSON.
    tokenizer.encode_special_tokens = True
    return tokenizer


def _untrained(unit: Unit, vocab_size: int, min_frequency: int) -> "tuple[Tokenizer, Trainer]":
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    if unit == "bpe":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        return tokenizer, trainers.BpeTrainer(
            vocab_size=vocab_size,
            min_frequency=min_frequency,
            special_tokens=list(SPECIALS),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
    tokenizer = Tokenizer(models.WordLevel(unk_token=SPECIALS[UNK_ID]))
    if unit == "word":
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
        tokenizer.decoder = decoders.Fuse()
    return tokenizer, trainers.WordLevelTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        special_tokens=list(SPECIALS),
        show_progress=False,
    )


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


BATCH_CHARACTERS = 2**18  # tokenized at once: the library takes some hundred bytes a token


class TextEncoder:
    """Turns texts into token ids, by a tokenizer learnt from the train split alone.

    A text of more than `max_length` tokens is cut at its end, and counted; so is one that is longer
    than any of the train split, for places that no text of it reached have learnt nothing. A text
    without tokens becomes a single padding token, so that no model meets an empty one.

    Args:
        unit: What a token is: a word, a character, or a frequent run of bytes (byte pairs).
        vocab_size: At most so many tokens are told apart, the three special ones included.
        min_frequency: A word or character seen less often in the train split is `<unk>`; a pair of
            tokens seen less often is not merged.
        lowercase: Whether case is ignored.
        max_length: Tokens kept of a text.

    Raises:
        ValueError: `vocab_size` has no room for what is always in it.
    """

    def __init__(
        self,
        *,
        unit: Unit = "word",
        vocab_size: int = 10000,
        min_frequency: int = 2,
        lowercase: bool = True,
        max_length: int = 256,
    ) -> None:
        check_vocab_size(unit, vocab_size)
        self.unit, self.vocab_size, self.min_frequency = unit, vocab_size, min_frequency
        self.lowercase, self.max_length = lowercase, max_length
        self.tokenizer: Any = None
        self.length = max_length
        self.texts = self.tokens = self.cut = self.empty = self.unknown = 0

    @classmethod
    def of(cls, spec: DataSpec) -> "TextEncoder":
        """Return the encoder that prepared data, for new texts.

        Raises:
            DataError: The data were not prepared by a tokenizer.
        """
        if spec.tokenizer is None:
            raise DataError(
                "the prepared texts have no tokenizer", spec.name, "run `litlab prepare` again"
            )
        encoder = cls(max_length=spec.shape[0])
        encoder.tokenizer = load_tokenizer(spec.tokenizer)
        return encoder

    def fit(self, chunks: Callable[[], Iterator[list[str]]]) -> None:
        """Learn the vocabulary, and how long the longest text is.

        Raises:
            DataError: There is no token in the train split.
        """
        self.tokenizer = train_tokenizer(
            chain.from_iterable(chunks()),
            self.unit,
            vocab_size=self.vocab_size,
            min_frequency=self.min_frequency,
            lowercase=self.lowercase,
        )
        self.length = self._longest(chunks())
        if not self.length:
            raise DataError("the train split has no tokens", "the texts", "check the file")

    def encode(self, chunk: Iterable[str]) -> list[Array]:
        """Return each text's ids `(its length,)`, int32."""
        return [self._kept(ids) for ids in self._ids(chunk)]

    def describe(self) -> dict[str, Any]:
        """Return the tokenizer's JSON, its sizes, and what the models need to know of both."""
        return {
            "tokenizer": self.tokenizer.to_str(),
            "vocab_size": self.tokenizer.get_vocab_size(),
            "pad_id": PAD_ID,
            "shape": (self.length,),
        }

    def notes(self) -> list[str]:
        """Return how many texts were cut or empty, and how many tokens are not known."""
        found = []
        if self.cut:
            found.append(f"{self.cut} of {self.texts} texts were cut to {self.length} tokens")
        if self.empty:
            found.append(f"{self.empty} of {self.texts} texts are empty: one padding token each")
        if self.unknown:
            share = f"{self.unknown} of {self.tokens} tokens ({self.unknown / self.tokens:.1%})"
            known = self.tokenizer.get_vocab_size()
            found.append(f"{share} are not in the vocabulary of {known}: <unk>")
        return found

    def _longest(self, chunks: Iterator[list[str]]) -> int:
        """Return the longest text's number of tokens, at most `max_length`."""
        longest = 0
        for ids in self._ids(chain.from_iterable(chunks)):
            longest = max(longest, len(ids))
            if longest >= self.max_length:
                return self.max_length
        return longest

    def _kept(self, ids: list[int]) -> Array:
        self.texts += 1
        self.cut += len(ids) > self.length
        self.empty += not ids
        kept = np.array(ids[: self.length] or [PAD_ID], dtype=np.int32)
        self.tokens += len(kept)
        self.unknown += int((kept == UNK_ID).sum())
        return kept

    def _ids(self, texts: Iterable[str]) -> Iterator[list[int]]:
        """Tokenize on all cores, a limited number of characters at once."""
        batch: list[str] = []
        size = 0
        for text in texts:
            batch.append(text)
            size += len(text)
            if size >= BATCH_CHARACTERS:
                yield from self._together(batch)
                batch, size = [], 0
        yield from self._together(batch)

    def _together(self, texts: list[str]) -> Iterator[list[int]]:
        for encoding in self.tokenizer.encode_batch_fast(texts):
            yield encoding.ids
