"""What to beware of in a study, and what to try next: one line each."""

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from scipy.stats import binomtest, fisher_exact, mannwhitneyu

from litlab.tuning.report.importances import (
    ENOUGH,
    Difference,
    Importance,
    baseline_of,
    completed,
    difference,
    importances,
)
from litlab.tuning.results.outcome import Finalist
from litlab.tuning.study.settings import Objective
from litlab.tuning.study.space import Parameter, Space
from litlab.utils.output import number

# Detects that the best trials are at the end of a range, and suggests a wider one.


NEAR = 0.05  # of the range
WITHIN = 0.25  # of the range: where the best trials lie if it is no accident
LEVEL = 0.2  # how probable as many there may be if they lay anywhere
# What is a share of 1, by the last part of its path.
SHARES = ("drop", "momentum", "smoothing", "beta", "decay_rate", "prob", "fraction", "gamma")


def border_line(
    study: str, path: str, distribution: BaseDistribution, best: Sequence[FrozenTrial]
) -> str:
    """Return what to say of a setting whose best value is at an end of its range, or nothing.

    Args:
        study: The study's name.
        path: The setting's.
        distribution: Its range.
        best: The best quarter of the trials, the best one first.
    """
    if not isinstance(distribution, FloatDistribution | IntDistribution) or distribution.single():
        return ""
    if path not in best[0].params:
        return ""
    places = [place(distribution, t.params[path]) for t in best if path in t.params]
    if NEAR < places[0] < 1 - NEAR:
        return ""
    end = "low" if places[0] <= NEAR else "high"
    among = sum(_at_end(p, end) for p in places)
    if binomtest(among, len(places), _expected(distribution, end), "greater").pvalue > LEVEL:
        return ""
    new = beyond(path, distribution, end)
    if new is None:
        return ""
    return (
        f"the best {path}, {short(best[0].params[path])}, is at the {end} end of its range "
        f"({short(distribution.low)} to {short(distribution.high)}): values beyond may be "
        f"better; try {typed(study, path, **{end: new})}"
    )


def _at_end(where: float, end: str) -> bool:
    return where <= WITHIN if end == "low" else where >= 1 - WITHIN


def _expected(distribution: FloatDistribution | IntDistribution, end: str) -> float:
    """Return the share of a range's values that lie at an end: of 3, 5 and 7 a third."""
    low, high, step = distribution.low, distribution.high, distribution.step
    if distribution.log or not step or high - low > 100 * step:
        return WITHIN
    every = [low + i * step for i in range(round((high - low) / step) + 1)]
    return sum(_at_end(place(distribution, v), end) for v in every) / len(every)


def place(distribution: FloatDistribution | IntDistribution, value: float) -> float:
    """Return where a value lies in its range, on the range's own scale, from 0 to 1."""
    scale = math.log if distribution.log else float
    low, high = scale(distribution.low), scale(distribution.high)
    return (scale(value) - low) / (high - low)


def beyond(
    path: str, distribution: FloatDistribution | IntDistribution, end: str
) -> float | int | None:
    """Return a wider end of the range, or None if there is none: below 0, or a share above 1."""
    low, high = distribution.low, distribution.high
    if isinstance(distribution, IntDistribution):
        return _beyond_whole(distribution, end)
    if distribution.log:
        return _round(low / math.sqrt(10) if end == "low" else high * math.sqrt(10))
    share = any(word in path.rsplit(".", 1)[-1] for word in SHARES) and 0 <= low <= high <= 1
    width = (high - low) / 2
    if end == "low":
        if low >= 0 and low - width <= 0:  # to 0 where that is known to be allowed
            allowed = share or path.endswith("weight_decay")
            return None if low == 0 else (0.0 if allowed else low / 2)
        return _digits(low - width)
    if share:
        return None if high >= 0.95 else _digits(min(high + width, (1 + high) / 2))
    return _digits(high + width)


