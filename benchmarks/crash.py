"""Claim: a run that is killed again and again ends as one that never was, to the last bit.

    python benchmarks/crash.py [--quick] [--json] [--kills 50]

For an MLP, a CNN with augmentation, accumulated gradients and bf16-mixed, a Transformer on texts
in batches of like length, and an MLP with averaged weights, one run is left alone and others are
killed (SIGKILL) about five times each: at a random moment, after a random step, or in a save:
while it is written, before it is flushed, before and after it is renamed. Each is resumed by
`--resume` until it ends. Compared are weights, optimizer, scheduler, averages, random states and
history, bit for bit, and the metrics in MLflow: none lost, none twice. Runs are forked from one
process that has imported everything, so that most of the time is training.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import statistics
import struct
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from litlab.config.compose import load
from litlab.data.prepare.open import open_or_prepare
from litlab.runs.checkpoint import io
from litlab.runs.checkpoint.io import read
from litlab.runs.checkpoint.resume import Resume
from litlab.runs.environment import describe
from litlab.training.callbacks.checkpoint import CheckpointCallback
from litlab.training.run import train
from litlab.utils.errors import CheckpointError

ROOT = Path(__file__).resolve().parents[1]
SYNTHETIC = ["data=synthetic", "data.source.num_samples=3000", "trainer=cpu"]
COMMON = ["trainer.progress=none", "loader.batch_size=32", "trainer.save_every_seconds=0.1"]
CASES = {
    "mlp": ["model=mlp", "model.hidden=[64]", "model.dropout=0.2", "trainer.max_epochs=12"],
    "cnn, augmented, accumulated, bf16": [
        *("model=cnn", "model.channels=[8,16]", "augment=standard", "trainer.max_epochs=4"),
        *("trainer.accumulate_grad_batches=3", "trainer.precision=bf16-mixed"),
    ],
    "transformer, texts by length": [
        *("data.source.kind=text", "model=transformer", "model.depth=1", "model.embed_dim=16"),
        *("model.num_heads=2", "model.ffn_dim=32", "trainer.max_epochs=5", "augment=none"),
    ],
    "mlp, averaged weights": [
        *("model=mlp", "model.hidden=[64]", "trainer.ema={decay: 0.99}", "trainer.max_epochs=10"),
    ],
}
SAVE_PLACES = ("writing", "flush", "before rename", "after rename")
NEWER = ("run_id", "started", "resumed", "seconds")  # of a run and not of its numbers


@dataclass
class Outcome:
    """What became of the killed runs of a case."""

    kills: dict[str, int] = field(default_factory=dict)
    runs: int = 0
    survived: int = 0
    identical: int = 0
    metrics_exact: int = 0
    repeated: list[int] = field(default_factory=list)  # steps done again, a kill
    steps: int = 0


def forked(work: Callable[[], None]) -> int:
    """Start it in a process of its own; return its id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 2)
        work()
        code = 0
    except CheckpointError:
        code = 4
    finally:
        os._exit(code)


def die(*_: object, **__: object) -> None:
    """Be killed."""
    os.kill(os.getpid(), signal.SIGKILL)


def watch(step_file: Path) -> None:
    """Note every step in a file that outlives this process."""
    handle, done = os.open(step_file, os.O_RDWR | os.O_CREAT), CheckpointCallback.batch_done

    def batch_done(self: CheckpointCallback, trainer: Any) -> None:
        os.pwrite(handle, struct.pack("<q", trainer.global_step), 0)
        done(self, trainer)

    CheckpointCallback.batch_done = batch_done  # type: ignore[method-assign]


def die_after(steps: int) -> None:
    """Be killed after as many steps of this process."""
    done, count = CheckpointCallback.batch_done, [0]

    def batch_done(self: CheckpointCallback, trainer: Any) -> None:
        done(self, trainer)
        count[0] += 1
        if count[0] == steps:
            die()

    CheckpointCallback.batch_done = batch_done  # type: ignore[method-assign]


def die_in_save(number: int, place: str) -> None:
    """Be killed in a save of `last.ckpt`, the first being number 1."""
    write, count = io.write, [0]

    def trap(content: Any, path: Path, previous: Path | None = None) -> None:
        count[0] += path.name == "last.ckpt"
        if path.name == "last.ckpt" and count[0] == number:
            if place == "writing":
                real = io._Hashing.write
                io._Hashing.write = lambda s, d: (real(s, d), s.file.tell() > 20_000 and die())[0]
            elif place == "flush":
                os.fsync = die  # type: ignore[assignment]
            elif place == "before rename":
                Path.replace = die  # type: ignore[assignment]
        write(content, path, previous)
        if path.name == "last.ckpt" and count[0] == number:
            die()

    io.write = trap  # type: ignore[assignment]


