"""What to beware of in a study, and what to try next: one line each."""

from collections.abc import Sequence

import optuna
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from litlab.tuning.report.borders import border_line, place, short, typed
from litlab.tuning.report.failures import failure_lines
from litlab.tuning.report.importances import ENOUGH, Importance, completed, importances
from litlab.tuning.report.paired import Difference, as_it_was, difference
from litlab.tuning.results.outcome import Finalist
from litlab.tuning.study.objectives import Objective
from litlab.tuning.study.space import Space
from litlab.utils.output import number

MANY = 20  # completed trials that say something of each setting
MOST_PRUNED = 0.85
LITTLE = 0.1  # an importance, as a share of 1


def advise(
    study: optuna.Study,
    space: Space,
    objectives: Sequence[Objective],
    finalists: Sequence[Finalist],
) -> list[str]:
    """Return what a study does not show, what went wrong, and what to try next.

    Args:
        study: With trials.
        space: What was varied.
        objectives: What it looked for, in the study's order.
        finalists: The best, trained again, in the order of their means; may be empty.
    """
    wrong = [*_finalist_lines(study, objectives, finalists), *failure_lines(study, space)]
    wrong += _trial_lines(study)
    if len(completed(study)) < ENOUGH:
        return wrong
    borders = _border_lines(study, space) if len(objectives) == 1 else []
    mattered = importances(study) if len(objectives) == 1 else []
    unclear = _unclear_line(study, mattered)
    lines = [*wrong, *borders, *([unclear] if unclear else [])]
    if not borders and not unclear:
        lines += _next_lines(study, space, mattered)
    return lines


def _finalist_lines(
    study: optuna.Study, objectives: Sequence[Objective], finalists: Sequence[Finalist]
) -> list[str]:
    if not finalists:
        return []
    best, first = finalists[0], as_it_was(finalists)
    if len(objectives) > 1:
        return _front_lines(objectives, finalists, first)
    objective, lines = objectives[0], []
    apart = first and first is not best and difference(best, first, objective.name)
    if first is best and len(finalists) > 1:
        lines.append("on new seeds the baseline did best: keep it")
    elif apart and not _better(objective, apart):
        lines.append(
            f"no gain: on new seeds trial {best.number} minus baseline: "
            f"{_said(objective, apart)}; "
            f"for a more certain answer set study.finalist_seeds={2 * apart.seeds}"
        )
    elif apart:
        lines.append(
            f"improved: on new seeds trial {best.number} minus baseline: {_said(objective, apart)}"
        )
    return lines + _luck_line(study, objective, best)


def _front_lines(
    objectives: Sequence[Objective], finalists: Sequence[Finalist], first: Finalist | None
) -> list[str]:
    if first is None:
        return []
    rivals = [f for f in finalists if f is not first]
    apart = [(o, difference(f, first, o.name)) for f in rivals for o in objectives]
    if not rivals or any(_better(o, d) for o, d in apart if d is not None):
        return []
    return [
        "no gain: on new seeds no finalist is shown to be better than the baseline in any "
        "objective; for a more certain answer set "
        f"study.finalist_seeds={2 * len(first.seeds)}"
    ]


def _better(objective: Objective, apart: Difference) -> bool:
    if apart.interval is None:
        return False
    low, high = apart.interval
    return high < 0 if objective.direction == "minimize" else low > 0


def _said(objective: Objective, apart: Difference) -> str:
    text = f"{objective.name} {apart.mean:+.4g}"
    if apart.interval is None:
        return f"{text} (one seed, so without an interval)"
    low, high = apart.interval
    return f"{text} (95 % interval {low:+.4g} to {high:+.4g}, {apart.seeds} seeds)"


def _luck_line(study: optuna.Study, objective: Objective, best: Finalist) -> list[str]:
    """Say how much better a trial did when it was chosen than on seeds it was not chosen by."""
    trial = next(t for t in study.get_trials(deepcopy=False) if t.number == best.number)
    if best.as_it_was or trial.state != TrialState.COMPLETE:
        return []
    own, mean = trial.values[0], best.mean(objective.name)
    luck = mean - own if objective.direction == "minimize" else own - mean
    between = best.interval(objective.name)
    if luck <= 0 or between is None or between[0] <= own <= between[1]:
        return []  # no more than seeds differ by
    return [
        f"trial {best.number} had {objective.name} {number(own)} when it was chosen and "
        f"{number(mean)} on new seeds: the score that chose it was too good by {number(luck)}"
    ]


