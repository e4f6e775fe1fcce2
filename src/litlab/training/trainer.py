"""Builds Lightning's Trainer from the configuration, and runs its fit."""

import logging
import re
import signal
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, EarlyStopping
from lightning.pytorch.loggers import Logger

from litlab.config.schema import Config
from litlab.distributed.fsdp import strategy_of
from litlab.runs.checkpoint.resume import restoring
from litlab.tasks import memory
from litlab.training.callbacks import build, progress
from litlab.training.callbacks.checkpoint import CheckpointByHooks, CheckpointCallback, Stopped
from litlab.training.callbacks.nan_guard import NaNGuard
from litlab.training.compile import explained
from litlab.training.loop import FitLoop
from litlab.training.preflight import num_processes
from litlab.training.profiling import make_profiler, profile_callbacks
from litlab.utils import lightning_adapter, seeding
from litlab.utils.errors import ConfigError, NonFiniteError
from litlab.utils.signals import Signals

# What torch's anomaly detection finds, in one line.


FRAME = re.compile(r'File "([^"]+)", line (\d+), in (\S+)\n\s*(\S.*)')
FIX = "correct that operation, such as a root, a logarithm or a division near zero"


@contextmanager
def anomaly_explained() -> Iterator[None]:
    """Turn torch's warning of a whole traceback, and its error, into one line.

    Raises:
        NonFiniteError: An operation's gradient was NaN.
    """
    messages: list[str] = []
    show = warnings.showwarning

    def note(message: Any, *args: Any, **kwargs: Any) -> None:
        if str(message).startswith("Error detected in"):
            messages.append(str(message))
        else:
            show(message, *args, **kwargs)

    warnings.showwarning = note
    try:
        yield
    except RuntimeError as error:
        if "returned nan values" not in str(error):
            raise
        what = f"anomaly detection: {str(error).rstrip('.')}"
        raise NonFiniteError(what, _place(messages), FIX) from error
    finally:
        warnings.showwarning = show


def _place(messages: list[str]) -> str:
    """Return the innermost line of the forward call that is not torch's own."""
    frames = [f for text in messages for f in FRAME.findall(text) if "/torch/" not in f[0]]
    if not frames:
        return "training"
    path, line, function, code = frames[-1]
    return f"{path}, line {line}, in {function}: {code.strip()}"


SAME_NAME = (  # passed to the Trainer unchanged
    "max_epochs",
    "accelerator",
    "devices",
    "num_nodes",
    "precision",
    "accumulate_grad_batches",
    "gradient_clip_val",
    "gradient_clip_algorithm",
    "deterministic",
    "benchmark",
    "limit_train_batches",
    "limit_val_batches",
    "detect_anomaly",
)
# These warnings are about DataLoader workers and logging per step, which litlab does not use.
IRRELEVANT = (
    ".*does not have many workers.*",
    ".*smaller than the logging interval.*",
    ".*Checkpoint directory .* exists and is not empty.*",
    ".*isinstance.treespec, LeafSpec.*",
    ".*GPU available but not used.*",
)


def make_trainer(
    config: Config,
    folder: Path,
    loggers: Sequence[Logger],
    checkpoint: CheckpointCallback,
    nan_guard: NaNGuard,
    extra: Sequence[Callback] = (),
    *,
    own_data: bool = False,
) -> pl.Trainer:
    """Return the Trainer, with litlab's loop and checkpoints in place of Lightning's.

    Args:
        config: The configuration.
        folder: The run's.
        loggers: Where metrics go.
        checkpoint: Saves the run.
        nan_guard: Refuses a step that is not finite.
        extra: More callbacks.
        own_data: Whether the loaders are the user's own, whose samples Lightning has to share out
            among several processes.

    Raises:
        ConfigError: Lightning refuses the combination.
    """
    callbacks = [
        *_early_stopping(config, checkpoint.best.mode),
        *progress.callbacks(config.trainer.progress),
    ]
    callbacks += [*build.callbacks(config), *profile_callbacks(config.trainer.profiler, folder)]
    callbacks += [*extra, nan_guard, checkpoint]
    _be_quiet()
    settings = {name: getattr(config.trainer, name) for name in SAME_NAME}
    settings["strategy"] = strategy_of(config.trainer, num_processes(config.trainer))
    if config.trainer.overfit_batches:
        settings["limit_train_batches"] = config.trainer.overfit_batches
    try:
        trainer = pl.Trainer(
            **settings,
            logger=list(loggers),
            callbacks=callbacks,
            profiler=make_profiler(config.trainer.profiler, folder),
            plugins=[checkpoint.io],
            default_root_dir=folder,
            num_sanity_val_steps=0,  # the parts were tested when they were built
            use_distributed_sampler=own_data,  # litlab's loader splits each batch between processes
            enable_checkpointing=False,  # the checkpoint callback does it
            enable_model_summary=False,
            enable_progress_bar=any(isinstance(c, pl.callbacks.ProgressBar) for c in callbacks),
        )
    except (ValueError, TypeError, RuntimeError, ImportError, MisconfigurationException) as error:
        raise _refused(error) from error
    if lightning_adapter.knows_loop(trainer):
        trainer.fit_loop = FitLoop(trainer, checkpoint)
    else:
        trainer.callbacks.append(CheckpointByHooks(checkpoint))  # type: ignore[attr-defined]
    lightning_adapter.handle_no_signals(trainer)
    return trainer


