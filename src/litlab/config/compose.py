"""Reads every configuration: composes conf/ or reads params.yaml, then checks it."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from io import StringIO
from pathlib import Path
from typing import Any

from litlab.config import auto_data, menu, quoting, suggestions
from litlab.config.schema import Config
from litlab.config.validate import check_config
from litlab.utils import limits
from litlab.utils.errors import ConfigError, EnvironmentFault, nearest
from litlab.utils.files import dumps, write_atomically
from litlab.utils.paths import (
    MARK,
    conf_folders,
    find_project,
    not_a_file,
    project_root,
)
from litlab.utils.redact import redact, remember

COMPOSED = 'give what litlab.compose("data=digits", ...) returns'
SEARCH_PATH = "pkg://litlab.conf"  # by which DVC finds an installed litlab's conf/
MAIN_FILES = ("base.yaml", "config.yaml", "project.yaml")
# The settings of the split of which it matters whether the user has given them.
TYPED = frozenset({"data.val_fraction", "data.test_fraction", "data.split_seed", "data.stratify"})
TASKS = {  # of litlab, with the kind of targets that each is for: the names of conf/task, too
    "litlab.tasks.task.ClassificationTask": "classification",
    "litlab.tasks.multi_label.MultiLabelTask": "multi_label",
    "litlab.tasks.task.RegressionTask": "regression",
    "litlab.tasks.task.LanguageModelTask": "language_model",
}
FITTING = ("regression", "multi_label")  # tasks to try, where the default one does not fit
HEADER = "# Written by `litlab params` and by `dvc exp run`; edit conf/ instead.\n"


def load(overrides: Sequence[str] = (), params: Path | None = None) -> Config:
    """Return the checked configuration: composed from conf/, or read from a resolved file.

    Raises:
        ConfigError: It names something unknown or holds a value out of range.
    """
    if params is None:
        return _composed(auto_data.expand(overrides))
    if overrides:
        raise ConfigError(
            "--params and overrides exclude each other",
            _listed(overrides),
            f"leave out --params, or write them into {params} with `litlab params`",
        )
    content = read(params)
    _refuse_secrets(content, params)
    return check_config(content, origin=str(params))


def _composed(overrides: Sequence[str]) -> Config:
    """Return conf/ with overrides, checked; where the data decide the task, with one that fits.

    Raises:
        ConfigError: It fits no task.
    """
    try:
        return _check(compose(overrides), overrides)
    except ConfigError:
        if _chooses_task(overrides) or not _set(overrides, "loss", "metrics", "monitor", "plot"):
            raise
        for task in FITTING:  # `loss=mae` is for numbers, whatever the data turn out to be
            with suppress(ConfigError):
                content = compose([*overrides, f"task={task}"])
                if content["data"]["source"].get("task", "fixed") in ("auto", None):
                    return _check(content, overrides)
        raise


def _check(content: dict[str, Any], overrides: Sequence[str]) -> Config:
    config = check_config(content, origin="the command line and conf/")
    typed = {override.lstrip("+").partition("=")[0] for override in overrides}
    config.data._typed = frozenset(TYPED & typed)
    config._overrides = tuple(overrides)
    own = [o for o in overrides if re.match(r"[+~]*(data|experiment)[.=]", o)]
    config.data._overrides = tuple(map(quoting.typed, own))
    return config


def _set(overrides: Sequence[str], *groups: str) -> bool:
    """Whether any of the overrides sets a group, or something in it."""
    return any(re.split(r"[.=@]", o.lstrip("+~"))[0] in groups for o in overrides)


def _chooses_task(overrides: Sequence[str]) -> bool:
    return any(o.lstrip("+~").partition("=")[0] in ("task", "task._target_") for o in overrides)


def follow_targets(config: Config, task: str, name: str) -> Config:
    """Return a configuration with the task that the targets ask for, its loss and its metrics.

    What the user chose stays: a task on the command line, one of their own, and all that is set
    besides it. A configuration that was read from a file stays as it is.

    Args:
        config: A checked configuration.
        task: Of the data, as a DataSpec has it.
        name: Of the data.

    Raises:
        ConfigError: Other settings of the command line do not fit that task.
    """
    overrides = config._overrides
    has = TASKS.get(config.task["_target_"])
    if overrides is None or task not in TASKS.values() or has in (None, task):
        return config
    if _chooses_task(overrides):
        return config
    try:
        found = load([*overrides, f"task={task}"])
    except ConfigError as error:
        what = f"the targets of '{name}' need task={task}, with which this does not fit: "
        raise ConfigError(f"{what}{error.what}", error.where, error.fix) from None
    parts = {key: getattr(found, key) for key in ("task", "loss", "metrics", "plot", "monitor")}
    followed = config.model_copy(update={**parts, "monitor_mode": found.monitor_mode})
    followed._overrides = found._overrides
    return followed


def read(path: Path) -> dict[str, Any]:
    """Return the content of a resolved configuration file."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    if not path.is_file():
        found = not_a_file(path)
        what = f"is {found}, not a file" if found else "there is no such file"
        raise ConfigError(what, str(path), "run `litlab params` to write one")
    text = limits.read_text(path)
    limits.check_yaml(text, str(path))
    try:
        loaded = OmegaConf.load(StringIO(text))
        _refuse_references(OmegaConf.to_container(loaded), str(path))
        return _plain(loaded, str(path))
    except (YAMLError, OmegaConfBaseException, *limits.UNREADABLE) as error:
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(f"not valid YAML: {reason}", str(path), "correct the file") from None
    except OSError as error:  # OmegaConf's, of a file that holds a bare number
        raise ConfigError(f"cannot be read: {error}", str(path), "run `litlab params`") from None


