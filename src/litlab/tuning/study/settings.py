"""What a study may ask for, read from conf/study and checked before anything runs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from torchmetrics import Metric

from litlab.config import menu, quoting
from litlab.config.hyperparameters import Count, Index
from litlab.config.schema import Duration
from litlab.tasks.metrics import direction
from litlab.utils import limits
from litlab.utils.errors import ConfigError, nearest
from litlab.utils.names import StudyName
from litlab.utils.output import number
from litlab.utils.paths import choice_files, short
from litlab.utils.redact import redact

# What a study looks for: a validation metric, and what it may cost.


COSTS = {  # by the name a trial's result has them under
    "parameters": "trainable parameters",
    "latency": "milliseconds of one forward pass of one sample",
    "seconds": "seconds of training",
}


@dataclass(frozen=True)
class Objective:
    """One of the things a study looks for.

    Attributes:
        name: A validation metric such as "val/accuracy", or one of `COSTS`.
        direction: Which way is better.
    """

    name: str
    direction: Literal["minimize", "maximize"]

    def value(self, said: Mapping[str, Any]) -> float:
        """Return it of a trial that has ended: a metric at the best epoch.

        Raises:
            KeyError: The training has no such metric.
        """
        return float(said[self.name] if self.name in COSTS else said["metrics"][self.name])


def shown(name: str, value: float) -> str:
    """Return an objective's value for a person: parameters are counted."""
    return f"{value:,.0f}" if name == "parameters" else number(value)


def objectives_of(names: Sequence[str], metrics: Mapping[str, Metric]) -> list[Objective]:
    """Return what a study looks for; which way is better, a metric knows itself.

    Args:
        names: The first of them is the monitored metric; none appears twice.
        metrics: Those of the task, by name.

    Raises:
        ConfigError: One does not exist, or is not a validation metric.
    """
    known = [f"val/{name}" for name in ("loss", *metrics)] + list(COSTS)
    for name in names:
        if name not in known:
            what = f"'{name}' is not a validation metric of this task, nor a cost"
            raise ConfigError(what, "study.objectives", nearest(name, known))
    return [
        Objective(name, "maximize" if direction(name, metrics) == "max" else "minimize")
        for name in names
    ]


PARTS = ("low", "high", "log", "step", "when", "choices")  # of an entry of the space
WANTED = {
    "name": "of letters, digits, '_' and '-'",
    "time_limit": "a time such as 90s, 10m or 1h30m",
    "stale_after": "a time such as 90s, 10m or 1h30m",
}


def _plain(value: Any) -> Any:
    """Return a value of Python as the study's storage, JSON, has it: tuples are lists there."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple | range | set | np.ndarray):
        return [_plain(one) for one in (sorted(value) if isinstance(value, set) else value)]
    return value.item() if isinstance(value, np.generic) else value


class StudySettings(BaseModel):
    """A search: where, how, how long.

    Attributes:
        name: Of the study; the same name resumes it.
        space: Dotted setting to what is tried; see `litlab.tuning.study.space`.
        objectives: What is looked for, the monitored metric first; empty: that alone.
        sampler: How the next configuration is chosen.
        pruner: How a trial that does badly is ended early.
        n_trials: How many trials there are in the end, those of earlier commands included.
        time_limit: When no other trial is begun, such as "10m".
        workers: Processes that train at the same time.
        finalists: How many of the best are trained again.
        finalist_seeds: On how many seeds each.
        storage: Where the study lies; a file of the project if None.
        stale_after: When the trials of a machine that says nothing are taken over by others.
        seed: Of the sampler.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: StudyName
    space: Annotated[dict[str, Any], BeforeValidator(_plain)]
    objectives: list[str] = []
    sampler: Literal["tpe", "gp", "cmaes", "random", "grid", "qmc"] = "tpe"
    pruner: Literal["median", "hyperband", "patient", "none"] = "median"
    n_trials: Count = 20
    time_limit: Duration | None = None
    workers: Count = 1
    finalists: Index = 3
    finalist_seeds: Count = 3
    storage: str | None = None
    stale_after: Duration = "1m"
    seed: Index = 0


def load_settings(overrides: list[str]) -> tuple[StudySettings, list[str]]:
    """Return a study's settings, and the overrides that are the configuration's own.

    Args:
        overrides: Of the command line: `study=NAME`, `study.n_trials=40`,
            `study.space.optimizer.lr.high=0.1`, and any others.

    Raises:
        ConfigError: There is no such study, or it asks for what does not exist.
    """
    own = [o for o in overrides if _key(o).split(".")[0] == "study"]
    name = next((o.partition("=")[2] for o in reversed(own) if _key(o) == "study"), "")
    bare = next((o for o in overrides if o in choice_files("study")), None)
    if bare and not name:
        raise ConfigError("no study is given", bare, f"use study={bare}")
    content = _named(name)
    rest = [o for o in overrides if o not in own]
    _refuse_bare(rest)
    for override in own:
        if _key(override) != "study":
            _change(content, override)
    return _checked(content, name, own, rest)


def _refuse_bare(overrides: Sequence[str]) -> None:
    """Refuse `n_trials=3`, a setting of the study that is written as one of the configuration.

    Raises:
        ConfigError: The fix names it as it is typed.
    """
    of_both = ("name", "seed")
    bare = [o for o in overrides if _key(o) in menu.STUDY_SETTINGS and _key(o) not in of_both]
    if bare:
        what = f"no setting '{_key(bare[0])}'"
        raise ConfigError(what, bare[0], f"use {quoting.typed(f'study.{bare[0]}')}")


