"""Keeps passwords out of what is recorded."""

import re
from typing import Any

MARK = "***"
_WORDS = (
    r"(?:password|passwd|pass|pwd|token|secret|credentials?|auth|authorization|bearer"
    r"|api[_-]?key|access[_-]?key|private[_-]?key)"
)
# To the last @ before the path: a password may hold one itself.
_CREDENTIALS = re.compile(r"(?P<scheme>[a-z][\w+.-]*://)[^/\s]+@", re.IGNORECASE)
_QUOTED = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\""""
_BEFORE = r"""(?:^|[\s?&;+~._,{(\['"-])"""
# A whole override (+store.token=x y): Hydra takes blanks without quotes.
_OVERRIDE = re.compile(
    rf"^(?P<name>[+~]*(?:[\w./@-]*[._-])?{_WORDS}=).+$", re.IGNORECASE | re.DOTALL
)
# In a query string (?token=x) or amid other text.
_ASSIGNED = re.compile(rf"(?P<name>{_BEFORE}{_WORDS}=)(?:{_QUOTED}|[^&;\s]+)", re.IGNORECASE)
# In a dictionary within an override, {token: x y}, where a value ends at a comma or a bracket.
_ENTRY = re.compile(
    rf"""(?P<name>{_BEFORE}{_WORDS}["']?\s*:\s*)(?:{_QUOTED}|[^\s,}}\]][^,}}\]\n]*)""",
    re.IGNORECASE,
)
_SECRET = re.compile(rf"(^|[_.-]){_WORDS}$", re.IGNORECASE)
_NO_SECRET = re.compile(r"(pad|mask|cls|class|sep|unk|bos|eos|pool)_token$", re.IGNORECASE)


def redact(value: Any, key: str = "") -> Any:
    """Return a copy with *** for credentials in URIs and for values under secret-sounding keys."""
    if isinstance(value, dict):
        return {k: redact(v, str(k)) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [redact(item, key) for item in value]
    if isinstance(value, str):
        if value and _SECRET.search(key) and not _NO_SECRET.search(key):
            return MARK
        value = _CREDENTIALS.sub(rf"\g<scheme>{MARK}@", value)
        for pattern in (_OVERRIDE, _ASSIGNED, _ENTRY):
            value = pattern.sub(rf"\g<name>{MARK}", value)
        return value
    return value


def redact_spec(content: dict[str, Any]) -> dict[str, Any]:
    """Return a data spec's content without credentials in where the data came from."""
    return {**content, **redact({key: content[key] for key in ("origin", "settings")})}
