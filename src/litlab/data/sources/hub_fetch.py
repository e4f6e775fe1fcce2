"""Where a data set of the Hugging Face hub lies on this machine; fetched, if need be."""

import logging
import os
import re
import sys
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from litlab.data.prepare.source_files import require_files_below, user_path
from litlab.data.sources.hub_card import README, Chosen, choose, licence_of, read_card
from litlab.utils.errors import ConfigError, DataError, EnvironmentFault

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
