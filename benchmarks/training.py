"""Claim: litlab's `train`, with everything on, costs hardly more than the loop written by hand.

    python benchmarks/training.py [--quick] [--json] [--only mlp,cnn,transformer] [--device cpu]

The same network, memory layout, batches, optimizer and schedule, trained by a bare PyTorch loop
(with torch's own choice of optimizer kernel, and with the fused one), by litlab's `train`
(metrics, MLflow in sqlite, both checkpoints, progress bar on a terminal) and the ordinary Lightning
way (a DataLoader without workers, torchmetrics and self.log each step, progress bar off), from a
TensorDataset that was normalized beforehand and from a Dataset that normalizes each sample. All in
one process, in turns: each epoch of a Trainer comes after one of each bare loop; ratios are of such
neighbours.

Timed are whole epochs after a warm-up, divided by their steps: `steps`, from the epoch's start to
the start of its validation; `no validation`, the whole epoch (metrics, MLflow, checkpoints,
progress) less its validation pass; `everything`, the whole epoch. The bare loops validate too
(mean loss and accuracy) but record nothing: their `steps` and `no validation` are the same.
Where others use the machine, `--clock cpu` counts this process's CPU seconds instead.
"""

import argparse
import json
import os
import pty
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import lightning.pytorch as pl
import torch

import training_loops as loops
from training_loops import Bare, Job, Seconds, fit_ordinary, now

ROOT = Path(__file__).resolve().parents[1]
FASHION = ["data=fashion_mnist", "augment=none"]
SMALL = ["model=mlp", "model.hidden=[128]", "model.norm=none"]
CASES = {  # overrides, measured epochs
    "mlp": ([*FASHION, *SMALL, "loader.batch_size=128"], 12),
    "cnn": ([*FASHION, "model=cnn", "loader.batch_size=256"], 4),
    "transformer": (["data=mnist1d", "augment=none", "model=transformer"], 20),
}
PARTS = ("steps", "no validation", "everything")


@dataclass
class Turns(pl.Callback):
    """Times a Trainer's epochs, and lets each bare loop run an epoch between two of them."""

    bare: dict[str, Bare]
    device: torch.device
    steps: int
    rows: list[dict[str, Seconds]] = field(default_factory=list)
    marks: dict[str, float] = field(default_factory=dict)

    def on_train_epoch_start(self, trainer, pl_module) -> None:
        if self.marks:
            self.close()
        self.rows.append({name: loop.epoch() for name, loop in self.bare.items()})
        self.marks = {"began": now(self.device)}

    def on_validation_start(self, trainer, pl_module) -> None:
        self.marks["trained"] = now(self.device)

    def on_validation_end(self, trainer, pl_module) -> None:
        self.marks["validated"] = now(self.device)

    def on_fit_end(self, trainer, pl_module) -> None:
        self.close()

    def close(self) -> None:
        ended, m = now(self.device), self.marks
        validation = m["validated"] - m["trained"]
        self.rows[-1]["trainer"] = {
            "steps": (m["trained"] - m["began"]) / self.steps,
            "no validation": (ended - m["began"] - validation) / self.steps,
            "everything": (ended - m["began"]) / self.steps,
        }


