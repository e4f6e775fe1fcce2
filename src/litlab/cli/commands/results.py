"""Verbs that use a trained network."""

from pathlib import Path
from typing import Annotated, Any

import typer

from litlab.cli.commands.common import exit_if_unsent, print_json, trust_of_project
from litlab.cli.options import Debug, Json, Out, Run, Trust
from litlab.utils.paths import short


def evaluate(
    run: Run = "last",
    out: Out = None,
    tta: Annotated[
        int,
        typer.Option(
            "--tta", min=0, max=1000, help="Average the predictions over this many augmented views."
        ),
    ] = 0,
    json: Json = False,
    trust: Trust = None,
    debug: Debug = False,
) -> None:
    """Evaluate a run on the test split and write its report; nothing else reads that split."""
    trust_of_project(trust := list(trust or []))
    from litlab.cli.summary import listed_thresholds
    from litlab.evaluation.evaluate import evaluate as measure
    from litlab.runs.folder import is_latest
    from litlab.utils.output import number, say

    result = measure(run, out, trust, tta)
    if json:
        print_json(
            run_id=result.record.run_id,
            checkpoint=str(result.found.checkpoint),
            metrics={f"test/{name}": value for name, value in result.metrics.items()},
            seconds=result.record.seconds,
            report=str(result.folder / "report.html"),
            **({"thresholds": result.thresholds} if result.thresholds else {}),
        )
    values = "  ".join(f"test/{name} {number(value)}" for name, value in result.metrics.items())
    say(f"{result.record.run_name}: {values}")
    if result.thresholds:
        say(f"thresholds, chosen on validation: {listed_thresholds(result.thresholds)}")
    again = "; `litlab report` shows it again" if is_latest(result.folder) else ""
    say(f"report: {short(result.folder / 'report.html')}{again}")
    exit_if_unsent(result.all_sent)


def report(
    run: Annotated[
        str | None,
        typer.Argument(metavar="[RUN]", help="As for evaluate (default: the latest evaluation)."),
    ] = None,
    debug: Debug = False,
) -> None:
    """Show an evaluated run's test metrics, and where its report, checkpoint and record are."""
    from litlab.cli.summary import show_summary
    from litlab.runs.folder import find, latest_results
    from litlab.utils.paths import results_folder

    show_summary(latest_results() if run is None else results_folder(find(run).folder))


def predict(
    run: Run,
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="File or folder of new data.")],
    out: Annotated[
        Path | None,
        typer.Option(
            "-o", "--out", help=".csv, .jsonl or .parquet (default: INPUT-predictions.csv)."
        ),
    ] = None,
    resize: Annotated[
        bool, typer.Option("--resize", help="Resize images of another size.")
    ] = False,
    trust: Trust = None,
    debug: Debug = False,
) -> None:
    """Predict new data with a trained network."""
    trust_of_project(trust := list(trust or []))
    from litlab.evaluation.predict import predict as label
    from litlab.utils.output import say

    out = out or Path(f"{source.absolute().stem}-predictions.csv")
    say(f"wrote {label(run, source, out, resize=resize, trust=trust):,} predictions to {out}")


def generate(
    run: Run = "last",
    prompt: Annotated[str, typer.Option(help="Text to start from.")] = "",
    max_tokens: Annotated[int, typer.Option(help="Number of tokens to generate.")] = 500,
    temperature: Annotated[float, typer.Option(help="0: always the most likely token.")] = 1.0,
    top_k: Annotated[int | None, typer.Option(help="Sample from the k most likely tokens.")] = None,
    top_p: Annotated[
        float, typer.Option(help="Sample from the most likely tokens of this total probability.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    trust: Trust = None,
    debug: Debug = False,
) -> None:
    """Generate text with a language model."""
    trust_of_project(trust := list(trust or []))
    from litlab.evaluation.language_model import generate as write

    settings: dict[str, Any] = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
    print(write(run, prompt, max_tokens=max_tokens, seed=seed, trust=trust, **settings))
