"""Limits on YAML, JSON and overrides, checked before a few lines can fill memory or take hours.

Ten aliases of ten aliases, five levels deep, are 100,000 values; readers that call themselves for
each level of nesting end in a RecursionError. So the events of a file, a flat list, are counted
before anything is built from them.
"""

import re
from functools import cache
from pathlib import Path
from typing import Any

from litlab.utils.errors import ConfigError

MAX_BYTES = 2**20  # of a file; a whole configuration has about 3,000
MAX_VALUES = 20_000
MAX_DEPTH = 50
MAX_LENGTH = 2**16  # characters of one value
MAX_LISTED = 1000  # values of one override: Hydra's parser takes minutes for 5,000
# What constructors of YAML raise besides YAMLError, for `!!int x`, a 13th month, 5,000 digits.
UNREADABLE = (ValueError, KeyError, AttributeError, TypeError, OverflowError, RecursionError)


class _Collection:
    """A list or mapping that is being read.

    Args:
        anchor: Its name for aliases, if it has one.
        before: How many values there were before it.
        keys: The keys so far, of a mapping.
    """

    def __init__(self, anchor: str | None, before: int, keys: set[str] | None) -> None:
        self.anchor, self.before, self.keys = anchor, before, keys
        self.height, self.is_key = 0, True


def read_text(path: Path) -> str:
    """Return the text of a configuration file.

    Raises:
        ConfigError: It is too large, not UTF-8, or cannot be read.
    """
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            what = f"{size:,} bytes, too large for a configuration (at most {MAX_BYTES:,})"
            raise ConfigError(what, str(path), "name the right file")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"not valid YAML: {error}", str(path), "save it as UTF-8") from None
    except OSError as error:
        what = f"cannot be read: {error.strerror}"
        raise ConfigError(what, str(path), "check the file's permissions") from None


def check_yaml(text: str, where: str) -> None:
    """Refuse YAML that is nested too deeply, too large once its aliases are expanded, or ambiguous.

    Args:
        text: The YAML; syntax errors are left to who builds something from it.
        where: Its file or override, for the message.

    Raises:
        ConfigError: It is, or a key appears twice or is no plain value.
    """
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    counter = _Counter(where)
    try:
        for event in yaml.parse(text, Loader=loader):
            counter.add(event)
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(f"not valid YAML: {reason}", where, "correct the file") from None


class _Counter:
    """Counts values and levels over the events of a YAML text."""

    def __init__(self, where: str) -> None:
        self.where, self.values = where, 0
        self.open: list[_Collection] = []
        self.known: dict[str, tuple[int, int]] = {}  # values and levels of what has an anchor

    def add(self, event: Any) -> None:
        kind = type(event).__name__
        if kind in ("MappingStartEvent", "SequenceStartEvent"):
            self._begin(event, mapping=kind.startswith("M"))
        elif kind in ("MappingEndEvent", "SequenceEndEvent"):
            ended = self.open.pop()
            self._note(ended.anchor, self.values - ended.before, ended.height + 1)
        elif kind == "AliasEvent":
            if event.anchor not in self.known:
                self._refuse(
                    f"the alias '*{event.anchor}' is undefined, or refers to itself", event
                )
            values, height = self.known[event.anchor]
            self._count(values, len(self.open) + height, event)
            self._next_is_value(event, None)
            self._note(None, values, height)
        elif kind == "ScalarEvent":
            self._count(1, 0, event)
            if len(event.value) > MAX_LENGTH:
                self._refuse(f"a value of {len(event.value):,} characters", event)
            self._next_is_value(event, event.value)
            self._note(event.anchor, 1, 0)

    def _begin(self, event: Any, *, mapping: bool) -> None:
        self._next_is_value(event, None)
        self.open.append(_Collection(event.anchor, self.values, set() if mapping else None))
        self._count(1, len(self.open), event)

    def _count(self, values: int, depth: int, event: Any) -> None:
        self.values += values
        if depth > MAX_DEPTH:
            self._refuse(f"nested more than {MAX_DEPTH} levels deep", event)
        if self.values > MAX_VALUES:
            self._refuse(f"more than {MAX_VALUES:,} values, aliases (*name) expanded", event)

    def _note(self, anchor: str | None, values: int, height: int) -> None:
        if self.open:
            self.open[-1].height = max(self.open[-1].height, height)
        if anchor is not None:
            self.known[anchor] = (values, height)

    def _next_is_value(self, event: Any, key: str | None) -> None:
        """In a mapping keys and values take turns; a key is a word, and there once."""
        holder = self.open[-1] if self.open else None
        if holder is None or holder.keys is None:
            return
        if holder.is_key:
            if key is None:
                self._refuse("a key is a list, a mapping or an alias", event)
            elif key in holder.keys and key != "<<":
                self._refuse(f"the key '{key[:80]}' appears twice", event)
            else:
                holder.keys.add(key)
        holder.is_key = not holder.is_key

    def _refuse(self, what: str, event: Any) -> None:
        line = event.start_mark.line + 1
        fix = "correct or simplify it"
        raise ConfigError(f"{what} (line {line})", self.where, fix)


@cache
def _check_file(path: Path, size: int, changed: int) -> None:
    check_yaml(read_text(path), str(path))


def check_folder(folder: Path) -> None:
    """Check every YAML file of conf/; a file that did not change is read once.

    Raises:
        ConfigError: See `check_yaml`.
    """
    for path in sorted(folder.rglob("*.yaml")):
        if path.is_file():
            stat = path.stat()
            _check_file(path, stat.st_size, stat.st_mtime_ns)


def check_override(text: str) -> None:
    """Refuse an override that Hydra would need minutes for, or more levels than Python has.

    Raises:
        ConfigError: It is nested too deeply, or lists too many values.
    """
    bare = re.sub(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""", "", text)
    depth = deepest = 0
    for letter in bare:
        depth += (letter in "[{(") - (letter in "]})")
        deepest = max(deepest, depth)
    where, fix = text[:60] + "...", "simplify it, or move it into a file of conf/"
    if deepest > MAX_DEPTH:
        raise ConfigError(f"nested more than {MAX_DEPTH} levels deep", where, fix)
    if bare.count(",") >= MAX_LISTED:
        raise ConfigError(f"more than {MAX_LISTED:,} values in one override", where, fix)
