"""MLflow without its fluent state: one client, one run, nothing pickled, no step blocked."""

import logging
import math
import os
import posixpath
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers.logger import Logger
from lightning_utilities.core.rank_zero import rank_zero_only

from litlab.runs.folder import PROCESS
from litlab.utils.errors import ConfigError, EnvironmentFault
from litlab.utils.locks import locked_database
from litlab.utils.redact import redact

for _name in ("alembic", "mlflow.tracking"):
    logging.getLogger(_name).setLevel(logging.WARNING)
# It logs each error of the database with a traceback and raises it: here it becomes one line.
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # it reports its use to its makers

from mlflow.entities import Metric, Param, RunTag  # noqa: E402
from mlflow.exceptions import MlflowException  # noqa: E402
from mlflow.tracking import MlflowClient  # noqa: E402

# An unreachable server costs minutes a request by default; here the run continues without it.
IMPATIENT = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
PARAM_LENGTH = 6000  # longer values are cut here; the configuration artifact is whole
TAG_LENGTH = 5000
NAME_LENGTH = 250
BATCH = 100  # parameters or tags a request
FLUSH_SECONDS = 2.0  # between two requests: a short epoch is not to wait for the store
SERVERS = ("http:", "https:", "databricks", "uc:")  # choose where artifacts go by themselves


