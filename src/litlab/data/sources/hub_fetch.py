"""Where a data set of the Hugging Face hub lies on this machine; fetched, if need be."""

import logging
import os
import re
import sys
import threading
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from litlab.data.prepare.source_files import cannot_write, require_files_below, user_path
from litlab.utils.errors import MOST_LISTED, ConfigError, DataError, EnvironmentFault, nearest

# What a data set's card, the head of its README, says: its licence, and its configurations.


README = "README.md"

DatasetCard = dict[str, Any]


@dataclass(frozen=True)
class Chosen:
    """One of a data set's configurations.

    Attributes:
        name: As its card has it; None where it lists none.
        files: Its files by split, or patterns of them; None: what its folder has.
        folder: The only one to be read; None: the whole.
    """

    name: str | None = None
    files: Any = None
    folder: str | None = None

    def patterns(self) -> list[str]:
        """Return what fits its files' names, for fetching no others; nothing fits all."""
        if self.files is None and self.folder is None:
            return []
        inside = f"{self.folder.rstrip('/')}/" if self.folder else ""
        # Here `*` goes through folders, so `**/` is nothing special but must not ask for one.
        return [(inside + name).replace("**/", "*") for name in _flat(self.files or "**")]


def read_card(folder: Path) -> DatasetCard:
    """Return what the card in a folder states; nothing where there is none."""
    from huggingface_hub.repocard import metadata_load

    readme = folder / README
    try:
        return dict(metadata_load(readme) or {}) if readme.is_file() else {}
    except Exception:  # somebody's README, and no card
        return {}


def licence_of(card: DatasetCard) -> str:
    """Return the licence that a card states."""
    stated = card.get("license") or "not stated"
    return ", ".join(map(str, stated)) if isinstance(stated, list) else str(stated)


def choose(card: DatasetCard, config: str | None) -> Chosen:
    """Return the configuration of this name, or the default one.

    Where the card lists none, a name is that of a folder.

    Raises:
        ConfigError: There is no such configuration, or there are several and none is the default.
        DataError: The card names files that do not lie in the data set.
    """
    listed = card.get("configs")
    configs = {
        str(entry["config_name"]): entry
        for entry in (listed if isinstance(listed, list) else ())
        if isinstance(entry, dict) and "config_name" in entry
    }
    if not configs:
        return Chosen(folder=config)
    for entry in configs.values():
        _check_inside([*_flat(entry.get("data_files")), *_flat(entry.get("data_dir"))])
    name = config or _default(configs)
    if name is None or name not in configs:
        names = list(configs)
        shown = ", ".join(names[:MOST_LISTED]) + (", ..." if len(names) > MOST_LISTED else "")
        what = f"it has no configuration '{config}'" if config else "it has several configurations"
        raise ConfigError(what, "data.source.config", f"choose one of: {shown}")
    files = configs[name].get("data_files")
    if isinstance(files, list) and all(isinstance(file, dict) for file in files):
        files = {file["split"]: file["path"] for file in files}
    return Chosen(name, files, configs[name].get("data_dir"))


def _default(configs: dict[str, Any]) -> str | None:
    marked = [name for name, entry in configs.items() if entry.get("default")]
    usual = [name for name in configs if name == "default" or len(configs) == 1]
    return next(iter((*marked, *usual)), None)


def _flat(files: Any) -> list[str]:
    """The names and patterns in one of the forms that a card may give them in."""
    if isinstance(files, dict):
        files = [files["path"]] if {"split", "path"} == set(files) else list(files.values())
    if isinstance(files, list):
        return [name for part in files for name in _flat(part)]
    return [] if files is None else [str(files)]


def _check_inside(names: list[str]) -> None:
    for name in names:
        if "://" in name or Path(name).is_absolute() or ".." in Path(name).parts:
            what = f"its card names a file that does not exist: {name}"
            raise DataError(what, README, "do not use this data set, or correct its card")


ANSWER_SECONDS = 5  # for the hub's first answer
DEADLINE_SECONDS = 8  # with the search for its address, which has no limit of its own
HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
FILES = (".csv", ".tsv", ".json", ".jsonl", ".parquet", ".arrow", ".txt")
UNWANTED = ["*.py", "*.pyc", "*.pkl", "*.pickle"]  # code is not run: it is not even fetched

T = TypeVar("T")


@dataclass(frozen=True)
class DatasetFiles:
    """A data set's files on this machine.

    Attributes:
        path: Their folder, or the only file.
        chosen: What to load of them.
        licence: As its card states it.
        origin: Where it comes from, with the commit.
        is_users: Whether they are the user's own, rather than the hub's.
    """

    path: Path
    chosen: Chosen
    licence: str
    origin: str
    is_users: bool

    @property
    def root(self) -> Path:
        """The folder that all its files lie in, those that links of the hub's cache lead to too."""
        return self.path if self.is_users else self.path.parents[1]


