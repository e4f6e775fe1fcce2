"""The study in MLflow: one run, whose children are the trials' runs."""

import os
from collections.abc import Callable
from dataclasses import asdict
from multiprocessing import Pipe
from typing import TYPE_CHECKING, Any

from litlab.paths import store_root
from litlab.schema import Config
from litlab.tracking.mlflow_logger import MLflowLogger, tracking_uri
from litlab.tuning.settings import StudySettings

if TYPE_CHECKING:
    from litlab.tuning.tune import Outcome

PARENT = "mlflow.parentRunId"


class ParentRun:
    """MLflow's run of a study.

    All that touches the store happens in processes of their own: a connection to SQLite that was
    open when a trial is forked must not be used by both.

    Args:
        config: The configuration that is tuned.
        settings: The study's.
    """

    def __init__(self, config: Config, settings: StudySettings) -> None:
        self.config, self.settings = config, settings
        self.run_id = ""
        self._file = store_root() / ".litlab" / "studies" / f"{settings.name}.run"

    def _logger(self) -> MLflowLogger:
        root, tracking = store_root(), self.config.tracking
        uri = tracking_uri(tracking.uri, root)
        return MLflowLogger(uri, tracking.experiment, root / "mlartifacts", self.run_id)

    def start(self) -> None:
        """Open it, or the one of the command that began the study."""
        self.run_id = self._file.read_text().strip() if self._file.is_file() else ""
        settings = {f"study.{k}": str(v) for k, v in self.settings.model_dump().items()}

        def begin() -> str:
            logger = self._logger()
            if self.run_id and logger.has_run():
                logger.client.update_run(self.run_id, "RUNNING")
                return self.run_id
            logger.run_id = ""
            return logger.start(self.settings.name, settings, {"study": self.settings.name})

        self.run_id = apart(begin)
        self._file.write_text(self.run_id)

    def tags(self, number: int) -> dict[str, str]:
        """Return what marks a trial's run as a child."""
        return {PARENT: self.run_id, "study": self.settings.name, "trial": str(number)}

    def finish(self, status: str, outcome: "Outcome | None") -> None:
        """Close it, with what was found."""

        def end() -> bool:
            logger = self._logger()
            if outcome is not None:
                found: dict[str, Any] = asdict(outcome)
                metrics = {f"trials/{k}": float(v) for k, v in found["trials"].items()}
                best = {f"best/{self.config.monitor}": float(found["best"]["value"])}
                logger.log_metrics({**metrics, **best, "epoch": 0.0})
            return logger.finish(status)

        apart(end)


def apart(work: Callable[[], Any]) -> Any:
    """Do something in a process of its own and return what it returned.

    Raises:
        Exception: What it raised.
    """
    ours, theirs = Pipe()
    child = os.fork()
    if child == 0:
        try:
            theirs.send((work(), None))
        except BaseException as error:
            theirs.send((None, error))
        finally:
            os._exit(0)
    theirs.close()
    value, raised = ours.recv()
    os.waitpid(child, 0)
    if raised is not None:
        raise raised
    return value
