"""Trains one run: checks the configuration, builds data, model and task, fits and records."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from litlab.config.schema import Config
from litlab.data.datamodule import ArrayDataModule
from litlab.distributed.launch import is_first_process
from litlab.distributed.sync_batchnorm import synchronize
from litlab.distributed.watchdog import Watchdog
from litlab.evaluation.preview import preview_of_run
from litlab.evaluation.run import Run
from litlab.runs.best_epoch import BestEpoch
from litlab.runs.checkpoint.io import probe
from litlab.runs.checkpoint.metadata import CheckpointMetadata
from litlab.runs.checkpoint.resume import Interruption, Resume
from litlab.runs.folder import BEST, PREVIOUS, make_folder
from litlab.runs.lock import running, writing_to
from litlab.runs.recorder import Recording
from litlab.tasks.own_module import UNUSED_WITH_OWN_DATA, introduction, mode_of, network
from litlab.tasks.task import Task
from litlab.training.callbacks.checkpoint import CheckpointCallback
from litlab.training.callbacks.nan_guard import NaNGuard
from litlab.training.callbacks.optimizer_changes import OptimizerChanges
from litlab.training.dvc_stage import Output
from litlab.training.finders import find_settings, settings_of
from litlab.training.parts import RunParts, as_recorded, build_parts, follow_data, require_arguments
from litlab.training.preflight import num_processes, preflight
from litlab.training.profiling import reports
from litlab.training.replay import FailedStepWriter
from litlab.training.trainer import fit, make_trainer, seed_rank
from litlab.training.warm_start import WarmStart
from litlab.utils import startup
from litlab.utils.errors import EnvironmentFault, Interrupted, LitlabError
from litlab.utils.output import nth_epoch, say
from litlab.utils.paths import runs_folder, short
from litlab.utils.signals import BATCH_WARNING, Signals, Terminated, requeue


def train(
    config: Config,
    out: Path | None = None,
    command: list[str] | None = None,
    resume: Resume | bool | None = None,
    callbacks: Sequence[Callback] = (),
    *,
    task: pl.LightningModule | None = None,
    data: pl.LightningDataModule | None = None,
    monitor: str | None = None,
    preview: bool = True,
    prepared: Path | None = None,
) -> Run:
    """Train one model.

    With several processes only the first returns; the others end with the training.

    Args:
        config: A checked configuration.
        out: Folder for the run; a new one under runs/ if None.
        command: What the user typed, to repeat the run.
        resume: Resume an interrupted run (True: the newest of these settings); None starts a new
            one.
        callbacks: More of Lightning's.
        task: What to train in place of what the configuration says: a litlab task, or any
            LightningModule.
        data: What to train on in place of what the configuration says: any LightningDataModule.
        monitor: The value by which the best epoch is chosen, of a `task` that is no litlab task;
            the configuration's if None.
        preview: Whether to draw the first samples; not worth it for one of many like it.
        prepared: Folder of the prepared data; data/prepared/<name> if None.

    Raises:
        LitlabError: See `litlab.utils.errors`; a run that had begun is recorded as FAILED or
            KILLED.
    """
    require_arguments(config, task, data, monitor, callbacks)
    out, prepared = (None if path is None else Path(path) for path in (out, prepared))
    config = preflight(as_recorded(config, task, data, monitor))
    config = follow_data(config, data, prepared) if task is None else config
    resume = Resume() if resume is True else resume or None
    with ExitStack() as locks:
        output = _lock_output(config, out, resume, locks)
        interrupted = resume.find(config, out, command or []) if resume else None

        parts = build_parts(config, interrupted, prepared, task, data)

        run, state = _make_folders(parts, out, output, interrupted, locks)
        config, files = _find_settings(parts, run, interrupted)
        files += _report(parts.warm_start, run)

        best = BestEpoch(config.monitor, mode_of(config, parts.task))
        place = output.place if output else run
        unused = () if isinstance(parts.data, ArrayDataModule) else UNUSED_WITH_OWN_DATA
        recording = Recording(config, parts.spec, run, best, command or [], place, unused)
        with Signals() as signals, _recorded(recording, interrupted, signals):
            _open_record(recording, parts, interrupted, files, preview=preview)
            trainer = _make_trainer(recording, parts, state, signals, interrupted, callbacks)
            _fit(trainer, parts, recording, signals, interrupted)
            _require_checkpoint(recording)

        if not is_first_process():
            raise SystemExit(0)
        (state / PREVIOUS).unlink(missing_ok=True)  # a finished run cannot be resumed
        if output is not None:
            output.publish()
        own, trust = task if isinstance(task, Task) else None, tuple(config.trust)
        return Run(place, place / BEST, recording.record, recording.all_sent, trust, task=own)


def _lock_output(
    config: Config, out: Path | None, resume: Resume | None, locks: ExitStack
) -> Output | None:
    """Return the locked output of a DVC stage; None for any other run."""
    state = resume.state_folder(config, out) if resume else None
    if out is None or state is None:
        return None
    output = Output(out.resolve(), state)
    if is_first_process():
        locks.enter_context(writing_to(output.place))
        locks.callback(output.tidy)
    return output


def _make_folders(
    parts: RunParts,
    out: Path | None,
    output: Output | None,
    interrupted: Interruption | None,
    locks: ExitStack,
) -> tuple[Path, Path]:
    """Return the run's folder (new, or of the interrupted run) and the folder of its `last.ckpt`.

    They are locked, and have room for the checkpoints.
    """
    if not is_first_process():  # the others write nothing, but need the folder of checkpoints
        return runs_folder(), output.state if output else runs_folder()
    if output is not None:
        make_folder(output.place, parts.config.run_name)  # fail before training, not after it
        locks.enter_context(running(output.state))
        run = output.make()
        _require_space(parts.task, run, output.state)
        return run, output.state
    run = interrupted.folder if interrupted else make_folder(out, parts.config.run_name)
    _require_space(parts.task, run)
    locks.enter_context(running(run))
    return run, run


def _require_space(task: pl.LightningModule, *folders: Path) -> None:
    """Raise an error if the disk has no space for the checkpoints."""
    weights = sum(value.nbytes for value in task.state_dict().values())
    try:
        for folder in folders:
            # The best weights, and twice (while written) the weights with two moments of Adam.
            probe(folder, 7 * weights + 2**20)
    except EnvironmentFault:
        with suppress(OSError):  # not empty: of an interrupted run
            folders[0].rmdir()
        raise


def _find_settings(
    parts: RunParts, run: Path, interrupted: Interruption | None
) -> tuple[Config, list[Path]]:
    """Run the finders; return the configuration with their results, and their files."""
    config, task, data = parts.config, parts.task, parts.data
    if not (isinstance(task, Task) and isinstance(data, ArrayDataModule)):
        return config, []
    if interrupted is not None:
        return settings_of(config, interrupted.checkpoint, task, data), []
    return find_settings(config, task, data, run)


def _report(warm_start: WarmStart | None, run: Path) -> list[Path]:
    """Print and save which weights of another run were used; return the file."""
    if warm_start is None or not is_first_process():
        return []
    say(str(warm_start))
    return [warm_start.save(run)]


@contextmanager
def _recorded(
    recording: Recording, interrupted: Interruption | None, signals: Signals
) -> Iterator[None]:
    """Record the run's final status, also if the block raises."""
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
                # The store was not reached, so no run began. Keep the folder of an interrupted one.
                if interrupted is None and not recording.record.run_id:
                    shutil.rmtree(recording.folder, ignore_errors=True)