class _Unreachable(Exception):
    """The hub does not answer; the argument says why."""


def find(path: str, config: str | None, revision: str | None) -> DatasetFiles:
    """Return a data set's files: those at a local path, else the hub's, by way of its cache.

    Raises:
        ConfigError: It has no such configuration or revision, or several and none is chosen.
        DataError: It cannot be loaded without code of its own, or holds a pipe or a device.
        EnvironmentFault: It is neither here nor to be had.
    """
    quieten()
    try:
        local = user_path(path)
    except EnvironmentFault:
        if not HUB_NAME.fullmatch(path) or Path(path).suffix in FILES:
            raise
        return _from_hub(path, config, revision)
    if revision is not None:
        warnings.warn(f"data.source.revision is ignored: {path} is on this machine", stacklevel=2)
    if local.is_dir():
        require_files_below(local)
    card = read_card(local) if local.is_dir() else {}
    return DatasetFiles(local, choose(card, config), licence_of(card), path, is_users=True)


def quieten() -> None:
    """Tell the hub's libraries to report nothing, and to show progress only where it is seen.

    They read the environment when they are imported.
    """
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["HF_UPDATE_DOWNLOAD_COUNTS"] = "0"
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    import datasets
    import huggingface_hub

    huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY = True  # if others imported it earlier
    for library in (datasets, huggingface_hub):
        logging.getLogger(library.__name__).setLevel(logging.ERROR)


def _from_hub(name: str, config: str | None, revision: str | None) -> DatasetFiles:
    try:
        return _snapshot(_ask(name, revision), config, revision)
    except _Unreachable as error:
        reason = str(error)
    try:
        found = _snapshot(_cached_name(name), config, revision, offline=True)
    except FileNotFoundError:
        raise EnvironmentFault(
            f"no such file or folder here, not complete in the hub's cache, and {reason}",
            f"data.path={name}",
            "prepare it where there is a network and copy data/prepared or the hub's cache "
            "(HF_HOME) from there, or name a folder of its files",
        ) from None
    if not _is_offline():
        warnings.warn(f"{reason}: {name} is read from the hub's cache", stacklevel=3)
    return found


def _is_offline() -> bool:
    import huggingface_hub

    return bool(huggingface_hub.constants.HF_HUB_OFFLINE)


def _ask(name: str, revision: str | None) -> str:
    """Ask the hub, once and not for long, whether it has a data set; return its full name."""
    from huggingface_hub import HfApi, errors

    if _is_offline():
        raise _Unreachable("HF_HUB_OFFLINE forbids requests to the hub")
    where = f"data.path={name}"
    try:
        info = _within(
            DEADLINE_SECONDS,
            lambda: HfApi().dataset_info(name, revision=revision, timeout=ANSWER_SECONDS),
        )
    except errors.GatedRepoError:
        fix = f"accept its terms at https://huggingface.co/datasets/{name} and set HF_TOKEN"
        raise EnvironmentFault("gated data set", where, fix) from None
    except errors.RepositoryNotFoundError:
        what = "no such file or folder here, and no such data set on the hub"
        fix = "check the name, `owner/name`; a private one needs `hf auth login`"
        raise EnvironmentFault(what, where, fix) from None
    except errors.RevisionNotFoundError:
        fix = "give a branch, a tag or a commit of the data set"
        raise ConfigError(f"{name} has no '{revision}'", "data.source.revision", fix) from None
    except Exception as error:  # of an HTTP library that changes with the hub's versions
        raise _Unreachable(f"the hub cannot be reached ({_short(error)})") from None
    _refuse_code(info.id, [sibling.rfilename for sibling in info.siblings or ()])
    return str(info.id)


def _refuse_code(name: str, files: list[str]) -> None:
    script = f"{name.rpartition('/')[2]}.py"
    if script in files:
        raise DataError(
            f"it is loaded by its own code ({script}), which litlab does not run",
            f"data.path={name}",
            "try the hub's copy in Parquet, data.source.revision=refs/convert/parquet, or convert "
            "it to Parquet and name the folder",
        )


def _within(seconds: float, call: Callable[[], T]) -> T:
    """Call, and wait so many seconds at most."""
    results: list[T] = []
    errors: list[Exception] = []

    def work() -> None:
        try:
            results.append(call())
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError(f"no answer in {seconds} s")
    return results[0]


