"""Labels new data with a trained network."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from litlab.data.inputs.read_input import read_input
from litlab.data.loading.arrays import of_values
from litlab.data.spec import DataSpec
from litlab.evaluation.inference import load_task, run
from litlab.evaluation.spreadsheet import safe_cell
from litlab.runs.folder import find
from litlab.utils.errors import CheckpointError, ConfigError, EnvironmentFault
from litlab.utils.output import command
from litlab.utils.signals import cleaning_up

FORMATS = (".csv", ".jsonl", ".parquet")


def predict(
    reference: str, source: Path, out: Path, *, resize: bool = False, trust: Sequence[str] = ()
) -> int:
    """Predict for every sample of `source`, write a row each to `out`, and return their number.

    Classification: the class, and the probability of each class. Regression: the targets in their
    own unit. A CSV file has a `'` in front of texts that a spreadsheet would run as a formula.

    Raises:
        ConfigError: The output's format is not known.
        CheckpointError: There is no such run, or its checkpoint cannot be used.
        DataError: The input does not fit what the network was trained on.
    """
    if out.suffix.lower() not in FORMATS:
        raise ConfigError(f"cannot write '{out.suffix}'", str(out), f"one of: {', '.join(FORMATS)}")
    found = find(reference)
    loaded, task = load_task(found.checkpoint, trust)
    spec = loaded.card.spec
    if spec.task == "language_model":
        what = "a language model generates text and gives no labels"
        fix = f"use `{command('generate', reference, '--prompt', 'TEXT', trust=trust)}`"
        raise CheckpointError(what, str(found.checkpoint), fix)
    names, values = read_input(source, spec, resize=resize)
    size = loaded.card.config.loader.eval_batch_size
    outputs = run(task, spec, of_values(values, spec.pad_id or 0), size)
    _write(_columns(names, outputs.predictions, spec), out)
    return len(names)


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


def _write(columns: dict[str, Any], out: Path) -> None:
    import pandas as pd

    table, suffix = pd.DataFrame(columns), out.suffix.lower()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        hidden = tempfile.TemporaryDirectory(dir=out.parent, prefix=".litlab-")
        with cleaning_up(), hidden as folder:
            temporary = Path(folder) / out.name
            if suffix == ".csv":
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
