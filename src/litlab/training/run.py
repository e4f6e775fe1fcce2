"""One run: data, model and task from a configuration, fitted by Lightning, recorded in full."""

import shutil
import signal
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Callback

from litlab.config.schema import Config
from litlab.data.datamodule import ArrayDataModule
from litlab.data.prepare.open import open_or_prepare
from litlab.distributed.launch import as_launched, is_first_process
from litlab.distributed.sync_batchnorm import synchronize
from litlab.distributed.watchdog import Watchdog
from litlab.evaluation.preview import preview_of_run
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
from litlab.training.preflight import check_feasible
from litlab.training.profiling import reports
from litlab.training.trainer import check_devices, fit, make_trainer, seed_apart
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
        resume: Go on with an interrupted run; None starts a new one.
        callbacks: More of Lightning's.
        preview: Whether to draw the first samples; not worth it for one of many like it.
        prepared: Folder of the prepared data; data/prepared/<name> if None.

    Raises:
        LitlabError: See `litlab.utils.errors`; a run that had begun is recorded as FAILED or
            KILLED.
    """
    config = config.model_copy(update={"trainer": as_launched(config.trainer)})
    check_devices(config.trainer)
    state = resume.state_folder(config, out) if resume else None
    output = Output(out.resolve(), state) if out is not None and state is not None else None
    with ExitStack() as held:
        if output is not None and is_first_process():
            held.enter_context(writing_to(output.place))
            held.callback(output.tidy)
        found = resume.find(config, out, command or []) if resume else None
        task, data, taken = _parts(config, found, prepared)
        # The other processes of a run write nothing; checkpoints go where the first's Trainer says.
        run = runs_folder()
        if is_first_process():
            run = _folder(config, out, output, found, held)
            _probe(task, run, state or run)
        files: list[Path] = []
        if found is not None:
            config = settings_of(config, found.checkpoint, task, data)
        else:
            config, files = find_settings(config, task, data, run)
        if taken is not None and is_first_process():
            say(str(taken))
            files.append(taken.save(run))
        if found is not None and found.changed:
            callbacks = [*callbacks, OptimizerChanges([change[:3] for change in found.changed])]
        place = output.place if output else run
        recording = Recording(config, data.spec, run, command or [], place)
        if output is None and is_first_process():
            held.enter_context(running(run))
        fit = _Run(task, data, recording, found, state or run, files, callbacks, preview=preview)
        result = fit.fit()
        if output is not None:
            output.publish()
        return replace(result, folder=place, checkpoint=place / BEST)


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


def _parts(
    config: Config, found: Interruption | None, prepared: Path | None
) -> tuple[Task, ArrayDataModule, WarmStart | None]:
    """Build task and data, and begin with another run's weights where that is asked for."""
    folder, spec = open_or_prepare(config.data, config.trust, prepared)
    seeding.seed_everything(config.seed)
    task = build_task(config, spec)
    taken = None
    if config.init_from is not None and found is None:
        taken = init_from(task.model, spec, config.init_from, config.trust)
    frozen = freeze(task.model, config.trainer)
    overfit = config.trainer.overfit_batches > 0
    augmentations = build_augmentations({} if overfit else config.augment, spec, config.trust)
    check_feasible(config, spec, task.model)
    data = ArrayDataModule(
        folder, spec, config.loader, augmentations, seed=config.seed, repeat=overfit
    )
    data.open()  # a damaged file is found before anything is recorded
    if found is not None:
        check_fits(found, spec, task.state_dict(), config.trust)
    return task, data, taken.frozen(frozen) if taken is not None else None


def _probe(task: Task, *folders: Path) -> None:
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
        task: Task,
        data: ArrayDataModule,
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

    def fit(self) -> Result:
        """Fit and record; only the first of several processes returns."""
        recording, mode = self.recording, self.task.parts.mode
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
        return Result(recording.folder, self.checkpoint, recording.record, sent, trust)

    def _seconds(self) -> float:
        return time.monotonic() - self.began

    def _start(self) -> None:
        """Open the record, a new one or that of the interrupted run."""
        if not self.first:
            return
        recording, found = self.recording, self.found
        if found is None:
            recording.start(self.task.model)
            shown = preview_of_run(self.data, recording.folder) if self.preview else []
            recording.keep([*shown, *self.files])
            return
        recording.go_on(self.task.model, found)
        best = found.folder / BEST
        if best.is_file() and not self.checkpoint.exists():
            shutil.copyfile(best, self.checkpoint)
        where = f"epoch {nth_epoch(found.manifest['epoch'])}, step {found.manifest['step']}"
        say(f"resuming run {recording.record.run_id} in {short(found.folder)} from {where}")
        for change in found.changed:
            say(f"  changed: {change}")

    def _train(self, signals: Signals) -> None:
        config, recording, task = self.config, self.recording, self.task
        card = CheckpointMetadata(config, recording.spec, recording.record.run_id)
        mode = task.parts.mode
        guard = NaNGuard(FailedStepWriter(card, recording.folder))
        keeper = CheckpointCallback(
            card, recording.folder, self.state, mode, signals, recording.tracked
        )
        folder, loggers = recording.folder, recording.loggers
        trainer = make_trainer(config, folder, loggers, keeper, guard, self.callbacks)
        if config.trainer.sync_batchnorm and trainer.world_size > 1:
            synchronize(task.model, on_cuda=trainer.strategy.root_device.type == "cuda")
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
            self.recording.finish(status, 0.0, self.checkpoint, self.task.parts.mode)

    def _require(self) -> None:
        if not self.checkpoint.is_file():
            what, fix = "the checkpoint was not written", "make the folder writable"
            raise EnvironmentFault(what, str(self.checkpoint), fix)
