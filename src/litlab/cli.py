"""The door: one subcommand a verb. Nothing heavy is imported before a verb runs."""

import json
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from litlab import startup
from litlab.errors import ConfigError, LitlabError
from litlab.options import (
    AllowChanges,
    Debug,
    Json,
    OrStart,
    Out,
    Overrides,
    Params,
    Resume,
    Run,
    Trust,
)
from litlab.paths import short

if TYPE_CHECKING:
    from litlab.schema import Config

UsageError: Any = typer.BadParameter.__base__  # of the click that typer carries within it

app = typer.Typer(
    name="litlab",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Train neural networks with everything recorded: prepare, train, evaluate, predict.",
    epilog="Overrides are Hydra's: model=cnn optimizer.lr=3e-4 +model.x=1. Choices lie in conf/.",
)


@app.command()
def params(overrides: Overrides = None, debug: Debug = False) -> None:
    """Compose conf/ and the overrides into params.yaml, which `dvc repro` runs."""
    from litlab.config import write_params
    from litlab.output import say
    from litlab.paths import project_root

    path = project_root() / "params.yaml"
    config = write_params(overrides or [], path)
    say(f"wrote {short(path)} for {config.run_name}; `dvc repro` runs it")


@app.command()
def prepare(overrides: Overrides = None, params: Params = None, debug: Debug = False) -> None:
    """Read a source, check and split it, and write data/prepared/<name>/."""
    config = _load(overrides, params)
    from litlab.data.prepare import prepare as run
    from litlab.output import say
    from litlab.paths import prepared_folder

    folder = prepared_folder(config.data.name)
    spec = run(config.data, folder, config.trust)
    sizes = ", ".join(f"{size:,} {split}" for split, size in spec.sizes.items())
    say(f"prepared {spec.name}: {sizes} in {short(folder)}")


@app.command()
def preview(
    overrides: Overrides = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="PNG; reports/preview-<data>.png if left out.")
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Draw a training batch before and after augmentation, and the data's statistics."""
    config = _load(overrides, None)
    from litlab.output import say
    from litlab.preview import preview as look

    picture, statistics = look(config, out)
    if json:
        _print_json(picture=str(picture), statistics=statistics)
    say(f"wrote {short(picture)}, and its statistics in {short(picture.with_suffix('.json'))}")


@app.command()
def train(
    overrides: Overrides = None,
    params: Params = None,
    out: Out = None,
    resume: Resume = False,
    allow_changes: AllowChanges = False,
    resume_or_start: OrStart = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Train one model and record the run in MLflow and in runs/."""
    config = _load(overrides, params)
    from litlab.summary import show_training
    from litlab.train import Resume as Wish
    from litlab.train import train as run

    wish = Wish(allow_changes, resume_or_start) if resume or resume_or_start else None
    result = run(config, out, ["litlab", *sys.argv[1:]], wish)
    if json:
        _print_json(**result.facts())
    show_training(result, next_step=out is None)  # a pipeline's next stage evaluates by itself
    _exit_if_unsent(result.all_sent)


@app.command()
def cv(
    overrides: Overrides = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Cross-validate: train once a fold (data.num_folds=5), report mean and deviation."""
    config = _load(overrides, None)
    from litlab.crossval import cross_validate
    from litlab.output import console, number, table

    result = cross_validate(config, command=["litlab", *sys.argv[1:]])
    if json:
        _print_json(
            metrics={name: mean for name, (mean, _) in result.metrics.items()},
            deviations={name: deviation for name, (_, deviation) in result.metrics.items()},
            runs=[run.record.run_id for run in result.runs],
            seconds=sum(run.record.seconds for run in result.runs),
        )
    rows = {name: f"{number(m)} ± {number(d)}" for name, (m, d) in result.metrics.items()}
    title = f"{config.run_name}: {len(result.runs)} folds, mean ± standard deviation"
    console.print(table(title, rows))
    _exit_if_unsent(all(run.all_sent for run in result.runs))


@app.command()
def evaluate(
    run: Run = "last",
    out: Out = None,
    tta: Annotated[
        int, typer.Option("--tta", min=0, max=1000, help="Average over as many augmented views.")
    ] = 0,
    json: Json = False,
    trust: Trust = None,
    debug: Debug = False,
) -> None:
    """Measure a run on the test split, and write its report. Nothing else opens the test split."""
    _trust_of_project(trust := list(trust or []))
    from litlab.evaluate import evaluate as measure
    from litlab.output import number, say

    result = measure(run, out, trust, tta)
    if json:
        _print_json(
            run_id=result.record.run_id,
            checkpoint=str(result.found.checkpoint),
            metrics={f"test/{name}": value for name, value in result.metrics.items()},
            seconds=result.record.seconds,
            report=str(result.folder / "report.html"),
        )
    values = "  ".join(f"test/{name} {number(value)}" for name, value in result.metrics.items())
    say(f"{result.record.run_name}: {values}")
    say(f"report: {short(result.folder / 'report.html')}; `litlab report` shows it all again")
    _exit_if_unsent(result.all_sent)


@app.command()
def report(
    run: Annotated[
        str | None,
        typer.Argument(metavar="[RUN]", help="As for evaluate; the latest evaluation if left out."),
    ] = None,
    debug: Debug = False,
) -> None:
    """Show an evaluated run's test metrics, and where its report, checkpoint and record are."""
    from litlab.paths import results_folder
    from litlab.run_folder import find, latest_results
    from litlab.summary import show_summary

    show_summary(latest_results() if run is None else results_folder(find(run).folder))


@app.command()
def predict(
    run: Run,
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="File or folder of new data.")],
    out: Annotated[Path, typer.Option("-o", "--out", help=".csv, .jsonl or .parquet")],
    resize: Annotated[bool, typer.Option("--resize", help="Resize images that differ.")] = False,
    trust: Trust = None,
    debug: Debug = False,
) -> None:
    """Label new data with a trained network."""
    _trust_of_project(trust := list(trust or []))
    from litlab.output import say
    from litlab.predict import predict as label

    say(f"wrote {label(run, source, out, resize=resize, trust=trust):,} predictions to {out}")


