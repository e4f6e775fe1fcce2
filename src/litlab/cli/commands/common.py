"""What several verbs of the command line need."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from litlab.config.schema import Config


def load_config(overrides: list[str] | None, params: Path | None) -> "Config":
    """Read or compose a configuration, checked."""
    from litlab.config.compose import load
    from litlab.utils.output import use_plain_warnings

    use_plain_warnings()
    return load(overrides or [], params)


def trust_of_project(trust: list[str]) -> None:
    """Add the packages that this project's main files in conf/ and its params.yaml trust."""
    from litlab.config.compose import trusted_packages
    from litlab.utils.output import use_plain_warnings

    use_plain_warnings()
    trust[:] = trusted_packages(trust)


def print_json(**content: Any) -> None:
    """Print the one line that `--json` promises."""
    from litlab.utils.files import dumps

    print(dumps(content))


def exit_if_unsent(all_sent: bool) -> None:
    """End with 7 where the tracking store did not take everything."""
    if not all_sent:
        from litlab.utils.output import say

        say("warning: some values did not reach the tracking store; the run's folder has all")
        raise typer.Exit(7)
