"""Which interrupted run a command goes on with, and from which of its checkpoints."""

import hashlib
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from litlab.checkpoint.card import load, refuse_another_model, unpack
from litlab.checkpoint.io import RAW, RESUME, Manifest, read, verify
from litlab.checkpoint.manifest import code_hash, config_hash, training_settings
from litlab.data.spec import DataSpec
from litlab.errors import CheckpointError, ConfigError, EnvironmentFault, LitlabError
from litlab.paths import runs_folder, short, store_root
from litlab.ranks import is_first_process
from litlab.run_folder import LAST, PREVIOUS, RunRecord
from litlab.run_lock import is_running
from litlab.schema import Config
from litlab.tracking.redact import redact

LISTED = 8  # settings in one line
# Rates, momenta and schedules come from the checkpoint, and so does the place among the batches.
KEPT = ("optimizer.", "scheduler.", "loader.", "data.")


class NothingToResume(CheckpointError):
    """There is no interrupted run; unlike a damaged one, that is no error where one may start."""


@dataclass(frozen=True)
class Resume:
    """Whether and how to go on with an interrupted run.

    Attributes:
        allow_changes: Whether a run of other settings will do.
        or_start: Whether to start where there is nothing to go on with. With a folder of choice the
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
        name = hashlib.sha256((config_hash(config) + code_hash()).encode()).hexdigest()[:16]
        return store_root() / ".litlab" / "unfinished" / name

    def find(self, config: Config, out: Path | None) -> "Interruption | None":
        """Return the run to go on with; None where a new one may be started instead.

        Raises:
            LitlabError: See `find_interrupted`.
        """
        state = self.state_folder(config, out)
        folders: Iterable[Path] = [state] if state else [out] if out else runs_folder().glob("*")
        try:
            return find_interrupted(config, folders, config.trust, allow_changes=self.allow_changes)
        except NothingToResume:
            if self.or_start:
                return None
            raise


@dataclass(frozen=True)
class Interruption:
    """A run that can go on.

    Attributes:
        folder: The folder that holds its checkpoints.
        checkpoint: The newest one that is whole.
        manifest: What that is of.
        changed: Settings that differ from those it began with.
    """

    folder: Path
    checkpoint: Path
    manifest: Manifest
    changed: tuple[str, ...] = ()

    def tracked(self) -> Any:
        """Return what the run had recorded when it was saved."""
        return read(self.checkpoint)[RESUME]["tracked"]


def find_interrupted(
    config: Config, folders: Iterable[Path], trust: list[str], *, allow_changes: bool = False
) -> Interruption:
    """Return the newest unfinished run of a configuration.

    Args:
        config: What is to be trained now.
        folders: Where runs lie.
        trust: Packages of the user's own that a checkpoint may name.
        allow_changes: Whether a run of other settings will do, if there is none of the same.

    Raises:
        CheckpointError: There is nothing to resume, or it is damaged.
        ConfigError: The newest unfinished run has other settings.
        EnvironmentFault: The run is still going on.
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
        raise _nothing(damaged, finished)
    # By the first process of this run, as the others see it.
    if is_first_process() and is_running(newest.folder):
        fix = "wait for it, or stop it first"
        raise EnvironmentFault("the run is still going on", short(newest.folder), fix)
    if same:
        return newest
    changed = _changed(newest, config, trust)
    _refuse_without_effect(newest, changed)
    if allow_changes or not changed:  # a setting that is newer than the checkpoint changes the hash
        return Interruption(newest.folder, newest.checkpoint, newest.manifest, changed)
    more = f" and {len(changed) - LISTED} more" if len(changed) > LISTED else ""
    raise ConfigError(
        f"the unfinished run has other settings: {', '.join(changed[:LISTED])}{more}",
        short(newest.folder),
        "train with its settings, or allow the change with --allow-changes",
    )


def _refuse_without_effect(found: Interruption, changed: Sequence[str]) -> None:
    """Refuse what a checkpoint decides, and a changed setting would only seem to."""
    kept = [change for change in changed if change.startswith(KEPT)]
    if kept:
        what = f"a run that goes on keeps these as they were: {', '.join(kept[:LISTED])}"
        where = short(found.folder)
        fix = f"leave out --resume for a new run (init_from={where} takes its weights along)"
        raise ConfigError(what, where, fix)


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
            return Interruption(folder, path, verify(path))
        except CheckpointError as error:
            warnings.warn(f"{error.what} | {short(path)} | using the one before", stacklevel=2)
    fix = "train again without --resume; nothing in the files was executed"
    raise CheckpointError("every checkpoint of the run is damaged", short(folder), fix)


def check_fits(
    found: Interruption, spec: DataSpec, weights: Mapping[str, Any], trust: Sequence[str]
) -> None:
    """Refuse to go on with other data or another model.

    Raises:
        CheckpointError: The checkpoint is of another model, another state of the data, another
            schema.
    """
    content = read(found.checkpoint)
    unpack(content, found.checkpoint, trust)
    if found.manifest["data"] != spec.checksum:
        fix = "prepare the data as they were, or train anew without --resume"
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
    return NothingToResume("nothing to resume", "--resume", fix)


def _changed(found: Interruption, config: Config, trust: list[str]) -> tuple[str, ...]:
    """Return `key: old -> new` for each setting that differs."""
    card = load(found.checkpoint, trust).card
    old, new = (
        dict(_flat(training_settings(redact(c.model_dump(mode="json")))))
        for c in (card.config, config)
    )
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    return tuple(f"{key}: {old.get(key)} -> {new.get(key)}" for key in keys)


def _flat(content: Any, prefix: str = "") -> Iterable[tuple[str, Any]]:
    if isinstance(content, Mapping) and content:
        for key, value in content.items():
            yield from _flat(value, f"{prefix}.{key}" if prefix else key)
    else:
        yield prefix, content
