"""Texts without what does not tell them apart."""

import unicodedata

LONGEST = 25  # letters a word, on average: more than that are no words


class _Punctuation(dict[int, str]):
    """A table for `str.translate` that looks up each character once."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        found = " " if unicodedata.category(character).startswith("P") else character
        self[code] = found
        return found


_WITHOUT_PUNCTUATION = _Punctuation()


def normalize(text: str) -> str:
    """Return a text in Unicode's form KC, in lower case, with single spaces and no punctuation.

    One that is all punctuation keeps it.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    words = folded.translate(_WITHOUT_PUNCTUATION).split()
    return " ".join(words or folded.split())


def words_of(whole: str) -> list[str]:
    """Return the words of a normalized text; of one that has no spaces, its pairs of letters."""
    words = whole.split()
    if len(whole) > LONGEST * len(words):
        whole = "".join(words)
        words = [whole[i : i + 2] for i in range(len(whole) - 1)]
    return words
