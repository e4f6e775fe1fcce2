"""Writes what an evaluation found: metrics, predictions, figures and the report."""

import math
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from litlab.config import compose as configuration
from litlab.data.encode import decode
from litlab.data.loading import Split
from litlab.data.spec import SPLITS, Array, DataSpec
from litlab.evaluation import language_model, several_labels
from litlab.evaluation.inference import Outputs
from litlab.evaluation.language_model import Sampling, TokenOutputs, context, write
from litlab.evaluation.predict import safe_cell
from litlab.report import figures
from litlab.report.intervals import bootstrap_interval, wilson
from litlab.report.page import Mistake, ReportRecord, WorstSamples, render
from litlab.report.tables import LabelRow
from litlab.runs.checkpoint.metadata import Loaded
from litlab.runs.folder import RunRecord, RunReference
from litlab.runs.tracking.history import read_rows, write_rows
from litlab.tasks.multi_label import MultiLabelTask
from litlab.tasks.task import Task
from litlab.utils.files import write_json
from litlab.utils.names import file_name
from litlab.utils.output import command, number
from litlab.utils.paths import relative
from litlab.utils.redact import redact

# The test samples that a network got most wrong, in the words of their source.


MOST = 12
COLUMNS = 4  # of a table, that are shown
TEXT = 240  # characters of a text
STEPS = 120  # of a sequence
SURE = "The misclassified test samples of highest confidence."


def surest(
    outputs: Outputs, split: Split, spec: DataSpec, task: Task | None = None
) -> list[Mistake]:
    """Return wrongly classified images, those that the network was surest of first."""
    if spec.kind != "image" or not spec.classes:
        return []
    if isinstance(task, MultiLabelTask):
        return _wrong_labels(outputs, split, spec, task)
    confidence, label, order = _wrong(outputs, split.y)
    return [
        Mistake(
            sample=_as_bytes(split.x[i].numpy(), spec),
            actual=spec.classes[int(split.y[i])],
            predicted=spec.classes[int(label[i])],
            confidence=float(confidence[i]),
        )
        for i in order
    ]


def _as_bytes(image: Array, spec: DataSpec) -> Array:
    return image if image.dtype == np.uint8 else (decode.pixels(spec, image) * 255).astype(np.uint8)


def _wrong_labels(
    outputs: Outputs, split: Split, spec: DataSpec, task: MultiLabelTask
) -> list[Mistake]:
    actual, predicted = several_labels.decisions(task, outputs, split, spec)
    return [
        Mistake(
            sample=_as_bytes(split.x[i].numpy(), spec),
            actual=_cut("; ".join(actual[i]) or decode.NO_LABEL),
            predicted=_cut("; ".join(predicted[i]) or decode.NO_LABEL),
            confidence=float(outputs.predictions[i, k]),
            about=spec.classes[k],
        )
        for i, k in several_labels.largest_errors(task, outputs, split, MOST)
    ]


def worst(
    outputs: Outputs | TokenOutputs, split: Split, spec: DataSpec, task: Task | None = None
) -> WorstSamples | None:
    """Return the worst predictions as a table; None where there are none, or a gallery is better.

    Of a classification, mistakes by the confidence in them; of several labels, the probabilities
    furthest from the truth; of a regression, the largest errors, of several targets each in
    deviations of its own; of a language model, tokens.
    """
    if isinstance(outputs, TokenOutputs):
        return _tokens(outputs, spec)
    if spec.classes and spec.kind == "image":
        return None
    if isinstance(task, MultiLabelTask):
        found = _labelled(outputs, split, spec, task)
    elif spec.classes:
        found = _classified(outputs, split, spec)
    else:
        found = _regressed(outputs, split, spec)
    samples, title, note, columns, cells = found
    if not samples:
        return None
    at = torch.tensor(samples)
    names, inputs = _inputs(split.take(at)[0], spec)
    index = split.source_index[at].tolist()
    rows = [[str(i), *own, *cell] for i, own, cell in zip(index, inputs, cells, strict=True)]
    note += " The index is that of predictions.csv: its place in the source, from 0."
    return WorstSamples(
        title, note, ["Index", *names, *columns], rows, _curves(split.take(at)[0], spec)
    )


