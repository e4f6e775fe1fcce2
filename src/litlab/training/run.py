"""One run: data, model and task from a configuration, fitted by Lightning, recorded in full."""

import shutil
import signal
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from litlab.config.schema import Config
from litlab.data.datamodule import ArrayDataModule
from litlab.distributed.launch import as_launched, is_first_process
from litlab.distributed.sync_batchnorm import synchronize
from litlab.distributed.watchdog import Watchdog
from litlab.evaluation.preview import preview_of_run
from litlab.evaluation.run import Run
from litlab.runs.checkpoint.io import probe
from litlab.runs.checkpoint.metadata import CheckpointMetadata
from litlab.runs.checkpoint.resume import Interruption, Resume
from litlab.runs.folder import BEST, PREVIOUS, make_folder
from litlab.runs.lock import running, writing_to
from litlab.runs.recorder import Recording
from litlab.tasks.own_module import introduction, mode_of, network
from litlab.tasks.task import Task
from litlab.training.callbacks.checkpoint import CheckpointCallback
from litlab.training.callbacks.nan_guard import NaNGuard
from litlab.training.callbacks.optimizer_changes import OptimizerChanges
from litlab.training.dvc_stage import Output
from litlab.training.failed_step import FailedStepWriter
from litlab.training.finders.find import find_settings, settings_of
from litlab.training.parts import build_parts, given_in_python
from litlab.training.profiling import reports
from litlab.training.trainer import check_devices, fit, make_trainer, seed_apart
from litlab.utils import startup
from litlab.utils.errors import EnvironmentFault, Interrupted, LitlabError
from litlab.utils.output import nth_epoch, say
from litlab.utils.paths import runs_folder, short
from litlab.utils.signals import Signals, Terminated, requeue


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

    Of several processes only the first returns; the others end when the training does.

    Args:
        config: A checked configuration.
        out: Folder for the run; a new one under runs/ if None.
        command: What the user typed, to repeat the run.
        resume: Go on with an interrupted run (True: with the newest of these settings); None
            starts a new one.
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
    config = given_in_python(config, task, data, monitor)
    given = task if isinstance(task, Task) else None
    config = config.model_copy(update={"trainer": as_launched(config.trainer)})
    resume = Resume() if resume is True else resume or None
    check_devices(config.trainer)
    state = resume.state_folder(config, out) if resume else None
    output = Output(out.resolve(), state) if out is not None and state is not None else None
    with ExitStack() as held:
        if output is not None and is_first_process():
            held.enter_context(writing_to(output.place))
            held.callback(output.tidy)
        found = resume.find(config, out, command or []) if resume else None
        parts = build_parts(config, found, prepared, task, data)
        task, data, taken = parts.task, parts.data, parts.taken
        config = parts.config
        # The other processes of a run write nothing; checkpoints go where the first's Trainer says.
        run = runs_folder()
        if is_first_process():
            run = _folder(config, out, output, found, held)
            _probe(task, run, state or run)
        files: list[Path] = []
        if isinstance(task, Task) and isinstance(data, ArrayDataModule):
            if found is not None:
                config = settings_of(config, found.checkpoint, task, data)
            else:
                config, files = find_settings(config, task, data, run)
        if taken is not None and is_first_process():
            say(str(taken))
            files.append(taken.save(run))
        if found is not None and found.changed and isinstance(task, Task):
            callbacks = [*callbacks, OptimizerChanges([change[:3] for change in found.changed])]
        place = output.place if output else run
        recording = Recording(config, parts.spec, run, command or [], place)
        if output is None and is_first_process():
            held.enter_context(running(run))
        fit = _Run(task, data, recording, found, state or run, files, callbacks, preview=preview)
        result = fit.fit()
        if output is not None:
            output.publish()
        return replace(
            result, folder=place, checkpoint=place / BEST, task=given, can_evaluate=parts.known
        )


def _folder(
    config: Config,
    out: Path | None,
    output: Output | None,
    found: Interruption | None,
    held: ExitStack,
) -> Path:
    """Return the folder to train in: that of an interrupted run, or a new one."""
    if output is None:
        return found.folder if found else make_folder(out, config.run_name)
    make_folder(output.place, config.run_name)  # refused before it is trained for
    held.enter_context(running(output.state))
    return output.make()


def _probe(task: pl.LightningModule, *folders: Path) -> None:
    """Refuse to train where the result cannot be kept."""
    weights = sum(value.nbytes for value in task.state_dict().values())
    try:
        for folder in set(folders):
            # The best weights; the weights, two moments of Adam, and the same while it is written.
            probe(folder, 7 * weights + 2**20)
    except EnvironmentFault:
        with suppress(OSError):  # not empty: it is of an interrupted run
            folders[0].rmdir()
        raise


