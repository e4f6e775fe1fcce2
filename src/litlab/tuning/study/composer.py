"""Trials' configurations without composing conf/ anew for each: a tenth of a second saved."""

import copy
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from litlab.config import compose as configuration
from litlab.config.schema import Config
from litlab.config.validate import check_config
from litlab.tuning.study.space import overrides, typed
from litlab.utils.paths import conf_folders

PLAIN = re.compile(r"[A-Za-z0-9_.\-]+|\[[A-Za-z0-9_.,\- ]*\]")


class Composer:
    """Composes once for each choice of groups, and puts the other values in place.

    A value that conf/ refers to, as in `${data.path}`, changes more than its own place: with such a
    path all is composed. The result is what `load` of litlab.config.compose returns, which the
    tests compare.

    Args:
        base: Overrides of the configuration that is tuned.
    """

    def __init__(self, base: Sequence[str]) -> None:
        self.base = list(base)
        self._composed: dict[tuple[str, ...], dict[str, Any]] = {}

    def __call__(self, values: Mapping[str, Any]) -> Config:
        """Return the checked configuration of a trial.

        Args:
            values: By dotted path, or by the name of a group.

        Raises:
            ConfigError: A path does not exist, or a value is not allowed there.
        """
        placed = {path: value for path, value in values.items() if self._can_be_put(path, value)}
        words = tuple(overrides(self.base, {p: v for p, v in values.items() if p not in placed}))
        if words not in self._composed:
            self._composed[words] = configuration.compose(words)
        content = copy.deepcopy(self._composed[words])
        if all(_put(content, path.split("."), typed(value)) for path, value in placed.items()):
            return check_config(content, origin="the command line and conf/")
        return configuration.load(overrides(self.base, values))  # which says what does not exist

    @cached_property
    def _references(self) -> list[str]:
        """What the files of conf/ refer to, and the command line."""
        files = [path for folder in conf_folders() for path in folder.rglob("*.yaml")]
        texts = [path.read_text(encoding="utf-8") for path in files]
        return re.findall(r"\$\{([^}]*)", "\n".join([*texts, *self.base]))

    def _can_be_put(self, path: str, value: Any) -> bool:
        return "." in path and _is_plain(value) and not self._is_referred_to(path)

    def _is_referred_to(self, path: str) -> bool:
        return any(
            name.startswith(".")
            or ":" in name
            or f"{path}.".startswith(f"{name}.")
            or name.startswith(f"{path}.")
            for name in self._references
        )


def _is_plain(value: Any) -> bool:
    """Whether a value is what it says: Hydra reads more into some texts."""
    return not isinstance(value, str) or PLAIN.fullmatch(value) is not None


def _put(content: Any, parts: Sequence[str], value: Any) -> bool:
    """Put a value where one is; return whether there is such a place."""
    for part in parts[:-1]:
        content = content.get(part) if isinstance(content, dict) else None
    if not isinstance(content, dict) or parts[-1] not in content:
        return False
    if isinstance(content[parts[-1]], dict):  # Hydra would merge into it
        return False
    content[parts[-1]] = value
    return True
