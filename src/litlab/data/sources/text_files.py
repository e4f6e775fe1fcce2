"""Files of text in some encoding, and where the first byte is that is not of it."""

import codecs
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from litlab.data.prepare.source_files import require_file
from litlab.utils.errors import DataError

BLOCK = 2**16


@contextmanager
def readable(path: Path, encoding: str) -> Iterator[None]:
    """Say of a file that cannot be read, or is in another encoding, where and what to do.

    Raises:
        DataError: It is so.
    """
    try:
        yield
    except UnicodeError:
        raise _other_encoding(path, encoding) from None
    except OSError as error:
        raise DataError(f"cannot be read: {error}", str(path), "correct the file") from None


def open_text(path: Path, encoding: str, newline: str | None) -> TextIO:
    """Open a file; a byte order mark is no part of its text.

    Raises:
        DataError: It is a folder, a pipe or a device.
    """
    require_file(path)
    is_utf8 = codecs.lookup(encoding).name == "utf-8"
    return path.open(encoding="utf-8-sig" if is_utf8 else encoding, newline=newline)


def read_whole(path: Path, encoding: str) -> str:
    """Return a file's text.

    Raises:
        DataError: It is in another encoding, or cannot be read.
    """
    with readable(path, encoding), open_text(path, encoding, None) as file:
        return file.read()


def lines_of(path: Path, encoding: str) -> Iterator[tuple[int, str]]:
    r"""Give a file's lines and their numbers; only `\n` and `\r\n` end one.

    Not `\x85`, as with str.splitlines: in cp1252 read as latin-1 it is an ellipsis.

    Raises:
        DataError: It is in another encoding, or cannot be read.
    """
    with readable(path, encoding), open_text(path, encoding, "\n") as file:
        for number, line in enumerate(file, start=1):
            yield number, line.removesuffix("\n").removesuffix("\r")


def _other_encoding(path: Path, encoding: str) -> DataError:
    """Say where the first byte is that cannot be decoded."""
    decoder = codecs.getincrementaldecoder(encoding)()
    done, lines = 0, 1
    with path.open("rb") as file:
        block = b"start"
        while block:
            block = file.read(BLOCK)
            held = len(decoder.getstate()[0])  # bytes of a character that the last block began
            try:
                decoder.decode(block, final=not block)
            except UnicodeError as error:  # without a place where UTF-16 lacks its mark
                place = getattr(error, "start", held) - held
                done, lines = done + place, lines + block.count(b"\n", 0, max(place, 0))
                break
            done, lines = done + len(block), lines + block.count(b"\n")
    return DataError(
        f"not {encoding} at byte {done} (line {lines})",
        str(path),
        "save it as UTF-8, or give data.source.encoding, e.g. latin-1 or cp1252",
    )