def _refuse_references(content: Any, where: str, key: str = "") -> None:
    """Refuse `${...}`: a few of them that refer to each other are gigabytes of text."""
    if isinstance(content, dict):
        for name, value in content.items():
            _refuse_references(value, where, f"{key}.{name}" if key else str(name))
    elif isinstance(content, list):
        for value in content:
            _refuse_references(value, where, key)
    elif isinstance(content, str) and "${" in content:
        fix = "write the value itself; only files of conf/ may refer to other settings"
        raise ConfigError(f"{key} refers to another value with ${{...}}", where, fix)


def _plain(loaded: Any, where: str) -> dict[str, Any]:
    """Return plain values, with every interpolation resolved and nothing left open."""
    from omegaconf import DictConfig, OmegaConf

    if not isinstance(loaded, DictConfig):
        raise ConfigError("not a mapping of settings", where, "run `litlab params` to write one")
    _refuse_resolvers(OmegaConf.to_container(loaded, resolve=False), where)
    missing = sorted(OmegaConf.missing_keys(loaded))
    if missing:
        raise ConfigError(f"{missing[0]} has no value", where, f"set it: {missing[0]}=VALUE")
    content = OmegaConf.to_container(loaded, resolve=True)
    assert isinstance(content, dict)
    remember(content)
    return {str(key): value for key, value in content.items()}


def _refuse_resolvers(node: Any, where: str, path: str = "") -> None:
    """Refuse ${oc.env:X} and its like before anything is resolved.

    DVC resolves them too, and writes what they give, passwords included, into params.yaml.
    """
    if isinstance(node, dict):
        for key, value in node.items():
            _refuse_resolvers(value, where, f"{path}.{key}" if path else str(key))
    elif isinstance(node, list):
        for number, value in enumerate(node):
            _refuse_resolvers(value, where, f"{path}[{number}]")
    elif isinstance(node, str) and "${" in node and _calls_resolver(node):
        what = f"{path} calls a resolver, {node}; ${{...}} may only name another setting"
        fix = f'write the value, or let the shell insert it: {path}="$NAME"'
        fix += "; a password belongs in MLFLOW_TRACKING_PASSWORD or PGPASSWORD"
        raise ConfigError(what, where, fix)


def _calls_resolver(text: str) -> bool:
    from omegaconf.errors import GrammarParseError
    from omegaconf.grammar_parser import parse

    def calls(node: Any) -> bool:
        if type(node).__name__ == "InterpolationResolverContext":
            return True
        return any(calls(child) for child in getattr(node, "children", None) or ())

    try:
        return calls(parse(text))
    except GrammarParseError:  # which resolving it will report
        return False


