"""Small trainings for the tests of whole runs: seconds each, in a project folder of their own."""

import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from litlab.config.compose import load
from litlab.config.schema import Config
from litlab.data.prepare.open import open_or_prepare
from litlab.evaluation.run import Run
from litlab.runs.best_epoch import BestEpoch
from litlab.runs.checkpoint.metadata import CheckpointMetadata
from litlab.training.callbacks.checkpoint import CheckpointCallback
from litlab.training.callbacks.nan_guard import NaNGuard
from litlab.training.run import train
from litlab.training.trainer import make_trainer
from litlab.utils.signals import Signals

torch.set_num_threads(1)  # nets this small only lose by sharing a step between cores
# What libraries say to one another; -W error would make it ours.
THIRD_PARTY = [
    pytest.mark.filterwarnings(f"ignore:{message}")
    for message in (
        ".*noload.* loader strategy is deprecated",  # SQLAlchemy to MLflow
        ".*isinstance.treespec, LeafSpec",  # torch to Lightning
        ".*GPU available but not used",
    )
]
NEWER = ("run_id", "started", "resumed", "seconds")  # of a run and not of its numbers
SMALL = (
    "data=synthetic",
    "data.source.num_samples=150",
    "trainer=debug",
    "trainer.accelerator=cpu",
    "trainer.progress=none",
    "loader.batch_size=16",
    "model=simple_nn",
    "model.width=8",
    "optimizer.lr=0.01",
)


def small(*overrides: str, **parts: Any) -> Config:
    """Return a configuration that trains in a second, with `parts` put in as they are."""
    return load([*SMALL, *overrides]).model_copy(update=parts)


def small_run(
    project: Path, *overrides: str, out: Path | None = None, preview: bool = False, **parts: Any
) -> Run:
    """Train it, recorded in the project's own store; a preview takes as long as the training."""
    ready_store(project)
    return train(small(*overrides, **parts), out, preview=preview)


def trainer_of(config: Config, folder: Path, mode: str = "min") -> Any:
    """Return the Trainer of a run that records nothing, and its signals."""
    spec = open_or_prepare(config.data, [])[1]
    signals = Signals()
    checkpoint = CheckpointCallback(
        CheckpointMetadata(config, spec, ""),
        folder,
        folder,
        BestEpoch(config.monitor, mode),
        signals,
        dict,
    )
    return make_trainer(config, folder, [], checkpoint, NaNGuard()), signals


def mlflow_run(project: Path, run_id: str) -> Any:
    """Return a run as the project's store has it."""
    from mlflow.tracking import MlflowClient

    return MlflowClient(ready_store(project)).get_run(run_id)


def only_run(project: Path) -> Path:
    """Return the folder of the one run of a project."""
    (folder,) = (project / "runs").iterdir()
    return folder


def ready_store(project: Path) -> str:
    """Put an empty MLflow store into a project (making its tables anew takes two seconds)."""
    path = project / "mlflow.db"
    if not path.exists():
        shutil.copy(_empty_store(), path)
    return f"sqlite:///{path}"


@cache
def _empty_store() -> Path:
    from mlflow.tracking import MlflowClient

    path = Path(tempfile.mkdtemp()) / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


def assert_same(one: Any, other: Any, path: str = "") -> None:
    """Compare two checkpoints to the last bit."""
    if path.rsplit(".", 1)[-1] in NEWER:
        return
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype, path
        assert torch.equal(one, other), path
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), path
        for key in one:
            assert_same(one[key], other[key], f"{path}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), path
        for place, pair in enumerate(zip(one, other, strict=True)):
            assert_same(*pair, f"{path}[{place}]")
    else:
        assert one == other, path