def _trial_lines(study: optuna.Study) -> list[str]:
    trials = [t for t in study.get_trials(deepcopy=False) if t.state.is_finished()]
    whole = [t.number for t in trials if t.state == TrialState.COMPLETE]
    pruned = sum(t.state == TrialState.PRUNED for t in trials)
    n, lines = len(trials), []
    if len(whole) < ENOUGH:
        lines.append(
            f"{len(whole)} of {n} trials were completed: too few to say what mattered; "
            f"{_more(study, n)}"
        )
    if n >= 10 and pruned > MOST_PRUNED * n:
        lines.append(
            f"{pruned} of {n} trials were pruned: study.pruner=patient, with another study.name, "
            f"gives slow starters more time"
        )
    since = trials[-1].number - max(whole) if whole else 0
    if since >= max(10, n // 2):
        lines.append(
            f"none of the last {since} trials was completed: the space may be too wide around "
            f"trial {max(whole)}, or the pruner too aggressive"
        )
    return lines


def _border_lines(study: optuna.Study, space: Space) -> list[str]:
    best, name = _best(study), study.study_name
    lines = [border_line(name, p.path, p.distribution, best) for p in space.parameters]
    return [line for line in lines if line]


def _best(study: optuna.Study) -> list[FrozenTrial]:
    """Return the best quarter of the trials, three at least, the best one first."""
    down = study.direction == StudyDirection.MINIMIZE
    trials = completed(study)
    ranked = sorted(trials, key=lambda t: t.values[0] if down else -t.values[0])
    return ranked[: max(3, len(trials) // 4)]


def _unclear_line(study: optuna.Study, found: Sequence[Importance]) -> str:
    if len(found) < 2 or found[0].low > max(other.high for other in found[1:]):
        return ""
    n = sum(t.state.is_finished() for t in study.get_trials(deepcopy=False))
    said = ", ".join(f"{i.path} {i.value:.2f} ({i.low:.2f} to {i.high:.2f})" for i in found[:3])
    return (
        f"{len(completed(study))} completed trials cannot show which setting matters "
        f"most: {said}, as shares of 1 with 90 % intervals; {_more(study, n)}"
    )


def _more(study: optuna.Study, n: int) -> str:
    """Return how to have more than n trials: there may be some left, or a grid may be through."""
    asked = study.user_attrs.get("n_trials", n)
    if n < asked:
        return f"{asked - n} of {asked} are left: run the same command to resume"
    if str(study.user_attrs.get("order", "")).startswith("grid"):
        return "a finer grid, or study.sampler=random, with another study.name, would show more"
    return f"study.n_trials={max(20, 2 * n)} would show more"


def _next_lines(study: optuna.Study, space: Space, found: Sequence[Importance]) -> list[str]:
    """Say what may be fixed and what narrowed, where enough trials were completed to tell."""
    whole = completed(study)
    if len(whole) < MANY or not found:
        return []
    best, name = _best(study), study.study_name
    lines = [
        f"{i.path} hardly mattered ({i.low:.2f} to {i.high:.2f} of 1): vary only the rest: "
        f"study.name={name}-2 ~study.space.{i.path} "
        f"{i.path}={short(best[0].params[i.path])}"
        for i in found[1:]
        if i.high < LITTLE and i.path in best[0].params
    ]
    leader = next((p for p in space.parameters if p.path == found[0].path), None)
    if leader is not None and isinstance(leader.distribution, FloatDistribution | IntDistribution):
        values = [t.params[leader.path] for t in best if leader.path in t.params]
        low, high = min(values, default=0), max(values, default=0)
        d = leader.distribution
        if low < high and place(d, high) - place(d, low) < 0.5:
            lines.append(
                f"the best {len(values)} of {len(whole)} trials have {leader.path} from "
                f"{short(low)} to {short(high)}: for a closer look, "
                f"{typed(name, leader.path, low=low, high=high)}"
            )
    return lines