Found = tuple[list[int], str, str, list[str], list[list[str]]]


def _classified(outputs: Outputs, split: Split, spec: DataSpec) -> Found:
    confidence, label, order = _wrong(outputs, split.y)
    cells = [
        [spec.classes[int(split.y[i])], spec.classes[int(label[i])], f"{100 * confidence[i]:.1f} %"]
        for i in order
    ]
    columns = ["Actual", "Predicted", "Confidence"]
    return order, "Most confident mistakes", SURE, columns, cells


def _labelled(outputs: Outputs, split: Split, spec: DataSpec, task: MultiLabelTask) -> Found:
    actual, predicted = several_labels.decisions(task, outputs, split, spec)
    pairs = several_labels.largest_errors(task, outputs, split, MOST)
    cells = [
        [_cut("; ".join(names)) or decode.NO_LABEL for names in (actual[i], predicted[i])]
        + [f"{spec.classes[k]} {100 * outputs.predictions[i, k]:.1f} %"]
        for i, k in pairs
    ]
    columns = ["Actual", "Predicted", "Most wrong"]
    note = "Test samples with a wrong label, and the wrong label whose probability is furthest off."
    return [i for i, _ in pairs], "Largest errors", note, columns, cells


def _regressed(outputs: Outputs, split: Split, spec: DataSpec) -> Found:
    error = outputs.predictions - split.y
    scale = torch.tensor(spec.target_std) if len(spec.targets) > 1 else torch.ones(1)
    size = (error / scale).nan_to_num(torch.inf).abs().flatten()
    order = size.argsort(descending=True, stable=True)[:MOST].tolist()
    several, pairs = len(spec.targets) > 1, [divmod(i, len(spec.targets)) for i in order]
    cells = [
        [spec.targets[t]] * several
        + [number(float(v)) for v in (split.y[i, t], outputs.predictions[i, t], error[i, t])]
        for i, t in pairs
    ]
    columns = ["Target"] * several + ["Actual", "Predicted", "Error"]
    note = "Test samples whose prediction is furthest from the truth"
    note += ", measured in standard deviations of each target." if several else "."
    return [i for i, _ in pairs], "Largest errors", note, columns, cells


def _wrong(outputs: Outputs, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
    """Return confidences and labels of all, and the wrong ones' numbers, the surest first."""
    confidence, label = outputs.predictions.max(1)
    wrong = (label != y).nonzero().flatten()
    order = wrong[confidence[wrong].argsort(descending=True, stable=True)][:MOST]
    return confidence, label, order.tolist()


def _tokens(outputs: TokenOutputs, spec: DataSpec) -> WorstSamples | None:
    wrong = (outputs.predicted != outputs.actual).flatten().nonzero().flatten()
    if not len(wrong):
        return None
    sure = outputs.confidence.flatten()[wrong]
    places = wrong[sure.argsort(descending=True, stable=True)][:MOST].tolist()
    rows = [
        [*context(outputs, spec, place), f"{100 * outputs.confidence.flatten()[place]:.1f} %"]
        for place in places
    ]
    note = "The wrongly predicted tokens of highest confidence."
    columns = ["After", "Actual", "Predicted", "Confidence"]
    return WorstSamples("Most confident mistakes", note, columns, rows)


def _inputs(x: torch.Tensor, spec: DataSpec) -> tuple[list[str], list[list[str]]]:
    """Return what tells samples apart: a table's first columns, a text's words."""
    if spec.kind == "text":
        joint = decode.joint(spec)
        return ["Text"], [[_cut(joint.join(words))] for words in decode.tokens(spec, x)]
    if spec.kind == "tabular":
        return list(spec.feature_names)[:COLUMNS], [row[:COLUMNS] for row in decode.cells(spec, x)]
    return [], [[] for _ in x]


def _cut(text: str) -> str:
    return text if len(text) <= TEXT else text[: TEXT - 1] + "…"


def _curves(x: torch.Tensor, spec: DataSpec) -> list[str]:
    """Return the first channel of sequences as points of a polyline, 0 to 100 by 0 to 30."""
    if spec.kind != "sequence":
        return []
    return [_points(sample[0].double()) for sample in x]


def _points(values: torch.Tensor) -> str:
    steps = torch.linspace(0, len(values) - 1, min(len(values), STEPS)).round().long()
    values = values[steps].nan_to_num(0.0)
    low, high = values.min(), values.max()
    heights = 28 - 26 * (values - low) / (high - low).clamp(min=1e-12)
    across = torch.linspace(1, 99, len(values)).tolist()
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(across, heights.tolist(), strict=True))


