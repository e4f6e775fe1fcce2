"""JSON as its standard defines it: a number that is NaN or infinite is written as null."""

import json
import math
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


def dumps(content: Any, **layout: Any) -> str:
    """Return plain values as JSON text; non-finite numbers become null.

    Args:
        content: Dictionaries, lists, texts, numbers, booleans and None.
        layout: Options of `json.dumps`, such as `indent`.
    """
    return json.dumps(_with_null(content), allow_nan=False, **layout)


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file, whole or not at all, and warn of values that became null."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(dumps(content, indent=2) + "\n")
    temporary.replace(path)
    names = list(dict.fromkeys(_non_finite(content)))
    if names:
        what = f"{path.name}: NaN or infinite, written as null: {', '.join(names)}"
        warnings.warn(what, stacklevel=2)


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