class _EarlyStopping(EarlyStopping):
    """Lightning's EarlyStopping, but a resumed run uses the current patience."""

    @property
    def state_key(self) -> str:
        """Return Lightning's key, under which checkpoints store the state."""
        return f"EarlyStopping{ {'monitor': self.monitor, 'mode': self.mode} }"

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the counters, not the settings."""
        super().load_state_dict({**state_dict, "patience": self.patience})


def _early_stopping(config: Config, mode: str) -> list[Callback]:
    stopping = config.trainer.early_stopping
    if stopping is None:
        return []
    early = _EarlyStopping(
        config.monitor,
        mode=mode,
        patience=stopping.patience,
        min_delta=stopping.min_delta,
        check_on_train_epoch_end=config.monitor.startswith("train/"),
    )
    return [early]


def _refused(error: Exception) -> ConfigError:
    return ConfigError(
        f"Lightning rejects the configuration: {error}", "trainer", "change the setting it names"
    )


def fit(
    trainer: pl.Trainer,
    task: pl.LightningModule,
    data: pl.LightningDataModule,
    signals: Signals,
    resume: Path | None = None,
) -> None:
    """Run the fit; a signal that ended it becomes an error with the exit code of that signal.

    Args:
        trainer: As `make_trainer` returned it.
        task: What is trained.
        data: On what.
        signals: What may have come.
        resume: The checkpoint to resume from.

    Raises:
        Interrupted: Ctrl-C, SIGTERM or SIGHUP. (Lightning exits with 1 on the first, 0 on SIGTERM.)
        ConfigError: A setting of the Trainer does not fit the data or the task.
        EnvironmentFault: Memory ran out.
        NonFiniteError: Anomaly detection found the operation that makes a NaN.
    """
    saved = "run the same command with --resume to continue"
    if resume is not None:
        _blame(trainer, resume)
    fix = "lower loader.batch_size, or choose a smaller network"
    enough = memory.explained("training", "loader.batch_size, model", fix)
    with _plain_warnings(), signals.noted(), enough, explained(), anomaly_explained():
        try:
            lightning_adapter.fit(trainer, task, data, resume)
        except MisconfigurationException as error:
            raise _refused(error) from error
        except Stopped:
            raise signals.interrupted(saved) from None
        except SystemExit:
            if trainer.interrupted:
                saved = "run the same command with --resume to continue from the last save"
                raise signals.interrupted(saved, signal.SIGINT) from None
            raise


def _blame(trainer: pl.Trainer, checkpoint: Path) -> None:
    """Convert an error while restoring a checkpoint into a CheckpointError."""
    blamed = restoring(checkpoint, passing=(MisconfigurationException,))
    lightning_adapter.wrap_restoring(trainer, blamed)


def seed_rank(seed: int, trainer: pl.Trainer) -> None:
    """Seed each of several processes differently, after all have built the same weights.

    A single process keeps the state of its random numbers.
    """
    if trainer.world_size > 1:
        seeding.seed_everything((seed + trainer.global_rank) % 2**32)


def _be_quiet() -> None:
    """Show only Lightning's warnings; the run reports the relevant rest itself."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.WARNING)


@contextmanager
def _plain_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        for message in IRRELEVANT:
            warnings.filterwarnings("ignore", message=message)
        yield
