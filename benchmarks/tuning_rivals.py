"""What benchmarks/tuning.py compares with: Optuna and Lightning, put together by their manuals.

    python benchmarks/tuning_rivals.py JOB.json

One trial after another, as Optuna's own Lightning example has it: no logger, no
checkpoints, the pruning callback of optuna-integration, Optuna's default sampler (TPE) and
MedianPruner. The network, the optimizer's groups, the schedule and the prepared tensors are
litlab's, so that searches are compared and not models. A trial's value is its best epoch's, as
in litlab; the example would take the last one's. Prints the trials as JSON.
"""

import json
import logging
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import optuna
import torch
import yaml
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassAccuracy

from litlab.data.loading import Preprocess, open_split
from litlab.data.spec import DataSpec
from litlab.models.mlp import MLP
from litlab.tasks.optim.optimizers import parameter_groups

try:
    from optuna_integration import PyTorchLightningPruningCallback as Pruning

    CALLBACK = "optuna-integration's PyTorchLightningPruningCallback"
except ImportError:  # the same for one process, from Optuna's manual

    class Pruning(pl.Callback):
        def __init__(self, trial: optuna.Trial, monitor: str) -> None:
            self.trial, self.monitor = trial, monitor

        def on_validation_end(self, trainer, pl_module) -> None:
            if trainer.sanity_checking:
                return
            value = trainer.callback_metrics[self.monitor].item()
            self.trial.report(value, step=pl_module.current_epoch)
            if self.trial.should_prune():
                raise optuna.TrialPruned

    CALLBACK = "a pruning callback by hand, as optuna-integration is not installed"

SPACE: dict[str, dict[str, Any]] = {  # all searches have it
    "optimizer.lr": {"low": 1e-4, "high": 0.3, "log": True},
    "optimizer.weight_decay": {"low": 1e-5, "high": 0.1, "log": True},
    "model.dropout": {"low": 0.0, "high": 0.5},
    "model.hidden": {"choices": ["[32]", "[64]", "[128]", "[64,64]"]},
    "loader.batch_size": {"low": 32, "high": 256, "step": 32},
}


class Classifier(pl.LightningModule):
    """The Lightning way of the tutorials."""

    def __init__(self, spec: DataSpec, params: dict[str, Any]) -> None:
        super().__init__()
        hidden = tuple(yaml.safe_load(params["model.hidden"]))
        self.params = params
        self.model = MLP(spec, hidden=hidden, dropout=params["model.dropout"])
        self.accuracy = MulticlassAccuracy(spec.num_outputs, average="micro")

    def training_step(self, batch, batch_idx) -> torch.Tensor:
        x, y = batch
        return F.cross_entropy(self.model(x), y)

    def validation_step(self, batch, batch_idx) -> None:
        x, y = batch
        self.accuracy(self.model(x), y)
        self.log("val_accuracy", self.accuracy)

    def configure_optimizers(self):
        lr, decay = self.params["optimizer.lr"], self.params["optimizer.weight_decay"]
        optimizer = torch.optim.AdamW(parameter_groups(self.model, decay), lr=lr)
        total = self.trainer.estimated_stepping_batches
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total, cycle_momentum=False)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


def suggest(trial: optuna.Trial) -> dict[str, Any]:
    params: dict[str, Any] = {}
    for name, entry in SPACE.items():
        if "choices" in entry:
            params[name] = trial.suggest_categorical(name, entry["choices"])
        elif "step" in entry:
            params[name] = trial.suggest_int(name, **entry)
        else:
            params[name] = trial.suggest_float(name, **entry)
    return params


def search(job: dict[str, Any]) -> list[dict[str, Any]]:
    """Try configurations until the time is over; the last one is let end, and told apart."""
    folder = Path(job["folder"])
    spec = DataSpec.load(folder)
    sets, normalize = [], Preprocess(spec)
    for split in ("train", "val"):
        arrays = open_split(folder, spec, split)
        x, y = arrays.take(torch.arange(len(arrays)))
        sets.append(TensorDataset(normalize(x), y))
    pl.seed_everything(job["seed"] + 1000 * job["number"])

    def objective(trial: optuna.Trial) -> float:
        params = suggest(trial)
        size = params["loader.batch_size"]
        trainer = pl.Trainer(
            max_epochs=job["epochs"],
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[Pruning(trial, monitor="val_accuracy")],
        )
        trainer.fit(
            Classifier(spec, params),
            DataLoader(sets[0], size, shuffle=True, drop_last=True),
            DataLoader(sets[1], 512),
        )
        return max(trial.study.trials[trial.number].intermediate_values.values())

    sampler = optuna.samplers.TPESampler(seed=job["seed"] + 1000 * job["number"])
    study = optuna.create_study(
        study_name=job["study"],
        storage=job["storage"],
        load_if_exists=True,
        direction="maximize",
        sampler=sampler,
        pruner=optuna.pruners.MedianPruner(),
    )
    if job["storage"] is None:  # else whoever made the study has done it
        study.enqueue_trial(job["first"])
    study.optimize(objective, timeout=job["enter"] + job["seconds"] - time.time())
    return [
        {
            "number": t.number,
            "params": t.params,
            "value": t.value if t.state == optuna.trial.TrialState.COMPLETE else None,
            "began": t.datetime_start.timestamp() - job["enter"],
            "ended": t.datetime_complete.timestamp() - job["enter"],
            "trained": t.duration.total_seconds(),
        }
        for t in study.trials
        if t.state.is_finished()
    ]


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    print(json.dumps(search(json.loads(Path(sys.argv[1]).read_text()))))
