"""Writes the record of one run, in its folder and in MLflow."""

import os
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from torch import nn

from litlab.config import compose as configuration
from litlab.config.schema import Config
from litlab.data.spec import DataSpec
from litlab.runs import environment
from litlab.runs.best_epoch import BestEpoch
from litlab.runs.environment import git_state
from litlab.runs.folder import BEST, PROCESS, RunRecord
from litlab.runs.tracking.address import tracking_uri
from litlab.runs.tracking.history import History, write_rows
from litlab.runs.tracking.mlflow_logger import MLflowLogger
from litlab.runs.tracking.open_runs import OpenRun, close_runs
from litlab.utils.files import dumps
from litlab.utils.output import counted, number, say
from litlab.utils.paths import project_root, store_root
from litlab.utils.redact import redact, redact_spec

if TYPE_CHECKING:
    from litlab.runs.checkpoint.resume import Interruption

NOT_METRICS = ("epoch", "lr")  # columns of the history that are no metrics


class Recording:
    """The record of a run: opened before the first step, closed with its final status.

    Args:
        config: What the run was asked to do.
        spec: The data.
        folder: The run's folder.
        best: Which epoch is the best so far.
        command: What the user typed.
        place: Where the folder is moved to when the run has finished, if it is.
        unused: Groups of the configuration that have no effect in this run.

    Attributes:
        record: What `run.json` says.
        all_sent: Whether the tracking store has all of it, once the run is closed.
    """

    def __init__(
        self,
        config: Config,
        spec: DataSpec,
        folder: Path,
        best: BestEpoch,
        command: list[str],
        place: Path | None = None,
        unused: Sequence[str] = (),
    ) -> None:
        self._unused = unused
        self.config, self.spec, self.folder, self.best = config, spec, folder, best
        self.checkpoint, self.all_sent = folder / BEST, True
        self.place = place or folder
        root = store_root()
        uri = tracking_uri(config.tracking.uri, root)
        self.history = History(folder / "history.csv")
        self._began, self._seconds_before = time.monotonic(), 0.0
        self._resumed_at = 0  # the step; later TensorBoard events are replaced
        self.mlflow = MLflowLogger(uri, config.tracking.experiment, root / "mlartifacts")
        self._open = OpenRun(uri, folder)
        self.record = RunRecord(
            run_id="",
            run_name=config.run_name,
            experiment=config.tracking.experiment,
            tracking_uri=redact(uri),
            data={"name": spec.name, "checksum": spec.checksum, "split": spec.split_hash},
            git=git_state(
                project_root()
            ),  # of the running code: DVC may run a copy of the repository
            dvc_experiment=os.environ.get("DVC_EXP_NAME"),
            environment=environment.describe(),
            command=redact(command),
            process=self._open.process,
        )

    @property
    def loggers(self) -> list[Logger]:
        """The Trainer's loggers."""
        loggers: list[Logger] = [self.history, self.mlflow]
        if self.config.tracking.tensorboard:
            gone: dict[str, Any] = {"purge_step": self._resumed_at} if self._resumed_at else {}
            loggers.append(TensorBoardLogger(self.folder, name="tensorboard", version="", **gone))
        return loggers

    def start(self, model: nn.Module) -> None:
        """Open the run and record its configuration.

        Raises:
            EnvironmentFault: The store cannot be reached.
        """
        parameters = (p for p in model.parameters() if p.requires_grad)
        self.record.num_parameters = sum(p.numel() for p in parameters)
        self._open.begin()
        self.record.save(self.folder)  # first, so that the folder of an aborted run is recognized
        content, text = self._write_configuration()
        used = {group: part for group, part in content.items() if group not in self._unused}
        self.record.run_id = self.mlflow.start(self.config.run_name, flatten(used), self._tags())
        self.mlflow.log_text(text, "config.yaml")
        self.record.experiment = self.mlflow.name
        spec = redact_spec(self.spec.model_dump(mode="json"))
        self.mlflow.log_text(dumps(spec, indent=2), "data_spec.json")
        self.record.save(self.folder)
        close_runs(self.mlflow.client, self.mlflow.uri)
        say(self._introduction(model))

    def resume(self, model: nn.Module, found: "Interruption") -> None:
        """Reopen the record of an interrupted run, in its last saved state.

        Raises:
            EnvironmentFault: The store cannot be reached.
        """
        self.record.run_id = self.mlflow.run_id = found.manifest["run_id"]
        tracked, best = found.recorded()
        if best is not None:  # the fit restores it too, unless it fails first
            with suppress(KeyError):  # the fit reports damaged state
                self.best.load_state_dict(best)
        self.history.rows = {int(epoch): row for epoch, row in tracked["rows"].items()}
        if self.history.rows:
            write_rows(self.history.path, list(self.history.rows.values()))
        parameters = (p for p in model.parameters() if p.requires_grad)
        self.record.num_parameters = sum(p.numel() for p in parameters)
        self.record.started, self.record.resumed = tracked["started"], tracked["resumed"] + 1
        self._seconds_before, self._resumed_at = tracked["seconds"], found.manifest["step"]
        changed = {"resume.changed": "; ".join(map(str, found.changed))} if found.changed else {}
        tags = {PROCESS: self.record.process, "resumed": str(self.record.resumed), **changed}
        self._open.begin()
        self.mlflow.resume(tags, self.history.rows)
        self.record.experiment = self.mlflow.name
        self._write_configuration()
        self.record.save(self.folder)
        close_runs(self.mlflow.client, self.mlflow.uri)

    def _write_configuration(self) -> tuple[dict[str, Any], str]:
        """Write `config.yaml`; return the configuration, and the text."""
        content = redact(self.config.model_dump(mode="json"))
        note = f"# no effect in this run: {', '.join(self._unused)}\n" if self._unused else ""
        text = note + configuration.dump(content)
        (self.folder / "config.yaml").write_text(text)
        return content, text

    def tracked(self) -> dict[str, Any]:
        """Return everything recorded so far, from which a resumed run continues."""
        return {
            "rows": self.history.rows,
            "started": self.record.started,
            "resumed": self.record.resumed,
            "seconds": self._seconds_before + time.monotonic() - self._began,
        }

    def fit_begins(self) -> None:
        """Start measuring the run's duration."""
        self._began = time.monotonic()

    def keep(self, files: Iterable[Path]) -> None:
        """Copy files of the run's folder into the store."""
        for path in files:
            self.mlflow.log_artifact(path)

    def finish(self, status: str) -> None:
        """Close the run: FINISHED, FAILED or KILLED.

        It raises nothing: an error that ended the run must not give way to one in recording it.
        """
        rows, saved, sent = self.history.rows, False, False
        self.record.run_id = self.mlflow.run_id  # set even if the start failed later
        self.record.status = status
        self.record.seconds = round(self._seconds_before + time.monotonic() - self._began, 3)
        finished = ["train/loss" in row for row in rows.values()]
        self.record.epochs = sum(finished) or len(rows)  # a user's module may log other names
        try:
            if self.checkpoint.is_file():  # exists after the first complete epoch
                self._note_best()
            self.record.save(self.folder)
            saved = True
        except Exception as error:
            warnings.warn(f"the run's record is incomplete: {error}", stacklevel=2)
        finally:  # warnings can be errors, and signals can arrive at any time
            if self.record.run_id:  # otherwise the store was not reached
                sent = self._close_store(status)
            self.all_sent = sent
            self._open.end(status, closed=saved and (sent or not self.record.run_id))

    def _close_store(self, status: str) -> bool:
        """Send the remaining records; the final status even if that is interrupted."""
        try:
            self._send_rest()
        finally:
            done = self.mlflow.finish(status)
        return done

    def _send_rest(self) -> None:
        if self.checkpoint.is_file() and self.config.tracking.log_checkpoint:
            self.mlflow.log_artifact(self.checkpoint, "checkpoints")
        if self.history.path.is_file():
            self.mlflow.log_artifact(self.history.path)
        summary = {f"best/{k}": v for k, v in self.record.metrics.items()}
        if summary:
            epoch = float(self.record.best_epoch or 0)
            self.mlflow.log_metrics({**summary, "best/epoch": epoch, "epoch": epoch})

    def _note_best(self) -> None:
        """Copy the metrics of the best epoch into the record."""
        row = self.history.rows.get(-1 if self.best.epoch is None else self.best.epoch)
        if row is not None:
            self.record.best_epoch = self.best.epoch
            self.record.metrics = {
                k: v for k, v in row.items() if k not in NOT_METRICS and v is not None
            }

    def _introduction(self, model: nn.Module) -> str:
        return f"{self._of_data()}\n{self._of_training(model)}"

    def _of_data(self) -> str:
        spec = self.spec
        if spec.kind == "other":
            return f"{spec.name}: {spec.source.rpartition('.')[2]}, a LightningDataModule of yours"
        sizes = " / ".join(f"{spec.sizes[s]:,} {s}" for s in ("train", "val", "test"))
        shape = "x".join(map(str, spec.shape))
        kind = (
            f"{len(spec.classes)} classes" if spec.classes else f"target {', '.join(spec.targets)}"
        )
        if spec.task == "multi_label":
            kind = f"{len(spec.classes)} labels"
        if spec.task == "language_model":
            kind = f"{spec.vocab_size:,} tokens"
        return f"{spec.name}: {spec.kind} {shape}, {kind}, {sizes}"

    def _of_training(self, model: nn.Module) -> str:
        config = self.config
        epochs = counted(config.trainer.max_epochs, "epoch")
        length = config.trainer.budget or f"up to {epochs}"
        given = config.task["_target_"].endswith(".given_in_python")
        if given or isinstance(model, LightningModule):
            name = type(model).__name__
            return f"{name}: {self.record.num_parameters:,} parameters; {length}"
        name, optimizer, scheduler = (
            node["_target_"].rpartition(".")[2]
            for node in (config.model, config.optimizer, config.scheduler)
        )
        rate = config.optimizer.get("lr")
        rate = number(rate) if isinstance(rate, float) else rate
        optimization = f"{optimizer}, lr {rate}, {scheduler}"
        return f"{name}: {self.record.num_parameters:,} parameters; {optimization}; {length}"

    def _tags(self) -> dict[str, str]:
        git = {f"git.{key}": value for key, value in self.record.git.items()}
        if "commit" in self.record.git:  # shown as a column on MLflow's page
            git["mlflow.source.git.commit"] = self.record.git["commit"]
        experiment = self.record.dvc_experiment
        return {
            **redact(self.config.tracking.tags),
            PROCESS: self.record.process,
            **git,
            "data.name": self.spec.name,
            "data.checksum": self.record.data["checksum"],
            "data.split": self.spec.split_hash,
            "model.parameters": str(self.record.num_parameters),
            "mlflow.source.name": "litlab train",
            "threads": str(
                torch.get_num_threads()
            ),  # affects the summation order, so the last digits
            # DVC runs queued experiments in a copy of the repository, which it deletes.
            **({} if ".dvc" in self.place.parts else {"run.folder": str(self.place)}),
            **({"dvc.experiment": experiment} if experiment else {}),
        }


def flatten(content: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return nested settings as a flat mapping `a.b.c` to text, to search by in MLflow."""
    flat: dict[str, str] = {}
    for key, value in content.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{name}."))
        else:
            flat[name] = str(value)
    return flat
