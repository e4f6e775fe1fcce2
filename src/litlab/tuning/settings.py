"""What a study may ask for, read from conf/study and checked before anything runs."""

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from litlab.errors import ConfigError, nearest
from litlab.hyperparameters import NOT_BOOL, Count, Index
from litlab.paths import project_root
from litlab.schema import Duration

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w-]*$", max_length=60)]


class StudySettings(BaseModel):
    """A search: where, how, how long.

    Attributes:
        name: Of the study; the same name goes on with it.
        space: Dotted setting to what is tried; see `litlab.tuning.space`.
        sampler: How the next configuration is chosen.
        pruner: How a trial that does badly is ended early.
        n_trials: How many trials there are in the end, those of earlier commands included.
        time_limit: When no other trial is begun, such as "10m".
        workers: Processes that train at the same time.
        seed: Of the sampler.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name
    space: dict[str, Any]
    sampler: Literal["tpe", "gp", "cmaes", "random", "qmc"] = "tpe"
    pruner: Literal["median", "hyperband", "patient", "none"] = "median"
    n_trials: Count = 20
    time_limit: Duration | None = None
    workers: Count = 1
    seed: Index = 0
    trial_seed: Annotated[int, NOT_BOOL, Field(ge=0, lt=2**32)] | None = None


def load_settings(overrides: list[str]) -> tuple[StudySettings, list[str]]:
    """Return a study's settings, and the overrides that are the configuration's own.

    Args:
        overrides: Of the command line: `study=NAME`, `study.n_trials=40`, and any others.

    Raises:
        ConfigError: There is no such study, or it asks for what does not exist.
    """
    own = [o for o in overrides if o.partition("=")[0].split(".")[0] == "study"]
    name, changes = "", {}
    for override in own:
        key, _, value = override.partition("=")
        if key == "study":
            name = value
        else:
            changes[key.partition(".")[2]] = yaml.safe_load(value)
    folder = project_root() / "conf" / "study"
    known = [path.stem for path in folder.glob("*.yaml")]
    if name not in known:
        what = f"study has no choice '{name}'" if name else "no study is named"
        raise ConfigError(what, f"study={name}", nearest(name, known) if name else _list(known))
    content = {"name": name, **_read(folder / f"{name}.yaml"), **changes}
    try:
        settings = StudySettings.model_validate(content)
    except ValidationError as error:
        raise _explained(error, name) from None
    return settings, [o for o in overrides if o not in own]


def _read(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"not YAML: {error}", str(path), "mend the file") from None
    if not isinstance(content, dict):
        raise ConfigError("holds no settings", str(path), "see conf/study/quick.yaml")
    return content


def _list(known: list[str]) -> str:
    return "one of: " + ", ".join(f"study={name}" for name in sorted(known))


def _explained(error: ValidationError, name: str) -> ConfigError:
    first = error.errors()[0]
    key = ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        return ConfigError(f"no setting 'study.{key}'", f"study={name}", nearest(key, _fields()))
    return ConfigError(f"study.{key}: {first['msg']}", f"study={name}", "see conf/study/quick.yaml")


def _fields() -> list[str]:
    return list(StudySettings.model_fields)
