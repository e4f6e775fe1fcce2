"""Options that several verbs of the command line share."""

from pathlib import Path
from typing import Annotated

import typer

Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="OVERRIDES", help="e.g. model=mlp seed=1")
]
Params = Annotated[
    Path | None, typer.Option("--params", help="Read a resolved file instead of composing conf/.")
]
Json = Annotated[bool, typer.Option("--json", help="End with one line of JSON on standard output.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]
Resume = Annotated[
    bool, typer.Option("--resume", help="Resume the newest interrupted run of these settings.")
]
AllowChanges = Annotated[
    bool, typer.Option("--allow-changes", help="With --resume: allow settings that differ.")
]
OrStart = Annotated[
    bool,
    typer.Option("--resume-or-start", help="Resume if there is an interrupted run, else start."),
]
Out = Annotated[Path | None, typer.Option("--out", help="Folder to write to.")]
Prepared = Annotated[
    Path | None,
    typer.Option("--prepared", help="Folder of the prepared data, if not data/prepared/<name>."),
]
Run = Annotated[str, typer.Argument(metavar="RUN", help="Folder, name, MLflow id, .ckpt, or last.")]
Trust = Annotated[
    list[str] | None,
    typer.Option("--trust", help="A package of your own that the checkpoint may import."),
]
