"""Files that are whole or not there, whenever the process or the machine dies."""

import json
import math
import os
import secrets
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from litlab.utils.paths import not_a_file

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


# JSON as its standard defines it: a number that is NaN or infinite is written as null.


MAX_BYTES = 2**24  # of a file that litlab itself wrote


def dumps(content: Any, **layout: Any) -> str:
    """Return plain values as JSON text; non-finite numbers become null.

    Args:
        content: Dictionaries, lists, texts, numbers, booleans and None.
        layout: Options of `json.dumps`, such as `indent`.
    """
    return json.dumps(_with_null(content), allow_nan=False, **layout)


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file, whole or not at all, and warn of values that became null."""
    write_atomically(path, dumps(content, indent=2) + "\n")
    names = list(dict.fromkeys(_non_finite(content)))
    if names:
        what = f"{path.name}: NaN or infinite, written as null: {', '.join(names)}"
        warnings.warn(what, stacklevel=2)


def parse_json(text: str | bytes) -> Any:
    """Return what JSON says.

    Raises:
        ValueError: It is not JSON, or nested more deeply than can be read.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_json(path: Path) -> Any:
    """Return the content of a small JSON file, one that litlab itself writes.

    Raises:
        OSError: It cannot be read, or is a pipe or device, which might never end.
        ValueError: It is not JSON, or too large to be one of litlab's.
    """
    found = not_a_file(path)
    if found:
        raise OSError(f"{path.name} is {found}, not a file")
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise ValueError(f"{path.name} has {size:,} bytes, which is too large")
    return parse_json(path.read_bytes())


def _with_null(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _with_null(inner) for key, inner in value.items()}
    return [_with_null(inner) for inner in value] if isinstance(value, list | tuple) else value


def _non_finite(value: Any, name: str = "") -> Iterator[str]:
    """Yield the keys of numbers that are not finite, such as `test.auroc`."""
    if isinstance(value, float) and not math.isfinite(value):
        yield name
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _non_finite(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _non_finite(inner, name)
