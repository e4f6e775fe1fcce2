"""What remains of a study: an experiment file with its recipe card."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from litlab.tuning.results.outcome import Finalist, Outcome
from litlab.tuning.study.space import is_group, typed
from litlab.utils.errors import EnvironmentFault
from litlab.utils.files import write_atomically
from litlab.utils.output import command, number
from litlab.utils.paths import project_root
from litlab.utils.redact import redact


def write_experiment(outcome: Outcome, base: list[str], monitor: str) -> Path:
    """Write `conf/experiment/<study>-best.yaml` and return its path.

    Args:
        outcome: What the study came to.
        base: Overrides of the configuration that was tuned.
        monitor: What it went by.

    Raises:
        EnvironmentFault: It cannot be written.
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
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    _write(path, _card(outcome, monitor, how_to_use(path, base)) + text)
    return path


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text)
    except OSError as error:
        what = f"the best settings cannot be written: {error.strerror}"
        fix = "free the disk or make the folder writable; the same command writes them"
        raise EnvironmentFault(what, str(path), fix) from None


def how_to_use(path: Path, base: list[str]) -> str:
    """Return the command line that makes such a file the pipeline's order.

    Args:
        path: The file.
        base: Overrides of the configuration that was tuned. A file of settings can neither add
            nor remove a key, so these are given again.
    """
    left = [o for o in base if o.startswith(("+", "~"))]
    return f"{command('params', f'experiment={path.stem}', *left)} && dvc repro"


def _card(outcome: Outcome, monitor: str, use_best: str) -> str:
    """Return the head of the file: where its settings come from, and what to expect of them."""
    best = outcome.best
    counts = ", ".join(f"{n} {state}" for state, n in outcome.trials.items())
    what = f"trial {best['number']}" if best["params"] else "the baseline"
    lines = [
        f"The best of study {outcome.study}: {what}, of {counts} ({datetime.now(UTC):%Y-%m-%d}).",
        f"  {use_best}",
        "Overwritten when the study is resumed: copy it to change it.",
    ]
    if outcome.finalists:
        lines += [_score(f, monitor) for f in outcome.finalists]
        low_high = "95 % intervals of the mean (Student's t)"
        lines.append(f"On seeds not used for the choice; {low_high}.")
    else:
        first = "did not finish" if outcome.first is None else number(outcome.first)
        lines.append(f"{monitor}: {number(best['value'])}; baseline: {first}.")
        lines.append("One seed, chosen among many: expect less on new data.")
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