@contextmanager
def terminal(wanted: bool) -> Iterator[None]:
    """Let standard error be a terminal that nobody looks at, so that there is a progress bar."""
    before, os.environ["TERM"] = sys.stderr, "xterm"
    os.environ["COLUMNS"], os.environ["LINES"] = "120", "40"
    ours, theirs = pty.openpty()
    sink = subprocess.Popen(
        ["cat"], stdin=ours, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        with open(theirs, "w") if wanted else open(os.devnull, "w") as sys.stderr:
            yield
    finally:
        sys.stderr = before
        sink.kill()
        sink.wait()


def run_litlab(job: Job, turns: Turns, progress: str) -> None:
    """`litlab train`, in this process; the only thing added is the clock."""
    import litlab.training.run

    fit = litlab.training.run.fit

    def timed(trainer, *arguments) -> None:
        trainer.callbacks.insert(0, turns)
        fit(trainer, *arguments)

    litlab.training.run.fit = timed
    try:
        with terminal(progress == "bar"):
            litlab.training.run.train(job.config)
    finally:
        litlab.training.run.fit = fit


TRAINERS = {
    "litlab": run_litlab,
    "Lightning, TensorDataset": lambda job, turns, _: fit_ordinary(job, turns, whole=True),
    "Lightning, Dataset": lambda job, turns, _: fit_ordinary(job, turns, whole=False),
}


def measure(job: Job, progress: str) -> dict[str, list[dict[str, Seconds]]]:
    """Return each Trainer's rows, one an epoch: its seconds and those of the loops beside it."""
    device = job.x.device
    found = {}
    for name, run in TRAINERS.items():
        bare = {"bare": Bare(job, None), "bare, fused": Bare(job, True)}
        turns = Turns(bare, device, job.steps)
        run(job, turns, progress)
        found[name] = turns.rows[1:]
    return found


def summary(
    rows: dict[str, list[dict[str, Seconds]]], part: str
) -> dict[str, dict[str, list[float]]]:
    """Return ms a step of each variant, and how many times each bare loop's that is."""
    variants = {
        "bare": [row["bare"][part] for found in rows.values() for row in found],
        "bare, fused": [row["bare, fused"][part] for found in rows.values() for row in found],
        **{name: [row["trainer"][part] for row in found] for name, found in rows.items()},
    }
    result = {name: {"ms": [1000 * value for value in values]} for name, values in variants.items()}
    for name, found in rows.items():
        for loop in ("bare", "bare, fused"):
            result[name][loop] = [row["trainer"][part] / row[loop][part] for row in found]
    return result


def spread(values: list[float], form: str) -> str:
    low, mid, high = min(values), statistics.median(values), max(values)
    return f"{mid:{form}} ({low:{form}} to {high:{form}})"


def as_table(results: dict[str, dict], device: str, progress: str) -> str:
    from litlab.runs.environment import describe

    machine = ", ".join(f"{k} {v}" for k, v in describe().items())
    lines = [
        "Milliseconds a training step, over whole epochs; median (min to max).",
        "x bare, x fused: how many times the time of the bare loop's neighbouring epoch,",
        "with torch's own choice of optimizer kernel and with the fused one.",
        f"{datetime.now(UTC):%Y-%m-%d}; on {device}; progress: {progress};",
        f"{torch.get_num_threads()} threads; {machine};",
        "`python benchmarks/training.py`",
    ]
    for title, (job, rows) in results.items():
        n = min(len(found) for found in rows.values())
        lines += ["", f"## {title}: {job.spec.name}, batches of {job.config.loader.batch_size}"]
        lines += ["", f"{job.steps} steps an epoch, {n} epochs after a warm-up of one."]
        for part in PARTS:
            lines += ["", f"| {part} | ms a step | x bare | x fused |", "|---|---:|---:|---:|"]
            for name, values in summary(rows, part).items():
                ratios = [
                    spread(values[b], ".3f") if b in values else "" for b in ("bare", "bare, fused")
                ]
                lines.append(f"| {name} | {spread(values['ms'], '.3f')} | {' | '.join(ratios)} |")
    return "\n".join(lines) + "\n"


def as_claims(results: dict[str, dict]) -> dict[str, float]:
    claims = {}
    for title, (_, rows) in results.items():
        for part in PARTS:
            found = summary(rows, part)
            for name, values in found.items():
                claims[f"{title}: {part}: {name}: ms"] = statistics.median(values["ms"])
            for name in TRAINERS:
                for loop in ("bare", "bare, fused"):
                    ratio = statistics.median(found[name][loop])
                    claims[f"{title}: {part}: {name} / {loop}"] = ratio
    return claims


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="twenty steps, two epochs")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    parser.add_argument("--only", default=",".join(CASES), help="networks, by commas")
    parser.add_argument("--epochs", type=int, help="measured epochs of each")
    parser.add_argument(
        "--steps", type=int, help="at most as many an epoch; whole epochs if left out"
    )
    parser.add_argument("--progress", choices=("bar", "lines"), default="bar")
    parser.add_argument("--device", choices=("cpu", "cuda"))
    parser.add_argument("--clock", choices=tuple(loops.CLOCKS), default="wall")
    arguments = parser.parse_args()
    loops.clock = loops.CLOCKS[arguments.clock]
    device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "conf", Path(folder) / "conf")
        os.chdir(folder)
        for name in arguments.only.split(","):
            overrides, epochs = CASES[name]
            epochs, steps = arguments.epochs or epochs, arguments.steps
            if arguments.quick:
                epochs, steps = 2, 20
            job = loops.prepare(overrides, epochs + 1, steps, device)
            results[name] = job, measure(job, arguments.progress)
        os.chdir(ROOT)
    if arguments.json:
        print(json.dumps(as_claims(results)))
        return
    table = as_table(results, device, arguments.progress)
    print(table)
    if not (arguments.quick or arguments.steps or arguments.epochs):
        only = "" if arguments.only == ",".join(CASES) else f"{arguments.only.replace(',', '-')}-"
        name = f"training-{only}{device}-{datetime.now(UTC):%Y-%m-%d}.md"
        (ROOT / "benchmarks" / "results" / name).write_text(table)


if __name__ == "__main__":
    main()
