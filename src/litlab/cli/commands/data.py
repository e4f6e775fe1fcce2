"""What comes before training: the configuration and the data."""

import os
from pathlib import Path
from typing import Annotated

import typer

from litlab.cli.commands.common import load_config, print_json
from litlab.cli.options import Debug, Json, Out, Overrides, Params
from litlab.utils.paths import short


def params(
    overrides: Overrides = None,
    show: Annotated[
        bool, typer.Option("--show", help="Print all settings instead of writing them.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Compose conf/ and the overrides into params.yaml, which `dvc repro` runs."""
    if show:
        from litlab.config.compose import dump
        from litlab.utils.redact import redact

        print(dump(redact(load_config(overrides, None).model_dump(mode="json"))), end="")
        return
    from litlab.config.compose import write_params
    from litlab.utils.output import say
    from litlab.utils.paths import project_root, seen_by_dvc

    path = project_root() / "params.yaml"
    config = write_params(overrides or [], path)
    if config.data.path is not None and not seen_by_dvc(config.data.path):
        say(
            f"warning: data.path={config.data.path} lies outside data/raw: `dvc repro` does not "
            "notice when it changes; move it there, or run `dvc repro --force` after a change"
        )
    say(f"wrote {short(path)} for {config.run_name}; `dvc repro` runs it")


def prepare(
    overrides: Overrides = None, params: Params = None, out: Out = None, debug: Debug = False
) -> None:
    """Read a source, check and split it, and write data/prepared/<name>/ (or --out)."""
    config = load_config(overrides, params)
    from litlab.data.prepare.prepare import prepare as run
    from litlab.utils.output import say
    from litlab.utils.paths import prepared_folder

    folder = Path(os.path.abspath(out)) if out else prepared_folder(config.data.name)
    spec = run(config.data, folder, config.trust)
    sizes = ", ".join(f"{size:,} {split}" for split, size in spec.sizes.items())
    say(f"prepared {spec.name}: {sizes} in {short(folder)}")


def inspect(
    path: Annotated[str, typer.Argument(metavar="PATH", help="A file or folder of your data.")],
    overrides: Overrides = None,
    target: Annotated[str | None, typer.Option("--target", help="Column to predict.")] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="Of the preset (default: the file's name).")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse where anything has to be decided.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the preset.")] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Look at your data and write conf/data/<name>.yaml, with every decision and its reason."""
    from litlab.data.inspect import inspect as look
    from litlab.data.prepare.decisions import lines
    from litlab.data.raw import Reading
    from litlab.utils.output import command, say, use_plain_warnings

    use_plain_warnings()
    made = look(
        path, target, name=name, overrides=overrides or [], replace=overwrite, strict=strict
    )
    reading = Reading(decisions=made.decisions, suggestions=made.suggestions)
    say(f"{path}: {made.why}")
    for line in lines(reading):
        say(line)
    say(f"wrote {short(made.path)}; change there what is wrong")
    say(f"next: {command('train', f'data={made.name}')}")
    if json:
        decided = {d.setting: d.value for d in made.decisions}
        print_json(name=made.name, path=str(made.path), preset=made.preset, decisions=decided)


def preview(
    overrides: Overrides = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="PNG (default: reports/preview-<data>.png).")
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Draw a training batch before and after augmentation, and the data's statistics."""
    config = load_config(overrides, None)
    from litlab.evaluation.preview import preview as look
    from litlab.utils.output import say

    picture, statistics = look(config, out)
    if json:
        print_json(picture=str(picture), statistics=statistics)
    say(f"wrote {short(picture)}, and its statistics in {short(picture.with_suffix('.json'))}")
