"""Refuses settings of a source that would be accepted and ignored."""

import inspect
from collections.abc import Callable, Iterable, Mapping

from litlab.utils.errors import ConfigError


def refuse_unused(
    constructor: Callable[..., object], given: Mapping[str, object], names: Iterable[str], why: str
) -> None:
    """Refuse the first of these settings that is not at its default.

    Args:
        constructor: The source's class; its signature has the defaults.
        given: The settings by name.
        names: Those that have no effect here.
        why: The reason, in a few words.

    Raises:
        ConfigError: One of them was set.
    """
    parameters = inspect.signature(constructor).parameters
    for name in names:
        if given[name] != parameters[name].default:
            setting = f"data.source.{name}"
            raise ConfigError(f"{setting} has no effect: {why}", setting, "leave it out")
