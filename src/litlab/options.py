"""Options that several verbs of the command line share."""

from pathlib import Path
from typing import Annotated

import typer

Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[OVERRIDES]...", help="e.g. model=mlp seed=1")
]
Params = Annotated[
    Path | None, typer.Option("--params", help="Read a resolved file instead of composing conf/.")
]
Json = Annotated[bool, typer.Option("--json", help="End with one line of JSON on standard output.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]
Out = Annotated[Path | None, typer.Option("--out", help="Folder to write to.")]
Run = Annotated[str, typer.Argument(metavar="RUN", help="Folder, name, MLflow id, .ckpt, or last.")]
Trust = Annotated[
    list[str] | None, typer.Option("--trust", help="A package of yours the checkpoint may name.")
]
