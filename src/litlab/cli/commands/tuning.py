"""The verb that searches for better settings."""

from dataclasses import asdict
from typing import Annotated

import typer

from litlab.cli.commands.common import print_json
from litlab.cli.options import Debug, Json, Overrides
from litlab.utils.paths import short

Join = Annotated[
    bool,
    typer.Option("--join", help="Run trials of a study started on another machine (PostgreSQL)."),
]

RenameExisting = Annotated[
    bool,
    typer.Option(
        "--rename-existing", help="Rename an existing study of that name with other settings."
    ),
]


def tune(
    overrides: Overrides = None,
    join: Join = False,
    rename_existing: RenameExisting = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Search for better settings: study=NAME of conf/study. Run it again to resume."""
    from litlab.tuning.study.settings import load_settings
    from litlab.utils.output import say, use_plain_warnings

    use_plain_warnings()
    settings, base = load_settings(overrides or [])
    from litlab.cli.summary import show_study
    from litlab.tuning.run import help_study, run_study

    if join:
        helped = help_study(settings, base)
        say(f"{helped} trials run here; the command without --join completes the study")
        if json:
            print_json(study=settings.name, trained=helped)
        return
    study = run_study(settings, base, rename_existing=rename_existing)
    experiment, page = short(study.experiment), short(study.page)
    if json:
        print_json(**asdict(study.outcome), experiment=experiment, report=page)
    show_study(study.outcome, study.monitor, experiment, page, study.next_command)
