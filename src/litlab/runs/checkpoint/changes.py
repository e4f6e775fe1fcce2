"""Which settings may change when a run is resumed, and how each new value takes effect."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

from litlab.config.schema import Config
from litlab.utils.errors import ConfigError
from litlab.utils.paths import runs_folder, short
from litlab.utils.redact import redact

LISTED = 8  # settings in one line
FLAG = "--allow-changes"


class Effect(Enum):
    """What changing a setting does to a resumed run."""

    FREE = "no effect on the results: it may always change"
    CHANGEABLE = "used from the next step on: needs --allow-changes"
    FIXED = "fixed by the checkpoint: needs a new run"


FREE, CHANGEABLE, FIXED = Effect

# By dotted path; the longest that fits counts. A test asks for every setting of the schema.
EFFECTS: dict[str, Effect] = {
    # What a run is called, where it is recorded, and how it is shown.
    **dict.fromkeys(("name", "plot", "trust", "tracking"), FREE),
    # The place among the samples, the weights at the start, what "best" means.
    **dict.fromkeys(("seed", "monitor", "monitor_mode", "init_from", "data", "loader"), FIXED),
    # Applied to each batch or epoch that follows. Other weights are refused when they are loaded.
    **dict.fromkeys(("augment", "model", "task", "loss", "metrics"), CHANGEABLE),
    # The groups of parameters, and what each weight's state is.
    "optimizer": FIXED,
    # Put into the restored groups; see `litlab.training.callbacks.optimizer_changes`.
    **dict.fromkeys(
        [
            f"optimizer.{name}"
            for name in ("lr", "weight_decay", "betas", "eps", "momentum", "nesterov", "ns_steps")
        ],
        CHANGEABLE,
    ),
    "scheduler": FIXED,
    **{
        f"trainer.{name}": effect
        for effect, names in {
            # Where it runs changes no numbers: a batch is shared out.
            FREE: (
                *("progress", "profiler", "detect_anomaly", "save_every_seconds"),
                *("save_every_steps", "devices", "num_nodes", "strategy", "log_norms"),
            ),
            CHANGEABLE: (
                *("max_epochs", "budget", "accelerator", "precision", "compile", "channels_last"),
                *("accumulate_grad_batches", "gradient_clip_val", "gradient_clip_algorithm"),
                *("deterministic", "benchmark", "early_stopping", "limit_val_batches"),
                *("ema", "swa", "sync_batchnorm"),
            ),
            # Which samples an epoch has, which weights are trained, what is found at the start.
            FIXED: (
                *("limit_train_batches", "overfit_batches", "freeze", "unfreeze_epoch"),
                *("lr_find", "batch_size_find", "batch_size_limit"),
            ),
        }.items()
        for name in names
    },
}


def effect_of(setting: str) -> Effect:
    """Return the effect of a setting, by its dotted path.

    Raises:
        KeyError: Neither it nor what it is part of has one.
    """
    path = setting
    while path not in EFFECTS:
        path, _, rest = path.rpartition(".")
        if not rest or not path:
            raise KeyError(setting)
    return EFFECTS[path]


class Change(NamedTuple):
    """A setting that differs from the one a run began with."""

    setting: str
    old: Any
    new: Any
    own_optimizer: bool = True  # whether the optimizer is one of litlab's

    @property
    def effect(self) -> Effect:
        """What the new value does."""
        # Without the old rate there is nothing to scale the restored ones by.
        if self.setting == "optimizer.lr":
            return CHANGEABLE if self.old and self.new else FIXED
        if self.setting.startswith("optimizer.") and not self.own_optimizer:
            return FIXED  # what its groups are called is not known
        return effect_of(self.setting)

    def __str__(self) -> str:
        return f"{self.setting}: {self.old} -> {self.new}"


def training_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a configuration that decides the numbers of a run."""
    kept = {key: value for key, value in config.items() if EFFECTS.get(key) != FREE}
    if kept.get("monitor_mode") is None:  # which older versions did not have
        kept.pop("monitor_mode", None)
    trainer = {k: v for k, v in kept["trainer"].items() if effect_of(f"trainer.{k}") != FREE}
    for name in ("lr_find", "batch_size_find"):
        if trainer.get(name) != "use":  # a suggestion changes nothing
            trainer.pop(name, None)
    if "batch_size_find" not in trainer:
        trainer.pop("batch_size_limit", None)
    # What is found when a run begins differs from what was asked for, and is kept.
    if trainer.get("lr_find") == "use":
        kept["optimizer"] = {k: v for k, v in kept["optimizer"].items() if k != "lr"}
    if trainer.get("batch_size_find") == "use":
        kept["loader"] = {k: v for k, v in kept["loader"].items() if k != "batch_size"}
    return {**kept, "trainer": trainer}


