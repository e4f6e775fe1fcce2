"""Claim: a trial costs little beyond its training, workers add up, and a search finds more.

    python benchmarks/tuning.py [--quick] [--json] [--part gap|speedup|search] [--seeds 5]

All by `litlab tune`, as a user begins it, in a project of its own: without finalists, one thread a
process, and where a study is timed without pruning.

gap: seconds a trial takes beyond its own fit, with one worker: from the first trial's start to the
last one's end, less the fits, by the study's own times. Beyond a fit are the trial's process, its
data, its record in MLflow and the sampler's choice. What comes before the first trial and after
the last one is told apart.

speedup: the same random study with one worker and with two, in turns: how much sooner the last
trial ends, counted from the first one's start. How much longer the same fit takes beside another
one, which no planning of trials can mend, is told apart.

search: litlab (TPE, pruning, two workers) tries 40 configurations, which takes T seconds from
Enter; random search by litlab (two workers) gets as many trials, and is also looked at after T
seconds; Optuna and Lightning by their manuals (benchmarks/tuning_rivals.py) get T seconds in one
process, and once more in two that share a study. All begin with the same configuration. `best` is
the best validation accuracy of a trial; `again` that of the same configuration trained on two
seeds no search has seen, all by litlab's `train`: the luck of the choice is not in it. The test
split is not used.
"""

import argparse
import json
import statistics
from datetime import UTC, datetime
from functools import cache

from tuning_rivals import CALLBACK
from tuning_search import PLAIN, TPE, TWICE, Found, problems, search
from tuning_studies import ROOT, Study, prepare, project, run_study, spread

RATES = {
    "optimizer.lr": {"low": 1e-4, "high": 3e-2, "log": True},
    "model.dropout": {"low": 0.0, "high": 0.5},
}
DIGITS = ["data=digits", "augment=none", "model=mlp"]
MNIST1D = ["data=mnist1d", "augment=none", "model=mlp"]


def gap_studies(quick: bool) -> list[Study]:
    """Run studies of short trials; a quick look takes those that `pairs` has run already."""
    if quick:
        return [one for one, _ in pairs(quick)]
    base = [*DIGITS, "model.hidden=[32]", "trainer.max_epochs=3", "study.n_trials=20"]
    base += ["study.sampler=tpe", "study.pruner=none", "study.workers=1"]
    with project():
        prepare(DIGITS)
        return [run_study(f"gap-{n}", RATES, [*base, f"study.seed={n}"]) for n in range(5)]


@cache
def pairs(quick: bool) -> list[tuple[Study, Study]]:
    """Run the same random study with one worker and with two, in turns."""
    rounds, trials, epochs = (1, 2, 3) if quick else (5, 12, 30)
    data = DIGITS if quick else MNIST1D
    base = [*data, f"trainer.max_epochs={epochs}", f"study.n_trials={trials}"]
    base += ["study.sampler=random", "study.pruner=none"]
    found = []
    with project():
        if not quick:  # else the first study does it, before its trials
            prepare(data)
        for n in range(rounds):
            pair = {}
            for workers in (1, 2) if n % 2 == 0 else (2, 1):
                own = [f"study.workers={workers}", f"study.seed={n}"]
                pair[workers] = run_study(f"speedup-{n}-{workers}", RATES, [*base, *own])
            found.append((pair[1], pair[2]))
    return found


def gap(quick: bool) -> tuple[dict[str, float], list[str]]:
    """Return the first claim and its table."""
    studies = gap_studies(quick)
    means = [(s.span - sum(t.trained for t in s.trials)) / len(s.trials) for s in studies]
    each = [one for study in studies for one in gaps(study)]
    fits = [t.trained for s in studies for t in s.trials]
    before = [min(t.began for t in s.trials) for s in studies]
    after = [s.seconds - max(t.ended for t in s.trials) for s in studies]
    what = "the pair's study below" if quick else "TPE; an MLP of 32 units, three epochs"
    lines = [
        "## Seconds a trial takes beyond its fit",
        "",
        f"n = {len(studies)} studies of {len(studies[0].trials)} trials on the digits ({what}), "
        f"{spread(fits, '.2f')} s a fit. One worker, one thread. Aim: 0.3 s.",
        "",
        "| seconds | median (min to max) |",
        "|---|---:|",
        f"| beyond the fit, mean of a study's trials | {spread(means, '.3f')} |",
        f"| beyond the fit, each trial (n = {len(each)}) | {spread(each, '.3f')} |",
        f"| from Enter to the first trial | {spread(before, '.2f')} |",
        f"| from the last trial to the prompt | {spread(after, '.2f')} |",
    ]
    claims = {
        "gap: seconds a trial beyond its fit": statistics.median(means),
        "gap: from Enter to the first trial": statistics.median(before),
        "gap: studies": len(studies),
    }
    return claims, lines


def gaps(study: Study) -> list[float]:
    """Return for each trial the time to the next one's start, or to its end, less its fit."""
    trials = sorted(study.trials, key=lambda t: t.began)
    ends = [*(t.began for t in trials[1:]), trials[-1].ended]
    return [end - t.began - t.trained for t, end in zip(trials, ends, strict=True)]