def compose(overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Return conf/ composed with Hydra, resolved to plain values, not yet checked.

    A file is looked for in the project's conf/ first, then in litlab's own.

    Raises:
        ConfigError: An override names a key or a choice that does not exist.
    """
    from hydra import compose as hydra_compose
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    useless = [o for o in overrides if re.match(r"[+~]*hydra[./=@]", o)]
    if useless:
        raise ConfigError("Hydra's own settings have no effect here", useless[0], "leave it out")
    for override in overrides:
        limits.check_override(override)
    for folder in conf_folders():
        limits.check_folder(folder)
    _check_search_path()
    try:
        with _hydra() as search:
            composed = hydra_compose("config", overrides=[*overrides, *search])
        return _plain(composed, _listed(overrides) or str(conf_folders()[0]))
    except (HydraException, OmegaConfBaseException, YAMLError, *limits.UNREADABLE) as error:
        # Hydra's own words may hold a part of a password, which nothing tells from other text.
        cause = error if redact(list(overrides)) == list(overrides) else None
        raise _explain(error, list(overrides)) from cause


@contextmanager
def _hydra() -> Iterator[list[str]]:
    """Initialize Hydra on the project's conf/, then litlab's own; yield an override it needs."""
    from hydra import initialize_config_dir
    from hydra._internal.config_repository import ConfigRepository
    from hydra.core.global_hydra import GlobalHydra

    first, *others = conf_folders()
    with initialize_config_dir(str(first), version_base="1.3", job_name="litlab"):
        # Not by an override of hydra.searchpath, which Hydra reads after the main file: a conf/ may
        # hold an experiment only, and take that one from litlab.
        loader: Any = GlobalHydra.instance().config_loader()
        for folder in others:
            loader.config_search_path.prepend("litlab", f"file://{folder}", "schema")
        loader.repository = ConfigRepository(loader.config_search_path)
        yield ["hydra.searchpath=[]"]  # what a main file says there is for DVC


def _check_search_path() -> None:
    """Refuse a search path of the project's own, which would not be used."""
    for content in main_files():
        if content.get("hydra") not in (None, {"searchpath": [SEARCH_PATH]}):
            fix = f"leave the entry out, or write searchpath: [{SEARCH_PATH}], which DVC needs"
            raise ConfigError("Hydra's own settings do nothing here", f"hydra in {MARK}", fix)


def main_files() -> list[dict[str, Any]]:
    """Return what the project's own main files say, nothing composed; unreadable ones are left out.

    Those are config.yaml, base.yaml where conf/ is a copy of litlab's own, and project.yaml where
    `litlab new` made it.
    """
    import yaml

    found = []
    for name in MAIN_FILES:
        path = project_root() / "conf" / name
        with suppress(OSError, UnicodeDecodeError, yaml.YAMLError):
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
            if isinstance(content, dict):
                found.append(content)
    return found


def choices(overrides: Sequence[str] = ()) -> dict[str, str]:
    """Return which file of each group of conf/ the overrides amount to."""
    from hydra import compose as hydra_compose

    with _hydra() as search:
        composed = hydra_compose("config", [*overrides, *search], return_hydra_config=True)
    chosen = composed.hydra.runtime.choices
    return {str(group): str(name) for group, name in chosen.items() if "/" not in str(group)}


def dump(content: dict[str, Any]) -> str:
    """Return a resolved configuration as YAML."""
    import yaml

    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)


def write_params(overrides: Sequence[str], path: Path) -> Config:
    """Compose, check, and write params.yaml (the order that `dvc repro` runs).

    What is written is what Hydra composed, value for value: `dvc exp run` writes the same file its
    own way, and a difference would run stages again for nothing.
    """
    content = compose(auto_data.expand(overrides))
    config = check_config(content, origin="the command line and conf/")
    _refuse_secrets(content, path)
    try:
        write_atomically(path, HEADER + dump(content))
    except OSError as error:
        fix = "check the folder's permissions and the disk's free space"
        raise EnvironmentFault(f"cannot be written: {error.strerror}", str(path), fix) from None
    return config


def _refuse_secrets(content: dict[str, Any], path: Path) -> None:
    """Keep credentials out of a file that git and DVC keep for good."""
    if redact(content) != content:
        what = "a setting holds credentials, and this file is kept in git and by DVC"
        fix = "leave them out; give the address in the environment variable MLFLOW_TRACKING_URI"
        raise ConfigError(what, str(path), fix)


