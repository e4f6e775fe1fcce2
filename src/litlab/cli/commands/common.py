"""What several verbs of the command line need."""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from litlab.utils.errors import ConfigError

if TYPE_CHECKING:
    from litlab.config.schema import Config


def load_config(overrides: list[str] | None, params: Path | None) -> "Config":
    """Read or compose a configuration, checked."""
    from litlab.config.compose import load
    from litlab.utils.output import use_plain_warnings

    use_plain_warnings()
    return load(overrides or [], params)


def trust_of_project(trust: list[str]) -> None:
    """Add the packages that this project's conf/config.yaml and its params.yaml trust."""
    from litlab.config.compose import compose, main_file, read
    from litlab.utils.output import use_plain_warnings
    from litlab.utils.paths import find_project

    use_plain_warnings()
    root = find_project()
    if root is None:
        return
    params = root / "params.yaml"
    contents = [main_file()]
    if params.is_file():
        contents.append(read(params))
    else:
        with suppress(ConfigError):  # a choice of conf/ may want a path; a trained network does not
            contents.append(compose())
    for content in contents:
        listed = content.get("trust")
        if isinstance(listed, list):
            trust.extend(package for package in listed if isinstance(package, str))


def print_json(**content: Any) -> None:
    """Print the one line that `--json` promises."""
    from litlab.utils.strict_json import dumps

    print(dumps(content))


def exit_if_unsent(all_sent: bool) -> None:
    """End with 7 where the tracking store did not take everything."""
    if not all_sent:
        from litlab.utils.output import say

        say("warning: some values did not reach the tracking store; the run's folder has all")
        raise typer.Exit(7)
