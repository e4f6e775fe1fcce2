"""All that litlab uses of Lightning's private names, which may change with any release.

Tested with Lightning 2.5.0 and 2.6.6 (`scripts/test-lightning-range.sh`). `missing` says which
names have changed: without those of `LOOP` a run is trained by Lightning's own loop, without the
others by litlab's loop with Lightning's own handling of signals, processes or restored states.
"""

import inspect
import warnings
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import lightning
import lightning.pytorch as pl

ABSENT: list[str] = []  # names that cannot be imported
try:
    from lightning.pytorch.loops.fit_loop import _FitLoop
except ImportError:
    ABSENT.append("_FitLoop")
    _FitLoop = object  # type: ignore[assignment, misc]
try:
    from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
except ImportError:
    ABSENT.append("_TrainingEpochLoop")
    _TrainingEpochLoop = object  # type: ignore[assignment, misc]
try:
    from lightning.pytorch.loops.utilities import _block_parallel_sync_behavior
except ImportError:
    ABSENT.append("_block_parallel_sync_behavior")
try:
    from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector
except ImportError:
    ABSENT.append("_SignalConnector")
    _SignalConnector = object  # type: ignore[assignment, misc]
try:
    from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher
except ImportError:
    ABSENT.append("_SubprocessScriptLauncher")
    _SubprocessScriptLauncher = object  # type: ignore[assignment, misc]
try:
    from lightning.fabric.utilities.distributed import _set_num_threads_if_needed
except ImportError:
    ABSENT.append("_set_num_threads_if_needed")

FitLoopBase = _FitLoop
LauncherBase = _SubprocessScriptLauncher
# Attributes, by their path from a Trainer.
LOOP = (
    "fit_loop._combined_loader",
    "fit_loop.epoch_loop._batches_that_stepped",
    "fit_loop.epoch_loop._should_accumulate",
    "fit_loop.epoch_loop._num_ready_batches_reached",
    "_logger_connector.on_batch_start",
    "_logger_connector.on_batch_end",
    "_logger_connector.update_train_step_metrics",
)
LOOP_IMPORTS = ("_FitLoop", "_TrainingEpochLoop", "_block_parallel_sync_behavior")
SIGNALS = ("_signal_connector",)
RESTORING = (
    "_checkpoint_connector._restore_modules_and_callbacks",
    "_checkpoint_connector.restore_training_state",
)
LAUNCHER = ("strategy._launcher", "strategy.launcher._call_children_scripts")


def missing(trainer: pl.Trainer) -> list[str]:
    """Return the private names that this Lightning has not."""
    found = [*ABSENT, *_unreached(trainer, (*LOOP, *SIGNALS, *RESTORING))]
    if getattr(trainer.strategy, "launcher", None) is not None:
        found += _unreached(trainer, LAUNCHER)
    return found


def knows_loop(trainer: pl.Trainer) -> bool:
    """Whether litlab's own loop can run; warns once of all that is missing, whatever it is for."""
    names = missing(trainer)
    by_lightning = any(name in (*LOOP, *LOOP_IMPORTS) for name in names)
    if names:
        loop = "Lightning's own loop trains, slower, and such a run cannot be resumed"
        what = loop if by_lightning else "Lightning handles signals, processes and errors itself"
        warnings.warn(
            f"Lightning {lightning.__version__} has no {', '.join(names)}: {what}; "
            "install a version that litlab was tested with",
            stacklevel=3,
        )
    return not by_lightning


def _unreached(trainer: pl.Trainer, paths: tuple[str, ...]) -> list[str]:
    return [path for path in paths if not _reaches(trainer, path)]


def _reaches(holder: Any, path: str) -> bool:
    for name in path.split("."):
        if not hasattr(holder, name):
            return False
        holder = getattr(holder, name)
    return True