def _explain(error: Exception, overrides: list[str]) -> ConfigError:
    """Turn Hydra's refusal into one line that says what was probably meant."""
    text = str(error)
    unknown = suggestions.explain(overrides, outline) or _unknown_choice(text)
    if unknown:
        return unknown
    unreadable = quoting.explain(overrides)
    if unreadable:
        return unreadable
    refused = re.search(r"Could not (?:override|append to config|delete[^']*) '([^']+)'", text)
    if refused:
        where = next((o for o in overrides if refused.group(1) in o), "conf/")
        rest = [o for o in overrides if o != where]
        wrong, package, _ = refused.group(1).replace("/", ".").partition("@")
        near = suggestions.near_key(wrong, outline(rest))
        fix = f"leave out '@...' after '{wrong}'" if package else near
        return ConfigError(f"no setting '{refused.group(1)}'", where, fix)
    missing = re.search(r"Missing mandatory value: (\S+)", text)
    if missing:
        key = missing.group(1)
        return ConfigError(f"{key} has no value", _listed(overrides), f"set it: {key}=VALUE")
    first = next((line for line in text.splitlines() if line.strip()), type(error).__name__)
    return ConfigError(first, _listed(overrides) or "conf/", quoting.USAGE)


def _listed(overrides: Sequence[str]) -> str:
    """Return overrides in one line, each redacted by itself: blanks do not end a value."""
    return " ".join(redact(list(overrides)))


def _unknown_choice(text: str) -> ConfigError | None:
    """Explain a file of conf/ that names a choice which its group does not have."""
    found = re.search(r"Could not (?:find|load) '([^']+)/([^'/]+)'", text)
    if found:
        group, name = found.groups()
        known = menu.groups().get(group, [])
        if known and name not in known:
            what, where = f"{group} has no choice '{name}'", f"{group}={name}"
            return ConfigError(what, where, nearest(name, known))
    return None


def outline(overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Return what conf/ composes to as it stands, `???` included; {} where it does not."""
    from hydra import compose as hydra_compose
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    with suppress(HydraException, OmegaConfBaseException, YAMLError, *limits.UNREADABLE):
        with _hydra() as search:
            composed = hydra_compose("config", overrides=[*overrides, *search])
        content = OmegaConf.to_container(composed, resolve=False)
        if isinstance(content, dict):
            return {str(key): value for key, value in content.items()}
    return {}


def compose_config(*overrides: str, **settings: object) -> Config:
    """Return a checked configuration, composed as `litlab train` composes it: `litlab.compose`.

    Args:
        overrides: Hydra's, such as "data=digits", "model=cnn", "optimizer.lr=1e-3"; with none, the
            default configuration.
        settings: Refused, with the overrides that they amount to.

    Raises:
        ConfigError: An override names something unknown, or holds a value out of range.
    """
    if settings or not all(isinstance(override, str) for override in overrides):
        what = "overrides are texts, one for each setting"
        raise ConfigError(what, "litlab.compose", f"use {_as_texts(overrides, settings)}")
    return load(overrides)


def _as_texts(given: Sequence[object], settings: Mapping[str, object]) -> str:
    """Return the call that was probably meant by lists, mappings and keywords."""
    texts: list[str] = []
    for one in [*given, settings]:
        if isinstance(one, str):
            texts.append(one)
        elif isinstance(one, Mapping):
            texts += [f"{key}={_typed(value)}" for key, value in one.items()]
        elif isinstance(one, list | tuple | set):
            texts += [str(item) for item in one]
    return f"litlab.compose({', '.join(map(dumps, redact(texts)))})"


def _typed(value: object) -> str:
    """Return a value of Python as an override has it."""
    words = {None: "null", True: "true", False: "false"}
    return words[value] if value is None or isinstance(value, bool) else str(value)


def untrusted(packages: Sequence[str]) -> list[str]:
    """Return those packages that a command of this project trusts only if told to by `--trust`."""
    known = trusted_packages() if packages else ()
    return [package for package in packages if package not in known]


def trusted_packages(more: Sequence[str] = ()) -> list[str]:
    """Return `more`, and the packages that the main files of conf/ and params.yaml trust."""
    root = find_project()
    if root is None:
        return list(more)
    params = root / "params.yaml"
    contents = main_files()
    if params.is_file():
        contents.append(read(params))
    else:
        with suppress(ConfigError):  # a choice of conf/ may want a path; a trained network does not
            contents.append(compose())
    lists = [content.get("trust") for content in contents]
    named = [package for listed in lists if isinstance(listed, list) for package in listed]
    return [*more, *(package for package in named if isinstance(package, str))]