def steps_at(step_file: Path) -> int:
    noted = step_file.read_bytes() if step_file.exists() else b""
    return int(struct.unpack("<q", noted)[0]) if len(noted) == 8 else 0


def saved_steps(folder: Path) -> int:
    """The step of the newest checkpoint that is whole, 0 without one."""
    for name in ("last.ckpt", "previous.ckpt"):
        try:
            return int(io.verify(folder / name)["step"])
        except CheckpointError:
            continue
    return 0


def digest(folder: Path) -> str:
    """One SHA-256 of all that two runs must have in common."""
    total = hashlib.sha256()

    def add(value: Any, path: str) -> None:
        if path.rsplit(".", 1)[-1] in NEWER:
            return
        if isinstance(value, torch.Tensor):
            total.update(path.encode() + value.reshape(-1).view(torch.uint8).numpy().tobytes())
        elif isinstance(value, dict):
            for key in value:
                add(value[key], f"{path}.{key}")
        elif isinstance(value, list | tuple):
            for place, one in enumerate(value):
                add(one, f"{path}[{place}]")
        else:
            total.update(f"{path}={value!r}".encode())

    for name in ("last.ckpt", "best.ckpt"):
        add({k: v for k, v in read(folder / name).items() if k != "hyper_parameters"}, name)
    total.update((folder / "history.csv").read_bytes())
    return total.hexdigest()


def recorded(project: Path, folder: Path) -> dict[str, list[list[float]]]:
    """Every metric of a run in MLflow, each step as often as it is there.

    Asked in a process of its own: a connection to SQLite must not be open when a run is forked.
    """
    answer = folder.with_suffix(".metrics")
    child = forked(lambda: void(answer.write_text(json.dumps(_ask(project, folder)))))
    os.waitpid(child, 0)
    found: dict[str, list[list[float]]] = json.loads(answer.read_text())
    return found


def _ask(project: Path, folder: Path) -> dict[str, list[tuple[int, float]]]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{project / 'mlflow.db'}")
    run = client.get_run(json.loads((folder / "run.json").read_text())["run_id"])
    names = run.data.metrics
    history = {name: client.get_metric_history(run.info.run_id, name) for name in names}
    return {name: sorted((m.step, m.value) for m in rows) for name, rows in history.items()}


def kill_once(case: list[str], folder: Path, kind: str, draw: random.Random, span: float) -> bool:
    """Start or resume a run and kill it; return whether it was killed before it ended."""
    config, resumes = load([*SYNTHETIC, *COMMON, *case]), (folder / "last.ckpt").exists()
    number, place = draw.randint(1, 4), draw.choice(SAVE_PLACES)
    steps = draw.randint(1, 120)

    def work() -> None:
        watch(folder.with_suffix(".steps"))
        if kind == "save":
            die_in_save(number, place)
        elif kind == "step":
            die_after(steps)
        train(config, folder, resume=Resume() if resumes else None)

    if not resumes:  # killed before its first save: there was nothing to go on with
        shutil.rmtree(folder, ignore_errors=True)
    child = forked(work)
    if kind == "moment":
        deadline, begun = time.monotonic() + draw.uniform(0.0, span), False
        while os.waitpid(child, os.WNOHANG) == (0, 0):
            now = steps_at(folder.with_suffix(".steps"))
            if not begun and now:
                begun, deadline = True, time.monotonic() + draw.uniform(0.0, span)
            if begun and time.monotonic() > deadline:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                return True
            time.sleep(0.005)
        return False
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def whole_run(case: list[str], folder: Path) -> float:
    """Train without interruption, in a process of its own; return seconds."""
    config, began = load([*SYNTHETIC, *COMMON, *case]), time.monotonic()
    child = forked(lambda: void(train(config, folder)))
    if os.waitpid(child, 0)[1] != 0:
        raise SystemExit(f"the uninterrupted run failed: {case}")
    return time.monotonic() - began


def void(_: object) -> None:
    """Forget a result."""


