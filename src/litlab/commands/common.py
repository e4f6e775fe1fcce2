"""What several verbs of the command line need."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from litlab.schema import Config


def load_config(overrides: list[str] | None, params: Path | None) -> "Config":
    """Read or compose a configuration, checked."""
    from litlab.config import load
    from litlab.output import use_plain_warnings

    use_plain_warnings()
    return load(overrides or [], params)


def trust_of_project(trust: list[str]) -> None:
    """Add the packages that this project's own configuration trusts."""
    from litlab.config import compose, read
    from litlab.output import use_plain_warnings
    from litlab.paths import find_project

    use_plain_warnings()
    root = find_project()
    if root is None:
        return
    path = root / "params.yaml"
    content = read(path) if path.is_file() else compose()
    trust.extend(package for package in content.get("trust") or [] if isinstance(package, str))


def print_json(**content: Any) -> None:
    """Print the one line that `--json` promises."""
    print(json.dumps(content))


def exit_if_unsent(all_sent: bool) -> None:
    """End with 7 where the tracking store did not take everything."""
    if not all_sent:
        from litlab.output import say

        say("warning: the tracking store did not take everything; the run's folder has it all")
        raise typer.Exit(7)
