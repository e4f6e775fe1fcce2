"""Labels new data with a trained network."""

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from litlab.config.compose import untrusted
from litlab.data.inputs.read_input import read_values
from litlab.data.loading import of_values
from litlab.data.spec import DataSpec
from litlab.evaluation.inference import load_task, run
from litlab.evaluation.several_labels import joined, names_of
from litlab.runs.folder import find
from litlab.tasks.multi_label import MultiLabelTask
from litlab.tasks.task import Task
from litlab.utils.errors import CheckpointError, ConfigError, EnvironmentFault
from litlab.utils.output import command
from litlab.utils.paths import short
from litlab.utils.signals import cleaning_up

if TYPE_CHECKING:
    import pandas as pd


# Cells of a CSV file that a spreadsheet would take for a formula, and run.


# The characters that OWASP names ("CSV Injection"), and their full-width forms.
FORMULA = ("=", "+", "-", "@", "\t", "\n", "＝", "＋", "－", "＠")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def safe_cell(value: object) -> object:
    """Return a cell to write into CSV: a text that begins a formula gets a `'` in front.

    Numbers, and texts that are numbers such as "-3.5", stay as they are. A carriage return becomes
    a line feed: Python's csv module quotes only that, and a bare one would begin another row.
    """
    if not isinstance(value, str) or NUMBER.fullmatch(value):
        return value
    text = value.replace("\r\n", "\n").replace("\r", "\n")
    return f"'{text}" if text.startswith(FORMULA) else text


LABELS = "labels"  # of several labels a sample: a list, in CSV joined
FORMATS = (".csv", ".jsonl", ".parquet")


def predict(
    reference: str, source: Path, out: Path, *, resize: bool = False, trust: Sequence[str] = ()
) -> int:
    """Predict for every sample of `source`, write a row each to `out`, and return their number.

    Classification: the class, and the probability of each class. Several labels: those that hold
    (in CSV with a `;` between them), and the probability of each. Regression: the targets in their
    own unit. A CSV file has a `'` in front of texts that a spreadsheet would run as a formula.

    Raises:
        ConfigError: The output's format is not known.
        CheckpointError: There is no such run, or its checkpoint cannot be used.
        DataError: The input does not fit what the network was trained on.
    """
    if out.suffix.lower() not in FORMATS:
        raise ConfigError(f"cannot write '{out.suffix}'", str(out), f"one of: {', '.join(FORMATS)}")
    table = predictions(find(reference).checkpoint, source, resize=resize, trust=trust)
    _write(table, out)
    return len(table)


def predictions(
    checkpoint: Path,
    values: Any,
    *,
    resize: bool = False,
    trust: Sequence[str] = (),
    task: Task | None = None,
) -> "pd.DataFrame":
    """Return the predictions of a checkpoint's network, one row per sample.

    Args:
        checkpoint: The file.
        values: Data on disk or in memory; see `litlab.data.inputs.read_input`.
        resize: Whether to resize images that differ.
        trust: The user's own packages that the checkpoint may name.
        task: As `load_task` takes it.

    Raises:
        CheckpointError: The checkpoint cannot be used, or is of a language model.
        DataError: The values do not fit what the network was trained on.
    """
    import pandas as pd

    loaded, task = load_task(checkpoint, trust, task)
    spec = loaded.metadata.spec
    if spec.task == "language_model":
        what = "a language model generates text and gives no labels"
        words = ("generate", short(checkpoint), "--prompt", "TEXT")
        fix = f"use `{command(*words, trust=untrusted(trust))}`"
        raise CheckpointError(what, str(checkpoint), fix)
    names, stored = read_values(values, spec, resize=resize)
    size = loaded.metadata.config.loader.eval_batch_size
    outputs = run(task, spec, of_values(stored, spec.pad_id or 0), size)
    if isinstance(task, MultiLabelTask):
        found = names_of(spec, task.decide(outputs.predictions))
        each = {f"p({c})": outputs.predictions[:, k] for k, c in enumerate(spec.classes)}
        return pd.DataFrame({"input": names, LABELS: found, **each})
    return pd.DataFrame(_columns(names, outputs.predictions, spec))


def _columns(names: list[str], predictions: torch.Tensor, spec: DataSpec) -> dict[str, Any]:
    if not spec.classes:
        # A target may be called "input" too; it must not replace the samples' names.
        targets = ["input (predicted)" if name == "input" else name for name in spec.targets]
        return {"input": names} | {
            name: predictions[:, i].tolist() for i, name in enumerate(targets)
        }
    confidence, label = predictions.max(1)
    return {
        "input": names,
        "prediction": [spec.classes[i] for i in label.tolist()],
        "confidence": confidence.tolist(),
        **{f"p({c})": predictions[:, i].tolist() for i, c in enumerate(spec.classes)},
    }


def _write(table: "pd.DataFrame", out: Path) -> None:
    suffix = out.suffix.lower()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        hidden = tempfile.TemporaryDirectory(dir=out.parent, prefix=".litlab-")
        with cleaning_up(), hidden as folder:
            temporary = Path(folder) / out.name
            if suffix == ".csv":
                for name in [c for c in table if isinstance(table[c].iloc[0], list)]:
                    table[name] = joined(table[name].tolist())
                for name in table.select_dtypes(exclude="number").columns:
                    table[name] = table[name].map(safe_cell)
                table.columns = [safe_cell(name) for name in table.columns]
                table.to_csv(temporary, index=False, float_format="%.6g")
            elif suffix == ".jsonl":
                table.to_json(temporary, orient="records", lines=True, force_ascii=False)
            else:
                table.to_parquet(temporary, index=False)
            temporary.replace(out)
    except OSError as error:
        raise EnvironmentFault(f"cannot write: {error}", str(out), "choose another -o") from None