FILES = ("metrics.json", "config.yaml", "predictions.csv", "report.html", "figures")
ROUNDS = 500  # of the bootstrap
UNKNOWN = "UNKNOWN"  # status of a run of which there is only a checkpoint
WRITTEN = 300  # tokens of a language model's sample


@dataclass(frozen=True)
class Results:
    """An evaluation, before it is written into `folder`."""

    found: RunReference
    folder: Path
    loaded: Loaded
    record: RunRecord
    task: Task
    split: Split
    outputs: Outputs | language_model.TokenOutputs
    metrics: dict[str, float]

    @property
    def history(self) -> list[Any]:
        """The run's epochs; none for a checkpoint without its run."""
        known = self.record.status != UNKNOWN
        return read_rows(self.found.folder / "history.csv") if known else []


def write_results(results: Results) -> list[Path]:
    """Write everything and return the files that belong to the run's artifacts."""
    folder = results.folder
    folder.mkdir(parents=True, exist_ok=True)
    by_split = _by_split(results)
    intervals = {k: v for k, v in _intervals(results).items() if all(map(math.isfinite, v))}
    by_target = _by_target(results)
    more: dict[str, Any] = {"test_interval_95": {k: list(v) for k, v in intervals.items()}}
    if by_target:
        more["test_by_target"] = by_target
    if isinstance(results.task, MultiLabelTask):
        more["thresholds"] = several_labels.thresholds_of(
            results.task, results.loaded.metadata.spec
        )
        more["test_by_label"] = {
            row.name: {k: v for k, v in row._asdict().items() if k not in ("name", "threshold")}
            for row in _label_rows(results)
        }
    metrics = folder / "metrics.json"
    metrics.unlink(missing_ok=True)  # written last: with it an evaluation is whole
    checkpoint = str(relative(results.found.checkpoint))
    write_json(folder / "run.json", {**asdict(results.record), "checkpoint": checkpoint})
    (folder / "config.yaml").write_text(_configuration(results), encoding="utf-8")
    predictions = folder / "predictions.csv"
    write_rows(predictions, [_safe_row(row) for row in _prediction_rows(results)])
    page = folder / "report.html"
    drawn = _figures(results)
    record = _page(results, by_split, intervals, by_target, drawn)
    page.write_text(render(record), encoding="utf-8")
    write_json(metrics, {**by_split, **more})
    return [page, metrics, predictions, *drawn.values()]


def _label_rows(results: Results) -> list[LabelRow]:
    if not isinstance(results.task, MultiLabelTask) or not isinstance(results.outputs, Outputs):
        return []
    spec = results.loaded.metadata.spec
    return several_labels.label_rows(results.task, results.outputs, results.split, spec)


def _by_split(results: Results) -> dict[str, dict[str, float]]:
    """Metrics by split: test, and the best epoch's train and val."""
    grouped: dict[str, dict[str, float]] = {"test": results.metrics}
    for name, value in results.record.metrics.items():
        split, _, metric = name.partition("/")
        grouped.setdefault(split, {})[metric] = value
    return grouped


def _by_target(results: Results) -> dict[str, dict[str, float]]:
    """Test metrics of each target by itself, in its own unit; nothing where there is only one."""
    targets = results.loaded.metadata.spec.targets
    if len(targets) < 2 or isinstance(results.outputs, language_model.TokenOutputs):
        return {}
    predicted, actual = results.task.measured(results.outputs.raw, results.split.y)
    found: dict[str, dict[str, float]] = {name: {} for name in targets}
    for metric_name, metric in results.task.parts.metrics.items():
        for i, name in enumerate(targets):
            with suppress(ValueError, RuntimeError, IndexError):  # one that needs all of them
                value = _measure(metric, actual[:, i].numpy(), predicted[:, i].numpy())
                found[name][metric_name] = value
    return found


