"""Keeps passwords out of what is recorded."""

import re
from typing import Any

_CREDENTIALS = re.compile(r"(?P<scheme>[a-z][\w+.-]*://)[^/\s@]+@", re.IGNORECASE)
_SECRET = re.compile(r"(^|[_.-])(password|passwd|token|secret|api[_-]?key)$", re.IGNORECASE)


def redact(value: Any, key: str = "") -> Any:
    """Return a copy with *** for credentials in URIs and for values under secret-sounding keys."""
    if isinstance(value, dict):
        return {k: redact(v, str(k)) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [redact(item, key) for item in value]
    if isinstance(value, str):
        if value and _SECRET.search(key):
            return "***"
        return _CREDENTIALS.sub(r"\g<scheme>***@", value)
    return value
