"""What a data set's card, the head of its README, says: its licence, and its configurations."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from litlab.utils.errors import MOST_LISTED, ConfigError, DataError

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
