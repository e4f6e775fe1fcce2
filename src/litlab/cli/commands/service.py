"""Verbs that look after the installation, the store and new projects."""

from pathlib import Path
from typing import Annotated

import typer

from litlab.cli.commands.common import print_json
from litlab.cli.options import Debug, Json


def selftest(json: Json = False, debug: Debug = False) -> None:
    """Test the installation on synthetic data: under a minute, no network."""
    from litlab.cli.selftest import selftest as run

    checks = run()
    if json:
        print_json(checks=[{"name": c.name, "ok": c.ok, "detail": c.detail} for c in checks])
    if not all(check.ok or check.optional for check in checks):
        raise typer.Exit(5)


def ui(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 5000,
    debug: Debug = False,
) -> None:
    """Serve MLflow's web pages of this project's runs, for this machine only."""
    from litlab.cli.ui import serve
    from litlab.runs.tracking.open_runs import close_runs_of
    from litlab.utils.paths import store_root

    store = f"sqlite:///{store_root() / 'mlflow.db'}"
    close_runs_of(store)
    serve(store, host, port)


def new(
    project: Annotated[Path, typer.Argument(help="Folder to create; its name is the project's.")],
    debug: Debug = False,
) -> None:
    """Make a small project of your own: conf/, src/, tests/, dvc.yaml, Makefile."""
    from litlab.cli.new_project import make_project

    make_project(project)
