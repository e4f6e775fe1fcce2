"""One run: data, model and task from a configuration, fitted by Lightning, recorded in full."""

import shutil
import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from litlab.config.schema import Config
from litlab.data.datamodule import ArrayDataModule
from litlab.data.prepare.open import open_or_prepare
from litlab.data.spec import DataSpec
from litlab.distributed.launch import is_first_process
from litlab.distributed.sync_batchnorm import synchronize
from litlab.distributed.watchdog import Watchdog
from litlab.evaluation.preview import preview_of_run
from litlab.runs.best_epoch import BestEpoch
from litlab.runs.checkpoint.io import probe
from litlab.runs.checkpoint.metadata import CheckpointMetadata
from litlab.runs.checkpoint.resume import Interruption, Resume, check_fits
from litlab.runs.folder import BEST, PREVIOUS, RunRecord, make_folder
from litlab.runs.lock import running, writing_to
from litlab.runs.recorder import Recording
from litlab.tasks.build import build_augmentations, build_task
from litlab.tasks.task import Task
from litlab.training.callbacks.checkpoint import CheckpointCallback
from litlab.training.callbacks.nan_guard import NaNGuard
from litlab.training.callbacks.optimizer_changes import OptimizerChanges
from litlab.training.dvc_stage import Output
from litlab.training.failed_step import FailedStepWriter
from litlab.training.finders.find import find_settings, settings_of
from litlab.training.freeze import freeze
from litlab.training.preflight import check_with_data, preflight
from litlab.training.profiling import reports
from litlab.training.trainer import fit, make_trainer, seed_apart
from litlab.training.warm_start import WarmStart, init_from
from litlab.utils import seeding, startup
from litlab.utils.errors import EnvironmentFault, Interrupted, LitlabError
from litlab.utils.output import nth_epoch, say
from litlab.utils.paths import runs_folder, short
from litlab.utils.signals import Signals, Terminated, requeue