def _intervals(results: Results) -> dict[str, tuple[float, float]]:
    """95 % intervals of the test metrics: what another draw of test samples might have given."""
    metrics = results.task.test_metrics()
    if isinstance(results.outputs, language_model.TokenOutputs):
        return language_model.intervals(results.outputs, metrics, results.metrics, ROUNDS)
    raw, targets = results.task.measured(results.outputs.raw, results.split.y)
    rng = np.random.default_rng(0)
    found = {}
    for name, metric in metrics.items():
        if name == "accuracy" and results.loaded.metadata.spec.classes:
            hits = int((raw.argmax(1) == targets).sum())
            plain = abs(hits / len(targets) - results.metrics[name]) < 1e-6  # not averaged by class
            if plain:
                found[name] = wilson(hits, len(targets))
                continue
        measure = partial(_measure, metric)
        found[name] = bootstrap_interval(measure, targets.numpy(), raw.numpy(), rng, ROUNDS)
    return found


def _measure(metric: Any, actual: NDArray[Any], predicted: NDArray[Any]) -> float:
    metric.reset()
    metric.update(torch.from_numpy(predicted), torch.from_numpy(actual))
    value = float(metric.compute())
    metric.reset()
    return value


def _labels(results: Results) -> tuple[Any, Any, NDArray[Any] | None]:
    """Truth, prediction and confidence in the user's terms.

    Of several labels, 0 or 1 and probabilities `(N, K)`; of a text its first tokens.
    """
    if isinstance(results.outputs, language_model.TokenOutputs):
        return language_model.labels(results.outputs, results.loaded.metadata.spec)
    predictions, y = results.outputs.predictions, results.split.y
    classes = results.loaded.metadata.spec.classes
    if not classes or isinstance(results.task, MultiLabelTask):
        return y.numpy(), predictions.numpy(), None
    confidence, label = predictions.max(1)
    names = [classes[i] for i in y.tolist()], [classes[i] for i in label.tolist()]
    return *names, confidence.numpy()


def _prediction_rows(results: Results) -> list[dict[str, Any]]:
    """One row a test sample (and target), `index` being its place in the source.

    Of a language model, one row a token, `index` being its place in the test split.
    """
    if isinstance(results.task, MultiLabelTask) and isinstance(results.outputs, Outputs):
        spec = results.loaded.metadata.spec
        return several_labels.prediction_rows(results.task, results.outputs, results.split, spec)
    actual, predicted, confidence = _labels(results)
    index = results.split.source_index.tolist()
    if isinstance(results.outputs, language_model.TokenOutputs):
        index = list(range(1, len(actual) + 1))  # the first token of all is not predicted
    if confidence is not None:
        return [
            {"index": i, "actual": a, "predicted": p, "confidence": round(float(c), 6)}
            for i, a, p, c in zip(index, actual, predicted, confidence, strict=True)
        ]
    return [
        {"index": i, "target": name, "actual": float(a[t]), "predicted": float(p[t])}
        for t, name in enumerate(results.loaded.metadata.spec.targets)
        for i, a, p in zip(index, actual, predicted, strict=True)
    ]


def _safe_row(row: dict[str, Any]) -> dict[str, Any]:
    """Names of classes, targets and tokens are the data's: none of them is to run as a formula."""
    return {key: safe_cell(value) for key, value in row.items()}