def crash(project: Path, name: str, kills: int, draw: random.Random) -> Outcome:
    """Kill runs of a case until there were as many kills; compare each that ended."""
    case, outcome = CASES[name], Outcome()
    label = name.split(",")[0] + str(list(CASES).index(name))
    whole = project / "runs" / f"{label}-whole"
    seconds = whole_run(case, whole)
    expected, metrics = digest(whole), recorded(project, whole)
    outcome.steps = saved_steps(whole)
    while sum(outcome.kills.values()) < kills:
        folder = project / "runs" / f"{label}-{outcome.runs}"
        ended = False
        for _ in range(5):
            kind = draw.choice(["moment", "step", "save"])
            folder.with_suffix(".steps").unlink(missing_ok=True)
            if not kill_once(case, folder, kind, draw, seconds / 6):
                ended = True
                break
            outcome.kills[kind] = outcome.kills.get(kind, 0) + 1
            done, saved = steps_at(folder.with_suffix(".steps")), saved_steps(folder)
            if saved:
                outcome.repeated.append(max(0, done - saved))
            if sum(outcome.kills.values()) == kills:
                break
        outcome.runs += 1
        config = load([*SYNTHETIC, *COMMON, *case])
        if not ended:
            resumes = (folder / "last.ckpt").exists()
            if not resumes:
                shutil.rmtree(folder, ignore_errors=True)
            wish = Resume() if resumes else None
            child = forked(lambda c=config, f=folder, w=wish: void(train(c, f, resume=w)))
            ended = os.waitpid(child, 0)[1] == 0
        outcome.survived += ended
        if ended:
            outcome.identical += digest(folder) == expected
            found = recorded(project, folder)
            outcome.metrics_exact += found == metrics
            for metric in sorted({*found, *metrics}):
                if found.get(metric) != metrics.get(metric):
                    steps = [step for step, _ in found.get(metric, [])]
                    print(f"{folder.name}: {metric} has steps {steps}", file=sys.stderr)
    return outcome


def report(outcomes: dict[str, Outcome]) -> str:
    lines = [
        "| run | steps | kills (moment, step, save) | runs | survived | identical | metrics exact "
        "| steps repeated a kill |",
        "|---|---:|---|---:|---:|---:|---:|---|",
    ]
    for name, o in outcomes.items():
        kinds = ", ".join(str(o.kills.get(kind, 0)) for kind in ("moment", "step", "save"))
        again = o.repeated or [0]
        spread = f"{statistics.median(again):g} ({min(again)} to {max(again)})"
        total = sum(o.kills.values())
        lines.append(
            f"| {name} | {o.steps} | {total} ({kinds}) | {o.runs} | {o.survived} | {o.identical} "
            f"| {o.metrics_exact} | {spread} |"
        )
    return "\n".join(lines)


def main() -> int:
    """Run, print, write; 1 if any run was lost or differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="four kills, on fewer samples")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if options.quick:
        SYNTHETIC[1] = "data.source.num_samples=900"
    kills = 4 if options.quick else options.kills
    names = list(CASES)[:2] if options.quick else list(CASES)
    shares = [kills // len(names) + (place < kills % len(names)) for place in range(len(names))]
    draw, outcomes = random.Random(options.seed), {}
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder)
        shutil.copytree(ROOT / "conf", project / "conf")
        os.chdir(project)
        for name, share in zip(names, shares, strict=True):
            config = load([*SYNTHETIC, *CASES[name]])
            shutil.rmtree(project / "data", ignore_errors=True)
            open_or_prepare(config.data, [])
            outcomes[name] = crash(project, name, share, draw)
            print(f"{name}: {outcomes[name]}", file=sys.stderr)
    runs, lost = sum(o.runs for o in outcomes.values()), 0
    for o in outcomes.values():
        lost += 3 * o.runs - o.survived - o.identical - o.metrics_exact
    machine = ", ".join(f"{k} {v}" for k, v in describe().items())
    text = (
        f"# Runs that are killed\n\n{datetime.now(UTC):%Y-%m-%d}; {machine};\n"
        f"`python benchmarks/crash.py --kills {kills} --seed {options.seed}`\n\n"
        f"{report(outcomes)}\n"
    )
    if options.json:
        counted = ("survived", "identical", "metrics_exact")
        total = {name: sum(getattr(o, name) for o in outcomes.values()) for name in counted}
        print(json.dumps({"kills": kills, "runs": runs, **total}))
    else:
        print(text)
    if not options.quick:
        path = ROOT / "benchmarks" / "results" / f"crash-{datetime.now(UTC):%Y-%m-%d}.md"
        path.write_text(text)
    return int(lost > 0)


if __name__ == "__main__":
    sys.exit(main())