def _beyond_whole(distribution: IntDistribution, end: str) -> int | None:
    low, high, step = distribution.low, distribution.high, distribution.step
    if distribution.log:
        new = max(1, low // 2) if end == "low" else high * 2
        return None if new == low else new
    steps = max(1, (high - low) // step // 2)
    if end == "high":
        return high + steps * step
    if low >= 0:  # counts stay above 0
        steps = min(steps, (low - 1) // step) if low else 0
    return low - steps * step if steps else None


def typed(study: str, path: str, **ends: float) -> str:
    """Return what to type for a study of a changed range, which is another study.

    Args:
        study: The name of the one that was.
        path: The setting's.
        ends: The new `low`, `high`.
    """
    words = [f"study.space.{path}.{end}={short(value)}" for end, value in ends.items()]
    return " ".join([f"study.name={study}-2", *words])


def short(value: Any) -> str:
    """Return a value as a sentence has it."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _digits(value: float) -> float:
    return float(f"{value:.2g}")


def _round(value: float) -> float:
    """Return the nearest of 1, 2, 3, 5, 10 times a power of ten, by ratio."""
    power = 10.0 ** math.floor(math.log10(value))
    nearest = min((1, 2, 3, 5, 10), key=lambda m: abs(math.log(value / power / m)))
    return float(f"{nearest * power:.4g}")


# Trials that failed: alike, or in one part of the space.


LEAST = 3  # failures that can be told from the rest
FAILURE_LEVEL = 0.05
LONGEST = 160  # characters of a reason

Trials = Sequence[FrozenTrial]


def failure_lines(study: optuna.Study, space: Space) -> list[str]:
    """Return what failures have in common: their reasons, and settings they lie apart in.

    Args:
        study: With trials.
        space: What was varied.
    """
    ended = [t for t in study.get_trials(deepcopy=False) if t.state.is_finished()]
    failed = [t for t in ended if t.state == TrialState.FAIL]
    rest = [t for t in ended if t.state != TrialState.FAIL]
    lines = []
    for reason, trials in _reasons(failed).items():
        if len(trials) > 1:
            what = "all trials" if len(trials) == len(ended) else f"{len(trials)} trials"
            lines.append(f"{what} failed for the same reason: {reason}")
    if len(failed) >= LEAST and len(rest) >= LEAST:
        lines += _apart(failed, rest, space, study.study_name)
    return lines


def _reasons(failed: Trials) -> dict[str, list[FrozenTrial]]:
    """Return the trials by reason; reasons that differ in numbers alone are one."""
    groups: dict[str, list[FrozenTrial]] = {}
    for trial in failed:
        reason = " ".join(str(trial.user_attrs.get("failed") or "").split())
        if reason:
            groups.setdefault(re.sub(r"\d+(\.\d+)?", "#", reason), []).append(trial)
    texts = {}
    for trials in groups.values():
        text = " ".join(str(trials[0].user_attrs["failed"]).split())
        texts[text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"] = trials
    return texts


def _apart(failed: Trials, rest: Trials, space: Space, study: str) -> Iterator[str]:
    """Yield a line for each setting in which failures differ from the rest.

    Mann-Whitney's test for numbers and Fisher's exact one for choices, at 5 % divided by the number
    of tests (Bonferroni).
    """
    tests: list[tuple[float, str]] = []
    for parameter in space.parameters:
        bad, good = (_values(trials, parameter.path) for trials in (failed, rest))
        if isinstance(parameter.distribution, CategoricalDistribution):
            tests += _by_choice(parameter, bad, good)
        elif len(set(bad + good)) > 1 and bad and good:
            p = float(mannwhitneyu(bad, good).pvalue)
            tests.append((p, _by_number(study, parameter.path, bad, good)))
    yield from (line for p, line in tests if p < FAILURE_LEVEL / len(tests))


def _values(trials: Trials, path: str) -> list[Any]:
    return [t.params[path] for t in trials if path in t.params]


def _by_choice(
    parameter: Parameter, bad: list[Any], good: list[Any]
) -> Iterator[tuple[float, str]]:
    assert isinstance(parameter.distribution, CategoricalDistribution)
    counts = Counter(map(repr, bad)), Counter(map(repr, good))
    for choice in parameter.distribution.choices:
        b, g = (count[repr(choice)] for count in counts)
        if not b and not g:
            continue
        table = [[b, g], [len(bad) - b, len(good) - g]]
        p = float(fisher_exact(table, alternative="greater").pvalue)
        what = f"{b} of {len(bad)} failures have {parameter.path}={choice}, as have {g} of the"
        yield p, f"{what} {len(good)} other trials: try it without that choice"


def _by_number(study: str, path: str, bad: list[Any], good: list[Any]) -> str:
    """Return which side of which value the failures are on."""
    side, limit = _parting(bad, good)
    word, end = ("above", "high") if side > 0 else ("below", "low")
    b, g = (sum(side * v > side * limit for v in values) for values in (bad, good))
    return (
        f"{b} of {len(bad)} failures have {path} {word} {short(limit)}, as have {g} of the "
        f"{len(good)} other trials: try {typed(study, path, **{end: limit})}"
    )


def _parting(bad: list[Any], good: list[Any]) -> tuple[int, float]:
    """Return the side, 1 for above, and the value that part the two best (Youden's J)."""
    # As they are written, so that the counts are of the limit that one reads.
    limits = {v if isinstance(v, int) else float(short(v)) for v in bad + good}
    best: tuple[float, int, float] = (-2.0, 1, 0.0)
    for limit in sorted(limits):
        for side in (1, -1):
            b, g = (sum(side * v > side * limit for v in part) for part in (bad, good))
            best = max(best, (b / len(bad) - g / len(good), side, limit))
    return best[1], best[2]


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
    best, first = finalists[0], baseline_of(finalists)
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
    if best.is_baseline or trial.state != TrialState.COMPLETE:
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
            f"{len(whole)} of {n} trials were completed: too few to compare the settings; "
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
