"""Files that are whole or not there, whenever the process or the machine dies."""

import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

Content = str | bytes | Callable[[BinaryIO], object]


def write_atomically(
    path: Path, content: Content, *, previous: Path | None = None, flush: bool = True
) -> None:
    """Write a file beside its name, flush it to the disk, then rename it.

    Args:
        path: Where to, in a folder that exists.
        content: Text (as UTF-8), bytes, or what writes them into the open file.
        previous: Keeps the file that was there until the next one takes its place, if given.
        flush: Whether the file must outlast a power failure; takes some milliseconds.

    Raises:
        OSError: It cannot be written; what was there before still is. Its `filename` is `path`.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        try:
            with temporary.open("xb+") as file:
                if callable(content):
                    content(file)
                else:
                    file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                if flush:
                    os.fsync(file.fileno())
            if flush:
                sync_folder(path.parent)
            if previous is not None and path.exists():
                _keep(path, previous)
            temporary.replace(path)
            if flush:
                sync_folder(path.parent)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        error.filename = str(path)  # which the system does not give where a disk is full
        raise


def _keep(path: Path, previous: Path) -> None:
    """Let a second name hold the old file; `path` itself is never missing."""
    beside = previous.with_name(f".{previous.name}.link.tmp")
    beside.unlink(missing_ok=True)
    try:
        os.link(path, beside)
    except OSError:  # a file system without hard links
        path.replace(previous)
        return
    beside.replace(previous)


def sync_folder(folder: Path) -> None:
    """Flush a folder's names to the disk, where the system can."""
    with suppress(OSError):  # some network file systems cannot, and need not; Windows neither
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
