"""Claim: litlab answers at once, and trains soon: seconds from Enter.

    python benchmarks/startup.py [--quick] [--json] [--repeats 7]

Measured in processes of their own, in turns: `litlab --help`; a refused configuration; the end of
the first training step of `litlab train` (digits, prepared before, store there before); the same in
a new project, where data are prepared and the MLflow store is made; `dvc repro` with nothing to do;
and, as the floor, the first step of a bare PyTorch loop. Each as wall seconds and CPU seconds.
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
# The clock is the same in all processes (Linux). The second training batch means one step is done.
PROBE = """
import resource, time
from litlab.models.cnn import CNN

class Probe(CNN):
    seen = 0

    def forward(self, x):
        Probe.seen += self.training
        if Probe.seen == 2:
            usage = resource.getrusage(resource.RUSAGE_SELF)
            with open("first_step", "w") as file:
                file.write(f"{time.monotonic()} {usage.ru_utime + usage.ru_stime}")
            Probe.seen = 3
        return super().forward(x)
"""
BARE = """
import torch
x, y = torch.randn(64, 64), torch.randint(0, 10, (64,))
model = torch.nn.Linear(64, 10)
optimizer = torch.optim.AdamW(model.parameters(), fused=True)
torch.nn.functional.cross_entropy(model(x), y).backward()
optimizer.step()
"""
TRAIN = ["train", "trust=[probe]", "model._target_=probe.Probe", "trainer.max_epochs=1"]
AIMS = {
    "litlab --help": 0.3,
    "refused: modle=cnn": 2.0,
    "refused: optimizer.lr=-1": 2.0,
    "first step": 6.0,
    "dvc repro, nothing to do": 3.0,
}
Measured = tuple[float, float]  # wall and CPU seconds


def run(command: list[str], folder: Path, expect: int = 0) -> Measured:
    """Run a command to its end."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True)
    wall, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != expect:
        raise SystemExit(f"{command}: {done.returncode}\n{done.stdout}{done.stderr}")
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def environment() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "MLFLOW_"))}
    return {**kept, "PYTHONPATH": ".", "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}


def first_step(folder: Path) -> Measured:
    """Train, and read when the first step was done."""
    (folder / "probe.py").write_text(PROBE)
    began = time.monotonic()
    run([str(BIN / "litlab"), *TRAIN], folder)
    at, cpu = (folder / "first_step").read_text().split()
    return float(at) - began, float(cpu)


def project(folder: Path) -> Path:
    shutil.copytree(ROOT / "conf", folder / "conf")
    return folder


def first_step_in_new_project() -> Measured:
    with tempfile.TemporaryDirectory() as folder:
        return first_step(project(Path(folder)))


def pipeline(folder: Path) -> Path:
    """A repository whose pipeline has run."""
    sys.path.insert(0, str(ROOT / "tests"))
    from dvc_helpers import dvc, repository

    folder.mkdir()
    repository(folder, "trainer.max_epochs=1", "model=simple_nn")
    dvc("repro", cwd=folder)
    return folder


def variants(folder: Path) -> dict[str, Callable[[], Measured]]:
    litlab, settled = str(BIN / "litlab"), project(folder / "settled")
    first_step(settled)  # prepares, and makes the store
    done = pipeline(folder / "pipeline")
    return {
        "litlab --help": lambda: run([litlab, "--help"], settled),
        "refused: modle=cnn": lambda: run([litlab, "train", "modle=cnn"], settled, 2),
        "refused: optimizer.lr=-1": lambda: run([litlab, "train", "optimizer.lr=-1"], settled, 2),
        "bare PyTorch's first step": lambda: run([sys.executable, "-c", BARE], settled),
        "first step": lambda: first_step(settled),
        "first step in a new project": first_step_in_new_project,
        "dvc repro, nothing to do": lambda: run([str(BIN / "dvc"), "repro"], done),
    }


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def as_table(results: dict[str, list[Measured]], repeats: int) -> str:
    from litlab.runs.environment import describe

    machine = ", ".join(f"{k} {v}" for k, v in describe().items())
    lines = [
        f"Seconds from Enter; median (min to max) of {repeats}, files in the page cache.",
        f"{datetime.now(UTC):%Y-%m-%d}; {machine};",
        f"load {os.getloadavg()[1]:.1f}; `python benchmarks/startup.py`",
        "",
        "| | wall | CPU | aim |",
        "|---|---:|---:|---:|",
    ]
    for name, found in results.items():
        wall, cpu = zip(*found, strict=True)
        lines.append(f"| {name} | {spread(wall)} | {spread(cpu)} | {AIMS.get(name, '')} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="each once")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--only", default="", help="those whose names contain this")
    arguments = parser.parse_args()
    repeats = 1 if arguments.quick else arguments.repeats
    results: dict[str, list[Measured]] = {}
    with tempfile.TemporaryDirectory() as folder:
        chosen = {k: v for k, v in variants(Path(folder)).items() if arguments.only in k}
        for _ in range(repeats):
            for name, measure in chosen.items():
                results.setdefault(name, []).append(measure())
    if arguments.json:
        print(json.dumps({k: statistics.median(w for w, _ in v) for k, v in results.items()}))
        return
    table = as_table(results, repeats)
    print(table)
    if not (arguments.quick or arguments.only):
        name = f"startup-{datetime.now(UTC):%Y-%m-%d}.md"
        (ROOT / "benchmarks" / "results" / name).write_text(table)


if __name__ == "__main__":
    main()
