"""What a study has come to, read off its trials and finalists."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from optuna.trial import FrozenTrial, TrialState

from litlab.tuning.results.finalists import FinalistResults
from litlab.tuning.results.outcome import OUTSIDE, Finalist, Outcome
from litlab.tuning.study.space import is_group, typed
from litlab.tuning.study.study import TrialStudy
from litlab.utils.errors import (
    ConfigError,
    DataError,
    EnvironmentFault,
    LitlabError,
    NonFiniteError,
)
from litlab.utils.files import write_atomically
from litlab.utils.output import command, number
from litlab.utils.paths import project_root
from litlab.utils.redact import redact

# What remains of a study: an experiment file, whose comment says how it was found.


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


KINDS = {kind.exit_code: kind for kind in (ConfigError, DataError, NonFiniteError)}
FIGURES, PAGE = "figures", "study.html"


def outcome_of(study: TrialStudy, folder: Path, finals: FinalistResults) -> Outcome:
    """Return a study's outcome.

    Args:
        study: Its trials have ended.
        folder: Of the trials' runs.
        finals: The best, trained again.

    Raises:
        LitlabError: No trial was completed, or none of the finalists, so there is none.
    """
    states = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED}
    counts = {name: study.count(state) for name, state in states.items()}
    failed = study.trials(TrialState.FAIL)
    counts["failed"] = len(failed)
    if not counts["complete"]:
        reasons = [t.user_attrs for t in failed if "failed" in t.user_attrs]
        raise _nothing("no trial was completed", reasons, study, folder)
    ranked = finals.ranked()
    if finals.failed and not ranked:
        facts = [dict(why) for why in finals.failed.values()]
        raise _nothing("no finalist was trained on all seeds", facts, study, folder)
    from litlab.tuning.report import advice  # statistics that are slow to import

    front = []
    if len(study.objectives) > 1:
        front = [_point(study, t) for t in study.study.best_trials]
    return Outcome(
        study.settings.name,
        study.storage.url,
        counts,
        _best(study, ranked),
        _first(study),
        top_trial(study),
        ranked,
        front,
        advice.advise(study.study, study.space, study.objectives, ranked),
        [{"trial": t.number, "reason": t.user_attrs.get("failed", "")} for t in failed]
        + finals.failures(),
    )


def _nothing(
    what: str, facts: Sequence[Mapping[str, Any]], study: TrialStudy, folder: Path
) -> LitlabError:
    """Return the error of a study that recommends nothing, of the kind of the first failure."""
    reason = facts[0]["failed"] if facts else "all were pruned, or none has started"
    kind = KINDS.get(facts[0].get("code", 0)) if facts else None
    where, fix = f"study {study.settings.name}", f"see the logs in {folder}"
    return (kind or EnvironmentFault)(f"{what}; the first reason: {reason}", where, fix)


def _best(study: TrialStudy, ranked: list[Finalist]) -> dict[str, Any]:
    """The finalist with the best mean; without finalists, the trial with the best score."""
    if not ranked:
        return top_trial(study)
    winner = ranked[0]
    found = _point(study, study.trials()[winner.number])
    if winner.is_baseline:  # whatever the first trial tried, this is without it
        found["params"] = {}
    if winner.is_baseline and _first(study) is None:
        found["value"] = winner.mean(study.objectives[0].name)
    names = [o.name for o in study.objectives]
    return {
        **found,
        "mean": {name: winner.mean(name) for name in names},
        "interval_95": {name: winner.interval(name) for name in names},
        "seeds": list(winner.seeds),
    }


def top_trial(study: TrialStudy) -> dict[str, Any]:
    """Return the trial with the best score, on its one seed."""
    sign = -1 if study.objectives[0].direction == "maximize" else 1
    return _point(study, min(study.study.best_trials, key=lambda t: sign * _value(t)))


def _point(study: TrialStudy, trial: FrozenTrial) -> dict[str, Any]:
    names = [o.name for o in study.objectives]
    point = {
        "number": trial.number,
        "value": _value(trial),
        "params": trial.params,
        "run_id": trial.user_attrs.get("run_id"),
    }
    if len(names) > 1:
        point["values"] = dict(zip(names, trial.values, strict=True))
    return point


def _value(trial: FrozenTrial) -> float:
    """The first objective's: of a trial that was pruned, the last it reported."""
    return trial.values[0] if trial.values else float("nan")


def _first(study: TrialStudy) -> float | None:
    """The configuration's own value, if the first trial was just that and was completed."""
    first = study.trials()[0]
    just_that = not study.study.user_attrs.get(OUTSIDE)
    return _value(first) if just_that and first.state == TrialState.COMPLETE else None


def write_pages(study: TrialStudy, outcome: Outcome, folder: Path) -> list[Path]:
    """Draw the study, and return the files: a page and its figures."""
    from litlab.tuning.report import (  # plotly and more: not before the trials have ended
        figures,
        page,
    )

    drawn = figures.write(study.study, study.objectives, outcome.finalists, folder / FIGURES)
    return [page.write(study.study, study.objectives, outcome, folder), *drawn]
