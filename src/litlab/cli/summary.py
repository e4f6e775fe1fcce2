"""The short table of an evaluation."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from litlab.config.compose import untrusted
from litlab.runs.folder import read_results
from litlab.utils.output import command, console, nth_epoch, number, say, table
from litlab.utils.paths import project_root, short

if TYPE_CHECKING:
    from litlab.evaluation.run import Run
    from litlab.training.replay import Replay
    from litlab.tuning.results.outcome import Finalist, Outcome

MOST_FAILED = 20  # failed trials that the table names


def show_training(result: "Run", *, next_step: bool) -> None:
    """Say how a run went; see `litlab.training.run`.

    Args:
        result: What it left.
        next_step: Whether to say what follows.
    """
    record = result.record
    names = [name for name in record.metrics if "val" in name] or list(record.metrics)
    metrics = "  ".join(f"{name} {number(record.metrics[name])}" for name in names)
    if record.best_epoch is not None:
        say(f"best epoch {nth_epoch(record.best_epoch)} of {record.epochs}: {metrics}")
    say(f"{record.seconds:.1f} s; run {record.run_id} in {short(result.folder)}")
    if next_step:
        say(f"next: {command('evaluate', short(result.folder), trust=untrusted(result.trust))}")


def show_study(
    outcome: "Outcome", monitor: str, experiment: str, page: str, next_command: str
) -> None:
    """Say what a study has come to.

    Args:
        outcome: The study's.
        monitor: What it went by.
        experiment: The file of its best settings.
        page: Its report.
        next_command: What makes these settings the pipeline's.
    """
    from litlab.tuning.report.importances import baseline_of, difference
    from litlab.tuning.results.outcome import failed_label

    best, top = outcome.best, outcome.top
    rows = {"trials": ", ".join(f"{n} {state}" for state, n in outcome.trials.items())}
    for failed in outcome.failed[:MOST_FAILED]:
        rows[f"failed: {failed_label(failed)}"] = " ".join(failed["reason"].split())
    if len(outcome.failed) > MOST_FAILED:
        rows["failed"] = f"{len(outcome.failed) - MOST_FAILED} more, listed in the report"
    rows[f"best {monitor}"] = f"{number(top['value'])} in trial {top['number']}"
    if outcome.first is not None:
        rows["baseline"] = number(outcome.first)
    if outcome.pareto:
        numbers = ", ".join(str(point["number"]) for point in outcome.pareto)
        rows["Pareto front"] = f"trials {numbers}"
    for finalist in outcome.finalists:
        scores = [_score(finalist, name) for name in finalist.values]
        rows[f"{finalist.label}, {len(finalist.seeds)} seeds"] = scores[0]
        for name, score in zip(list(finalist.values)[1:], scores[1:], strict=True):
            rows[f"{finalist.label}, {name}"] = score
    first = baseline_of(outcome.finalists)
    gain = difference(outcome.finalists[0], first, monitor) if first else None
    if gain and outcome.finalists[0] is not first:
        ends = gain.interval
        between = f"  (95 %: {ends[0]:+.4g} to {ends[1]:+.4g})" if ends else ""
        gained = f"{monitor} {gain.mean:+.4g}{between}, paired by seed"
        rows["gain over the baseline"] = gained
    chosen = f"trial {best['number']}" if best["params"] else "the baseline"
    rows["chosen"] = f"{chosen}, by its mean {monitor}" if outcome.finalists else chosen
    rows |= {path: _value(value) for path, value in best["params"].items()}
    rows["experiment"] = experiment
    rows["report"] = page
    console.print(table(f"study {outcome.study}", rows))
    say(f"next: {next_command}")  # not in the table, which would break a long line
    dashboard = f"optuna-dashboard {shlex.quote(outcome.storage)}"
    say(f"to browse the trials: {dashboard}   (pip install optuna-dashboard)")
    for line in outcome.advice:
        say(f"- {line}")


def _score(finalist: "Finalist", name: str) -> str:
    """A finalist's mean, with its interval where seeds differ."""
    from litlab.tuning.study.settings import shown

    mean, interval = shown(name, finalist.mean(name)), finalist.interval(name)
    if interval is None or len(set(finalist.values[name])) == 1:
        return mean
    return f"{mean}  (95 %: {shown(name, interval[0])} to {shown(name, interval[1])})"


def _value(value: Any) -> str:
    return number(value) if isinstance(value, float) else str(value)


def show_replay(replay: "Replay") -> None:
    """Say what a refused step did when it was taken again."""
    bad = replay.gradients
    more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
    rows = {
        "in the run": replay.what,
        "in the replay": f"train/loss is {number(replay.loss)}, {len(bad)} gradients not finite",
        "first not finite": replay.first or "no layer's output",
        "gradients not finite": (", ".join(bad[:5]) + more) if bad else "none",
        "inputs": replay.inputs,
        "weights before": replay.weights,
        "reproduced": "yes" if replay.reproduced else "no",
    }
    console.print(table(f"epoch {nth_epoch(replay.epoch)}, step {replay.step}", rows))


def listed_thresholds(thresholds: dict[str, float]) -> str:
    """Return the labels' thresholds in a line."""
    shown = [f"{label} {number(value)}" for label, value in list(thresholds.items())[:8]]
    more = f" and {len(thresholds) - 8} more" if len(thresholds) > 8 else ""
    return f"{', '.join(shown)}{more}"


def show_summary(folder: Path) -> None:
    """Print it: read from the evaluation's files, nothing is computed."""
    metrics, run = read_results(folder)
    intervals: dict[str, Any] = metrics.get("test_interval_95", {})
    rows = {}
    for name, value in metrics["test"].items():
        low_high = intervals.get(name)
        interval = f"  (95 %: {number(low_high[0])} to {number(low_high[1])})" if low_high else ""
        # null stands for NaN or infinity.
        rows[f"test {name}"] = ("not finite" if value is None else number(value)) + interval
    if metrics.get("thresholds"):
        shown = listed_thresholds(metrics["thresholds"])
        rows["thresholds"] = f"{shown}  (chosen on validation)"
    rows["report"] = short(folder / "report.html")
    rows["checkpoint"] = short(project_root() / run["checkpoint"])
    rows["run"] = f"{run['run_id']} in experiment {run['experiment']}"
    rows["compare"] = "litlab ui   (or: mlflow ui, then http://127.0.0.1:5000)"
    console.print(table(run["run_name"], rows))