def speedup(quick: bool) -> tuple[dict[str, float], list[str]]:
    """Return the second claim and its table."""
    found = pairs(quick)
    ratios = [one.span / two.span for one, two in found]
    both = [(a, b) for one, two in found for a, b in zip(one.trials, two.trials, strict=True)]
    beside, fits = [b.trained / a.trained for a, b in both], [a.trained for a, _ in both]
    same = sum((a.params, a.value) == (b.params, b.value) for a, b in both)
    what = "the digits, 3 epochs" if quick else "MNIST-1D, 30 epochs"
    lines = [
        "## Two workers against one",
        "",
        f"n = {len(found)} pairs in turns, {len(found[0][0].trials)} trials each: an MLP on "
        f"{what}, {spread(fits, '.2f')} s a fit with one worker. Random search, one thread each. "
        f"{same} of {len(both)} trials are the same, to the last bit of their values. Aim: 1.7.",
        "",
        "| ratio | median (min to max) |",
        "|---|---:|",
        f"| one worker's time / two workers' | {spread(ratios, '.2f')} |",
        f"| a fit beside another one / a fit alone | {spread(beside, '.2f')} |",
    ]
    claims = {
        "speedup: 2 workers": statistics.median(ratios),
        "speedup: fit beside another": statistics.median(beside),
        "speedup: pairs": len(found),
        "speedup: trials that differ": len(both) - same,
    }
    return claims, lines


def searches(quick: bool, seeds: int) -> tuple[dict[str, float], list[str]]:
    """Return the third claim and its tables."""
    seeds, claims = 1 if quick else seeds, {}
    lines = ["## What a search finds", ""]
    lines.append(f"n = {seeds} seeds; median (min to max). The rival prunes with {CALLBACK}.")
    with project():
        results = {problem: search(problem, seeds, quick=quick) for problem in problems(quick)}
    for problem, found in results.items():
        lines += ["", f"### {problem.name}: an MLP, {problem.epochs} epochs", ""]
        lines.append("| search | seconds | trials | of them pruned | best | again | litlab wins |")
        lines.append("|---|---:|---:|---:|---:|---:|---|")
        for method, ones in found.items():
            lines.append(f"| {method} | {row(ones)} | {wins(found, method)} |")
            for what in measured(ones):
                value = statistics.median(score(one, what) for one in ones)
                claims[f"search: {problem.name}: {method}: {what}"] = value
        for method in (PLAIN, TWICE):
            if method in found:
                claims[f"search: {problem.name}: wins over {method}"] = won(found, method)[0]
    claims["search: seeds"] = seeds
    return claims, lines


def score(found: Found, what: str) -> float:
    return found.best if what == "best" else statistics.mean(found.again)


def measured(found: list[Found]) -> list[str]:
    """Return what is known of a search; a quick look does not train again what was found."""
    return ["best", "again"] if found[0].again else ["best"]


def row(found: list[Found]) -> str:
    scores = [spread([score(f, what) for f in found], ".4f") for what in measured(found)]
    numbers = [
        spread([f.seconds for f in found], ".0f"),
        spread([f.trials for f in found], ".0f"),
        spread([f.pruned for f in found], ".0f"),
        *scores,
    ]
    return " | ".join([*numbers, "–"][:5])


def won(found: dict[str, list[Found]], method: str) -> tuple[int, int]:
    """Return on how many seeds litlab's configuration, trained again, is better, and as good."""
    what = measured(found[TPE])[-1]
    pairs = [
        (score(a, what), score(b, what)) for a, b in zip(found[TPE], found[method], strict=True)
    ]
    return sum(a > b for a, b in pairs), sum(a == b for a, b in pairs)


def wins(found: dict[str, list[Found]], method: str) -> str:
    better, equal = won(found, method)
    ties = f", {equal} equal" if equal else ""
    return "" if method == TPE else f"{better} of {len(found[TPE])}{ties}"


def main() -> None:
    from litlab.runs.environment import describe

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="n = 1, short trainings on the digits")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    parser.add_argument("--part", choices=("gap", "speedup", "search"), help="that alone")
    parser.add_argument("--seeds", type=int, default=5, help="of the searches")
    arguments = parser.parse_args()
    quick = arguments.quick
    parts = {
        "gap": lambda: gap(quick),
        "speedup": lambda: speedup(quick),
        "search": lambda: searches(quick, arguments.seeds),
    }
    claims: dict[str, float] = {}
    machine = ", ".join(f"{k} {v}" for k, v in describe().items())
    command = "python benchmarks/tuning.py" + (" --quick" if quick else "")
    note = ["", "Quick: n = 1 and short trainings; it shows that all works, and no figure."]
    lines = ["# Searches", "", f"{datetime.now(UTC):%Y-%m-%d}; {machine}; `{command}`"]
    lines += note if quick else []
    for name in [arguments.part] if arguments.part else parts:
        found, table = parts[name]()
        claims |= found
        lines += ["", *table]
    text = "\n".join(lines) + "\n"
    if arguments.json:
        print(json.dumps({"quick": quick, **claims}))
    else:
        print(text)
    if not quick:
        part = f"-{arguments.part}" if arguments.part else ""
        name = f"tuning{part}-{datetime.now(UTC):%Y-%m-%d}.md"
        (ROOT / "benchmarks" / "results" / name).write_text(text)


if __name__ == "__main__":
    main()