def _figures(results: Results) -> dict[str, Path]:
    """Draw every figure into a file; return the files by what they show."""
    folder, history = results.folder / "figures", results.history
    folder.mkdir(exist_ok=True)
    actual, predicted, _ = _labels(results)
    spec = results.loaded.metadata.spec
    drawn: dict[str, Figure] = {}
    if history:
        drawn["learning_curves"] = figures.learning_curves(history, results.record.best_epoch)
    if isinstance(results.task, MultiLabelTask):
        rows = _label_rows(results)
        drawn["precision_recall"] = figures.precision_recall(actual, predicted, rows)
        drawn["average_precision"] = figures.label_bars(rows, len(actual))
    elif spec.classes:
        drawn["confusion_matrix"] = figures.confusion_matrix(actual, predicted, spec.classes)
    else:
        for i, target in enumerate(spec.targets):
            drawn[f"predicted_{target}"] = figures.predicted_against_true(
                actual[:, i], predicted[:, i], target
            )
    paths: dict[str, Path] = {}
    for name, figure in drawn.items():
        paths[name] = folder / f"{file_name(name, [path.stem for path in paths.values()])}.png"
        figures.save_png(figure, paths[name])
    return paths


def _page(
    results: Results,
    by_split: dict[str, dict[str, float]],
    intervals: dict[str, tuple[float, float]],
    by_target: dict[str, dict[str, float]],
    drawn: dict[str, Path],
) -> ReportRecord:
    record, config, spec = (
        results.record,
        results.loaded.metadata.config,
        results.loaded.metadata.spec,
    )
    outputs, split = results.outputs, results.split
    language = isinstance(results.outputs, language_model.TokenOutputs)
    actual, predicted, confidence = ((), (), None) if language else _labels(results)
    return ReportRecord(
        title=record.run_name,
        spec=spec,
        model_name=config.model["_target_"].rpartition(".")[2],
        num_parameters=record.num_parameters,
        model_text=str(results.task.model),
        config_yaml=_configuration(results),
        metrics={split: by_split[split] for split in SPLITS if split in by_split},
        history=results.history,
        best_epoch=record.best_epoch,
        actual=actual,
        predicted=predicted,
        confidence=confidence,
        intervals=intervals,
        run=_run_facts(record, results.found, config.trainer.budget),
        repeat=_repeat(record, results.folder),
        mistakes=[]
        if isinstance(outputs, language_model.TokenOutputs)
        else surest(outputs, split, spec, results.task),
        worst=worst(outputs, split, spec, results.task),
        labels=_label_rows(results),
        by_target=by_target,
        written=_written(results) if language else "",
        drawn={name: path.read_bytes() for name, path in drawn.items()},
    )


def _written(results: Results) -> str:
    """What a language model writes, given no beginning."""
    return write(results.loaded, results.task.model, "", WRITTEN, Sampling(0.8), 0)


def _budget(record: RunRecord, budget: str | None) -> str:
    """A budget of time, and how far the best epoch came in it: facts of the run, no metrics."""
    steps, seconds = (record.metrics.get(f"budget/{name}") for name in ("steps", "seconds"))
    if not budget or steps is None or seconds is None:
        return budget or ""
    return f"{budget}; the best epoch ended after {steps:,.0f} steps and {seconds:,.0f} s"


def _run_facts(record: RunRecord, found: RunReference, budget: str | None) -> dict[str, str]:
    facts = {
        "run_id": record.run_id,
        "budget": _budget(record, budget),
        "experiment": record.experiment,
        "tracking_uri": record.tracking_uri,
        "status": record.status,
        "started": record.started,
        "duration_seconds": str(record.seconds),
        "data_checksum": record.data.get("checksum", ""),
        "checkpoint": str(relative(found.checkpoint)),
        **{f"git_{key}": value for key, value in record.git.items()},
        **record.environment,
    }
    if record.dvc_experiment:
        facts["dvc_experiment"] = record.dvc_experiment
    return {key: value for key, value in facts.items() if value}


def _configuration(results: Results) -> str:
    config = results.loaded.metadata.config
    return configuration.dump(redact(config.model_dump(mode="json")))


def _repeat(record: RunRecord, folder: Path) -> list[str]:
    """Commands that make the same run again."""
    commands = []
    if record.git.get("commit"):
        commands.append(f"git checkout {record.git['commit']}")
    commands.append(command("train", "--params", relative(folder / "config.yaml")))
    commands.append("# the same configuration is below, and an artifact of the run in MLflow")
    return commands