class _Run:
    """A fit, and a true record of it whatever happens."""

    def __init__(
        self,
        task: pl.LightningModule,
        data: pl.LightningDataModule,
        recording: Recording,
        found: Interruption | None,
        state: Path,
        files: list[Path],
        callbacks: Sequence[Callback],
        *,
        preview: bool,
    ) -> None:
        self.callbacks, self.preview = callbacks, preview
        self.task, self.data, self.recording = task, data, recording
        self.found, self.state, self.files = found, state, files
        self.first, self.config = is_first_process(), recording.config
        self.checkpoint = recording.folder / BEST
        self.began = time.monotonic()

    def fit(self) -> Run:
        """Fit and record; only the first of several processes returns."""
        recording, mode = self.recording, mode_of(self.config, self.task)
        status, sent = "FAILED", True
        with Signals() as signals:
            try:
                self._start()
                self._train(signals)
                if self.first:
                    self._require()
                    recording.keep(reports(recording.folder))
                status = "FINISHED"
            except (Interrupted, KeyboardInterrupt, Terminated):
                status = "KILLED"
                raise
            finally:
                if self.first:
                    with signals.held():
                        sent = recording.finish(status, self._seconds(), self.checkpoint, mode)
                        # The store was not reached: no run began. An interrupted one stays.
                        if self.found is None and not recording.record.run_id:
                            shutil.rmtree(recording.folder, ignore_errors=True)
        if not self.first:
            raise SystemExit(0)
        (self.state / PREVIOUS).unlink(missing_ok=True)  # a finished run goes on no more
        trust = tuple(self.config.trust)
        return Run(recording.folder, self.checkpoint, recording.record, sent, trust)

    def _seconds(self) -> float:
        return time.monotonic() - self.began

    def _start(self) -> None:
        """Open the record, a new one or that of the interrupted run."""
        if not self.first:
            return
        recording, found = self.recording, self.found
        if found is None:
            recording.start(network(self.task))
            lacking = introduction(self.task, self.data)
            if lacking:
                say(lacking)
            shown = []
            if self.preview and isinstance(self.data, ArrayDataModule):
                shown = preview_of_run(self.data, recording.folder)
            recording.keep([*shown, *self.files])
            return
        recording.go_on(network(self.task), found)
        best = found.folder / BEST
        if best.is_file() and not self.checkpoint.exists():
            shutil.copyfile(best, self.checkpoint)
        where = f"epoch {nth_epoch(found.manifest['epoch'])}, step {found.manifest['step']}"
        say(f"going on with run {recording.record.run_id} in {short(found.folder)} from {where}")
        for change in found.changed:
            say(f"  changed: {change}")

    def _train(self, signals: Signals) -> None:
        config, recording, task = self.config, self.recording, self.task
        card = CheckpointMetadata(config, recording.spec, recording.record.run_id)
        mode = mode_of(config, task)
        known = isinstance(task, Task)  # a step of another module cannot be taken again
        guard = NaNGuard(FailedStepWriter(card, recording.folder) if known else None)
        keeper = CheckpointCallback(
            card, recording.folder, self.state, mode, signals, recording.tracked
        )
        folder, loggers = recording.folder, recording.loggers
        own = not isinstance(self.data, ArrayDataModule)
        trainer = make_trainer(config, folder, loggers, keeper, guard, self.callbacks, own_data=own)
        if config.trainer.sync_batchnorm and trainer.world_size > 1:
            synchronize(network(task), on_cuda=trainer.strategy.root_device.type == "cuda")
        seed_apart(config.seed, trainer)
        startup.done()
        self.began = time.monotonic()
        resume = self.found.checkpoint if self.found else None
        ranks = Watchdog(self._last_words)
        with ranks.attach(trainer):
            try:
                fit(trainer, task, self.data, signals, resume)
            except Interrupted:
                note = requeue() if signals.came == signal.SIGUSR1 else ""
                if note:
                    say(note)
                raise

    def _last_words(self, error: LitlabError) -> None:
        if self.first:
            status = "KILLED" if isinstance(error, Interrupted) else "FAILED"
            self.recording.finish(status, 0.0, self.checkpoint, mode_of(self.config, self.task))

    def _require(self) -> None:
        if not self.checkpoint.is_file():
            what, fix = "the checkpoint was not written", "make the folder writable"
            raise EnvironmentFault(what, str(self.checkpoint), fix)
