"""The page of a study: what it found, how sure that is, and its figures."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from optuna.trial import FrozenTrial
from plotly.offline import get_plotlyjs

from litlab.report.words import counted, listed, number
from litlab.tuning.report.figures import drawings, html
from litlab.tuning.report.importances import baseline_of, difference
from litlab.tuning.results.outcome import OUTSIDE, Finalist, Outcome, failed_label
from litlab.tuning.study.settings import COSTS, Objective

NAME = "study.html"
SHORT = {"COMPLETE": "completed", "FAIL": "failed"}


@dataclass(frozen=True)
class _Row:
    name: str
    cells: list[str]


@dataclass(frozen=True)
class _Table:
    title: str
    heads: list[str]
    rows: list[_Row]


def write(
    study: optuna.Study, objectives: Sequence[Objective], outcome: Outcome, folder: Path
) -> Path:
    """Write `study.html`, which needs nothing from outside itself, and return its path.

    Args:
        study: With trials.
        objectives: What it looked for, in the study's order.
        outcome: What it came to.
        folder: Where to; made if it is missing.
    """
    environment = Environment(
        loader=ChoiceLoader(
            [PackageLoader("litlab.tuning.report", "."), PackageLoader("litlab.report", ".")]
        ),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    drawn = list(drawings(study, objectives))
    text = environment.get_template("page.html").render(
        outcome=outcome,
        lead=_lead(objectives, outcome),
        settings=_settings(study, outcome),
        finals=[_finals(objective, outcome.finalists) for objective in objectives],
        seeds=counted(len(outcome.finalists[0].seeds), "seed") if outcome.finalists else "",
        front=_front(objectives, outcome),
        figures=[
            (d.title, d.note, html(d, f"figure-{i}"), len(d.figures) > 1)
            for i, d in enumerate(drawn)
        ],
        trials=_trials(study, objectives),
        failed=_failed(outcome),
        plotly=get_plotlyjs() if drawn else "",
    )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / NAME
    path.write_text(text, encoding="utf-8")
    return path


def _lead(objectives: Sequence[Objective], outcome: Outcome) -> str:
    """Return in two sentences what was tried and what came of it."""
    done = [f"{n:,} {state}" for state, n in outcome.trials.items() if n]
    trials = f"{counted(sum(outcome.trials.values()), 'trial')}: {listed(done)}."
    aims = [f"{'less' if o.direction == 'minimize' else 'more'} {o.name}" for o in objectives]
    if len(objectives) > 1:
        found = counted(len(outcome.pareto), "trial")
        return f"{trials} Objectives: {listed(aims)}; {found} on the Pareto front."
    return f"{trials} Objective: {aims[0]}; {_found(objectives[0].name, outcome)}."


def _found(name: str, outcome: Outcome) -> str:
    """Return what did best: on new seeds, if there are any."""
    best = outcome.best
    if outcome.finalists:
        winner = outcome.finalists[0]
        who = "the baseline" if winner.is_baseline else winner.label
        return f"on new seeds {who} did best, with a mean of {number(winner.mean(name))}"
    if best["number"] == 0 and outcome.first is not None:
        return "the baseline did best"
    as_was = "did not finish" if outcome.first is None else f"had {number(outcome.first)}"
    own = f"trial {best['number']} had the best, {number(best['value'])}"
    return f"{own}; the baseline {as_was}"


def _settings(study: optuna.Study, outcome: Outcome) -> _Table:
    """Return each setting of the best trial beside what it was."""
    first, best = study.get_trials(deepcopy=False)[0].params, outcome.best["params"]
    first = {**first, **study.user_attrs.get(OUTSIDE, {})}
    if not best or outcome.best["number"] == 0:
        rows = [_Row(path, [_said(value)]) for path, value in first.items()]
        return _Table("Settings", ["Setting", "Baseline"], rows)
    paths = dict.fromkeys([*first, *best])
    rows = [_Row(p, [_said(best.get(p, _NONE)), _said(first.get(p, _NONE))]) for p in paths]
    return _Table("Settings", ["Setting", f"Trial {outcome.best['number']}", "Baseline"], rows)


_NONE = object()


def _said(value: Any) -> str:
    if value is _NONE:
        return "–"
    return number(value) if isinstance(value, float) else str(value)


def _finals(objective: Objective, finalists: Sequence[Finalist]) -> _Table | None:
    """Return a table of what new seeds say of an objective."""
    if not finalists:
        return None
    first, name = baseline_of(finalists), objective.name
    heads = ["Finalist", "Mean", "95 % interval"]
    if first is not None:
        heads += ["Difference", "95 % interval"]
    heads += [f"Seed {seed}" for seed in finalists[0].seeds]
    rows = []
    for finalist in finalists:
        cells = [number(finalist.mean(name)), _between(finalist.interval(name))]
        if first is not None:
            apart = None if finalist is first else difference(finalist, first, name)
            cells += ["–", "–"] if apart is None else [number(apart.mean), _between(apart.interval)]
        cells += [number(value) for value in finalist.values[name]]
        rows.append(_Row("Baseline" if finalist is first else f"Trial {finalist.number}", cells))
    better = "less" if objective.direction == "minimize" else "more"
    return _Table(f"{name}{_meaning(objective)}, {better} is better", heads, rows)


def _meaning(objective: Objective) -> str:
    return f" ({COSTS[objective.name]})" if objective.name in COSTS else ""


def _between(ends: tuple[float, float] | None) -> str:
    return "one seed: unknown" if ends is None else f"{number(ends[0])} to {number(ends[1])}"


def _front(objectives: Sequence[Objective], outcome: Outcome) -> _Table | None:
    if not outcome.pareto:
        return None
    paths = list(dict.fromkeys(path for point in outcome.pareto for path in point["params"]))
    rows = [
        _Row(
            f"Trial {point['number']}",
            [number(point["values"][o.name]) for o in objectives]
            + [_said(point["params"].get(path, _NONE)) for path in paths],
        )
        for point in outcome.pareto
    ]
    return _Table("Trade-offs", ["Trial", *(o.name for o in objectives), *paths], rows)


def _failed(outcome: Outcome) -> _Table | None:
    rows = [_Row(failed_label(f).capitalize(), [str(f["reason"])]) for f in outcome.failed]
    return _Table("Trainings that failed", ["Training", "Reason"], rows) if rows else None


def _trials(study: optuna.Study, objectives: Sequence[Objective]) -> _Table:
    trials = study.get_trials(deepcopy=False)
    paths = list(dict.fromkeys(path for t in trials for path in t.params))
    heads = ["Trial", "State", *(o.name for o in objectives), "Seconds", *paths, "Reason"]
    return _Table("All trials", heads, [_trial(t, len(objectives), paths) for t in trials])


def _trial(trial: FrozenTrial, many: int, paths: Sequence[str]) -> _Row:
    values = [number(v) for v in trial.values] if trial.values else ["–"] * many
    state = SHORT.get(trial.state.name, trial.state.name.lower())
    seconds = trial.user_attrs.get("seconds")
    took = "–" if seconds is None else f"{seconds:,.1f}"
    settings = [_said(trial.params.get(path, _NONE)) for path in paths]
    reason = str(trial.user_attrs.get("failed") or "")
    return _Row(str(trial.number), [state, *values, took, *settings, reason])
