"""One subcommand per verb. Nothing heavy is imported before a verb runs."""

import re
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated, Any, NoReturn

import typer

from litlab.cli.commands import data, results, service, training, tuning
from litlab.cli.help import ConfigurableCommand, StudyCommand, split_options
from litlab.utils import startup
from litlab.utils.errors import ConfigError, LitlabError, fault_of
from litlab.utils.output import redact_streams
from litlab.utils.signals import CommandSignals, detach

UsageError: Any = typer.BadParameter.__base__  # of the click that typer carries within it

app = typer.Typer(
    name="litlab",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Train neural networks with everything recorded: prepare, train, evaluate, predict.",
    epilog="Overrides are Hydra's: model=cnn optimizer.lr=3e-4 +model.x=1. Choices are in conf/.",
)
VERBS = (
    data.params,
    data.inspect,
    data.prepare,
    data.preview,
    training.train,
    training.cv,
    training.replay,
    tuning.tune,
    results.evaluate,
    results.report,
    results.predict,
    results.generate,
    service.selftest,
    service.ui,
    service.new,
)
CONFIGURED = (data.params, data.prepare, data.preview, training.train, training.cv)
for _verb in VERBS:
    _class = StudyCommand if _verb is tuning.tune else ConfigurableCommand
    app.command(
        cls=_class if _verb in (*CONFIGURED, tuning.tune) else None,
        short_help=(_verb.__doc__ or "").split("\n")[0],  # else it is cut to fit one line
    )(_verb)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            print(f"litlab {version('litlab')}")
        except PackageNotFoundError:  # `python src/litlab` in a checkout
            print("litlab, not installed")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Options of litlab itself; its verbs have their own."""


def main() -> NoReturn:
    """Run the command line; a user's failure is one line and its exit code, a bug a traceback."""
    startup.begin()
    redact_streams(sys.argv)
    if len(sys.argv) == 1:  # typer would raise an error whose text is the whole help
        sys.argv.append("--help")
    try:
        with CommandSignals():
            code = app(prog_name="litlab", standalone_mode=False)
        if code == 130:  # typer's own answer to Ctrl-C, which says nothing
            raise KeyboardInterrupt
    except LitlabError as error:
        code = _show(error)
    except OSError as error:
        refused = fault_of(error)
        if refused is None:
            raise
        code = _show(refused)
    except UsageError as error:
        code = _show(_usage(error))
    except (KeyboardInterrupt, typer.Abort):
        _print("error: stopped by Ctrl-C | litlab | run it again")
        code = 130
    sys.exit(code or 0)


def _usage(error: Any) -> LitlabError:
    """Explain a command line that typer refuses; `--lr 1e-3` is answered with the setting."""
    where = error.ctx.command_path if error.ctx else "litlab"
    if isinstance(getattr(error.ctx, "command", None), ConfigurableCommand):
        from litlab.config import compose, menu, suggestions

        overrides, unknown = split_options(error.ctx.command, sys.argv[2:])
        of_study: dict[str, Any] = {}
        if isinstance(error.ctx.command, StudyCommand):  # `study.NAME` are settings of it alone
            overrides = [o for o in overrides if not re.match(r"[+~]*study[.=]", o)]
            of_study["study"] = dict.fromkeys(menu.STUDY_SETTINGS)

        def outline(typed: Sequence[str] = ()) -> dict[str, Any]:
            return {**compose.outline(typed), **of_study}

        with suppress(LitlabError):  # in no project
            meant = unknown and suggestions.explain(overrides, outline, unknown)
            if meant and meant.fix.startswith("use "):
                return meant
    return ConfigError(error.format_message(), where, f"see `{where} --help`")


def _print(error: object) -> None:
    try:
        print(error, file=sys.stderr, flush=True)
    except OSError:  # the terminal is closed; the exit code still has to be right
        detach()


def _show(error: LitlabError) -> int:
    """Print the one line of a failure, with `--debug` what led to it; return its exit code."""
    if "--debug" in sys.argv:
        traceback.print_exc()
    _print(error)
    return error.exit_code
