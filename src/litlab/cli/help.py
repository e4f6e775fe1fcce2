"""Commands that take overrides: what can be configured, in `--help` and where it is mistyped."""

import re
from typing import Any

from typer.core import TyperCommand


class ConfigurableCommand(TyperCommand):
    """Lists the groups of conf/ with their choices, and the settings most often changed."""

    def get_help(self, ctx: Any) -> str:
        """Return the help without typer's name of the overrides' type."""
        return str(super().get_help(ctx)).replace("OVERRIDES <list[str]>", "OVERRIDES")

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write what follows the options."""
        from litlab.config import menu

        groups = menu.groups()
        if not groups:
            return
        with formatter.section("Configuration groups (GROUP=CHOICE)"):
            rows = [(g, ", ".join(_with_parts(g, n) for n in names)) for g, names in groups.items()]
            formatter.write_dl([row for row in rows if row[0] != "study"])
        values = menu.defaults()
        if values:
            with formatter.section("Settings most often changed, with their defaults"):
                meanings = menu.OFTEN_CHANGED
                formatter.write_dl([(f"{k}={_typed(v)}", meanings[k]) for k, v in values.items()])
        with formatter.section("Syntax"):
            formatter.write_text("model=cnn optimizer.lr=3e-4 'model.channels=[16,32]' +model.x=1")
            formatter.write_text("All settings with their values: litlab params --show [OVERRIDES]")


class StudyCommand(ConfigurableCommand):
    """Lists the studies too."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write what follows the options."""
        from litlab.config import menu

        studies = menu.groups().get("study", [])
        if studies:
            with formatter.section("Studies (study=NAME)"):
                formatter.write_dl([(s, menu.describe(f"study/{s}.yaml")) for s in studies])
        with formatter.section("Settings of a study (study.NAME=VALUE), with those of quick"):
            values = menu.read("study/quick.yaml")
            plain = {k: v for k, v in values.items() if not isinstance(v, dict | list)}
            named = {k: f"={_typed(plain[k])}" if k in plain else "" for k in menu.STUDY_SETTINGS}
            meanings = menu.STUDY_SETTINGS.items()
            formatter.write_dl([(f"study.{k}{named[k]}", meaning) for k, meaning in meanings])
        with formatter.section("Configuration"):
            formatter.write_text(
                "The groups and settings of `litlab train --help`: data=digits ..."
            )
            formatter.write_text("litlab tune study=quick data=digits model=mlp study.n_trials=40")


def _with_parts(group: str, name: str) -> str:
    """Return a choice, with the others that it is made of where it is made of nothing else."""
    from litlab.config import menu

    content = menu.read(f"{group}/{name}.yaml") if group == "augment" else {}
    parts = content.get("defaults") if list(content) == ["defaults"] else None
    return f"{name} (= {'+'.join(map(str, parts))})" if parts else name


def _typed(value: object) -> str:
    """Return a value as it is typed on the command line."""
    known = {None: "null", True: "true", False: "false"}
    return known[value] if value is None or isinstance(value, bool) else str(value)


def split_options(command: Any, arguments: list[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Return the overrides of a command line, and its unknown options as overrides.

    Args:
        command: The command, whose own options are left out.
        arguments: What follows its name.

    Returns:
        The overrides; for `--batch-size 32` the pair ("--batch-size 32", "batch_size=32").
    """
    takes_value = {
        name: not getattr(parameter, "is_flag", False)
        for parameter in command.params
        for name in parameter.opts
    }
    overrides: list[str] = []
    unknown: list[tuple[str, str]] = []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        follows = bool(rest) and re.fullmatch(r"-?[\d.]\S*|[^-=][^=]*", rest[0])
        if not word.startswith("-"):
            overrides.append(word)
        elif name not in (*takes_value, "-h", "--help"):
            typed = word
            if not equals and follows:
                value = rest.pop(0)
                typed += f" {value}"
            key = name.lstrip("-").replace("-", "_")
            unknown.append((typed, f"{key}={value}"))
        elif takes_value.get(name) and not equals and rest:
            rest.pop(0)
    return overrides, unknown
