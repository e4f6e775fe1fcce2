"""JSON as its standard defines it: a number that is NaN or infinite is written as null."""

import json
import math
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from litlab.utils.files import write_atomically
from litlab.utils.paths import not_a_file

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