class MLflowLogger(Logger):
    """Sends a run's metrics, one batch an epoch, under plain names, with the epoch as the step.

    What cannot be sent is kept and tried again with the next epoch; training never waits for it
    longer than one request, and never dies of it.

    Attributes:
        pending: Metrics not yet sent.
        missing: Names of the artifacts that could not be stored.

    Args:
        uri: Tracking URI.
        experiment: Its name; made when it is not there.
        artifact_root: Folder for a local store's artifacts.
        run_id: An existing run to continue.
    """

    def __init__(self, uri: str, experiment: str, artifact_root: Path, run_id: str = "") -> None:
        super().__init__()
        self.uri, self._experiment_name, self._artifact_root = uri, experiment, artifact_root
        self.run_id = run_id
        self.pending: list[Metric] = []
        self.missing: list[str] = []
        self._behind = False
        self._flushed = -math.inf
        self._known: set[tuple[str, int]] = set()  # sent before the run was interrupted
        self._client: MlflowClient | None = None

    @property
    def name(self) -> str:
        """The experiment."""
        return self._experiment_name

    @property
    def version(self) -> str:
        """The run's id."""
        return self.run_id

    @property
    def client(self) -> MlflowClient:
        """The connection, opened on first use.

        Raises:
            ConfigError: The URI is of a kind that MLflow does not know.
            EnvironmentFault: The store cannot be opened.
        """
        if self._client is None:
            for name, value in IMPATIENT.items():
                os.environ.setdefault(name, value)
            try:
                with locked_database(self.uri):
                    self._client = MlflowClient(self.uri)
            except MlflowException as error:
                raise ConfigError(
                    redact(first_line(error)),
                    f"tracking.uri={redact(self.uri)}",
                    "give an address that MLflow supports",
                ) from None
            except Exception as error:
                raise self._fault(error) from None
        return self._client

    @property
    @rank_zero_experiment
    def experiment(self) -> MlflowClient:
        """The client, as Lightning calls it."""
        return self.client

    def start(self, run_name: str, params: Mapping[str, Any], tags: Mapping[str, str]) -> str:
        """Open the run and return its id; parameters and tags go with it.

        Under `mlflow run` the run that MLflow made is used, and not a second one.

        Raises:
            EnvironmentFault: The store cannot be reached.
        """
        self.run_id = self.run_id or os.environ.get("MLFLOW_RUN_ID", "")
        try:
            if not self.run_id:
                self._client = self.client  # opened before the lock is taken again
                with locked_database(self.uri):
                    experiment_id = self._experiment_id()
                own = {name: value for name, value in tags.items() if name == PROCESS}
                run = self.client.create_run(experiment_id, run_name=run_name, tags=own)
                self.run_id = run.info.run_id
            else:
                self._adopt(run_name)
            self._send_in_batches(params, tags)
        except (ConfigError, EnvironmentFault):
            raise
        except Exception as error:
            raise self._fault(error) from None
        return self.run_id

    def resume(self, tags: Mapping[str, str], rows: Mapping[int, Mapping[str, Any]]) -> None:
        """Open an interrupted run again, and send what it had measured and not yet sent.

        What the store has beyond `rows` is measured a second time, and not sent a second time.

        Args:
            tags: To be set.
            rows: Epoch to metrics: what the run had recorded when it was saved.

        Raises:
            EnvironmentFault: The store cannot be reached.
        """
        try:
            run = self.client.get_run(self.run_id)
            experiment = self.client.get_experiment(run.info.experiment_id)
            self._experiment_name = experiment.name
            for tag in self._labels(tags):
                self.client.set_tag(self.run_id, tag.key, tag.value)
            self.client.update_run(self.run_id, "RUNNING")
            self._known = {
                (key, metric.step)
                for key in run.data.metrics
                for metric in self.client.get_metric_history(self.run_id, key)
            }
        except Exception as error:
            raise self._fault(error) from None
        for epoch, row in sorted(rows.items()):
            measured = {k: v for k, v in row.items() if k != "epoch" and v is not None}
            self.log_metrics({**measured, "epoch": epoch})

    def _adopt(self, run_name: str) -> None:
        experiment = self.client.get_run(self.run_id).info.experiment_id
        self._experiment_name = self.client.get_experiment(experiment).name
        self.client.set_tag(self.run_id, "mlflow.runName", run_name)

    def _experiment_id(self) -> str:
        found = self.client.get_experiment_by_name(self._experiment_name)
        if found is not None:
            return str(found.experiment_id)
        # Absolute, and fixed for good when the experiment is made; a server chooses its own.
        folder = re.sub(r"[^\w-]", "_", self._experiment_name)  # "../x" stays inside
        local = not self.uri.startswith(SERVERS)
        location = (self._artifact_root / folder).as_uri() if local else None
        try:
            return str(self.client.create_experiment(self._experiment_name, location))
        except MlflowException:  # another process was faster
            found = self.client.get_experiment_by_name(self._experiment_name)
            if found is None:
                raise
            return str(found.experiment_id)

    def _send_in_batches(self, params: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        taken = set(self.client.get_run(self.run_id).data.params)  # `mlflow run -P` logs its own
        named = {valid_name(k): str(v) for k, v in params.items()}
        fresh = {k: v for k, v in named.items() if k not in taken}
        for key in (k for k, v in fresh.items() if len(v) > PARAM_LENGTH):
            warnings.warn(
                f"parameter {key} is truncated in MLflow; config.yaml has its full value",
                stacklevel=2,
            )
        items = [Param(k, v[:PARAM_LENGTH]) for k, v in fresh.items()]
        labels = self._labels(tags)
        for start in range(0, max(len(items), len(labels)), BATCH):
            part = slice(start, start + BATCH)
            self.client.log_batch(self.run_id, params=items[part], tags=labels[part])

    def _labels(self, tags: Mapping[str, str]) -> list[RunTag]:
        """Return tags as MLflow takes them; one that is too long is also stored whole as a file."""
        for key in (k for k, v in tags.items() if len(v) > TAG_LENGTH):
            file = f"{re.sub(r'[^A-Za-z0-9._-]', '_', key)[:100]}.txt"
            what = f"tag {key} is truncated to {TAG_LENGTH:,} characters in MLflow"
            warnings.warn(f"{what}; the artifact tags/{file} has the full value", stacklevel=3)
            self.log_text(tags[key], file, "tags")
        return [RunTag(valid_name(k), v[:TAG_LENGTH]) for k, v in tags.items()]

    def has_run(self) -> bool:
        """Whether the store has the run.

        Raises:
            EnvironmentFault: The store cannot be asked.
        """
        try:
            return bool(self.client.get_run(self.run_id))
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return False
            raise self._fault(error) from None
        except Exception as error:
            raise self._fault(error) from None

    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        """Sent by `start`, whole."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Send metrics; the step is the epoch they carry, else the one given."""
        epoch = int(metrics.get("epoch", step or 0))
        now = int(time.time() * 1000)
        named = {valid_name(k): float(v) for k, v in metrics.items() if k != "epoch"}
        self.pending += [
            Metric(k, v, now, epoch) for k, v in named.items() if (k, epoch) not in self._known
        ]
        if time.monotonic() - self._flushed >= FLUSH_SECONDS:
            self.flush()

    def flush(self) -> bool:
        """Send what is pending and say whether nothing is left."""
        try:
            while self.pending:
                self.client.log_batch(self.run_id, metrics=self.pending[:BATCH])
                del self.pending[:BATCH]
            self._behind = False
            self._flushed = time.monotonic()
        except Exception as error:
            if not self._behind:  # one warning an outage, not one an epoch
                reason = redact(first_line(error))
                warnings.warn(
                    f"MLflow did not accept metrics; they are kept and sent later: {reason}",
                    stacklevel=2,
                )
            self._behind = True
        return not self.pending

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        """Copy a file into the run's artifacts; a failure is a warning."""
        try:
            self.client.log_artifact(self.run_id, str(path), folder)
        except Exception as error:
            self.missing.append(path.name)
            reason = redact(first_line(error))
            warnings.warn(f"{path.name} is not in MLflow: {reason}", stacklevel=2)

    def log_text(self, text: str, name: str, folder: str | None = None) -> None:
        """Write a text into the run's artifacts."""
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / name
            path.write_text(text, encoding="utf-8")
            self.log_artifact(path, folder)

    def finish(self, status: str) -> bool:
        """Close the run as FINISHED, FAILED or KILLED, and say whether all of it was recorded."""
        done = self.flush() and not self.missing
        try:
            with redirect_stdout(sys.stderr):  # MLflow prints a link, and stdout is for results
                self.client.set_terminated(self.run_id, status)
        except Exception as error:
            reason = redact(first_line(error))
            warnings.warn(f"MLflow shows the run as running: {reason}", stacklevel=2)
            return False
        return done

    def _fault(self, error: Exception) -> EnvironmentFault:
        return EnvironmentFault(
            f"the MLflow store cannot be used: {redact(first_line(error))}",
            f"tracking.uri={redact(self.uri)}, tracking.experiment={self._experiment_name}",
            "start the server, or set tracking.uri=null for a local store",
        )


def valid_name(key: str) -> str:
    """Return a key as MLflow takes it: no odd characters, no path that climbs, 250 at most."""
    name = posixpath.normpath(re.sub(r"[^\w./ -]", "_", key)).lstrip("./")
    return name[:NAME_LENGTH] or "_"


def first_line(error: Exception) -> str:
    """Return the first line of an error's text, or its type's name."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
