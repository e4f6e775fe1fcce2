"""Verbs that train."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from litlab.cli.commands.common import exit_if_unsent, load_config, print_json, trust_of_project
from litlab.cli.options import (
    AllowChanges,
    Debug,
    Json,
    OrStart,
    Out,
    Overrides,
    Params,
    Prepared,
    Resume,
    Trust,
)
from litlab.utils.paths import short


def train(
    overrides: Overrides = None,
    params: Params = None,
    out: Out = None,
    prepared: Prepared = None,
    resume: Resume = False,
    allow_changes: AllowChanges = False,
    resume_or_start: OrStart = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Train one model and record the run in MLflow and in runs/."""
    config = load_config(overrides, params)
    from litlab.cli.summary import show_training
    from litlab.distributed.launch import is_first_process
    from litlab.runs.checkpoint.resume import Resume as ResumeSettings
    from litlab.training.dvc_stage import stop_with_dvc
    from litlab.training.run import train as run

    if is_first_process():  # the others end with it
        stop_with_dvc()
    how = ResumeSettings(allow_changes, resume_or_start) if resume or resume_or_start else None
    result = run(config, out, ["litlab", *sys.argv[1:]], how, prepared=prepared)
    if json:
        print_json(**result.facts())
    # A pipeline's next stage evaluates by itself.
    show_training(result, next_step=out is None and result.can_evaluate)
    exit_if_unsent(result.all_sent)


def cv(
    overrides: Overrides = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Cross-validate: train once per fold (data.num_folds=5), report mean and deviation."""
    config = load_config(overrides, None)
    from litlab.training.crossval import cross_validate
    from litlab.utils.output import console, number, say, table

    result = cross_validate(config, command=["litlab", *sys.argv[1:]])
    if json:
        print_json(
            metrics={name: mean for name, (mean, _) in result.metrics.items()},
            deviations={name: deviation for name, (_, deviation) in result.metrics.items()},
            runs=[run.record.run_id for run in result.runs],
            seconds=sum(run.record.seconds for run in result.runs),
        )
    rows = {name: f"{number(m)} ± {number(d)}" for name, (m, d) in result.metrics.items()}
    rows |= {
        f"fold {fold}": f"run {run.id} in {short(run.folder)}"
        for fold, run in enumerate(result.runs, start=1)
    }
    title = f"{config.run_name}: {len(result.runs)} folds, mean ± standard deviation"
    console.print(table(title, rows))
    say("next: litlab ui, to compare the folds; litlab train without folds, for one network")
    exit_if_unsent(all(run.all_sent for run in result.runs))


def replay(
    path: Annotated[
        Path,
        typer.Argument(metavar="RUN|STEP", help="The folder of a run, or its failed-step.ckpt."),
    ],
    json: Json = False,
    trust: Trust = None,
    debug: Debug = False,
) -> None:
    """Repeat the step in which a run failed with NaN, and show where the NaN appears first."""
    trust_of_project(trust := list(trust or []))
    from litlab.cli.summary import show_replay
    from litlab.training.replay import replay as run

    result = run(path, trust)
    if json:
        facts = {**asdict(result), "loss": str(result.loss)}  # JSON has no NaN
        print_json(**facts, reproduced=result.reproduced)
    show_replay(result)
    if not result.reproduced:
        raise typer.Exit(8)
