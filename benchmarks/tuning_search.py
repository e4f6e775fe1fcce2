"""The third claim of benchmarks/tuning.py: what a search finds in the time that litlab takes."""

import json
import os
import subprocess
import sys
import time
import warnings
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch

from tuning_rivals import SPACE
from tuning_studies import ONE_THREAD, Study, Trial, prepare, run_study

FRESH = (
    1000,
    2000,
)  # added to a search's seed: the seeds of the trainings that measure what it found
FIRST = {  # of every search
    "optimizer.lr": 0.003,
    "optimizer.weight_decay": 0.01,
    "model.dropout": 0.0,
    "model.hidden": "[64]",
    "loader.batch_size": 64,
}
TPE, SAME, ALL = "litlab", "random, same time", "random, all trials"
PLAIN, TWICE = "Optuna + Lightning", "Optuna + Lightning, two processes"


@dataclass(frozen=True, eq=False)
class Problem:
    """Data and the length of a training.

    Attributes:
        folder: Of the prepared arrays.
        data: Overrides that choose them.
        epochs: Of each training.
        trials: Of litlab's search.
    """

    name: str
    folder: str
    data: list[str]
    epochs: int
    trials: int

    @property
    def overrides(self) -> list[str]:
        first = [f"{path}={value}" for path, value in FIRST.items()]
        fixed = ["model=mlp", "augment=none", "monitor=val/accuracy", "metrics=[accuracy]"]
        return [*self.data, *fixed, *first, f"trainer.max_epochs={self.epochs}"]


@dataclass(frozen=True)
class Found:
    """What one search came to.

    Attributes:
        seconds: That it had, or took, from Enter.
        trials, pruned: How many ended in that time.
        best: Validation accuracy of the best trial.
        again: The same configuration's, trained again on each fresh seed.
    """

    seconds: float
    trials: int
    pruned: int
    best: float
    again: list[float]


def fashion_subset() -> str | None:
    """Write 12,500 of the 60,000 training images into `fashion.npz`; the path, None without them.

    Every search trains on 10,000 of them and is measured on 2,500. The test images are there
    because litlab asks for a test split; nothing reads them.
    """
    from litlab.data.sources.idx import DEBIAN, FashionMNIST

    if not DEBIAN.is_dir():
        return None
    parts = FashionMNIST().read().parts
    (x, y), (test_x, test_y) = parts["train"], parts["test"]
    chosen = np.random.default_rng(0).permutation(len(y))[:12_500]
    held = {"x_train": x[chosen, 0], "y_train": y[chosen], "x_test": test_x[:, 0], "y_test": test_y}
    np.savez("fashion.npz", **held)
    return "fashion.npz"


def problems(quick: bool) -> list[Problem]:
    """Return the problems, their data prepared."""
    if quick:
        return [Problem("digits", "digits", ["data=digits"], 5, 2)]  # litlab prepares them first
    own = ["data=mnist1d", "data.val_fraction=0.25"]
    found = [Problem("MNIST-1D", "mnist1d", own, 20, 40)]
    path = fashion_subset()
    if path is None:
        print("no Fashion-MNIST: apt-get install dataset-fashion-mnist", file=sys.stderr)
    else:
        own = ["data=npz", "data.name=fashion", f"data.path={path}"]
        own += ["data.val_fraction=0.2", "data.test_fraction=null"]
        own += ["data.allow=[near_duplicates,exact_duplicates]"]
        found.append(Problem("Fashion-MNIST, 10,000 samples", "fashion", own, 8, 40))
    for problem in found:
        prepare(problem.overrides)
    return found


def search(problem: Problem, seeds: int, *, quick: bool) -> dict[str, list[Found]]:
    """Return what each method found, a seed after the other."""
    found: dict[str, list[Found]] = {}
    for seed in range(seeds):
        for method, one in _search_once(problem, seed, quick=quick).items():
            found.setdefault(method, []).append(one)
    return found


