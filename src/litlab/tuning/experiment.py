"""What remains of a study: an experiment file with its recipe card."""

import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from litlab.output import number
from litlab.paths import project_root
from litlab.tracking.redact import redact
from litlab.tuning.outcome import Finalist, Outcome
from litlab.tuning.space import is_group, typed


def write_experiment(outcome: Outcome, base: list[str], monitor: str) -> Path:
    """Write `conf/experiment/<study>-best.yaml` and return its path.

    Args:
        outcome: What the study came to.
        base: Overrides of the configuration that was tuned.
        monitor: What it went by.
    """
    base = [o for o in base if redact(o) == o]  # the file is for git: passwords are left out
    params = {path: typed(value) for path, value in outcome.best["params"].items()}
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
    path = project_root() / "conf" / "experiment" / f"{outcome.study}-best.yaml"
    left = [o for o in base if o.startswith(("+", "~"))]
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(_card(outcome, monitor, left) + text)
    temporary.replace(path)
    return path


def _card(outcome: Outcome, monitor: str, left: list[str]) -> str:
    """Return the head of the file: where its settings come from, and what to expect of them."""
    best = outcome.best
    counts = ", ".join(f"{n} {state}" for state, n in outcome.trials.items())
    what = f"trial {best['number']}" if best["params"] else "the configuration as it was"
    lines = [
        f"The best of study {outcome.study}: {what}, of {counts} ({datetime.now(UTC):%Y-%m-%d}).",
        f"  litlab params experiment={outcome.study}-best && dvc repro",
        "Written anew when the study goes on: copy it to change it.",
    ]
    if outcome.finalists:
        lines += [_score(f, monitor) for f in outcome.finalists]
        low_high = "95 % intervals of the mean (Student's t)"
        lines.append(f"On seeds that chose nothing; {low_high}.")
    else:
        first = "did not finish" if outcome.first is None else number(outcome.first)
        lines.append(f"{monitor}: {number(best['value'])}; as it was: {first}.")
        lines.append("One seed, chosen among many: expect less on new data.")
    if left:  # a file of settings can neither add nor remove a key
        lines.append(f"To be added on the command line: {' '.join(map(shlex.quote, left))}")
    return "# @package _global_\n" + "".join(f"# {line}\n" for line in lines)


def _score(finalist: Finalist, monitor: str) -> str:
    interval = finalist.interval(monitor)
    between = f", {number(interval[0])} to {number(interval[1])}" if interval else ""
    seeds = ", ".join(map(str, finalist.seeds))
    return f"{finalist.label}: {monitor} {number(finalist.mean(monitor))}{between} (seeds {seeds})"


def _of_base(base: list[str]) -> dict[str, Any]:
    """Return plain overrides as path and value; others are left to the user."""
    plain = (o for o in base if not o.startswith(("+", "~")))
    pairs = (o.partition("=") for o in plain)
    return {key: typed(value) for key, _, value in pairs}  # to YAML 1e-3 would be a text


def _put(content: dict[str, Any], parts: list[str], value: Any) -> None:
    for part in parts[:-1]:
        content = content.setdefault(part, {})
    content[parts[-1]] = value
