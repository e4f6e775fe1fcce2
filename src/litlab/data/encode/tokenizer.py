"""Tokenizers of words, characters or byte pairs, by the library `tokenizers`."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from tokenizers.trainers import Trainer

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
    # A text in which somebody wrote "<pad>" would else have padding in its midst. Not kept in JSON.
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