class TrainingEpochLoop(_TrainingEpochLoop):
    """Lightning's loop over an epoch's batches, with public names for what litlab's needs."""

    @property
    def stepped_batches(self) -> int:
        """How many batches ended with an optimizer step, by which values are logged."""
        return self._batches_that_stepped

    @stepped_batches.setter
    def stepped_batches(self, number: int) -> None:
        self._batches_that_stepped = number

    def accumulates(self) -> bool:
        """Whether the batch's gradients wait for more."""
        return self._should_accumulate()

    def has_all_batches(self) -> bool:
        """Whether the epoch's last batch was served."""
        return self._num_ready_batches_reached()


def loaders(trainer: pl.Trainer) -> list[Any]:
    """Return the loaders of the training data."""
    combined = getattr(trainer.fit_loop, "_combined_loader", None)
    return list(combined.flattened) if combined is not None else []


def skips_backward(trainer: pl.Trainer) -> bool:
    """Whether a callback of Lightning's wants forward passes only."""
    return bool(getattr(trainer.fit_loop, "_skip_backward", False))


def log_batch_start(trainer: pl.Trainer, batch: Any) -> None:
    """Let `self.log` be called in the hooks of a step."""
    trainer._logger_connector.on_batch_start(batch)


def log_batch_end(trainer: pl.Trainer) -> None:
    """Send what was logged in a step."""
    trainer._logger_connector.on_batch_end()
    trainer._logger_connector.update_train_step_metrics()


def set_hook(task: pl.LightningModule, name: str) -> None:
    """Tell `self.log` which hook it is called in."""
    task._current_fx_name = name


def without_sync(strategy: Any, *, block: bool) -> AbstractContextManager[None]:
    """Let processes keep their gradients to themselves while `block` holds."""
    return _block_parallel_sync_behavior(strategy, block=block)


class NoSignals(_SignalConnector):
    """Signals are litlab's own: Lightning's handler talks to other processes in mid-step."""

    def register_signal_handlers(self) -> None:
        """Leave them."""


def handle_no_signals(trainer: pl.Trainer) -> None:
    """Keep Lightning from handling signals, where that is known how."""
    if "_SignalConnector" not in ABSENT and not _unreached(trainer, SIGNALS):
        trainer._signal_connector = NoSignals(trainer)


def wrap_restoring(trainer: pl.Trainer, decorate: Any) -> None:
    """Decorate what takes a checkpoint over."""
    for path in RESTORING:
        if _reaches(trainer, path):
            connector, name = trainer._checkpoint_connector, path.rpartition(".")[2]
            setattr(connector, name, decorate(getattr(connector, name)))


def starts_processes(trainer: pl.Trainer) -> bool:
    """Whether the Trainer starts the other processes of the run, in a way that is known."""
    known = "_SubprocessScriptLauncher" not in ABSENT and not _unreached(trainer, LAUNCHER)
    return known and isinstance(trainer.strategy.launcher, LauncherBase)


def replace_launcher(trainer: pl.Trainer, launcher: Any) -> None:
    """Let another launcher start the processes."""
    trainer.strategy._launcher = launcher


def set_num_threads(num_processes: int) -> None:
    """Share the cores out among the processes of a machine."""
    if "_set_num_threads_if_needed" not in ABSENT:
        _set_num_threads_if_needed(num_processes=num_processes)


def start_children(launcher: Any) -> None:
    """Start the other processes of this machine."""
    launcher._call_children_scripts()


def fit(
    trainer: pl.Trainer,
    task: pl.LightningModule,
    data: pl.LightningDataModule,
    checkpoint: Path | None,
) -> None:
    """Fit, from a checkpoint if one is given; the plugin reads tensors and plain values only.

    Lightning from 2.6 on asks to be told so.
    """
    asks = "weights_only" in inspect.signature(trainer.fit).parameters
    given: dict[str, Any] = {"weights_only": True} if asks else {}
    trainer.fit(task, datamodule=data, ckpt_path=checkpoint, **given)
