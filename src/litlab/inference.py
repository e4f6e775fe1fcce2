"""A trained network, run over data without training it."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from litlab.assemble import build_task
from litlab.checkpoint.card import Loaded, load, load_weights
from litlab.data.preprocess import Preprocess
from litlab.errors import CheckpointError, ConfigError
from litlab.task import Task


class Outputs(NamedTuple):
    """What the network says of N samples, on the CPU.

    `raw`: logits `(N, C)` or standardized targets `(N, T)`; `predictions`: probabilities `(N, C)`
    or targets in their own unit `(N, T)`.
    """

    raw: torch.Tensor
    predictions: torch.Tensor


def load_task(path: Path, trust: Sequence[str] = ()) -> tuple[Loaded, Task]:
    """Rebuild the network of a checkpoint, with its weights, ready to predict.

    Raises:
        CheckpointError: The file is damaged, of another model, or names code that is not trusted.
    """
    loaded = load(path, trust)
    try:
        task = build_task(loaded.card.config, loaded.card.spec, trial=False)
    except ConfigError as error:
        where = f"{path}: {error.where}"
        raise CheckpointError(f"its card does not fit: {error.what}", where, error.fix) from error
    load_weights(task, loaded.weights, path)
    return loaded, task.eval().to(device())


def device() -> torch.device:
    """The first accelerator that torch finds, else the CPU."""
    found = torch.accelerator.current_accelerator(check_available=True)
    return found if found is not None else torch.device("cpu")


@torch.inference_mode()
def run(task: Task, preprocess: Preprocess, batches: Iterable[torch.Tensor]) -> Outputs:
    """Run a network over batches of stored values `(B, *shape)`, in full precision."""
    place = device()
    preprocess = preprocess.to(place)
    raw, predictions = [], []
    for batch in batches:
        outputs = task(preprocess(batch.to(place)))
        raw.append(outputs.float().cpu())
        predictions.append(task.predict(outputs).cpu())
    return Outputs(torch.cat(raw), torch.cat(predictions))
