"""Claim: averaged weights, norms and layer-wise rates cost a training step next to nothing.

    python benchmarks/options.py [--quick] [--json]

Each option of the Trainer on the embedded digits, with the seed of each round: CPU seconds of
training an epoch (up to its validation; SWA's forward pass for batch norm counts) against the run
without options in the same round, and the best validation loss of each. The first two epochs are
not timed. Options take turns within a round. Nothing is tested on the test split.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import lightning.pytorch as pl
import torch

from litlab.config.compose import load
from litlab.training.callbacks import build
from litlab.training.run import train

ROOT = Path(__file__).resolve().parents[1]
NETWORKS = {"mlp": ["model=mlp"], "cnn": ["model=cnn"]}
OPTIONS = {
    "none": [],
    "ema": ["trainer.ema={decay: 0.99}"],
    "swa": ["trainer.swa={start: 0.75, lr: 0.001}"],
    "log_norms": ["trainer.log_norms=true"],
    "layer_decay": ["optimizer.layer_decay=0.75"],
    "profiler=pytorch": ["trainer.profiler=pytorch"],
}
SKIPPED = 2  # epochs
ALWAYS = ["data=digits", "trainer.accelerator=cpu", "trainer.progress=none"]


@dataclass
class Epochs(pl.Callback):
    """Times the training of each epoch."""

    seconds: list[float] = field(default_factory=list)
    began: float = 0.0

    def on_train_epoch_start(self, trainer, pl_module) -> None:
        self.began = time.process_time()

    def on_validation_start(self, trainer, pl_module) -> None:
        self.seconds.append(time.process_time() - self.began)


@contextmanager
def timed() -> Iterator[Epochs]:
    """Let every Trainer that is made meanwhile have the clock, as its last callback."""
    own, clock = build.callbacks, Epochs()
    build.callbacks = lambda config: [*own(config), clock]
    try:
        yield clock
    finally:
        build.callbacks = own


def measure(network: list[str], rounds: int, epochs: int) -> dict[str, dict[str, list[float]]]:
    """Return ratios of seconds and best validation losses, by option."""
    found = {name: {"ratio": [], "val/loss": []} for name in OPTIONS}
    for seed in range(rounds):
        seconds = {}
        for name, option in OPTIONS.items():
            settings = [*ALWAYS, *network, *option, f"seed={seed}", f"trainer.max_epochs={epochs}"]
            with timed() as clock:
                result = train(load(settings))
            # SWA's last epochs are dearer, so the mean and not the median.
            seconds[name] = statistics.mean(clock.seconds[SKIPPED:])
            found[name]["ratio"].append(seconds[name] / seconds["none"])
            found[name]["val/loss"].append(result.record.metrics["val/loss"])
    return found


def spread(values: list[float], places: str) -> str:
    middle = statistics.median(values)
    return f"{middle:{places}} ({min(values):{places}} to {max(values):{places}})"


def as_table(results: dict[str, dict], rounds: int, epochs: int) -> str:
    lines = [
        f"# Options of the Trainer, {datetime.now(UTC):%Y-%m-%d}",
        "",
        f"`python benchmarks/options.py`; digits, {epochs} epochs of 19 steps, batch 64, one"
        f" thread, CPU time, median (min to max) of n = {rounds} seeds. {os.cpu_count()} cores,"
        f" {platform.machine()}, Python {platform.python_version()}, torch {torch.__version__},"
        f" lightning {pl.__version__}.",
        "",
        "| network | option | time of training, none = 1 | best val/loss |",
        "|---|---|---:|---:|",
    ]
    for network, found in results.items():
        for option, values in found.items():
            ratio, loss = spread(values["ratio"], ".2f"), spread(values["val/loss"], ".4f")
            lines.append(f"| {network} | {option} | {ratio} | {loss} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one round of six epochs, mlp alone")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rounds, epochs = (1, 6) if arguments.quick else (3, 12)
    names = ["mlp"] if arguments.quick else list(NETWORKS)
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "conf", Path(folder) / "conf")
        os.chdir(folder)
        results = {name: measure(NETWORKS[name], rounds, epochs) for name in names}
        os.chdir(ROOT)
    if arguments.json:
        claims = {
            f"{network}: {option}: {what}": statistics.median(values)
            for network, found in results.items()
            for option, kinds in found.items()
            for what, values in kinds.items()
        }
        print(json.dumps(claims))
        return
    table = as_table(results, rounds, epochs)
    print(table)
    if not arguments.quick:
        name = f"options-{datetime.now(UTC):%Y-%m-%d}.md"
        (ROOT / "benchmarks" / "results" / name).write_text(table)


if __name__ == "__main__":
    main()
