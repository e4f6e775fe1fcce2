"""Lightning's Trainer as the configuration describes it, and how its fit may end."""

import logging
import signal
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, EarlyStopping
from lightning.pytorch.loggers import Logger
from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector

from litlab.config.schema import Config, TrainerConfig
from litlab.distributed.fsdp import strategy_of
from litlab.runs.checkpoint.io import VerifiedCheckpointIO
from litlab.runs.checkpoint.parts import restoring
from litlab.runs.folder import LAST, PREVIOUS
from litlab.tasks import memory
from litlab.training import anomaly
from litlab.training.callbacks import build, progress
from litlab.training.callbacks.checkpoint import CheckpointCallback
from litlab.training.callbacks.nan_guard import NaNGuard
from litlab.training.compile import explained
from litlab.training.loop.fit_loop import FitLoop
from litlab.training.loop.protocol import Stopped
from litlab.training.preflight import num_processes
from litlab.training.profiling import make_profiler, profile_callbacks
from litlab.utils import seeding
from litlab.utils.errors import ConfigError
from litlab.utils.signals import Signals

SAME_NAME = (  # passed on to the Trainer as they are
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
# True of DataLoaders with worker processes, and of steps that are logged one by one; neither here.
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
    keeper: CheckpointCallback,
    guard: NaNGuard,
    extra: Sequence[Callback] = (),
) -> pl.Trainer:
    """Return the Trainer, with litlab's loop and checkpoints in place of Lightning's.

    Args:
        config: The configuration.
        folder: The run's.
        loggers: Where metrics go.
        keeper: Saves the run.
        guard: Refuses a step that is not finite.
        extra: More callbacks.

    Raises:
        ConfigError: Lightning refuses the combination.
    """
    callbacks = [
        *_early_stopping(config, keeper.mode),
        *progress.callbacks(config.trainer.progress),
    ]
    callbacks += [*build.callbacks(config), *profile_callbacks(config.trainer.profiler, folder)]
    callbacks += [*extra, guard, keeper]
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
            plugins=[VerifiedCheckpointIO({LAST: PREVIOUS})],
            default_root_dir=folder,
            num_sanity_val_steps=0,  # the parts were tried on made-up samples when they were built
            use_distributed_sampler=False,  # the loader shares out each batch itself
            enable_checkpointing=False,  # the keeper does it
            enable_model_summary=False,
            enable_progress_bar=any(isinstance(c, pl.callbacks.ProgressBar) for c in callbacks),
        )
    except (ValueError, TypeError, RuntimeError, ImportError, MisconfigurationException) as error:
        raise _refused(error) from error
    trainer.fit_loop = FitLoop(trainer, keeper)
    trainer._signal_connector = _NoSignals(trainer)
    return trainer


class _NoSignals(_SignalConnector):
    """Signals are litlab's own: Lightning's handler talks to other processes in mid-step."""

    def register_signal_handlers(self) -> None:
        """Keep litlab's own handlers."""


class _EarlyStopping(EarlyStopping):
    """Lightning's, except that a resumed run has the patience that it is given now."""

    @property
    def state_key(self) -> str:
        """Lightning's own, by which checkpoints know it."""
        return f"EarlyStopping{ {'monitor': self.monitor, 'mode': self.mode} }"

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what was counted, not what is set."""
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
    with _plain_warnings(), signals.noted(), enough, explained(), anomaly.explained():
        try:
            trainer.fit(task, datamodule=data, ckpt_path=resume, weights_only=True)
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
    """Report an error while a checkpoint is restored as an error of the checkpoint."""
    connector = trainer._checkpoint_connector
    blamed = restoring(checkpoint, passing=(MisconfigurationException,))
    for name in ("_restore_modules_and_callbacks", "restore_training_state"):
        setattr(connector, name, blamed(getattr(connector, name)))


def seed_apart(seed: int, trainer: pl.Trainer) -> None:
    """Give each of several processes noise of its own, once all have built the same weights.

    A single process keeps the state of its random numbers.
    """
    if trainer.world_size > 1:
        seeding.seed_everything((seed + trainer.global_rank) % 2**32)


def check_devices(trainer: TrainerConfig) -> None:
    """Refuse a device or precision that torch does not support on this machine.

    Raises:
        ConfigError: The device is there but torch cannot use it, or it lacks the precision.
    """
    wants_gpu = trainer.accelerator in ("gpu", "cuda", "mps")
    has_gpu = torch.cuda.is_available() or torch.backends.mps.is_available()
    if wants_gpu and not has_gpu:
        raise ConfigError(
            f"this build of torch ({torch.__version__}) cannot use a {trainer.accelerator} device",
            "trainer.accelerator",
            "install a torch build for it, or use trainer.accelerator=cpu",
        )
    if trainer.deterministic is True and trainer.benchmark:
        raise ConfigError(
            "cuDNN's search for the fastest algorithm makes results differ between runs",
            "trainer.benchmark, trainer.deterministic",
            "set one of them to false",
        )
    on_cuda = torch.cuda.is_available() and trainer.accelerator != "cpu"
    needs_bf16 = on_cuda and trainer.precision.startswith("bf16")
    if needs_bf16 and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise ConfigError(
            f"{torch.cuda.get_device_name()} has no bfloat16",
            "trainer.precision",
            "use 16-mixed or 32-true",
        )


def _be_quiet() -> None:
    """Leave only Lightning's warnings: what matters of the rest, the run says in its own words."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.WARNING)


@contextmanager
def _plain_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        for message in IRRELEVANT:
            warnings.filterwarnings("ignore", message=message)
        yield
