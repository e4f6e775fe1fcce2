"""Which interrupted run a command resumes, from which checkpoint, and what that must hold."""

import hashlib
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from litlab.config.hyperparameters import Index
from litlab.config.schema import Config
from litlab.data.spec import DataSpec
from litlab.distributed.launch import is_first_process
from litlab.runs.checkpoint.changes import Change, changes, require_allowed
from litlab.runs.checkpoint.io import RAW, RESUME, Manifest, read
from litlab.runs.checkpoint.metadata import (
    code_hash,
    config_hash,
    load,
    manifest_of,
    refuse_another_model,
    unpack,
)
from litlab.runs.folder import LAST, PREVIOUS, RunRecord
from litlab.runs.lock import is_running
from litlab.utils.errors import CheckpointError, ConfigError, EnvironmentFault, LitlabError
from litlab.utils.output import nth_epoch
from litlab.utils.paths import runs_folder, short, store_root

MOMENTS = {"exp_avg", "exp_avg_sq", "momentum_buffer"}
BEST_STATE = ("CheckpointCallback", "Keeper")  # whose state it is; the second in older ones
NEEDED = ("loops", "callbacks", "optimizer_states", "lr_schedulers", "resume")


class NothingToResume(CheckpointError):
    """There is no interrupted run; unlike a damaged one, that is no error where one may start."""


@dataclass(frozen=True)
class Resume:
    """Whether and how to resume an interrupted run.

    Attributes:
        allow_changes: Whether a run of other settings will do.
        or_start: Whether to start where there is nothing to resume. With a folder of choice the
            state then lies outside it, for DVC empties it before it runs a stage again.
    """

    allow_changes: bool = False
    or_start: bool = False

    def state_folder(self, config: Config, out: Path | None) -> Path | None:
        """Return where the state of a configuration's run lies, None if in the run's folder.

        Other settings and other code have other places: half a training by each would be neither's.
        """
        if not self.or_start or out is None:
            return None
        name = hashlib.sha256((config_hash(config) + code_hash(config.trust)).encode()).hexdigest()[
            :16
        ]
        return store_root() / ".litlab" / "unfinished" / name

    def find(
        self, config: Config, out: Path | None, command: Sequence[str] = ()
    ) -> "Interruption | None":
        """Return the run to resume; None where a new one may be started instead.

        Raises:
            LitlabError: See `find_interrupted`.
        """
        state = self.state_folder(config, out)
        folders: Iterable[Path] = [state] if state else [out] if out else runs_folder().glob("*")
        try:
            return find_interrupted(
                config, folders, config.trust, command, allow_changes=self.allow_changes
            )
        except NothingToResume:
            if self.or_start:
                return None
            raise


@dataclass(frozen=True)
class Interruption:
    """A run that can be resumed.

    Attributes:
        folder: The folder that holds its checkpoints.
        checkpoint: The newest one that is whole.
        manifest: What that is of.
        changed: Settings that differ from those it began with.
    """

    folder: Path
    checkpoint: Path
    manifest: Manifest
    changed: tuple[Change, ...] = ()

    def recorded(self) -> tuple[Any, dict[str, Any] | None]:
        """Return what the run had recorded when it was saved, and which epoch was the best."""
        content = read(self.checkpoint)
        states = content["callbacks"]
        best = (state for name, state in states.items() if name in BEST_STATE)
        return content[RESUME]["tracked"], next(best, None)


