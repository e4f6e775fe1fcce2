"""One way in for every configuration: compose conf/, or read params.yaml; then check it."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from litlab.check import check_config
from litlab.errors import ConfigError, nearest
from litlab.paths import project_root
from litlab.schema import Config

HEADER = "# Written by `litlab params` and by `dvc exp run`; conf/ is what to edit.\n"


def load(overrides: Sequence[str] = (), params: Path | None = None) -> Config:
    """Return the checked configuration: composed from conf/, or read from a resolved file.

    Raises:
        ConfigError: It names something unknown or holds a value out of range.
    """
    if params is None:
        return check_config(compose(overrides), origin="the command line and conf/")
    if overrides:
        raise ConfigError(
            "--params and overrides exclude each other",
            " ".join(overrides),
            f"leave out --params, or write them into {params} with `litlab params`",
        )
    return check_config(read(params), origin=str(params))


def read(path: Path) -> dict[str, Any]:
    """Return the content of a resolved configuration file."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    if not path.is_file():
        raise ConfigError("there is no such file", str(path), "run `litlab params` to write one")
    try:
        content = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except (YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
        raise ConfigError(f"not valid YAML: {error}", str(path), "mend the file") from None
    if not isinstance(content, dict):
        raise ConfigError("not a mapping of settings", str(path), "run `litlab params`")
    return {str(key): value for key, value in content.items()}


def compose(overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Return conf/ composed with Hydra, resolved to plain values, not yet checked.

    Raises:
        ConfigError: An override names a key or a choice that does not exist.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    folder = project_root() / "conf"
    try:
        with initialize_config_dir(str(folder), version_base="1.3", job_name="litlab"):
            composed = hydra_compose("config", overrides=list(overrides))
        missing = sorted(OmegaConf.missing_keys(composed))
        if missing:
            raise ConfigError(
                f"{missing[0]} has no value", str(folder), f"set it: {missing[0]}=VALUE"
            )
        content = OmegaConf.to_container(composed, resolve=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise _explain(error, list(overrides)) from error
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}


def dump(content: dict[str, Any]) -> str:
    """Return a resolved configuration as YAML."""
    import yaml

    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)


def write_params(overrides: Sequence[str], path: Path) -> Config:
    """Compose, check, and write params.yaml (the order that `dvc repro` runs).

    What is written is what Hydra composed, value for value: `dvc exp run` writes the same file its
    own way, and a difference would run stages again for nothing.
    """
    content = compose(overrides)
    config = check_config(content, origin="the command line and conf/")
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(HEADER + dump(content))
    temporary.replace(path)
    return config


def _explain(error: Exception, overrides: list[str]) -> ConfigError:
    """Turn Hydra's refusal into one line that says what was probably meant."""
    text = str(error)
    key = re.search(r"Could not (?:override|append to config|delete[^']*) '([^'@]+)", text)
    choice = re.search(r"Could not find '([^']+)/([^'/]+)'", text)
    if choice:
        group, name = choice.groups()
        known = [p.stem for p in (project_root() / "conf" / group).glob("*.yaml")]
        return ConfigError(
            f"{group} has no choice '{name}'", f"{group}={name}", nearest(name, known)
        )
    if key:
        wrong = key.group(1).replace("/", ".")
        rest = [o for o in overrides if not o.lstrip("+~").startswith(key.group(1))]
        return ConfigError(f"no setting '{wrong}'", "the command line", _near_key(wrong, rest))
    first = next((line for line in text.splitlines() if line.strip()), type(error).__name__)
    cause = error.__cause__
    if cause and len(text.splitlines()) > 1 and "mismatched" not in text:
        first = f"{first} ({cause})" if str(cause) not in first else first
    return ConfigError(first, " ".join(overrides) or "conf/", "see `litlab params --help`")


def _near_key(wrong: str, overrides: list[str]) -> str:
    """Say which existing key is nearest to one that was refused."""
    try:
        content: Any = compose(overrides)
    except ConfigError:
        content = {}
    prefix: list[str] = []
    for part in wrong.split("."):
        if not isinstance(content, dict):
            return f"{'.'.join(prefix)} holds a value and no further settings"
        if part not in content:
            groups = (
                [p.name for p in (project_root() / "conf").iterdir() if p.is_dir()]
                if not prefix
                else []
            )
            hint = nearest(part, [k for k in content if k != "_target_"] + groups)
            return hint if not prefix else f"{hint} (in {'.'.join(prefix)})"
        prefix.append(part)
        content = content[part]
    return "check the spelling"