@dataclass(frozen=True)
class Result:
    """What a finished run leaves behind.

    Attributes:
        folder: The run's folder.
        checkpoint: The weights of the best epoch.
        record: What `run.json` says.
        all_sent: Whether the tracking store has all of it.
        trust: The user's own packages that the checkpoint names.
    """

    folder: Path
    checkpoint: Path
    record: RunRecord
    all_sent: bool
    trust: tuple[str, ...] = ()

    def facts(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        names = ("run_id", "metrics", "seconds", "best_epoch", "epochs", "num_parameters")
        facts = {name: getattr(self.record, name) for name in (*names, "resumed")}
        return {**facts, "checkpoint": str(self.checkpoint), "folder": str(self.folder)}


def train(
    config: Config,
    out: Path | None = None,
    command: list[str] | None = None,
    resume: Resume | None = None,
    callbacks: Sequence[Callback] = (),
    *,
    preview: bool = True,
    prepared: Path | None = None,
) -> Result:
    """Train one model.

    Of several processes only the first returns; the others end when the training does.

    Args:
        config: A checked configuration.
        out: Folder for the run; a new one under runs/ if None.
        command: What the user typed, to repeat the run.
        resume: Resume an interrupted run; None starts a new one.
        callbacks: More of Lightning's.
        preview: Whether to draw the first samples; not worth it for one of many like it.
        prepared: Folder of the prepared data; data/prepared/<name> if None.

    Raises:
        LitlabError: See `litlab.utils.errors`; a run that had begun is recorded as FAILED or
            KILLED.
    """
    config = preflight(config)
    with ExitStack() as locks:
        output = _lock_output(config, out, resume, locks)
        interrupted = resume.find(config, out, command or []) if resume else None

        folder, spec = open_or_prepare(config.data, config.trust, prepared)
        task, data, warm_start = _build(config, folder, spec, interrupted)

        run, state = _make_folders(config, task, out, output, interrupted, locks)
        config, files = _find_settings(config, task, data, run, interrupted)
        files += _report(warm_start, run)

        best = BestEpoch(config.monitor, task.parts.mode)
        place = output.place if output else run
        recording = Recording(config, spec, run, best, command or [], place)
        with Signals() as signals, _recorded(recording, interrupted, signals):
            _open_record(recording, task, data, interrupted, files, preview=preview)
            trainer = _make_trainer(recording, task, state, signals, interrupted, callbacks)
            _fit(trainer, task, data, recording, signals, interrupted)
            _require_checkpoint(recording)

        if not is_first_process():
            raise SystemExit(0)
        (state / PREVIOUS).unlink(missing_ok=True)  # a finished run is not resumed
        if output is not None:
            output.publish()
        trust = tuple(config.trust)
        return Result(place, place / BEST, recording.record, recording.all_sent, trust)


def _lock_output(
    config: Config, out: Path | None, resume: Resume | None, locks: ExitStack
) -> Output | None:
    """Return the output of a DVC stage, locked; None of any other run."""
    state = resume.state_folder(config, out) if resume else None
    if out is None or state is None:
        return None
    output = Output(out.resolve(), state)
    if is_first_process():
        locks.enter_context(writing_to(output.place))
        locks.callback(output.tidy)
    return output


def _build(
    config: Config, folder: Path, spec: DataSpec, interrupted: Interruption | None
) -> tuple[Task, ArrayDataModule, WarmStart | None]:
    """Build task and data; start from another run's weights where that is asked for."""
    seeding.seed_everything(config.seed)
    task = build_task(config, spec)
    warm_start = None
    if config.init_from is not None and interrupted is None:
        warm_start = init_from(task.model, spec, config.init_from, config.trust)
    frozen = freeze(task.model, config.trainer)
    overfit = config.trainer.overfit_batches > 0
    augmentations = build_augmentations({} if overfit else config.augment, spec, config.trust)
    check_with_data(config, spec, task.model)
    data = ArrayDataModule(
        folder, spec, config.loader, augmentations, seed=config.seed, repeat=overfit
    )
    data.open()  # a damaged file is found before anything is recorded
    if interrupted is not None:
        check_fits(interrupted, spec, task.state_dict(), config.trust)
    return task, data, warm_start.frozen(frozen) if warm_start is not None else None


def _make_folders(
    config: Config,
    task: Task,
    out: Path | None,
    output: Output | None,
    interrupted: Interruption | None,
    locks: ExitStack,
) -> tuple[Path, Path]:
    """Return the run's folder, new or that of an interrupted run, and that of its last state.

    They are locked, and have room for the checkpoints.
    """
    if not is_first_process():  # the others write nothing; checkpoints go where the first's go
        return runs_folder(), output.state if output else runs_folder()
    if output is not None:
        make_folder(output.place, config.run_name)  # refused before it is trained for
        locks.enter_context(running(output.state))
        run = output.make()
        _require_space(task, run, output.state)
        return run, output.state
    run = interrupted.folder if interrupted else make_folder(out, config.run_name)
    _require_space(task, run)
    locks.enter_context(running(run))
    return run, run


def _require_space(task: Task, *folders: Path) -> None:
    """Refuse to train where the result cannot be kept."""
    weights = sum(value.nbytes for value in task.state_dict().values())
    try:
        for folder in folders:
            # The best weights; the weights, two moments of Adam, and the same while it is written.
            probe(folder, 7 * weights + 2**20)
    except EnvironmentFault:
        with suppress(OSError):  # not empty: it is of an interrupted run
            folders[0].rmdir()
        raise


def _find_settings(
    config: Config,
    task: Task,
    data: ArrayDataModule,
    run: Path,
    interrupted: Interruption | None,
) -> tuple[Config, list[Path]]:
    """Return the configuration with the batch size and rate that were to be found, and files."""
    if interrupted is not None:
        return settings_of(config, interrupted.checkpoint, task, data), []
    return find_settings(config, task, data, run)


def _report(warm_start: WarmStart | None, run: Path) -> list[Path]:
    """Say what became of another run's weights; return the file that says so too."""
    if warm_start is None or not is_first_process():
        return []
    say(str(warm_start))
    return [warm_start.save(run)]


@contextmanager
def _recorded(
    recording: Recording, interrupted: Interruption | None, signals: Signals
) -> Iterator[None]:
    """Record how the block ends, whatever happens in it."""
    status = "FAILED"
    try:
        yield
        status = "FINISHED"
    except (Interrupted, KeyboardInterrupt, Terminated):
        status = "KILLED"
        raise
    finally:
        if is_first_process():
            with signals.held():
                recording.finish(status)
                # The store was not reached: no run began. An interrupted one stays.
                if interrupted is None and not recording.record.run_id:
                    shutil.rmtree(recording.folder, ignore_errors=True)


def _open_record(
    recording: Recording,
    task: Task,
    data: ArrayDataModule,
    interrupted: Interruption | None,
    files: list[Path],
    *,
    preview: bool,
) -> None:
    """Open the record, a new one or that of the interrupted run."""
    if not is_first_process():
        return
    if interrupted is None:
        recording.start(task.model)
        shown = preview_of_run(data, recording.folder) if preview else []
        recording.keep([*shown, *files])
        return
    recording.resume(task.model, interrupted)
    best = interrupted.folder / BEST
    if best.is_file() and not recording.checkpoint.exists():
        shutil.copyfile(best, recording.checkpoint)
    manifest, folder = interrupted.manifest, short(interrupted.folder)
    where = f"epoch {nth_epoch(manifest['epoch'])}, step {manifest['step']}"
    say(f"resuming run {recording.record.run_id} in {folder} from {where}")
    for change in interrupted.changed:
        say(f"  changed: {change}")


def _make_trainer(
    recording: Recording,
    task: Task,
    state: Path,
    signals: Signals,
    interrupted: Interruption | None,
    callbacks: Sequence[Callback],
) -> pl.Trainer:
    """Return the Trainer, with the callbacks that save the run and refuse a bad step."""
    config, folder = recording.config, recording.folder
    metadata = CheckpointMetadata(config, recording.spec, recording.record.run_id)
    nan_guard = NaNGuard(FailedStepWriter(metadata, folder))
    checkpoint = CheckpointCallback(
        metadata, folder, state, recording.best, signals, recording.tracked
    )
    if interrupted is not None and interrupted.changed:
        changed = OptimizerChanges([change[:3] for change in interrupted.changed])
        callbacks = [*callbacks, changed]
    trainer = make_trainer(config, folder, recording.loggers, checkpoint, nan_guard, callbacks)
    if config.trainer.sync_batchnorm and trainer.world_size > 1:
        synchronize(task.model, on_cuda=trainer.strategy.root_device.type == "cuda")
    seed_apart(config.seed, trainer)
    return trainer


def _fit(
    trainer: pl.Trainer,
    task: Task,
    data: ArrayDataModule,
    recording: Recording,
    signals: Signals,
    interrupted: Interruption | None,
) -> None:
    """Fit; a process of the run that dies ends the others, and is recorded."""

    def last_words(error: LitlabError) -> None:
        if is_first_process():
            recording.finish("KILLED" if isinstance(error, Interrupted) else "FAILED")

    startup.done()
    recording.fit_begins()
    with Watchdog(last_words).attach(trainer):
        try:
            fit(trainer, task, data, signals, interrupted.checkpoint if interrupted else None)
        except Interrupted:
            note = requeue() if signals.came == signal.SIGUSR1 else ""
            if note:
                say(note)
            raise


def _require_checkpoint(recording: Recording) -> None:
    """Refuse to call a run finished that left no weights; keep what the profiler wrote."""
    if not is_first_process():
        return
    if not recording.checkpoint.is_file():
        what, fix = "the checkpoint was not written", "make the folder writable"
        raise EnvironmentFault(what, str(recording.checkpoint), fix)
    recording.keep(reports(recording.folder))
