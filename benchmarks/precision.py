"""Claim: what bfloat16, channels last and compilation are worth, in time and in accuracy.

    python benchmarks/precision.py [--quick] [--json] [--seeds 3] [--rounds 15] [--device cpu]

Time: one training step (forward, backward, fused AdamW) of the CNN on Fashion-MNIST at batch 256
and of the Transformer on MNIST-1D at batch 64; the variants take turns, step by step, and speed-ups
are of the same round. The first two steps show what compilation costs where it was not done before.
Accuracy: whole runs of `litlab train` on digits in both precisions, measured on the test split.
"""

import argparse
import copy
import itertools
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch.nn import functional as F

import training_loops as loops
from litlab.training.compile import compile_in_place, use_channels_last
from training_loops import Job, now

ROOT = Path(__file__).resolve().parents[1]
CASES = {
    "cnn": ["data=fashion_mnist", "augment=none", "model=cnn", "loader.batch_size=256"],
    "transformer": ["data=mnist1d", "augment=none", "model=transformer"],
}
PRECISIONS = {"32-true": False, "bf16-mixed": True}


def variants(name: str) -> list[tuple[str, bool, bool]]:
    """Precision, channels last, compiled."""
    layouts = (False, True) if name == "cnn" else (False,)
    return list(itertools.product(PRECISIONS, layouts, (False, True)))


def label(precision: str, channels_last: bool, compiled: bool) -> str:
    more = [", channels last"] * channels_last + [", compiled"] * compiled
    return precision + "".join(more)


def step_of(job: Job, precision: str, channels_last: bool, compiled: bool) -> Callable[[], None]:
    model = copy.deepcopy(job.model).to(job.x.device)
    if channels_last:
        use_channels_last(model)
    if compiled:
        compile_in_place(model)
    optimizer, _ = job.optimizer(model, True)
    size = job.config.loader.batch_size
    x, y, kind = job.x[:size], job.y[:size], job.x.device.type

    def step() -> None:
        with torch.autocast(kind, torch.bfloat16, enabled=PRECISIONS[precision]):
            outputs = model(x)
        loss = F.cross_entropy(outputs.float(), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def speeds(job: Job, name: str, rounds: int) -> dict[str, dict[str, object]]:
    """Return each variant's ms a step, speed-ups, and seconds of the first two steps."""
    device, found, steps = job.x.device, {}, {}
    for variant in variants(name):
        step = steps[label(*variant)] = step_of(job, *variant)
        began = time.perf_counter()
        step(), step()
        found[label(*variant)] = {"first": time.perf_counter() - began, "ms": []}
    for _ in range(rounds):
        for key, step in steps.items():
            began = now(device)
            step()
            found[key]["ms"].append(1000 * (now(device) - began))
    plain = found["32-true"]["ms"]
    for result in found.values():
        result["speed-up"] = [a / b for a, b in zip(plain, result["ms"], strict=True)]
    return found


def scores(name: str, seeds: int, extra: list[str]) -> dict[str, list[float]]:
    """Return test accuracies by precision, a seed each."""
    from litlab.config.compose import load
    from litlab.evaluation.evaluate import evaluate
    from litlab.training.run import train

    found: dict[str, list[float]] = {precision: [] for precision in PRECISIONS}
    for seed, precision in itertools.product(range(seeds), PRECISIONS):
        chosen = [f"model={name}", f"seed={seed}", f"trainer.precision={precision}"]
        result = train(load(["data=digits", "trainer.progress=none", *chosen, *extra]))
        found[precision].append(evaluate(str(result.folder)).metrics["accuracy"])
        seconds = result.record.seconds
        print(
            f"{name} {precision} seed {seed}: {found[precision][-1]:.4f}, {seconds} s",
            file=sys.stderr,
        )
    return found


def spread(values: list[float], form: str) -> str:
    low, mid, high = min(values), statistics.median(values), max(values)
    return f"{mid:{form}} ({low:{form}} to {high:{form}})"


def as_table(results: dict[str, dict], device: str, clock: str) -> str:
    from litlab.runs.environment import describe

    machine = ", ".join(f"{k} {v}" for k, v in describe().items())
    lines = [
        "A training step's milliseconds, and how many times as fast as 32-true in the same round;",
        "median (min to max). Test accuracy on digits, a seed each.",
        f"{datetime.now(UTC):%Y-%m-%d}; on {device}; {clock} clock;",
        f"{torch.get_num_threads()} threads;",
        f"{machine}; `python benchmarks/precision.py`",
    ]
    for name, (timed, scored) in results.items():
        lines += ["", f"## {name}", "", "| | ms a step | times as fast | first two steps, s |"]
        lines += ["|---|---:|---:|---:|"]
        for key, found in timed.items():
            ratio = spread(found["speed-up"], ".2f")
            lines.append(
                f"| {key} | {spread(found['ms'], '.1f')} | {ratio} | {found['first']:.1f} |"
            )
        lines += ["", "| | test accuracy | mean |", "|---|---|---:|"]
        for precision, values in scored.items():
            each = ", ".join(f"{value:.4f}" for value in values)
            lines.append(f"| {precision} | {each} | {statistics.mean(values):.4f} |")
    return "\n".join(lines) + "\n"


def as_claims(results: dict[str, dict]) -> dict[str, float]:
    claims = {}
    for name, (timed, scored) in results.items():
        for key, found in timed.items():
            claims[f"{name}: {key}: times as fast"] = statistics.median(found["speed-up"])
        for precision, values in scored.items():
            claims[f"{name}: {precision}: accuracy"] = statistics.mean(values)
    return claims


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two rounds, one seed, two epochs")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--device", choices=("cpu", "cuda"))
    parser.add_argument("--clock", choices=tuple(loops.CLOCKS), default="wall")
    arguments = parser.parse_args()
    loops.clock = loops.CLOCKS[arguments.clock]
    device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    rounds, seeds, extra = arguments.rounds, arguments.seeds, []
    if arguments.quick:
        rounds, seeds, extra = 2, 1, ["trainer.max_epochs=2"]
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "conf", Path(folder) / "conf")
        os.chdir(folder)
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = f"{folder}/kernels"  # compiled anew
        for name, overrides in CASES.items():
            timed = speeds(loops.prepare(overrides, 1, None, device), name, rounds)
            results[name] = timed, scores(name, seeds, extra)
        os.chdir(ROOT)
    if arguments.json:
        print(json.dumps(as_claims(results)))
        return
    table = as_table(results, device, arguments.clock)
    print(table)
    if not arguments.quick:
        name = f"precision-{device}-{datetime.now(UTC):%Y-%m-%d}.md"
        (ROOT / "benchmarks" / "results" / name).write_text(table)


if __name__ == "__main__":
    main()
