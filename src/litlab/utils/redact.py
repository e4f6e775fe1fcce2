"""Keeps passwords out of what is recorded and printed."""

import os
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, unquote

MARK = "***"
SHORTEST = 8  # characters of a password that is replaced wherever it stands: a word may be shorter
_WORDS = (
    r"(?:password|passwd|pass|pwd|token|secret|credentials?|auth|authorization|bearer"
    r"|api[_-]?key|access[_-]?key|private[_-]?key)"
)
_SCHEME = r"(?P<scheme>[a-z][\w+.-]{0,30}://)"  # without a limit, long texts take minutes
_NO_PORT = r"(?!\d{1,5}(?:[/\s]|$)|/)"  # after host: or a drive's letter
_ADDRESSES = [
    re.compile(_SCHEME + pattern, re.IGNORECASE)
    # To the last @ before the path: a password may hold one itself. A slash too, in user:password.
    for pattern in (r"(?P<who>[^/\s]+)@", rf"(?P<who>[^/\s@:]*:{_NO_PORT}\S*)@")
]
# A whole address, or an override that is one: the password may hold blanks.
_WHOLE = re.compile(
    rf"""^(?P<before>(?:[+~\w./@-]*=)?["']?){_SCHEME}(?P<who>[^/\s@:]*:{_NO_PORT}.*)@""",
    re.IGNORECASE,
)
_QUOTED = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\""""
_BEFORE = r"""(?:^|[\s?&;+~._,{(\['"-])"""
# A whole override (+store.token=x y): Hydra takes blanks without quotes.
_OVERRIDE = re.compile(
    rf"^(?P<name>[+~]*(?:[\w./@-]*[._-])?{_WORDS}=).+$", re.IGNORECASE | re.DOTALL
)
# In a query string (?token=x) or amid other text.
_ASSIGNED = re.compile(
    rf"""(?P<name>{_BEFORE}{_WORDS}=)(?!["']?\*{{3}})(?:{_QUOTED}|[^&;\s]+)""", re.IGNORECASE
)
# In a dictionary within an override, {token: x y}, where a value ends at a comma or a bracket.
_ENTRY = re.compile(
    rf"""(?P<name>{_BEFORE}{_WORDS}["']?\s*:\s*)(?:{_QUOTED}|[^\s,}}\]][^,}}\]\n]*)""",
    re.IGNORECASE,
)
_SECRET = re.compile(rf"(^|[_.-]){_WORDS}$", re.IGNORECASE)
_NO_SECRET = re.compile(r"(pad|mask|cls|class|sep|unk|bos|eos|pool)_token$", re.IGNORECASE)
_VARIABLE = re.compile(
    r"(?:password|passwd|passphrase|token|secret|(?:api|access|private|secret)_?key)$",
    re.IGNORECASE,
)
_remembered: set[str] = set()


def redact(value: Any, key: str = "") -> Any:
    """Return a copy with *** for credentials in URIs and for values under secret-sounding keys.

    Passwords of the environment and those that were remembered are replaced wherever they stand.
    """
    return _redact(value, key, _known())


def _redact(value: Any, key: str, known: list[str]) -> Any:
    if isinstance(value, dict):
        return {k: _redact(v, str(k), known) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_redact(item, key, known) for item in value]
    if not isinstance(value, str) or key == "_target_":
        return value
    if value and _is_secret(key):
        return MARK
    if "://" in value:
        value = _WHOLE.sub(rf"\g<before>\g<scheme>{MARK}@", _without_addresses(value))
    value = _without(value, known)
    for pattern in (_OVERRIDE, _ASSIGNED, _ENTRY):
        value = pattern.sub(rf"\g<name>{MARK}", value)
    return value


def redact_prose(text: str) -> str:
    """Return a sentence without credentials; `token: it is ...` in it is no assignment."""
    return _ASSIGNED.sub(rf"\g<name>{MARK}", redact_output(text))


def redact_output(text: str) -> str:
    """Return what a library prints without credentials of addresses and without known passwords."""
    return _without(_without_addresses(text), _known())


def redact_known(text: str) -> str:
    """Return a text without known passwords: a result, in which nothing else may be altered."""
    return _without(text, _known())


def remember(value: Any, key: str = "") -> None:
    """Know what is secret in a value from here on, to replace it wherever it turns up.

    Args:
        value: Settings with their names, or a text with addresses in it.
        key: The name of the setting.
    """
    if isinstance(value, dict):
        for name, inner in value.items():
            remember(inner, str(name))
    elif isinstance(value, list | tuple):
        for inner in value:
            remember(inner, key)
    elif isinstance(value, str):
        _remembered.update([value] if _is_secret(key) else _passwords(value))


def _is_secret(key: str) -> bool:
    return bool(_SECRET.search(key)) and not _NO_SECRET.search(key)


def credentials(address: str) -> tuple[str, str, str]:
    """Split an address into itself without credentials, user and password, as they are written."""
    for pattern in (*_ADDRESSES, _WHOLE):
        found = pattern.match(address)
        if found:
            user, _, password = found["who"].partition(":")
            return found["scheme"] + address[found.end() :], user, password
    return address, "", ""


def _known() -> list[str]:
    """Return the passwords that are known, longer ones first: one may hold another."""
    found = set(_remembered)
    for name in os.environ:
        value = os.environ.get(name, "")  # a thread of MLflow's removes one of its own meanwhile
        if _VARIABLE.search(name):
            found.add(value)
        if "://" in value:
            found.update(_passwords(value))
    spelt = {spelling for one in found for spelling in (one, unquote(one), quote(one, safe=""))}
    return sorted((one for one in spelt if len(one) >= SHORTEST), key=len, reverse=True)


def _passwords(text: str) -> Iterator[str]:
    if "://" not in text:
        return
    found = [match for pattern in _ADDRESSES for match in pattern.finditer(text)]
    for match in found or _WHOLE.finditer(text):
        user, colon, password = match["who"].partition(":")
        if colon:
            yield password
        elif match["scheme"].lower().startswith("http"):
            yield user  # a token may stand in its place; a database's user is no secret


def _without_addresses(text: str) -> str:
    for pattern in _ADDRESSES if "://" in text else ():
        text = pattern.sub(rf"\g<scheme>{MARK}@", text)
    return text


def _without(text: str, known: list[str]) -> str:
    for password in known:
        text = text.replace(password, MARK)
    return text


def redact_spec(content: dict[str, Any]) -> dict[str, Any]:
    """Return a data spec's content without credentials in where the data came from."""
    return {**content, **redact({key: content[key] for key in ("origin", "settings")})}