def _search_once(problem: Problem, seed: int, *, quick: bool) -> dict[str, Found]:
    base = [*problem.overrides, f"seed={seed}", f"study.seed={seed}", "study.workers=2"]
    base.append(f"study.n_trials={problem.trials}")
    label = f"{problem.name.split(',')[0].lower()}-{seed}"
    tuned = run_study(f"{label}-tpe", SPACE, [*base, "study.pruner=median"])
    ends = {TPE: tuned, PLAIN: run_plain(problem, seed, tuned.seconds, processes=1)}
    if not quick:
        ends[TWICE] = run_plain(problem, seed, tuned.seconds, processes=2)
        random = ["study.sampler=random", "study.pruner=none"]
        drawn = run_study(f"{label}-random", SPACE, [*base, *random])
        ends |= {SAME: Study(tuned.seconds, drawn.trials), ALL: drawn}
    in_time = {m: [t for t in s.trials if t.ended <= s.seconds] for m, s in ends.items()}
    best = {method: _best(trials) for method, trials in in_time.items()}
    chosen = {} if quick else {m: t.params for m, t in best.items()}
    again = _again(problem, seed, chosen)
    found: dict[str, Found] = {}
    for method, trials in in_time.items():
        pruned, value = sum(t.value is None for t in trials), best[method].value
        assert value is not None
        found[method] = Found(
            ends[method].seconds, len(trials), pruned, value, again.get(method, [])
        )
        print(f"  {label} {method}: {found[method]}", file=sys.stderr, flush=True)
    return found


def _best(trials: list[Trial]) -> Trial:
    whole = {t.value: t for t in reversed(trials) if t.value is not None}  # the first of equals
    if not whole:
        raise SystemExit("a search ended no trial in its time")
    return whole[max(whole)]


def run_plain(problem: Problem, seed: int, seconds: float, *, processes: int) -> Study:
    """Let Optuna and Lightning search, in as many processes, one thread each.

    Two of them share a study in a SQLite file, as Optuna's manual has it; it is made beforehand.
    """
    job: dict[str, Any] = {
        "folder": f"data/prepared/{problem.folder}",
        "epochs": problem.epochs,
        "seed": seed,
    }
    job |= {"first": FIRST, "seconds": seconds, "study": f"{problem.folder}-{seed}"}
    job["storage"] = "sqlite:///plain.db" if processes > 1 else None
    if job["storage"]:
        made = optuna.create_study(
            storage=job["storage"], study_name=job["study"], direction="maximize"
        )
        made.enqueue_trial(FIRST)
    script, running = Path(__file__).with_name("tuning_rivals.py"), []
    job["enter"] = time.time()
    for number in range(processes):
        Path(f"job-{number}.json").write_text(json.dumps(job | {"number": number}))
        command = [sys.executable, str(script), f"job-{number}.json"]
        with open(f"job-{number}.log", "w") as log:
            pipe = subprocess.PIPE
            running.append(subprocess.Popen(command, env=ONE_THREAD, stdout=pipe, stderr=log))
    said = [process.communicate()[0] for process in running]
    if any(process.returncode for process in running):
        raise SystemExit(f"{script.name}\n{Path('job-0.log').read_text()}")
    trials = {t["number"]: Trial(**t) for text in said for t in json.loads(text)}
    return Study(seconds, list(trials.values()))


def _again(
    problem: Problem, seed: int, chosen: dict[str, dict[str, Any]]
) -> dict[str, list[float]]:
    """Train each method's configuration on the fresh seeds, a configuration of two but once."""
    known: dict[str, list[float]] = {}
    for params in chosen.values():
        key = str(sorted(params.items()))
        if key not in known:
            values = [f"{path}={value}" for path, value in params.items()]
            base = [*problem.overrides, *values]
            known[key] = [_train([*base, f"seed={fresh + seed}"]) for fresh in FRESH]
    return {method: known[str(sorted(params.items()))] for method, params in chosen.items()}


def _train(overrides: list[str]) -> float:
    """Return the validation accuracy of one training, at its best epoch."""
    from litlab.config.compose import load
    from litlab.training.run import train

    torch.set_num_threads(1)
    quiet = ["trainer.accelerator=cpu", "trainer.progress=none"]
    with open(os.devnull, "w") as nowhere, redirect_stderr(nowhere), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(train(load([*overrides, *quiet])).record.metrics["val/accuracy"])
