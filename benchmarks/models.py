"""Claim: each model learns each embedded data set. Test scores over seeds, with times.

    python benchmarks/models.py [--quick] [--json] [--seeds 3]

Everything happens in a temporary project; the table goes to benchmarks/results/ unless --quick.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAIRS = [
    *(
        (data, model)
        for data in ("digits", "mnist1d", "breast_cancer")
        for model in ("mlp", "cnn", "transformer")
    ),
    ("diabetes", "mlp"),
    ("diabetes", "transformer"),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one seed, three epochs, small data")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    pairs = [p for p in PAIRS if p[0] != "mnist1d"] if arguments.quick else PAIRS
    seeds = range(1 if arguments.quick else arguments.seeds)
    extra = ["trainer.max_epochs=3"] if arguments.quick else []
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "conf", Path(folder) / "conf")
        os.chdir(folder)
        results = {f"{d}/{m}": measure(d, m, seeds, extra) for d, m in pairs}
    if arguments.json:
        print(json.dumps({name: result["median"] for name, result in results.items()}))
    table = as_table(results, len(seeds))
    if not arguments.json:
        print(table)
    if not arguments.quick:
        name = f"models-{datetime.now(UTC):%Y-%m-%d}.md"
        folder = ROOT / "benchmarks" / "results"
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(table)


def measure(data: str, model: str, seeds: range, extra: list[str]) -> dict[str, object]:
    from litlab.config.compose import load
    from litlab.evaluation.evaluate import evaluate
    from litlab.training.run import train

    scores, seconds = [], []
    for seed in seeds:
        config = load([f"data={data}", f"model={model}", f"seed={seed}", *extra])
        config = config.model_copy(
            update={"trainer": config.trainer.model_copy(update={"progress": "none"})}
        )
        began = time.monotonic()
        result = train(config)
        metrics = evaluate(str(result.folder)).metrics
        score = "accuracy" if "accuracy" in metrics else "r2"
        scores.append(metrics[score])
        seconds.append(result.record.seconds)
        print(
            f"{data} {model} seed {seed}: {score} {scores[-1]:.4f}, fit {seconds[-1]:.1f} s, "
            f"all {time.monotonic() - began:.1f} s",
            file=sys.stderr,
        )
    return {
        "score": score,
        "median": statistics.median(scores),
        "min": min(scores),
        "max": max(scores),
        "seconds": statistics.median(seconds),
        "parameters": result.record.num_parameters,
    }


def as_table(results: dict[str, dict[str, object]], num_seeds: int) -> str:
    from litlab.runs.environment import describe

    machine = ", ".join(f"{k} {v}" for k, v in describe().items())
    lines = [
        f"Test scores, median (min to max) of {num_seeds} seeds; seconds of the fit, median.",
        f"{datetime.now(UTC):%Y-%m-%d}; {machine}; `python benchmarks/models.py`",
        "",
        "| data | model | parameters | test score | seconds |",
        "|---|---|---:|---|---:|",
    ]
    for name, r in results.items():
        data, model = name.split("/")
        lines.append(
            f"| {data} | {model} | {r['parameters']:,} | {r['score']} {r['median']:.4f} "
            f"({r['min']:.4f} to {r['max']:.4f}) | {r['seconds']:.1f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
