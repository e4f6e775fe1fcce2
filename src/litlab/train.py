"""One run: data, model and task from a configuration, fitted by Lightning, recorded in full."""

import time
import warnings
from dataclasses import dataclass
from pathlib import Path

from litlab import seeding
from litlab.assemble import build_augmentations, build_task
from litlab.checkpoint.card import Card, WriteCard
from litlab.data.datamodule import ArrayDataModule
from litlab.data.open import open_or_prepare
from litlab.data.spec import DataSpec
from litlab.errors import Interrupted
from litlab.paths import runs_folder
from litlab.run_folder import BEST, RunRecord, make_folder
from litlab.schema import Config
from litlab.task import Task
from litlab.tracking.recording import Recording
from litlab.trainer import check_devices, fit, is_first_process, make_trainer


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
    check_devices(config.trainer)
    folder, spec = open_or_prepare(config.data, config.trust)
    _check_batches(config, spec)
    seeding.seed_everything(config.seed)
    task = build_task(config, spec)
    augmentations = build_augmentations(config.augment, spec, config.trust)
    data = ArrayDataModule(folder, spec, config.loader, augmentations, seed=config.seed)
    data.open()  # a damaged file is found before anything is recorded
    # The other processes of a run write nothing; checkpoints go where the first one's Trainer says.
    run = make_folder(out, config.run_name) if is_first_process() else runs_folder()
    return _fit(task, data, Recording(config, spec, run, command or []))


def _fit(task: Task, data: ArrayDataModule, recording: Recording) -> Result:
    """Fit, and leave a true record whatever happens."""
    first, config = is_first_process(), recording.config
    checkpoint = recording.folder / BEST
    status, sent, began = "FAILED", True, time.monotonic()
    try:
        if first:
            recording.start(task.model)
        card = WriteCard(Card(config, recording.spec, recording.record.run_id))
        trainer = make_trainer(config, task.parts.mode, recording.folder, recording.loggers, card)
        began = time.monotonic()
        fit(trainer, task, data)
        status = "FINISHED"
    except (Interrupted, KeyboardInterrupt):
        status = "KILLED"
        raise
    finally:
        if first:
            seconds = time.monotonic() - began
            sent = recording.finish(status, seconds, checkpoint, task.parts.mode)
    if not first:
        raise SystemExit(0)
    return Result(recording.folder, checkpoint, recording.record, sent)


def _check_batches(config: Config, spec: DataSpec) -> None:
    size, available = config.loader.batch_size, spec.sizes["train"]
    if size > available and not config.loader.drop_last:
        warnings.warn(
            f"loader.batch_size={size} is more than the {available} training samples: "
            "each epoch is one step",
            stacklevel=2,
        )