def find_interrupted(
    config: Config,
    folders: Iterable[Path],
    trust: list[str],
    command: Sequence[str] = (),
    *,
    allow_changes: bool = False,
) -> Interruption:
    """Return the newest unfinished run of a configuration.

    Args:
        config: What is to be trained now.
        folders: Where runs lie.
        trust: Packages of the user's own that a checkpoint may name.
        command: What the user typed, for the message.
        allow_changes: Whether a run of other settings will do, if there is none of the same.

    Raises:
        CheckpointError: There is nothing to resume, or it is damaged.
        ConfigError: The newest unfinished run has other settings.
        EnvironmentFault: The run is still running.
    """
    found, damaged, finished = [], [], []
    for folder in folders:
        if not any((folder / name).is_file() for name in (LAST, PREVIOUS)):
            continue
        if _status(folder) == "FINISHED":
            finished.append(folder)
            continue
        try:
            found.append(newest_valid(folder))
        except CheckpointError:
            damaged.append(folder)
    wanted = config_hash(config)
    same = [one for one in found if one.manifest["config"] == wanted]
    newest = max(same or found, key=lambda one: one.checkpoint.stat().st_mtime, default=None)
    if newest is None:
        raise _nothing(damaged, [folder for folder in finished if _is_of(folder, wanted)])
    newest = _with_parts(newest)
    # By the first process of this run, as the others see it.
    if is_first_process() and is_running(newest.folder):
        fix = "wait for it, or stop it first"
        raise EnvironmentFault("the run is still in progress", short(newest.folder), fix)
    if newest.manifest["config"] == wanted:
        return newest
    changed = tuple(changes(load(newest.checkpoint, trust).metadata.config, config))
    require_allowed(changed, newest.folder, command, allow_changes=allow_changes)
    _refuse_passed(changed, newest)
    # Without any, a setting that is newer than the checkpoint has changed the hash.
    return Interruption(newest.folder, newest.checkpoint, newest.manifest, changed)


def _refuse_passed(changed: Iterable[Change], found: Interruption) -> None:
    """Refuse a number of epochs that the run has reached already.

    Raises:
        ConfigError: There is nothing left to train.
    """
    reached = nth_epoch(found.manifest["epoch"])
    for setting, _, new, _ in changed:
        if setting == "trainer.max_epochs" and new < reached:
            what = f"{short(found.folder)} is in epoch {reached} already"
            fix = f"use trainer.max_epochs={reached} or more, or train without --resume"
            raise ConfigError(what, f"trainer.max_epochs={new}", fix)


def newest_valid(folder: Path) -> Interruption:
    """Return the last checkpoint of a folder, or the one before it where that is damaged.

    Raises:
        CheckpointError: None of them is whole.
    """
    for name in (LAST, PREVIOUS):
        path = folder / name
        if not path.is_file():
            continue
        try:
            return Interruption(folder, path, manifest_of(path))
        except CheckpointError as error:
            warnings.warn(f"{error.what} | {short(path)} | using the one before", stacklevel=2)
    fix = "train again without --resume; nothing in the files was executed"
    raise CheckpointError("every checkpoint of the run is damaged", short(folder), fix)


def _with_parts(found: Interruption) -> Interruption:
    """Return a run with the newest checkpoint that has all a run needs to continue.

    Raises:
        CheckpointError: The newest has not, and there is none before it.
    """
    try:
        require_parts(read(found.checkpoint), found.checkpoint)
    except CheckpointError as error:
        before = found.folder / PREVIOUS
        if found.checkpoint == before or not before.is_file():
            raise
        warnings.warn(f"{error.what} | {error.where} | using the one before", stacklevel=2)
        earlier = Interruption(found.folder, before, manifest_of(before))
        require_parts(read(before), before)
        return earlier
    return found


def check_fits(
    found: Interruption, spec: DataSpec, weights: Mapping[str, Any], trust: Sequence[str]
) -> None:
    """Refuse to resume with other data or another model.

    Raises:
        CheckpointError: The checkpoint is of another model, another state of the data, another
            schema.
    """
    content = read(found.checkpoint)
    unpack(content, found.checkpoint, trust)
    require_parts(content, found.checkpoint)
    if found.manifest["data"] != spec.checksum:
        fix = "restore the data it was trained on, or start a new run without --resume"
        raise CheckpointError("it was trained on other data", short(found.checkpoint), fix)
    kept = content.get(RAW, content["state_dict"])
    refuse_another_model(weights, kept, found.checkpoint)