@app.command()
def generate(
    run: Run = "last",
    prompt: Annotated[str, typer.Option(help="What the text begins with.")] = "",
    max_tokens: Annotated[int, typer.Option(help="How many tokens to write.")] = 500,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token.")] = 1.0,
    top_k: Annotated[int | None, typer.Option(help="Draw among the k likeliest.")] = None,
    top_p: Annotated[float, typer.Option(help="Draw among those that make up this share.")] = 1.0,
    seed: Annotated[int, typer.Option(help="The same gives the same text.")] = 0,
    trust: Trust = None,
    debug: Debug = False,
) -> None:
    """Let a language model write on."""
    _trust_of_project(trust := list(trust or []))
    from litlab.generate import generate as write

    settings: dict[str, Any] = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
    print(write(run, prompt, max_tokens=max_tokens, seed=seed, trust=trust, **settings))


@app.command()
def selftest(json: Json = False, debug: Debug = False) -> None:
    """Try everything on made-up data in a temporary folder: under a minute, no network."""
    from litlab.selftest import selftest as run

    checks = run()
    if json:
        _print_json(checks=[{"name": c.name, "ok": c.ok, "detail": c.detail} for c in checks])
    if not all(check.ok or check.optional for check in checks):
        raise typer.Exit(5)


@app.command()
def ui(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 5000,
    debug: Debug = False,
) -> None:
    """Open MLflow's pages on this project's runs, for this machine only."""
    import subprocess

    from litlab.paths import store_root

    store = f"sqlite:///{store_root() / 'mlflow.db'}"
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", store]
    raise typer.Exit(subprocess.call([*command, "--host", host, "--port", str(port)]))


def _load(overrides: list[str] | None, params: Path | None) -> "Config":
    from litlab.config import load
    from litlab.output import use_plain_warnings

    use_plain_warnings()
    return load(overrides or [], params)


def _trust_of_project(trust: list[str]) -> None:
    """Add the packages that this project's own configuration trusts."""
    from litlab.config import compose, read
    from litlab.output import use_plain_warnings
    from litlab.paths import project_root

    use_plain_warnings()
    path = project_root() / "params.yaml"
    content = read(path) if path.is_file() else compose()
    trust.extend(package for package in content.get("trust") or [] if isinstance(package, str))


def _print_json(**content: Any) -> None:
    print(json.dumps(content))


def _exit_if_unsent(all_sent: bool) -> None:
    if not all_sent:
        from litlab.output import say

        say("warning: the tracking store did not take everything; the run's folder has it all")
        raise typer.Exit(7)


def main() -> NoReturn:
    """Run the command line; a user's failure is one line and its exit code, a bug a traceback."""
    startup.begin()
    try:
        code = app(prog_name="litlab", standalone_mode=False)
        if code == 130:  # typer's own answer to Ctrl-C, which says nothing
            raise KeyboardInterrupt
    except LitlabError as error:
        if "--debug" in sys.argv:
            traceback.print_exc()
        print(error, file=sys.stderr)
        code = error.exit_code
    except UsageError as error:
        where = error.ctx.command_path if error.ctx else "litlab"
        fault = ConfigError(error.format_message(), where, f"see `{where} --help`")
        print(fault, file=sys.stderr)
        code = 2
    except (KeyboardInterrupt, typer.Abort):
        print("error: stopped by Ctrl-C | litlab | run it again", file=sys.stderr)
        code = 130
    sys.exit(code or 0)