def settings_of(
    study: str | None, changes: Mapping[str, Any], base: list[str]
) -> tuple[StudySettings, list[str]]:
    """Return settings given in Python, and the overrides that are the configuration's own.

    Args:
        study: The study of conf/study to begin with; None: `changes` say it all.
        changes: Settings by name, in place of the study's.
        base: Overrides of the configuration.

    Raises:
        ConfigError: There is no such study, or it asks for what does not exist.
    """
    content = {**(_named(study) if study is not None else {}), **changes}
    typed = [f"study.{name}={value}" for name, value in changes.items()]
    return _checked(content, study, typed, base)


def _named(name: str) -> dict[str, Any]:
    known = choice_files("study")
    if name not in known:
        what = f"study has no choice '{name}'" if name else "no study is given"
        raise ConfigError(what, f"study={name}", nearest(name, known) if name else _list(known))
    return {"name": name, **_read(known[name])}


def _checked(
    content: dict[str, Any], name: str | None, typed: list[str], rest: list[str]
) -> tuple[StudySettings, list[str]]:
    try:
        settings = StudySettings.model_validate(content)
    except ValidationError as error:
        raise _explained(error, name, typed) from None
    return settings, [*rest, *_monitor(settings.objectives, rest)]


def _key(override: str) -> str:
    return override.lstrip("+~").partition("=")[0]


def _change(content: dict[str, Any], override: str) -> None:
    """Put one override into a study's settings; a path of the space has dots of its own."""
    key, _, text = override.partition("=")
    limits.check_override(override)
    limits.check_yaml(text, str(redact(override))[:60])
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, *limits.UNREADABLE):
        where = "study.storage" if "storage" in key else str(redact(override))
        raise ConfigError("not a value", where, "e.g. 'study.space={model: [mlp, cnn]}'") from None
    key = _key(key).partition(".")[2]
    if not key.startswith("space."):
        content[key] = value
        return
    space = content["space"] = dict(content.get("space") or {})
    path = key.removeprefix("space.")
    entry, _, part = path.rpartition(".")
    if override.startswith("~"):
        if space.pop(path, None) is None:
            raise ConfigError(f"'{path}' is not varied", override, nearest(path, map(str, space)))
    elif isinstance(space.get(entry), dict):
        if part not in PARTS:
            raise ConfigError(f"no setting '{part}' of {entry}", override, nearest(part, PARTS))
        space[entry] = {**space[entry], part: value}
    elif part in PARTS:
        fix = f"{nearest(entry, map(str, space))} (new: '{_new(entry)}')"
        raise ConfigError(f"'{entry}' is not varied", override, fix)
    else:
        space[path] = value


def _new(path: str) -> str:
    return f"study.space.{path}={{low: 1, high: 9}}"


def _monitor(objectives: list[str], rest: list[str]) -> list[str]:
    """The first objective is what picks the best epoch, and so what the trainings monitor."""
    if not objectives:
        return []
    first = objectives[0]
    where = f"study.objectives={objectives}"
    if not first.startswith("val/"):
        what = f"'{first}' is not a validation metric, as the first objective must be"
        raise ConfigError(what, where, "e.g. [val/accuracy, parameters]")
    twice = [name for name in objectives if objectives.count(name) > 1]
    if twice:
        raise ConfigError(f"{twice[0]} appears twice", where, "leave one out")
    given = [o for o in rest if _key(o) == "monitor" and o.partition("=")[2] != first]
    if given:
        what, fix = f"the first objective is {first}", "leave one of them out"
        raise ConfigError(what, given[0], fix)
    return [] if any(_key(o) == "monitor" for o in rest) else [f"monitor={first}"]


def _read(path: Path) -> dict[str, Any]:
    text = limits.read_text(path)
    limits.check_yaml(text, str(path))
    try:
        content = yaml.safe_load(text)
    except (yaml.YAMLError, *limits.UNREADABLE) as error:
        raise ConfigError(f"not YAML: {error}", str(path), "correct the file") from None
    if not isinstance(content, dict):
        raise ConfigError("holds no settings", str(path), _example())
    return content


def _list(known: Iterable[str]) -> str:
    return "one of: " + ", ".join(f"study={name}" for name in sorted(known))


def _explained(error: ValidationError, name: str | None, overrides: list[str]) -> ConfigError:
    first = error.errors()[0]
    key = ".".join(map(str, first["loc"]))
    setting = f"study.{first['loc'][0]}"
    typed = [o for o in overrides if _key(o) == setting and setting != "study.storage"]
    if typed:
        where = typed[-1]
    else:
        where = "litlab.tune" if name is None else short(choice_files("study")[name])
    if first["type"] == "extra_forbidden":
        return ConfigError(f"no setting 'study.{key}'", where, nearest(key, _fields()))
    if first["type"] == "literal_error":
        given, known = str(first["input"]), first["ctx"]["expected"]
        fix = nearest(given, known.replace("'", "").replace(" or ", ", ").split(", "))
        return ConfigError(f"study.{key} has no choice '{given}'", where, fix)
    wanted = WANTED.get(key) if first["type"].startswith("string") else None
    what = f"must be {wanted}, not {first['input']!r}" if wanted else first["msg"]
    return ConfigError(f"study.{key}: {_plainly(what)}", where, _example())


def _example() -> str:
    return f"see {short(choice_files('study')['quick'])}"


def _plainly(what: str) -> str:
    what = what.removeprefix("Value error, ").replace("Input should be", "must be")
    return what.replace("greater than or equal to", "at least")


def _fields() -> list[str]:
    return list(StudySettings.model_fields)