def _open_record(
    recording: Recording,
    parts: RunParts,
    interrupted: Interruption | None,
    files: list[Path],
    *,
    preview: bool,
) -> None:
    """Open a new record, or that of the interrupted run."""
    if not is_first_process():
        return
    if interrupted is None:
        recording.start(network(parts.task))
        processes = num_processes(parts.config.trainer)
        if processes > 1:
            say(f"{processes} processes train, each on its share of every batch")
        lacking = introduction(parts.task, parts.data)
        if lacking:
            say(lacking)
        shown = []
        if preview and isinstance(parts.data, ArrayDataModule):
            shown = preview_of_run(parts.data, recording.folder)
        recording.keep([*shown, *files])
        return
    recording.resume(network(parts.task), interrupted)
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
    parts: RunParts,
    state: Path,
    signals: Signals,
    interrupted: Interruption | None,
    callbacks: Sequence[Callback],
) -> pl.Trainer:
    """Return the Trainer, with the callbacks for checkpoints and non-finite steps."""
    config, folder = recording.config, recording.folder
    metadata = CheckpointMetadata(config, recording.spec, recording.record.run_id)
    known = isinstance(parts.task, Task)  # a failed step of another module cannot be replayed
    nan_guard = NaNGuard(FailedStepWriter(metadata, folder) if known else None)
    checkpoint = CheckpointCallback(
        metadata, folder, state, recording.best, signals, recording.tracked
    )
    if interrupted is not None and interrupted.changed and known:
        changed = OptimizerChanges([change[:3] for change in interrupted.changed])
        callbacks = [*callbacks, changed]
    trainer = make_trainer(
        config,
        folder,
        recording.loggers,
        checkpoint,
        nan_guard,
        callbacks,
        own_data=not isinstance(parts.data, ArrayDataModule),
    )
    if config.trainer.sync_batchnorm and trainer.world_size > 1:
        synchronize(network(parts.task), on_cuda=trainer.strategy.root_device.type == "cuda")
    seed_rank(config.seed, trainer)
    return trainer


def _fit(
    trainer: pl.Trainer,
    parts: RunParts,
    recording: Recording,
    signals: Signals,
    interrupted: Interruption | None,
) -> None:
    """Fit; if one of several processes dies, end the others and record it."""

    def on_failure(error: LitlabError) -> None:
        if is_first_process():
            recording.finish("KILLED" if isinstance(error, Interrupted) else "FAILED")

    startup.done()
    recording.fit_begins()
    with Watchdog(on_failure).attach(trainer):
        try:
            checkpoint = interrupted.checkpoint if interrupted else None
            fit(trainer, parts.task, parts.data, signals, checkpoint)
        except Interrupted:
            note = requeue() if signals.came == BATCH_WARNING else ""
            if note:
                say(note)
            raise


def _require_checkpoint(recording: Recording) -> None:
    """Raise an error if there is no best checkpoint; record the profiler's files."""
    if not is_first_process():
        return
    if not recording.checkpoint.is_file():
        what, fix = "the checkpoint was not written", "make the folder writable"
        raise EnvironmentFault(what, str(recording.checkpoint), fix)
    recording.keep(reports(recording.folder))
