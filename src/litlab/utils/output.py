"""What a person reads: everything but results goes to standard error."""

import shlex
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sized
from pathlib import Path
from typing import Any, TypeVar

from rich.cells import cell_len
from rich.console import Console
from rich.progress import Progress
from rich.text import Text

from litlab.utils.redact import redact_known, redact_output, remember
from litlab.utils.signals import detach

T = TypeVar("T", bound=Sized)
U = TypeVar("U")
QUIET_SECONDS = 5.0  # between two lines of progress where there is no terminal


class _Console(Console):
    """Goes quiet when its terminal or its `| tee` has gone: that must not end a training."""

    def on_broken_pipe(self) -> None:
        """Leave out what rich does: it ends the program."""
        detach()

    def print(self, *objects: Any, **settings: Any) -> None:
        """Write to the terminal; a closed one is not an error."""
        try:
            super().print(*objects, **settings)
        except OSError:
            detach()


console = _Console(stderr=True, highlight=False, soft_wrap=True)


def command(*words: str | Path, trust: Iterable[str] = ()) -> str:
    """Return a litlab command line as a shell takes it, whatever its words hold.

    Args:
        words: The verb and its arguments.
        trust: Packages of the user's own that the command has to be told to trust. A checkpoint
            cannot extend that list, so what uses one needs them on its command line.
    """
    options = [word for package in trust for word in ("--trust", package)]
    return shlex.join(["litlab", *map(str, words), *options])


class _RedactedStream:
    """A text stream that passes everything on, without passwords."""

    def __init__(self, stream: Any, redacted: Callable[[str], str]) -> None:
        self._stream, self._redacted = stream, redacted

    def write(self, text: str) -> int:
        self._stream.write(self._redacted(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __iter__(self) -> Iterator[str]:
        return iter(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def redact_streams(arguments: Iterable[str] = ()) -> None:
    """Keep passwords out of what this process prints, libraries and tracebacks included.

    Standard output holds results: only passwords that are known are replaced in it.

    Args:
        arguments: The command line, whose passwords are known from here on.
    """
    remember(list(arguments))
    if not isinstance(sys.stderr, _RedactedStream):
        sys.stderr = _RedactedStream(sys.stderr, redact_output)
    if not isinstance(sys.stdout, _RedactedStream):
        sys.stdout = _RedactedStream(sys.stdout, redact_known)


def say(text: str) -> None:
    """Write one line for a person."""
    console.print(text, markup=False)


def show_warning(message: Warning | str, *_: object, **__: object) -> None:
    """Write a warning as one line, without a source line in the user's face."""
    text = " ".join(str(message).split())
    console.print(f"warning: {text}", style="yellow", markup=False)


def use_plain_warnings() -> None:
    """Show warnings of our own as one line; leave libraries' deprecation notes to developers."""
    warnings.showwarning = show_warning
    for category in (DeprecationWarning, FutureWarning, PendingDeprecationWarning):
        warnings.simplefilter("ignore", category)


def table(title: str, rows: dict[str, str]) -> Text:
    """Return two columns under a title; a line ends with its value, ready to be copied."""
    width = max(map(cell_len, rows), default=0)
    made = Text().append(title, "italic")
    for name, value in rows.items():
        made.append(f"\n{name}", "bold").append(f"{' ' * (width - cell_len(name))}  {value}")
    return made


def nth_epoch(epoch: int) -> int:
    """Return an epoch as people count, from 1; files and MLflow count from 0."""
    return epoch + 1


def one_line(text: str) -> str:
    """Return a text that may come from a file as one line without control characters.

    It can neither end a comment or a message, nor move a terminal's cursor.
    """
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def counted(count: int, what: str) -> str:
    """Return a count with its noun: 1 epoch, 2 epochs."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def number(value: float) -> str:
    """Return a number to four significant digits."""
    return f"{value:.4g}"


def track(pieces: Iterable[tuple[T, U]], total: int, doing: str) -> Iterator[tuple[T, U]]:
    """Pass pieces on, whose first halves have lengths, and show how much of `total` is done.

    A bar on a terminal, else a line every few seconds: nothing for what is quick.
    """
    if console.is_terminal and not console.quiet:
        with Progress(console=console, transient=True) as bar:
            task = bar.add_task(doing, total=total)
            for piece in pieces:
                yield piece
                bar.advance(task, len(piece[0]))
        return
    done, said = 0, time.monotonic()
    for piece in pieces:
        yield piece
        done += len(piece[0])
        if time.monotonic() - said > QUIET_SECONDS:
            said = time.monotonic()
            say(f"{doing}: {done:,} of {total:,}")