def _status(folder: Path) -> str:
    try:
        return RunRecord.load(folder).status
    except LitlabError:
        return "UNKNOWN"


def _nothing(damaged: list[Path], finished: list[Path]) -> CheckpointError:
    if damaged:
        names = ", ".join(map(short, damaged[:3]))
        fix = "train again without --resume; nothing in the files was executed"
        return CheckpointError("every checkpoint of the run is damaged", names, fix)
    if finished:
        newest = max(finished, key=lambda folder: (folder / LAST).stat().st_mtime)
        what = f"nothing to resume: {short(newest)} has finished"
        return NothingToResume(what, "--resume", "train without --resume for a new run")
    fix = "train without --resume; a run can be resumed once it has saved its first epoch"
    return NothingToResume("nothing to resume: no run of these settings", "--resume", fix)


def _is_of(folder: Path, wanted: str) -> bool:
    """Whether a finished run has these settings."""
    try:
        return bool(manifest_of(folder / LAST)["config"] == wanted)
    except (CheckpointError, OSError):
        return False


# What a checkpoint must hold for a run to continue from it, and of which types.


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, arbitrary_types_allowed=True)


class _Place(_Part):
    epochs: Index
    batches: Index
    total_batches: Index
    steps: Index
    logged_steps: Index
    should_stop: bool


class _Loops(_Part):
    fit_loop: _Place


class _Optimizer(_Part):
    state: dict[Any, dict[str, Any]]
    param_groups: list[dict[str, Any]]


class _Recorded(_Part):
    rows: dict[int, dict[str, float | None]]
    started: str
    resumed: Index
    seconds: float


class _Random(_Part):
    python: list[Any] = Field(min_length=3, max_length=3)
    numpy: list[Any] = Field(min_length=5, max_length=5)
    torch: Any
    cuda: list[Any]


class _Resume(_Part):
    rng: list[_Random] = Field(min_length=1)
    meters: list[dict[str, Any]] | None
    tracked: _Recorded


class _State(_Part):
    loops: _Loops
    callbacks: dict[str, dict[str, Any]]
    optimizer_states: list[_Optimizer]
    lr_schedulers: list[dict[str, Any]]
    resume: _Resume


def require_parts(content: Mapping[str, Any], path: Path) -> None:
    """Refuse a checkpoint that a run cannot continue from, such as a `best.ckpt` under its name.

    Raises:
        CheckpointError: Parts are missing, or not what they should be.
    """
    missing = [name for name in NEEDED if name not in content]
    if missing:
        what = f"holds weights, but not what a run needs to continue: {', '.join(missing)}"
        raise CheckpointError(what, short(path), from_its_weights(path))
    try:
        _State.model_validate(dict(content))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))[:100]
        what = f"a run cannot continue from it: {place}: {first['msg']}"
        raise CheckpointError(what, short(path), from_its_weights(path)) from None


def from_its_weights(path: Path) -> str:
    """Return what to do with a checkpoint that is good for nothing but its weights."""
    return f"start a new run from its weights: init_from={short(path)}, without --resume"


@contextmanager
def restoring(path: Path, passing: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Blame a checkpoint for what goes wrong while a run takes it over.

    Args:
        path: The checkpoint.
        passing: Errors that are of something else.

    Raises:
        CheckpointError: In place of whatever else was raised.
    """
    try:
        yield
    except Exception as error:  # crafted values can raise anything, deep within torch
        if isinstance(error, (LitlabError, *passing)):
            raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        what = f"a run cannot continue from it: {reason}"
        raise CheckpointError(what, short(path), from_its_weights(path)) from error


def check_moments(optimizer: torch.optim.Optimizer) -> None:
    """Compare the shapes of restored moments with the weights': torch leaves that to the step.

    Raises:
        ValueError: They differ.
    """
    for weight, state in optimizer.state.items():
        for name in MOMENTS & state.keys():
            if state[name] is not None and state[name].shape != weight.shape:
                raise ValueError(f"{name} has the shape of another weight")
