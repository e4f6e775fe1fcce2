"""The short table of an evaluation."""

from pathlib import Path
from typing import Any

from litlab.output import console, number, table
from litlab.paths import project_root, short
from litlab.run_folder import read_results


def show_summary(folder: Path) -> None:
    """Print it: read from the evaluation's files, nothing is computed."""
    metrics, run = read_results(folder)
    intervals: dict[str, Any] = metrics.get("test_interval_95", {})
    rows = {}
    for name, value in metrics["test"].items():
        low_high = intervals.get(name)
        interval = f"  (95 %: {number(low_high[0])} to {number(low_high[1])})" if low_high else ""
        rows[f"test {name}"] = number(value) + interval
    rows["report"] = short(folder / "report.html")
    rows["checkpoint"] = short(project_root() / run["checkpoint"])
    rows["run"] = f"{run['run_id']} in experiment {run['experiment']}"
    rows["compare"] = "litlab ui   (or: mlflow ui, then http://127.0.0.1:5000)"
    console.print(table(run["run_name"], rows))
