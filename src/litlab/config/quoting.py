"""How to write an override whose value Hydra's grammar does not take as it stands."""

import os
import re
import shlex
from typing import Any

from litlab.config import menu
from litlab.utils.errors import ConfigError
from litlab.utils.output import command
from litlab.utils.redact import redact

USAGE = "overrides are key=value, +new_key=value, 'key=[1,2]'; see `litlab params --help`"

LISTED = ("augment", "metrics", "experiment")  # groups of which several choices may be taken


def explain(overrides: list[str]) -> ConfigError | None:
    """Return the refusal of the first override that cannot be read as one value, None if all can.

    The fix is the override in quotes, to be pasted into a shell; it is one that Hydra reads as the
    text that was typed.
    """
    for override in overrides:
        try:
            sweep = _parse(override).is_sweep_override()
        except Exception as error:  # of the grammar, and of the functions that a value may call
            return _unreadable(override, str(error))
        if sweep:
            key, value = _parts(override)
            if key in menu.groups():
                return _several_choices(key, value)
            what = "Ambiguous value: a list, or a text with commas"
            values = _if_it_is(key, f"[{_parts(redact(override))[1]}]")
            fixes = {"a list": values, "a text": quoted(override)}
            fix = "; ".join(f"{kind}: {typed}" for kind, typed in fixes.items() if typed)
            return ConfigError(what, override, fix)
    return None


def _several_choices(group: str, value: str) -> ConfigError:
    """Answer `model=mlp,cnn`: a command trains one of them."""
    names = [name.strip() for name in value.split(",")]
    if group in LISTED:
        what = f"several choices of {group} are a list"
        return ConfigError(what, f"{group}={value}", f"use '{group}=[{','.join(names)}]'")
    what = f"{group} takes one choice, not {len(names)}"
    if group not in ("model", "optimizer", "scheduler"):  # else a study cannot compare them
        return ConfigError(what, f"{group}={value}", "run the command once for each")
    search = command("tune", "study=quick", f"study.space.{group}=[{', '.join(names)}]")
    return ConfigError(what, f"{group}={value}", f"run the command once for each, or {search}")


def _unreadable(override: str, reason: str) -> ConfigError:
    if "=" not in override:
        return ConfigError("not of the form key=value", override, USAGE)
    fix = quoted(override)
    what, fix = "the value needs quotes", fix and f"quote it: {fix}"
    if not fix or override.partition("=")[2].startswith(("[", "{")):
        # It may hold a part of a password, which nothing tells from other text.
        secret = redact(override) != override
        lines = (line for line in reason.splitlines() if line.strip())
        what = "cannot be read" if secret else next(lines, "cannot be read")
        fix = f"close the bracket; or, if it is a text, {fix}" if fix else USAGE
    return ConfigError(what, override, fix)


def typed(override: str) -> str:
    """Return an override as it is typed in a shell, its value in quotes where Hydra needs them."""
    key, value = _parts(override)
    return _if_it_is(key, value) or quoted(override) or shlex.quote(override)


def quoted(override: str) -> str:
    """Return an override with its value in quotes, as typed in a shell, with passwords as ***.

    A leading ~ is the home folder: neither Hydra nor the shell takes it for that here. Empty where
    no quotes help.
    """
    key, value = _parts(override)
    if not _if_it_is(key, _in_quotes(value), value):
        return ""
    shown = _parts(redact(override))[1]
    return _if_it_is(key, _in_quotes(shown), shown)


def _parts(override: str) -> tuple[str, str]:
    key, _, value = override.partition("=")
    return key, os.path.expanduser(value) if value.startswith("~/") else value


def _in_quotes(value: str) -> str:
    """Return a value as a quoted text of Hydra's grammar."""
    mark = "'" if '"' in value and "'" not in value else '"'
    # Backslashes count only before a quote.
    escaped = re.sub(rf"(\\*){mark}", rf"\1\1\\{mark}", value)
    return mark + re.sub(r"(\\+)$", r"\1\1", escaped) + mark


def _if_it_is(key: str, value: str, meant: Any = None) -> str:
    """Return `key=value` for a shell, if Hydra reads it, and as what is meant if that is given."""
    override = f"{key}={value}"
    try:
        read = _parse(override)
    except Exception:
        return ""
    if read.is_sweep_override() or (meant is not None and read.value() != meant):
        return ""
    return shlex.quote(override)


def _parse(override: str) -> Any:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create().parse_override(override)