def changes(began: Config, now: Config) -> list[Change]:
    """Return the settings that decide a run's numbers and differ."""
    old, new = (
        dict(_flat(training_settings(redact(config.model_dump(mode="json")))))
        for config in (began, now)
    )
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    own = now.optimizer["_target_"].startswith("litlab.tasks.optim.optimizers.")
    return [Change(key, old.get(key), new.get(key), own) for key in keys]


def _flat(content: Any, prefix: str = "") -> Iterable[tuple[str, Any]]:
    if isinstance(content, Mapping) and content:
        for key, value in content.items():
            yield from _flat(value, f"{prefix}.{key}" if prefix else key)
    else:
        yield prefix, content


def require_allowed(
    changed: Sequence[Change], folder: Path, command: Sequence[str], *, allow_changes: bool
) -> None:
    """Refuse to resume a run whose settings changed, unless that is allowed and takes effect.

    Args:
        changed: What differs.
        folder: The run's.
        command: What the user typed, from which what to type is made.
        allow_changes: Whether `--allow-changes` was given.

    Raises:
        ConfigError: A setting is fixed, or the flag was not given.
    """
    fixed = [change for change in changed if change.effect is FIXED]
    others = [change for change in changed if change.effect is not FIXED]
    if not fixed and (allow_changes or not others):
        return
    groups = []
    if fixed:
        groups.append(f"fixed by the checkpoint: {_listed(fixed)}")
    if others:
        groups.append(f"changeable with {FLAG}: {_listed(others)}")
    what = f"the unfinished run has other settings; {'; '.join(groups)}"
    asked = _new_run(command, folder) if fixed else _resumed(command)
    raise ConfigError(what, short(folder), f"{asked}; to keep its settings: {_own(folder)}")


def _listed(changed: Sequence[Change]) -> str:
    more = f" and {len(changed) - LISTED} more" if len(changed) > LISTED else ""
    return ", ".join(map(str, changed[:LISTED])) + more


def _typed(command: Sequence[str]) -> list[str]:
    return list(redact(list(command) or ["litlab", "train", "...", "--resume"]))


def _resumed(command: Sequence[str]) -> str:
    return f"to resume with the new settings: {shlex.join([*_typed(command), FLAG])}"


def _own(folder: Path) -> str:
    """What resumes a run as it was."""
    words = ["litlab", "train", "--params", short(folder / "config.yaml"), "--resume"]
    if folder.parent != runs_folder():
        words += ["--out", short(folder)]
    return shlex.join(words)


def _new_run(command: Sequence[str], folder: Path) -> str:
    """What begins a new run with the weights: the same words without those that resume."""
    kept: list[str] = []
    words = iter(_typed(command))
    for word in words:
        if word == "--out":
            next(words, None)
        elif word not in ("--resume", "--resume-or-start", FLAG) and not word.startswith("--out="):
            kept.append(word)
    start = f"init_from={short(folder)}"
    if any(word.partition("=")[0] == "--params" for word in kept):
        start = start.replace("=", ": ")
        return f"for a new run with its weights, put `{start}` into the file: {shlex.join(kept)}"
    return f"for a new run with its weights: {shlex.join([*kept, start])}"
