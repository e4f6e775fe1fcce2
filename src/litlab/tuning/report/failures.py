"""Trials that failed: alike, or in one part of the space."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState
from scipy.stats import fisher_exact, mannwhitneyu

from litlab.tuning.report.borders import short, typed
from litlab.tuning.study.space import Parameter, Space

LEAST = 3  # failures that can be told from the rest
LEVEL = 0.05
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
    yield from (line for p, line in tests if p < LEVEL / len(tests))


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
