"""What remains of a study: an experiment file with its recipe card."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from litlab.output import number
from litlab.paths import project_root
from litlab.tuning.space import is_group
from litlab.tuning.tune import Outcome


def write_experiment(outcome: Outcome, base: list[str], monitor: str) -> Path:
    """Write `conf/experiment/<study>-best.yaml` and return its path.

    Args:
        outcome: What the study came to.
        base: Overrides of the configuration that was tuned.
        monitor: What it went by.
    """
    best = outcome.best
    params = {path: _plain(value) for path, value in best["params"].items()}
    values = {**_of_base(base), **params}
    groups = {path: value for path, value in values.items() if is_group(path)}
    rest = {path: value for path, value in values.items() if not is_group(path)}
    content: dict[str, Any] = {}
    experiment = groups.pop("experiment", None)
    defaults: list[Any] = [f"/experiment/{experiment}"] if experiment else []
    defaults += [{f"override /{path}": value} for path, value in groups.items()]
    if defaults:
        content["defaults"] = [*defaults, "_self_"]
    content["name"] = f"{outcome.study}-best"
    for path, value in rest.items():
        _put(content, path.split("."), value)
    counts = ", ".join(f"{n} {state}" for state, n in outcome.trials.items())
    first = "did not finish" if outcome.first is None else number(outcome.first)
    card = (
        f"# @package _global_\n"
        f"# The best of study {outcome.study}: trial {best['number']} of {counts}.\n"
        f"#   litlab params experiment={outcome.study}-best && dvc repro\n"
        f"# {monitor}: {number(best['value'])}; with the settings it began with: {first}.\n"
        f"# One seed, chosen among many: expect less on new data. {datetime.now(UTC):%Y-%m-%d}\n"
    )
    path = project_root() / "conf" / "experiment" / f"{outcome.study}-best.yaml"
    path.write_text(card + yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
    return path


def _of_base(base: list[str]) -> dict[str, Any]:
    """Return plain overrides as path and value; others are left to the user."""
    plain = (o for o in base if not o.startswith(("+", "~")))
    pairs = (o.partition("=") for o in plain)
    return {key: yaml.safe_load(value) for key, _, value in pairs}


def _plain(value: Any) -> Any:
    """Return a choice as YAML has it: lists were text to Optuna."""
    listed = isinstance(value, str) and value.startswith("[")
    return yaml.safe_load(value) if listed else value


def _put(content: dict[str, Any], parts: list[str], value: Any) -> None:
    for part in parts[:-1]:
        content = content.setdefault(part, {})
    content[parts[-1]] = value