def _snapshot(
    name: str, config: str | None, revision: str | None, offline: bool = False
) -> DatasetFiles:
    """Return a commit of the data set, with the chosen configuration's files at least.

    Raises:
        ConfigError: There is no such configuration.
        DataError: Its card names files outside it.
        EnvironmentFault: The download broke off.
        FileNotFoundError: Offline, and the cache has not all of them.
    """
    from huggingface_hub import snapshot_download

    def fetch(patterns: list[str]) -> Path:
        folder = snapshot_download(
            name,
            repo_type="dataset",
            revision=revision,
            allow_patterns=patterns or None,
            ignore_patterns=UNWANTED,
            local_files_only=offline,
        )
        return Path(folder)

    try:
        card = read_card(fetch([README]))
        chosen = choose(card, config)
        patterns = chosen.patterns()
        folder = fetch([README, *patterns] if patterns else [])
    except (ConfigError, DataError):
        raise
    except Exception as error:
        if offline:
            raise FileNotFoundError(name) from None
        fix = "run it again: the files already downloaded are kept"
        what = f"the download was interrupted ({_short(error)})"
        raise EnvironmentFault(what, f"data.path={name}", fix) from None
    address = f"https://huggingface.co/datasets/{name}/tree/{folder.name}"
    return DatasetFiles(folder, chosen, licence_of(card), address, is_users=False)


def _cached_name(name: str) -> str:
    """Return the full name of a data set in the cache, for one without its owner."""
    import huggingface_hub

    cache = Path(huggingface_hub.constants.HF_HUB_CACHE)
    found = list(cache.glob(f"datasets--*--{name}")) if "/" not in name else []
    return found[0].name.removeprefix("datasets--").replace("--", "/") if len(found) == 1 else name


def _short(error: BaseException) -> str:
    """An error of a library, in few words."""
    text = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


# Files -> data sets of the library `datasets`: Arrow files, read by row number.


VAL_NAMES = ("validation", "valid", "val", "dev")
TEST_NAMES = ("test",)


def load(found: DatasetFiles, scratch: Path) -> dict[str, Any]:
    """Return a data set's splits by name; what has to be converted is put into `scratch`.

    Raises:
        DataError: The library cannot read it, or not from a path like this.
        EnvironmentFault: The disk is full.
    """
    import datasets

    saved = [found.path / name for name in ("dataset_dict.json", "state.json")]
    is_saved = any(file.is_file() for file in saved)
    chosen = found.chosen
    if chosen != Chosen() and (is_saved or found.path.is_file()):
        warnings.warn(f"data.source.config is ignored: {found.origin} has no folders", stacklevel=3)
    special = sorted(set("[]*?") & set(str(found.path.resolve())))
    if special and not is_saved:
        what = f"`datasets` reads {' '.join(special)} in a path as a pattern"
        raise DataError(what, str(found.path), "rename it")
    try:
        if is_saved:
            loaded = datasets.load_from_disk(str(found.path))
        elif found.path.is_file():
            loaded = datasets.load_dataset(
                str(found.path.parent), data_files=[found.path.name], cache_dir=str(scratch)
            )
        else:
            loaded = datasets.load_dataset(
                str(found.path),
                name=chosen.name,
                data_files=chosen.files,
                data_dir=chosen.folder if chosen.name is None else None,
                cache_dir=str(scratch),
            )
    except Exception as error:  # of pandas, pyarrow, json, ...
        raise _complaint(error, found, scratch) from None
    return dict(loaded) if isinstance(loaded, Mapping) else {"train": loaded}


def _complaint(error: BaseException, found: DatasetFiles, scratch: Path) -> Exception:
    while error.__cause__ is not None:  # the library wraps what went wrong
        error = error.__cause__
    if isinstance(error, OSError) and error.errno is not None and error.filename is None:
        return cannot_write(error, scratch)
    text = " ".join(str(error).split())[:300]
    if "scripts are no longer supported" in text:
        return DataError(
            "it is loaded by its own code, which litlab does not run",
            f"data.path={found.origin}",
            "convert it to Parquet and name the folder",
        )
    return DataError(
        f"`datasets` cannot read it: {type(error).__name__}: {text}",
        f"data.path={found.origin}",
        "repair the files, or name those to read",
    )


def name_parts(
    splits: Mapping[str, Any], train: str, val: str | None, test: str | None
) -> tuple[dict[str, Any], list[str]]:
    """Return the splits by litlab's names, and the names of those left out.

    Without `val` and `test`, splits of the usual names are taken for them.

    Raises:
        ConfigError: There is no split of a given name.
    """
    if train not in splits and len(splits) == 1 and val is None and test is None:
        return {"all": next(iter(splits.values()))}, []
    if val is None and test is None:
        val = next((name for name in VAL_NAMES if name in splits and name != train), None)
        test = next((name for name in TEST_NAMES if name in splits and name != train), None)
    parts = {}
    for part, name in (("train", train), ("val", val), ("test", test)):
        if name is None:
            continue
        if name not in splits:
            what = f"there is no split '{name}'"
            raise ConfigError(what, f"data.source.{part}_split", nearest(name, splits))
        parts[part] = splits[name]
    left_out = [name for name in splits if name not in (train, val, test)]
    return ({"all": parts["train"]} if len(parts) == 1 else parts), left_out
