"""One run: data, model and task from a configuration, fitted by Lightning, recorded in full."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from litlab import seeding
from litlab.assemble import build_augmentations, build_task
from litlab.checkpoint.card import Card, WriteCard
from litlab.data.datamodule import ArrayDataModule
from litlab.data.open import open_or_prepare
from litlab.errors import EnvironmentFault, Interrupted
from litlab.feasible import check_feasible
from litlab.paths import runs_folder
from litlab.preview import preview_of_run
from litlab.rank_guard import Guard
from litlab.ranks import as_launched
from litlab.run_folder import BEST, RunRecord, make_folder
from litlab.schema import Config
from litlab.sync_batchnorm import synchronize
from litlab.task import Task
from litlab.tracking.recording import Recording
from litlab.trainer import check_devices, fit, is_first_process, make_trainer, seed_apart


@dataclass(frozen=True)
class Result:
    """What a finished run leaves behind.

    Attributes:
        folder: The run's folder.
        checkpoint: The weights of the best epoch.
        record: What `run.json` says.
        all_sent: Whether the tracking store has all of it.
    """

    folder: Path
    checkpoint: Path
    record: RunRecord
    all_sent: bool


def train(config: Config, out: Path | None = None, command: list[str] | None = None) -> Result:
    """Train one model.

    Of several processes only the first returns; the others end when the training does.

    Args:
        config: A checked configuration.
        out: Folder for the run; a new one under runs/ if None.
        command: What the user typed, to repeat the run.

    Raises:
        LitlabError: See `litlab.errors`; a run that had begun is recorded as FAILED or KILLED.
    """
    config = config.model_copy(update={"trainer": as_launched(config.trainer)})
    check_devices(config.trainer)
    folder, spec = open_or_prepare(config.data, config.trust)
    seeding.seed_everything(config.seed)
    task = build_task(config, spec)
    augmentations = build_augmentations(config.augment, spec, config.trust)
    check_feasible(config, spec, task.model)
    data = ArrayDataModule(folder, spec, config.loader, augmentations, seed=config.seed)
    data.open()  # a damaged file is found before anything is recorded
    # The other processes of a run write nothing; checkpoints go where the first one's Trainer says.
    run = make_folder(out, config.run_name) if is_first_process() else runs_folder()
    return _fit(task, data, Recording(config, spec, run, command or []))


def _fit(task: Task, data: ArrayDataModule, recording: Recording) -> Result:
    """Fit, and leave a true record whatever happens."""
    first, config = is_first_process(), recording.config
    mode = task.parts.mode
    checkpoint = recording.folder / BEST
    status, sent, began = "FAILED", True, time.monotonic()
    try:
        with _sigterm(held=False):
            if first:
                recording.start(task.model)
                recording.keep(preview_of_run(data, recording.folder))
            card = WriteCard(Card(config, recording.spec, recording.record.run_id))
            loggers = recording.loggers
            trainer = make_trainer(config, task.parts.mode, recording.folder, loggers, card)
            seed_apart(config.seed, trainer)
            if config.trainer.sync_batchnorm and trainer.world_size > 1:
                synchronize(task.model, on_cuda=trainer.strategy.root_device.type == "cuda")
            began = time.monotonic()
            guard = Guard(lambda: first and recording.finish("FAILED", 0.0, checkpoint, mode))
            with guard.attach(trainer):
                fit(trainer, task, data)
            if first:
                _require(checkpoint)
        status = "FINISHED"
    except (Interrupted, KeyboardInterrupt):
        status = "KILLED"
        raise
    finally:
        if first:
            seconds = time.monotonic() - began
            with _sigterm(held=True):
                sent = recording.finish(status, seconds, checkpoint, task.parts.mode)
    if not first:
        raise SystemExit(0)
    return Result(recording.folder, checkpoint, recording.record, sent)


def _require(checkpoint: Path) -> None:
    """Lightning goes on where it may not write, and says nothing."""
    if not checkpoint.is_file():
        raise EnvironmentFault(
            "the checkpoint was not written", str(checkpoint), "make the folder writable"
        )


class _Terminated(BaseException):
    """No `Exception`: what forgives a failing store must not forgive this."""


@contextmanager
def _sigterm(*, held: bool) -> Iterator[None]:
    """Turn SIGTERM into an error, at once or, if `held`, at the end; Lightning's fit has its own.

    Raises:
        Interrupted: It came.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []

    def note(number: int, _: object) -> None:
        came.append(number)
        # During the fit Lightning's handler calls this one, and ends the fit after the batch.
        if not held and signal.getsignal(signal.SIGTERM) is note:
            raise _Terminated

    before = signal.signal(signal.SIGTERM, note)
    try:
        yield
    except _Terminated:
        pass
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)
    if came:
        raise Interrupted("stopped by SIGTERM", "training", "run it again", 143)
