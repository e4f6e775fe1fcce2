import codecs
from collections.abc import Iterable, Iterator
from io import IncrementalNewlineDecoder
from pathlib import Path
from typing import Literal

import numpy as np

from litlab.config.hyperparameters import Count
from litlab.data.encode.text import StreamEncoder
from litlab.data.prepare.source_files import require_file, user_path
from litlab.data.raw import Raw, Reading
from litlab.data.spec import Array
from litlab.utils.errors import DataError

LONGEST_BLOCK, SHORTEST_BLOCK = 1024, 64  # characters
BLOCKS = 200  # at least, where the text allows: splits are cut between them
READ_BYTES = 2**20
PARTS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}


class PlainText:
    """Plain text as one stream of tokens, each to be predicted from those before it.

    Train comes first, then validation, then test: at random, a model would be asked for what it
    has read. A folder with `train.txt`, and `val.txt`, `test.txt` or both, keeps those splits; of
    any other folder all `.txt` files are read, in order of their names.

    Args:
        path: A text file, or a folder of them; relative to the project's root.
        tokenizer: What a token is. `char`: a character. `bpe`: a frequent run of bytes, which
            writes every text. `word`: a word or a run of punctuation; white space and line breaks
            are lost.
        vocab_size: At most so many tokens are told apart, three special ones included.
        min_frequency: A character or word rarer in the train split is `<unk>`; a rarer pair of
            tokens is not merged.
        lowercase: Whether case is ignored.
        context_length: How many tokens the model reads at once, and so how far it remembers.
        encoding: Of the files, by Python's name for it.

    Raises:
        ValueError: There is no such encoding, or `vocab_size` is too small.
    """

    def __init__(
        self,
        *,
        path: str,
        tokenizer: Literal["char", "bpe", "word"] = "char",
        vocab_size: Count = 10000,
        min_frequency: Count = 1,
        lowercase: bool = False,
        context_length: Count = 64,
        encoding: str = "utf-8",
    ) -> None:
        try:
            codecs.lookup(encoding)
        except LookupError:
            raise ValueError(f"encoding={encoding} is unknown") from None
        self.path, self.encoding = path, encoding
        self.encoder = StreamEncoder(
            unit=tokenizer,
            vocab_size=vocab_size,
            min_frequency=min_frequency,
            lowercase=lowercase,
            context_length=context_length,
        )

    def read(self, scratch: Path) -> Raw:
        """Read the files into blocks of text.

        Args:
            scratch: A folder for the text as UTF-8, so that any block can be read by itself.

        Raises:
            DataError: There is no text, or it is not of this encoding.
            EnvironmentFault: There is no such file or folder.
        """
        path = user_path(self.path)
        files = _files(path)
        size = sum(file.stat().st_size for group in files.values() for file in group)
        longest = min(LONGEST_BLOCK, max(SHORTEST_BLOCK, size // BLOCKS))
        parts: dict[str, tuple[_Blocks, Array]] = {}
        for part, group in files.items():
            blocks = _spool(group, self.encoding, scratch / f"{part}.txt", longest)
            if not len(blocks):
                raise DataError("there is no text", ", ".join(map(str, group)), "check the path")
            parts[part] = blocks, np.zeros(len(blocks), dtype=np.int64)
        return Raw(
            kind="text",
            task="language_model",
            parts=parts,
            licence="as the text's owner states it",
            origin=path.name,
            encoder=self.encoder,
            files=[file for group in files.values() for file in group],
            reading=Reading(
                parts={p: ", ".join(f.name for f in group[:3]) for p, group in files.items()}
            ),
        )


class _Blocks:
    """Blocks of a UTF-8 file, read when they are asked for."""

    def __init__(self, path: Path, sizes: list[int]) -> None:
        self.path = path
        self.ends = np.cumsum(np.array(sizes, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, rows: Array) -> list[str]:
        starts = np.concatenate([[0], self.ends[:-1]])[rows].tolist()
        texts = []
        with self.path.open("rb") as file:
            for start, end in zip(starts, self.ends[rows].tolist(), strict=True):
                file.seek(start)
                texts.append(file.read(end - start).decode("utf-8"))
        return texts


def _files(path: Path) -> dict[str, list[Path]]:
    """The files of each part."""
    if path.is_file():
        return {"all": [path]}
    found = {
        part: [path / f"{name}.txt" for name in names if (path / f"{name}.txt").is_file()]
        for part, names in PARTS.items()
    }
    if found["train"] and (found["val"] or found["test"]):
        return {part: files for part, files in found.items() if files}
    files = sorted(path.glob("*.txt"))
    if not files:
        raise DataError("the folder has no .txt files", str(path), "name a file or a folder")
    return {"all": files}


def _spool(files: list[Path], encoding: str, out: Path, longest: int) -> _Blocks:
    """Write the files' text as UTF-8, one file after the other, and note where blocks end."""
    sizes = []
    with out.open("wb") as spool:
        for file in files:
            for block in _cut(_text(file, encoding), longest):
                sizes.append(spool.write(block.encode("utf-8")))
    return _Blocks(out, sizes)


def _text(file: Path, encoding: str) -> Iterator[str]:
    """A file's text piece by piece: line breaks as in Python, no byte order mark."""
    decoder = codecs.getincrementaldecoder(encoding)()
    lines = IncrementalNewlineDecoder(None, translate=True)
    done, first = 0, True
    with require_file(file).open("rb") as opened:
        while True:
            content = opened.read(READ_BYTES)
            pending = len(decoder.getstate()[0])
            try:
                text = decoder.decode(content, final=not content)
            except UnicodeError as error:  # without a place where UTF-16 lacks its mark
                start = getattr(error, "start", pending)
                raise DataError(
                    f"not {encoding} at byte {done - pending + start}",
                    str(file),
                    "set data.source.encoding, such as latin-1, or save the file as UTF-8",
                ) from None
            done += len(content)
            text = lines.decode(text, final=not content)
            yield text.removeprefix("\ufeff") if first else text
            first = first and not text
            if not content:
                return


def _cut(texts: Iterable[str], longest: int) -> Iterator[str]:
    """Blocks of at most `longest` characters: whole lines if possible, else whole words."""
    left = ""
    for text in texts:
        left += text
        start = 0
        while len(left) - start > longest:
            half, full = start + longest // 2, start + longest
            # A byte-pair token holds the space before its word, so a cut leaves it there.
            end = left.rfind("\n", half, full) + 1 or max(left.rfind(" ", half, full), 0) or full
            yield left[start:end]
            start = end
        left = left[start:]
    if left:
        yield left
