"""The study in MLflow: one run, whose children are the trials' runs."""

import os
import signal
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

from litlab.config.schema import Config
from litlab.runs.folder import PROCESS
from litlab.runs.tracking.address import tracking_uri
from litlab.runs.tracking.mlflow_logger import MLflowLogger, first_line
from litlab.runs.tracking.open_runs import OpenRun, close_runs
from litlab.tuning.results.outcome import Outcome
from litlab.tuning.study.settings import StudySettings
from litlab.tuning.study.study import RUN, TrialStudy
from litlab.utils.errors import EnvironmentFault, LitlabError
from litlab.utils.output import say
from litlab.utils.paths import store_root
from litlab.utils.redact import redact

PARENT = "mlflow.parentRunId"
DATABASES = ("sqlite:", "postgresql", "mysql", "mssql")


class ParentRun:
    """MLflow's run of a study.

    What it does with the store, it does in processes of their own: a connection to SQLite that was
    open when a trial is forked must not be used by both.

    Args:
        config: The configuration that is tuned.
        settings: The study's.
        study: Knows the run of the command that began it.
    """

    def __init__(self, config: Config, settings: StudySettings, study: TrialStudy) -> None:
        self.config, self.settings, self.study = config, settings, study.study
        self._storage = study.storage.url
        self.run_id = str(self.study.user_attrs.get(RUN, ""))
        # Under `mlflow run` there is a run already: the study's, and not that of each trial.
        self._given = os.environ.pop("MLFLOW_RUN_ID", "")
        self._open = OpenRun(_logger(config).uri, None)

    def start(self) -> None:
        """Open it, or the one of the command that began the study.

        Raises:
            EnvironmentFault: The store cannot be used.
        """
        content: dict[str, Any] = {**redact(self.settings.model_dump()), "storage": self._storage}
        settings = {f"study.{k}": str(v) for k, v in content.items()}

        def begin() -> str:
            logger = _logger(self.config, self.run_id)
            if self.run_id and logger.has_run():
                logger.client.set_tag(self.run_id, PROCESS, self._open.process)
                logger.client.update_run(self.run_id, "RUNNING")
            else:
                logger.run_id = self._given
                tags = {"study": self.settings.name, PROCESS: self._open.process}
                logger.start(self.settings.name, settings, tags)
            close_runs(logger.client, logger.uri)
            return logger.run_id

        self._open.begin()
        with _explained():
            self.run_id = apart(begin)
        self.study.set_user_attr(RUN, self.run_id)

    def check(self) -> None:
        """Find out whether the store answers.

        Raises:
            EnvironmentFault: It does not.
        """
        with _explained():
            apart(lambda: bool(_logger(self.config).client.search_experiments(max_results=1)))

    def tags(self, **of: int) -> dict[str, str]:
        """Return what marks a training's run as a child."""
        numbers = {key: str(value) for key, value in of.items()}
        return {PARENT: self.run_id, "study": self.settings.name, **numbers}

    def finish(self, status: str, outcome: Outcome | None, files: Sequence[Path]) -> None:
        """Close it, with what was found and the pages and figures of it.

        It raises nothing: an error that ended the study must not give way to one in recording it.
        """

        def end() -> bool:
            logger = _logger(self.config, self.run_id)
            if outcome is not None:
                metrics = {f"trials/{k}": float(v) for k, v in outcome.trials.items()}
                metrics[f"best/{self.config.monitor}"] = float(outcome.top["value"])
                for name, value in outcome.best.get("mean", {}).items():
                    metrics[f"best_mean/{name}"] = float(value)
                logger.log_metrics({**metrics, "epoch": 0.0})
            for file in files:
                logger.log_artifact(file, "figures" if file.suffix == ".png" else "")
            closed = logger.finish(status)
            close_runs(logger.client, logger.uri)
            return closed

        closed = False
        try:
            closed = apart(end)
        except Exception as error:
            say(f"warning: the study's run in MLflow is not closed: {redact(str(error))}")
        finally:
            self._open.end(status, closed=closed or not self.run_id)


@contextmanager
def _explained() -> Iterator[None]:
    """Explain a store that fails."""
    try:
        yield
    except LitlabError:
        raise
    except Exception as error:
        what = f"the MLflow store cannot be used: {redact(first_line(error))}"
        fix = "start the server, or free the disk; then run the same command to resume"
        raise EnvironmentFault(what, "tracking.uri", fix) from None


def _logger(config: Config, run_id: str = "") -> MLflowLogger:
    root, tracking = store_root(), config.tracking
    uri = tracking_uri(tracking.uri, root)
    return MLflowLogger(uri, tracking.experiment, root / "mlartifacts", run_id)


def warm_up(config: Config) -> None:
    """Set up what MLflow needs for a database, once and not in each process that is forked.

    Every connection is closed again: one that forked processes share would break.
    """
    uri = tracking_uri(config.tracking.uri, store_root())
    if not uri.startswith(DATABASES):
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of MLflow's own tables
        client = _logger(config).client
        client.search_experiments(max_results=1)
        client._tracking_client.store.engine.dispose()


def mark(config: Config, run_id: str, tags: Mapping[str, str]) -> None:
    """Tag a run, trying again after a moment; a store that takes no tag is said."""
    left = dict(tags)
    for pause in (1.0, 0.0):
        try:
            client = _logger(config, run_id).client
            for name, value in tags.items():
                if name in left:
                    client.set_tag(run_id, name, value)
                    del left[name]
            return
        except Exception as error:
            reason = redact(first_line(error))
            time.sleep(pause)
    listed = ", ".join(f"{name}={value}" for name, value in left.items())
    say(f"warning: run {run_id} lacks the tag {listed} in MLflow: {reason}")


def as_run(config: Config, name: str, tags: dict[str, str]) -> Config:
    """Return a configuration as a child of the study trains it: named, marked, and quiet."""
    tracking = config.tracking.model_copy(update={"tags": {**config.tracking.tags, **tags}})
    trainer = config.trainer.model_copy(update={"progress": "none"})
    changes = {"name": name, "tracking": tracking, "trainer": trainer}
    return config.model_copy(update=changes)


def apart(work: Callable[[], Any]) -> Any:
    """Do something in a process of its own and return what it returned.

    Raises:
        Exception: What it raised.
    """
    ours, theirs = Pipe()
    child = os.fork()
    if child == 0:
        try:
            for number in (signal.SIGINT, signal.SIGHUP):  # a terminal sends them to this one too
                signal.signal(number, signal.SIG_IGN)
            theirs.send((work(), None))
        except BaseException as error:
            theirs.send((None, error))
        finally:
            os._exit(0)
    theirs.close()
    try:
        value, raised = ours.recv()
    except EOFError:
        value, raised = None, RuntimeError("the process that writes to MLflow was killed")
    os.waitpid(child, 0)
    if raised is not None:
        raise raised
    return value
